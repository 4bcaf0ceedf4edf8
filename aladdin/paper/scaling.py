"""Figure 5: speed-up with the number of workers. Figure 8b: ALADDIN's, by its update period.

Rules this module obeys: speed-up is over one worker that never communicates (``analysis.metrics.speedup``);
SGP and AR-SGD have nobody to talk to alone, so theirs begins at 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aladdin.paper.cases import Case, Results, case
from aladdin.paper.fitting import ALGORITHMS, MODELS, name_of
from aladdin.paper.table2 import TITLES
from analysis.names import label
from analysis.paper import Claim, Picture, Section, Series, Table
from analysis.paper.sections import mean_of

__all__ = ["figure5", "figure8", "wanted5", "wanted8"]

WORKERS = range(1, 9)
PERIODS = (1, 2, 4)

ALONE = {"mean": 1.0, "half": None, "count": 1}

GOOD, POOR = 0.6, 0.5
"""Shares of linear speed-up at 8 workers that we call good and poor."""


def _case(model: str, algorithm: str, workers: int) -> Case:
    changes: dict[str, Any] = {}
    if workers < 8:
        placement = [rank % 4 for rank in range(workers)]
        changes = {"cluster.workers": workers, "cluster.placement": placement}
    return case(name_of(model, algorithm), changes)


def wanted5() -> Iterable[Case]:
    """All cases of Figure 5."""
    for model in MODELS:
        for algorithm in ALGORITHMS:
            for workers in WORKERS:
                if workers > 1 or algorithm not in ("sgp", "arsgd"):
                    yield _case(model, algorithm, workers)


def _speedup(results: Results, model: str, algorithm: str, workers: int) -> dict[str, Any]:
    if workers == 1 and algorithm in ("sgp", "arsgd"):
        return ALONE
    return results.estimate(_case(model, algorithm, workers), "speedup")


def figure5(results: Results) -> Section:
    """Speed-up of five algorithms, two models, one to eight workers."""
    ours = {
        (model, name): {n: _speedup(results, model, name, n) for n in WORKERS}
        for model in MODELS
        for name in ALGORITHMS
    }
    tables, panels = [], {}
    for model in MODELS:
        rows = [[label(name), *(ours[model, name][n] for n in WORKERS)] for name in ALGORITHMS]
        columns = ("algorithm", *(f"n = {n}" for n in WORKERS))
        tables.append(Table(f"{TITLES[model]}, speed-up over one worker", columns, rows))
        panels[TITLES[model]] = [_series(label(name), ours[model, name], name) for name in ALGORITHMS]
    at8 = {key: mean_of(values[8]) for key, values in ours.items()}
    return Section(
        "figure5", "Figure 5: speed-up", "ALADDIN, Figure 5, section 5.3", tables, _claims(at8),
        [Picture("figure5", "Speed-up on CIFAR-10", panels, "workers", "speed-up", line=True)],
        (), [_case("vgg16", "sgp", 4).command], {f"{m}/{a}": value for (m, a), value in at8.items()},
    )  # fmt: skip


def _series(name: str, values: dict[int, dict[str, Any]], look: str = "") -> Series:
    return Series(name, [(n, value["mean"], value["half"] or 0.0) for n, value in values.items()], look)


def _claims(at8: dict[tuple[str, str], float]) -> list[Claim]:
    found = []
    for model in MODELS:
        mine = {name: at8[model, name] for name in ALGORITHMS}
        order = sorted(mine, key=lambda name: -mine[name])
        evidence = ", ".join(f"{label(name)} {mine[name]:.2f}" for name in order)
        text = f"{TITLES[model]}: ALADDIN has the best speed-up at 8 workers, SGP the second best"
        found.append(Claim(text, "section 5.3", order[:2] == ["aladdin", "sgp"], evidence))
    easy = {name: at8["resnet50", name] for name in ALGORITHMS}
    text = f"ResNet-50: all algorithms show good speed-ups (at least {GOOD:.0%} of linear)"
    lowest = min(easy.values())
    found.append(Claim(text, "section 5.3", lowest >= GOOD * 8, f"lowest {lowest:.2f} of 8"))
    hard = {name: at8["vgg16", name] for name in ("arsgd", "asp")}
    evidence = ", ".join(f"{label(name)} {value:.2f} of 8" for name, value in hard.items())
    text = f"VGG-16: AR-SGD and ASP show poor ones (at most {POOR:.0%} of linear)"
    found.append(Claim(text, "section 5.3", max(hard.values()) <= POOR * 8, evidence))
    evidence = "its step times are not given, and its hours in Table 2 contradict CIFAR-10's"
    found.append(Claim("The same on ImageNet-1K (Figure 5b)", "section 5.3", None, evidence))
    return found


def _period(model: str, pi: int, workers: int) -> Case:
    plain = _case(model, "aladdin", workers)
    return case(plain.scenario, {**dict(plain.values), "algorithm.pi": pi})


def wanted8() -> Iterable[Case]:
    """All cases of Figure 8b."""
    return (_period(model, pi, n) for model in MODELS for pi in PERIODS for n in WORKERS)


def figure8(results: Results) -> Section:
    """ALADDIN's speed-up with periods of 1, 2 and 4."""
    tables, panels = [], {}
    at8: dict[tuple[str, int], float] = {}
    for model in MODELS:
        ours = {
            pi: {n: results.estimate(_period(model, pi, n), "speedup") for n in WORKERS} for pi in PERIODS
        }
        columns = ("π", *(f"n = {n}" for n in WORKERS))
        rows = [[pi, *(ours[pi][n] for n in WORKERS)] for pi in PERIODS]
        tables.append(Table(f"{TITLES[model]}, ALADDIN's speed-up", columns, rows))
        panels[TITLES[model]] = [_series(f"π = {pi}", ours[pi]) for pi in PERIODS]
        at8 |= {(model, pi): mean_of(ours[pi][8]) for pi in PERIODS}
    linear = 0.7 * 8
    near = [key for key, value in at8.items() if value >= linear]
    exception = set(at8) - {("vgg16", 1)}
    evidence = ", ".join(f"{TITLES[m]} π = {pi}: {value:.2f}" for (m, pi), value in at8.items())
    claims = [
        Claim("Almost linear speed-up (at least 70 %) at 8 workers for every π and model but VGG-16 with "
              "π = 1", "section 5.6", set(near) == exception, evidence),
        Claim("Training is faster the larger π is", "section 3.2",
              all(at8[m, 1] <= at8[m, 2] <= at8[m, 4] for m in MODELS), evidence),
    ]  # fmt: skip
    return Section(
        "figure8", "Figure 8b: sensitivity of the speed-up to π", "ALADDIN, Figure 8, section 5.6", tables,
        claims, [Picture("figure8", "ALADDIN's speed-up", panels, "workers", "speed-up", line=True)],
        (), [_period("vgg16", 1, 8).command],
        {f"{m}/{pi}": value for (m, pi), value in at8.items()},
    )  # fmt: skip
