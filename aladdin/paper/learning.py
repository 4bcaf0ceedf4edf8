"""The accuracy part: Figures 1b, 4, 6, 7 and 8a and Table 2's accuracies, on images that fit this machine.

Rules this module obeys:

* What is trained is told with every figure: scikit-learn's digits and made-up images, never "CIFAR-10" unless
  a folder with CIFAR-10 was given. A claim about CIFAR-10 is tested in kind only.
* Claims are tested over seeds: of two algorithms on the same seeds, by the 95 % interval of the mean of the
  differences. "At least as good" and "the same" allow ``MARGIN``.
* The cluster is that of the bundled scenario ``digits``, where a message takes half a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from aladdin.paper.cases import Case, Results, case
from aladdin.paper.table2 import TITLES
from analysis import metrics
from analysis.names import label
from analysis.paper import Claim, Picture, Section, Series, Table, published
from analysis.paper.sections import mean_of, shown
from analysis.seeds import estimate

__all__ = ["ablation", "convergence", "mixing", "period", "robustness", "wanted"]

ALGORITHMS = ("aladdin", "sgp", "easgd", "asp", "arsgd")
PERIODS = (1, 2, 4)
FACTORS = (1, 2, 10, 100)

MARGIN = 0.01
"""Of accuracy: a difference that we call none."""

TASKS: dict[str, dict[str, Any]] = {
    "digits": {},
    "made-up images": {"workload": {
        "model": "mlp", "hidden": [64], "data": "synthetic", "image_size": 4, "classes": 100, "samples": 2000,
        "batch": 32,
    }, "run.samples": 60_000},
}  # fmt: skip
MARKS = {"digits": 0.94, "made-up images": 0.9}


def _case(task: str, algorithm: str = "aladdin", changes: dict[str, Any] | None = None) -> Case:
    own = {"algorithm.pi": 4} if algorithm.startswith("aladdin") and algorithm != "aladdin_l1" else {}
    return case(
        "digits", {"algorithm.name": algorithm, **own, "run.threads": 1, **TASKS[task], **(changes or {})}
    )


def _slow(algorithm: str, factor: int) -> Case:
    slower = {"cluster.slowdowns": [{"kind": "fixed", "ranks": [0], "factor": factor}]} if factor > 1 else {}
    return _case("digits", algorithm, slower)


def _period(task: str, pi: int) -> Case:
    return _case(task, "aladdin", {"algorithm.pi": pi})


def wanted() -> Iterable[Case]:
    """All cases of the accuracy part."""
    for task in TASKS:
        yield from (_case(task, name) for name in (*ALGORITHMS, "aladdin_l1", "aladdin_l2"))
        yield from (_period(task, pi) for pi in PERIODS)
    yield from (_slow(name, factor) for name in ("aladdin", "arsgd", "sgp") for factor in FACTORS)


def _accuracies(results: Results, one: Case) -> list[float]:
    return [float(value) for value in results.each(one, "accuracy")]


def _reached(results: Results, one: Case, mark: float, by: str) -> list[float | None]:
    import numpy as np

    curves = [{name: np.array(values) for name, values in each.items()} for each in results.curves(one)]
    return [metrics.reached(each, mark, by) for each in curves]


def _apart(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of a - b, seed by seed."""
    found = estimate([x - y for x, y in zip(a, b, strict=True)])
    assert found is not None
    half = found["half"] or 0.0
    return found["mean"] - half, found["mean"] + half


def _between(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:+.1f} to {100 * interval[1]:+.1f} points"


def convergence(results: Results) -> Section:
    """Table 2's accuracies and Figure 4, in kind."""
    tables, panels, claims = [], {}, []
    for task, mark in MARKS.items():
        rows, times, epochs, last = [], {}, {}, {}
        for name in ALGORITHMS:
            one = _case(task, name)
            last[name] = _accuracies(results, one)
            times[name] = estimate(_reached(results, one, mark, "time"))
            epochs[name] = estimate(_reached(results, one, mark, "epoch"))
            rows.append([label(name), estimate(last[name]), times[name], epochs[name],
                         sum(v is not None for v in _reached(results, one, mark, "time"))])  # fmt: skip
        columns = ("algorithm", "final accuracy", f"seconds to {mark:.0%}", "epochs", "seeds that reach it")
        tables.append(Table(f"{task}: 8 workers", columns, rows))
        panels[task] = [Series(label(name), _curve(results, _case(task, name)), name) for name in ALGORITHMS]
        claims += _convergence_claims(task, mark, last, times, epochs)
    rows = [
        [TITLES[model], label(name), published(f"table2.accuracy.{model}.{name}"),
         published(f"table2.accuracy_in_time.{model}.{name}"),
         published(f"table2.hours_to_accuracy.{model}.{name}")]
        for model in ("resnet50", "vgg16") for name in ALGORITHMS
    ]  # fmt: skip
    columns = ("model", "algorithm", "accuracy", "after 1 (2) h", "hours to 90 %")
    tables.append(Table("Published, CIFAR-10 (not regenerated here)", columns, rows))
    picture = Picture("figure4", "Accuracy over simulated time", panels, "simulated seconds", "accuracy")
    return Section(
        "figure4", "Figure 4 and Table 2: convergence (small images)", "ALADDIN, Table 2, Figure 4", tables,
        claims, [picture], (), [_case("digits", "aladdin").command],
    )  # fmt: skip


