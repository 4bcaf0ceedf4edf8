"""Table 2: training times of five algorithms on two models, and how far the calibration carries.

Rules this module obeys: the constants come from ``aladdin.paper.fitting``; every cell says whether it was
fitted on; the errors of the others are the ones that count.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import fmean, median
from typing import Any

from aladdin.paper import fitting
from aladdin.paper.cases import Case, Results, case
from aladdin.paper.fitting import ALGORITHMS, FITTED, MODELS, Cell, hours, name_of
from analysis.names import label
from analysis.paper import Claim, Picture, Section, Series, Table, error, published
from analysis.paper.sections import mean_of

__all__ = ["NAME", "TITLE", "TITLES", "percent", "section", "wanted"]

NAME, TITLE = "table2", "Table 2: training times"

CELLS: tuple[Cell, ...] = tuple((model, name) for model in MODELS for name in ALGORITHMS)
TITLES = {"resnet50": "ResNet-50", "vgg16": "VGG-16"}

WORST, HELD_OUT = 0.15, 0.08
"""Errors that are asked for: of every cell, and the median of those that were not fitted on."""


def cases(cell: Cell) -> Case:
    """The case of a cell."""
    return case(name_of(*cell))


def wanted() -> Iterable[Case]:
    """All cases of this section."""
    for cell in CELLS:
        yield cases(cell)
        yield from fitting.grid(cell).values()


def section(results: Results) -> Section:
    """Ours beside theirs."""
    ours = {cell: results.estimate(cases(cell), "throughput", by=hours) for cell in CELLS}
    errors = {cell: error(ours[cell], _theirs(cell)) for cell in CELLS}
    held = [abs(errors[cell]) for cell in CELLS if cell not in FITTED]
    again = fitting.fit(results, FITTED)
    left_out = {name: fitting.fit(results, [c for c in CELLS if c[1] != name]) for name in ALGORITHMS}
    left = {cell: left_out[cell[1]].error(cell) for cell in CELLS}
    tables = [_times(ours, errors, left), _constants(again, left_out), _implied(), _imagenet(ours)]
    return Section(
        NAME, TITLE, published("table2.source"), tables, _claims(ours, errors, held, left),
        [_picture(ours)], (), [cases(cell).command for cell in CELLS],
        {"errors": {f"{m}/{a}": e for (m, a), e in errors.items()},
         "left_out": {f"{m}/{a}": e for (m, a), e in left.items()},
         "constants": dict(again.constants), "held_out_median": median(held)},
    )  # fmt: skip


def _theirs(cell: Cell) -> float:
    return float(published(f"table2.hours.{cell[0]}.{cell[1]}"))


def _times(ours: dict[Cell, Any], errors: dict[Cell, float], left: dict[Cell, float]) -> Table:
    rows = [
        [TITLES[cell[0]], label(cell[1]), f"{_theirs(cell):.2f}", ours[cell], percent(errors[cell]),
         "fitted" if cell in FITTED else "held out", percent(left[cell])]
        for cell in CELLS
    ]  # fmt: skip
    columns = ("model", "algorithm", "published, h", "ours, h", "error", "cell", "error, algorithm left out")
    note = (
        "The last column: constants fitted on the other four algorithms' eight cells. The step times stay as "
        f"they are; without the algorithm's own hours they would be up to {_step_shift():.1%} different."
    )
    return Table("CIFAR-10, 250 epochs, 8 workers", columns, rows, note)


def _constants(again: fitting.Fit, left_out: dict[str, fitting.Fit]) -> Table:
    used = case(name_of("resnet50", "arsgd")).load()
    inside = {
        "receive": 1e9 / used.cluster.tensor_rates["mix"],
        "hidden": float(used.algorithm.options["backward"]),
    }
    rows = [
        [name, inside[name], again.constants[name],
         ", ".join(f"{one.constants[name]:.2f}" for one in left_out.values()), what]
        for name, what in fitting.CONSTANTS.items()
    ]  # fmt: skip
    without = ", ".join(label(name) for name in left_out)
    columns = ("constant", "in the scenarios", "fitted now", f"without {without}", "meaning")
    return Table("Fitted constants", columns, rows)


def _steps(model: str) -> list[float]:
    """Seconds per step of one worker by itself, as Tables 2 and 3 together say for each algorithm in both."""
    batch, found = published(f"table2.batch.{model}"), []
    for name in ("aladdin", "sgp", "arsgd"):
        alone = hours(1.0) / _theirs((model, name)) / published(f"table3.speedup.{model}.{name}.HO")
        found.append(batch / alone)
    return found


def _step_shift() -> float:
    """The largest relative change of a step time if one of its algorithms is left out of the mean."""
    return max(
        abs(fmean(steps[:place] + steps[place + 1 :]) / fmean(steps) - 1)
        for steps in map(_steps, MODELS)
        for place in range(len(steps))
    )


def _implied() -> Table:
    """The step times that the paper implies, and how far they are apart."""
    rows: list[Sequence[Any]] = []
    for model in MODELS:
        steps = _steps(model)
        rows.append([TITLES[model], *steps, fmean(steps), f"{max(steps) / min(steps) - 1:.1%}"])
    columns = ("model", "ALADDIN", "SGP", "AR-SGD", "mean (used)", "spread")
    note = "Hours of Table 2 times the speed-up on HO of Table 3. They should be equal in each row."
    return Table("Seconds per step of a single worker, implied by the paper", columns, rows, note)


def _imagenet(ours: dict[Cell, Any]) -> Table:
    theirs = published("table2.hours.resnet50-imagenet")
    base_theirs, base_ours = theirs["aladdin"], mean_of(ours["resnet50", "aladdin"])
    ratios = {
        name: (theirs[name] / base_theirs, mean_of(ours["resnet50", name]) / base_ours) for name in ALGORITHMS
    }
    rows = [
        [label(name), f"{theirs[name]:.2f}", *each, percent(each[1] / each[0] - 1)]
        for name, each in ratios.items()
    ]
    rate = hours(1.0, "imagenet") / base_theirs
    alone = published("table2.workers") * published("table2.batch.resnet50") / fmean(_steps("resnet50"))
    columns = ("algorithm", "published, h", "over ALADDIN's", "ours (CIFAR-10's)", "difference")
    note = (
        f"ALADDIN's {base_theirs} h are {rate:.0f} samples/s, more than eight workers with CIFAR-10's step "
        f"can do without communicating ({alone:.0f}): steps were shorter here, by how much is not said. So "
        "only ratios are compared."
    )
    return Table("ImageNet-1K, ResNet-50, 90 epochs", columns, rows, note)


def _claims(ours: dict[Cell, Any], errors: dict[Cell, float], held: list[float], left: dict[Cell, float]
            ) -> list[Claim]:  # fmt: skip
    worst = max(errors, key=lambda cell: abs(errors[cell]))
    found = [
        Claim("Training times of Table 2, every cell within 15 %", "Table 2", abs(errors[worst]) <= WORST,
              f"worst {label(worst[1])} on {TITLES[worst[0]]}, {percent(errors[worst])}"),
        Claim("Training times of Table 2, median of the cells not fitted on within 8 %", "Table 2",
              median(held) <= HELD_OUT, f"median {median(held):.1%} of {len(held)} cells; with each "
              f"algorithm left out of the fit {median(map(abs, left.values())):.1%} of ten, worst "
              f"{max(map(abs, left.values())):.1%}"),
    ]  # fmt: skip
    for model in MODELS:
        times = {name: mean_of(ours[model, name]) for name in ALGORITHMS}
        last = min(times["asp"], times["arsgd"])
        order = [times["aladdin"], times["sgp"], times["easgd"], last]
        text = f"{TITLES[model]}: ALADDIN before SGP before EASGD before ASP and AR-SGD"
        evidence = ", ".join(f"{label(name)} {value:.2f} h" for name, value in times.items())
        found.append(Claim(text, "Table 2", all(a < b for a, b in pairwise(order)), evidence))
    for other, gain in published("gains.throughput_over").items():
        mine = max(mean_of(ours[m, other]) / mean_of(ours[m, "aladdin"]) - 1 for m in MODELS)
        text = f"ALADDIN's throughput is up to {gain:.0%} higher than {label(other)}'s"
        apart = (1 + mine) / (1 + gain) - 1
        said = f"ours up to {mine:.0%}: {1 + mine:.2f} times, not {1 + gain:.2f} times ({percent(apart)})"
        found.append(Claim(text, "abstract, within 15 %", abs(apart) <= WORST, said))
    return found


def _picture(ours: dict[Cell, Any]) -> Picture:
    panels = {}
    for model in MODELS:
        theirs = [(label(name), _theirs((model, name))) for name in ALGORITHMS]
        mine = [(label(n), ours[model, n]["mean"], ours[model, n]["half"] or 0.0) for n in ALGORITHMS]
        panels[TITLES[model]] = (Series("published", theirs, faint=True), Series("ours", mine))
    return Picture(NAME, "Training times on CIFAR-10", panels, "", "hours", kind="bars")


def percent(value: float) -> str:
    """A relative error as text."""
    return f"{100 * value:+.1f} %"