def _convergence_claims(
    task: str, mark: float, last: dict[str, list[float]], times: dict[str, Any], epochs: dict[str, Any]
) -> list[Claim]:
    where, never = "section 5.2", float("inf")
    seeds = len(last["aladdin"])
    soonest = {name: mean_of(v) if v and v["count"] == seeds else never for name, v in times.items()}
    fewest = {name: mean_of(v) if v and v["count"] == seeds else never for name, v in epochs.items()}
    least = _apart(last["aladdin"], last["arsgd"])
    said = ", ".join(f"{label(name)} {shown(times[name])}" for name in ALGORITHMS)
    each = ", ".join(f"{label(name)} {shown(epochs[name])}" for name in ALGORITHMS)
    order = sorted(fewest, key=lambda name: fewest[name])
    return [
        Claim(f"ALADDIN's final accuracy is comparable to AR-SGD's ({task})", where, least[0] > -MARGIN,
              f"ALADDIN less AR-SGD: {_between(least)}"),
        Claim(f"ALADDIN reaches the accuracy in the shortest time ({task}, {mark:.0%})", where,
              min(soonest, key=lambda name: soonest[name]) == "aladdin", f"seconds: {said}"),
        Claim(f"AR-SGD is best by epochs, ALADDIN second ({task})", where, order[:2] == ["arsgd", "aladdin"],
              f"epochs to {mark:.0%}: {each}"),
    ]  # fmt: skip


def _curve(results: Results, one: Case) -> list[tuple[float, float]]:
    """Mean over the seeds, at the times of the first one's evaluations."""
    import numpy as np

    curves = results.curves(one)
    times = np.array(curves[0]["time"])
    mean = np.mean([np.interp(times, each["time"], each["accuracy"]) for each in curves], axis=0)
    return [(float(t), float(y)) for t, y in zip(times, mean, strict=True)]


def mixing(results: Results) -> Section:
    """Figure 1b: parameter variance; Lemma 1's distance along runs."""
    rows, spread = [], {}
    panels: dict[str, list[Series]] = {"variance": [], "Lemma 1's distance": []}
    for name in ("asp", "aladdin", "sgp", "easgd"):
        one = _case("digits", name)
        spread[name] = [float(value) for value in results.each(one, "consensus")]
        curve = results.curves(one)[0]
        epochs = curve["epoch"]
        distance = curve["lemma"] if "lemma" in curve and name != "sgp" else None
        late = estimate([_late(each) for each in results.curves(one)]) if distance else None
        rows.append([label(name), estimate(spread[name]), late])
        for what, values in (("variance", curve["consensus"]), ("Lemma 1's distance", distance)):
            known = [(e, v) for e, v in zip(epochs, values or (), strict=False) if v and v == v]
            if known:
                panels[what].append(Series(label(name), known, name))
    asp, sgp, ours = (estimate(spread[name]) for name in ("asp", "sgp", "aladdin"))
    said = f"ASP {shown(asp)}, ALADDIN {shown(ours)}, SGP {shown(sgp)}"
    apart = _apart(spread["asp"], spread["sgp"])
    own = _apart(spread["aladdin"], spread["sgp"])
    claims = [
        Claim("Decentralized training (SGP) has a larger parameter variance than Hogwild", "Figure 1b",
              apart[1] < 0, said),
        Claim("ALADDIN, being centralized, has a smaller parameter variance than decentralized training",
              "section 3.2", own[1] < 0, said),
    ]  # fmt: skip
    columns = ("algorithm", "mean squared distance of replicas", "Lemma 1: |x̃ − mean|²")
    axis = "squared distance"
    picture = Picture("figure1b", "Distances along training, seed 0", panels, "epochs", axis, log="y")
    return Section(
        "figure1b", "Figure 1b: parameter variance; Lemma 1 along runs (digits)",
        "ALADDIN, Figure 1b, Lemma 1",
        [Table("Second half of training, momentum 0.9", columns, rows)], claims, [picture],
        (), [_case("digits", "sgp").command],
    )  # fmt: skip


def _late(curve: Any) -> float | None:
    import numpy as np

    values = {"epoch": np.array(curve["epoch"]), "consensus": np.array(curve["lemma"], dtype=float)}
    return metrics.consensus(values)


def ablation(results: Results) -> Section:
    """Figure 7: each updating strategy helps."""
    kinds = ("aladdin_l1", "aladdin_l2", "aladdin")
    tables, claims, panels = [], [], {}
    for task in TASKS:
        found = {name: _accuracies(results, _case(task, name)) for name in kinds}
        tables.append(Table(f"{task}: final accuracy, π = 4", ("variant", "accuracy"),
                            [[label(name), estimate(values)] for name, values in found.items()]))  # fmt: skip
        for better, worse in (("aladdin_l2", "aladdin_l1"), ("aladdin", "aladdin_l2")):
            apart = _apart(found[better], found[worse])
            claims.append(Claim(f"{label(better)} ends more accurate than {label(worse)} ({task})",
                                "section 5.5", apart[0] > 0, _between(apart)))  # fmt: skip
        panels[task] = [Series(label(name), _curve(results, _case(task, name)), name) for name in kinds]
    return Section(
        "figure7", "Figure 7: ablation (small images)", "ALADDIN, Figure 7, section 5.5", tables, claims,
        [Picture("figure7", "Ablation", panels, "simulated seconds", "accuracy")], (),
        [_case("digits", "aladdin_l2").command],
    )  # fmt: skip


def period(results: Results) -> Section:
    """Figure 8a: convergence is insensitive to the update period."""
    tables, claims = [], []
    for task in TASKS:
        found = {pi: _accuracies(results, _period(task, pi)) for pi in PERIODS}
        tables.append(Table(f"{task}: final accuracy", ("π", "accuracy"),
                            [[pi, estimate(values)] for pi, values in found.items()]))  # fmt: skip
        apart = [_apart(found[pi], found[1]) for pi in PERIODS[1:]]
        widest = max(max(abs(low), abs(high)) for low, high in apart)
        said = "; ".join(
            f"π = {pi} less π = 1: {_between(one)}" for pi, one in zip(PERIODS[1:], apart, strict=True)
        )
        claims.append(Claim(f"Convergence is insensitive to π (within a point, {task})", "section 5.6",
                            widest <= MARGIN, said))  # fmt: skip
    return Section(
        "figure8a", "Figure 8a: accuracy by π (small images)", "ALADDIN, Figure 8, section 5.6", tables,
        claims, (), (), [_period("digits", 1).command],
    )  # fmt: skip


def robustness(results: Results) -> Section:
    """Figure 6: accuracy on heterogeneous clusters."""
    names = ("aladdin", "arsgd", "sgp")
    mark = MARKS["digits"]
    last = {(name, f): _accuracies(results, _slow(name, f)) for name in names for f in FACTORS}
    times = {
        (name, f): estimate(_reached(results, _slow(name, f), mark, "time"))
        for name in names
        for f in FACTORS
    }
    columns = ("algorithm", *(f"×{f}" for f in FACTORS))
    tables = [
        Table(
            "Final accuracy", columns, [[label(n), *(estimate(last[n, f]) for f in FACTORS)] for n in names]
        ),
        Table(
            f"Seconds to {mark:.0%}", columns, [[label(n), *(times[n, f] for f in FACTORS)] for n in names]
        ),
    ]
    apart = [_apart(last["aladdin", f], last["aladdin", 1]) for f in FACTORS[1:]]
    kept = all(low > -MARGIN for low, _ in apart)
    never = {"mean": float("inf")}
    slower = {n: mean_of(times[n, 100] or never) / mean_of(times[n, 1] or {"mean": 1.0}) for n in names}
    said = "; ".join(f"×{f}: {_between(a)}" for f, a in zip(FACTORS[1:], apart, strict=True))
    claims = [
        Claim("ALADDIN converges alike whatever the degree of heterogeneity (final accuracy, ×2 to ×100)",
              "section 5.4", kept, said),
        Claim("ALADDIN's time to accuracy suffers least from a ×100 slower worker", "section 5.4",
              min(slower, key=lambda n: slower[n]) == "aladdin",
              ", ".join(f"{label(n)} {value:.1f} times" for n, value in slower.items())),
    ]  # fmt: skip
    panels = {
        f"×{f}": [Series(label(n), _curve(results, _slow(n, f)), n) for n in names] for f in FACTORS[::2]
    }
    axis = "simulated seconds"
    picture = Picture("figure6", "Accuracy with one slower worker", panels, axis, "accuracy", log="x")
    return Section(
        "figure6", "Figure 6: accuracy on heterogeneous clusters (digits)", "ALADDIN, Figure 6, section 5.4",
        tables, claims, [picture], (), [_slow("aladdin", 100).command],
    )  # fmt: skip
