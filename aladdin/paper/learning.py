"""The accuracy part: Figures 1b, 4, 6, 7 and 8a and Table 2's accuracies, on images that fit this machine.

Rules this module obeys:

* What is trained is told with every figure: scikit-learn's digits and made-up images, or CIFAR-10 from a
  folder of the user's, at 16 pixels, by a small CNN. Claims are tested in kind only.
* Claims are tested over seeds: of two algorithms on the same seeds, by the 95 % interval of the mean of the
  differences. "At least as good" and "the same" allow ``MARGIN``. One seed shows nothing.
* The cluster is that of the bundled scenario ``digits``, where a message takes half a step.
* Marks of accuracy are set beforehand for images that are at hand, and relative to AR-SGD's for CIFAR-10.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, inf, log
from pathlib import Path
from statistics import fmean
from typing import Any

from aladdin.paper.cases import Case, Results, case
from aladdin.paper.table2 import TITLES
from analysis import metrics
from analysis.names import label
from analysis.paper import Claim, Picture, Section, Series, Table, published
from analysis.paper.sections import mean_of, shown
from analysis.seeds import estimate

__all__ = [
    "GOSSIP", "MARGIN", "SMALL", "Images", "ablation", "accuracies", "apart", "between", "cifar10",
    "convergence", "curve", "mixing", "period", "reached", "robustness", "told", "wanted",
]  # fmt: skip

ALGORITHMS = ("aladdin", "sgp", "easgd", "asp", "arsgd")
SPREADS = ("asp", "aladdin", "sgp", "easgd")
GOSSIP = ("dpsgd", "adpsgd", "arsgd", "bsp")
STRAGGLING = ("aladdin", "arsgd", "sgp")
VARIANTS = ("aladdin_l1", "aladdin_l2", "aladdin")
PERIODS = (1, 2, 4)
FACTORS = (1, 2, 10, 100)

MARGIN = 0.01
"""Of accuracy: a difference that we call none."""


@dataclass(frozen=True)
class Images:
    """What is trained: ``tasks`` are changes of the scenario ``digits`` by name.

    tasks   Figures 1b and 6 use the first one
    marks   accuracies whose times are compared in Figure 4, by task; None: ``LATE`` of AR-SGD's last one
    common  likewise for Figure 6, which all its algorithms should reach on every seed; None: ``SOON`` of it
    called  what they are in titles; notes: a name in the notes instead of the experiments' own
    """

    tasks: Mapping[str, Mapping[str, Any]]
    marks: Mapping[str, float | None]
    common: float | None
    called: str
    notes: str = ""

    @property
    def first(self) -> str:
        """The name of the first task."""
        return next(iter(self.tasks))

    def case(self, task: str, algorithm: str = "aladdin", changes: Mapping[str, Any] | None = None) -> Case:
        """An algorithm on one of the tasks."""
        own = {"algorithm.pi": 4} if algorithm.startswith("aladdin") and algorithm != "aladdin_l1" else {}
        fixed = {"algorithm.name": algorithm, **own, "run.threads": 1}
        return case("digits", {**fixed, **self.tasks[task], **(changes or {})})

    def slow(self, algorithm: str, factor: int) -> Case:
        """An algorithm on the first task with a worker so many times slower."""
        slower = [{"kind": "fixed", "ranks": [0], "factor": factor}]
        return self.case(self.first, algorithm, {"cluster.slowdowns": slower} if factor > 1 else {})

    def period(self, task: str, pi: int) -> Case:
        """ALADDIN with an update period."""
        return self.case(task, "aladdin", {"algorithm.pi": pi})

    def mark(self, results: Results, task: str) -> float:
        """The accuracy of Figure 4."""
        return self.marks[task] or self._of_arsgd(results, task, LATE)

    def common_mark(self, results: Results) -> float:
        """The accuracy of Figure 6."""
        return self.common or self._of_arsgd(results, self.first, SOON)

    def _of_arsgd(self, results: Results, task: str, share: float) -> float:
        return round(share * fmean(accuracies(results, self.case(task, "arsgd"))), 2)


LATE, SOON = 0.96, 0.92
"""Shares of AR-SGD's final accuracy: Table 2's 90 % is 0.96 of its ResNet-50's, 90 % on digits 0.92."""

SMALL = Images(
    tasks={
        "digits": {},
        "made-up images": {"workload": {
            "model": "mlp", "hidden": [64], "data": "synthetic", "image_size": 4, "classes": 100,
            "samples": 2000, "batch": 32,
        }, "run.samples": 60_000},
    },
    marks={"digits": 0.94, "made-up images": 0.9}, common=0.9, called="small images",
)  # fmt: skip

EPOCHS = 8
"""Of CIFAR-10: what hours allow on two cores."""


def cifar10(folder: str | Path) -> Images:
    """CIFAR-10 in ``folder`` (binary or Python form), at 16 pixels, by the small CNN; a message takes half a
    step. Raises ``ScenarioError`` where it cannot be read, before anything is run."""
    from scenarios.schema import Workload
    from scenarios.workloads import cifar
    from scenarios.workloads.layers import DATASETS, layer_sizes

    folder = str(Path(folder).resolve()) if str(folder) else ""
    (_, labels), _ = cifar.read(folder)
    workload: dict[str, Any] = {
        "model": "cnn",
        "data": "cifar10",
        "image_size": 16,
        "batch": 32,
        "data_dir": folder,
    }
    size = sum(layer_sizes(Workload(**workload))) / sum(layer_sizes(Workload(hidden=(256,))))
    epoch = len(labels) / DATASETS["cifar10"].train  # of a part of the set, in epochs of the whole
    name = "CIFAR-10 at 16 pixels, small CNN"
    changes = {
        "workload": workload, "cluster.bandwidth": f"{25 * size:.0f} Mbit/s", "algorithm.milestones": [5],
        "run.samples": EPOCHS * len(labels), "run.evaluate_every": 0.5 * epoch,
    }  # fmt: skip
    return Images({name: changes}, {name: None}, None, name, "cifar10")


IN_TIME = 0.5
"""Share of ALADDIN's training time after which accuracies are compared; Table 2's hours are 0.55 and 0.4."""

EARLY = 0.2
"""Share of the epochs in which the paper sees ALADDIN-L1 ahead of L2: 50 of 250."""


def wanted(images: Images = SMALL, figure: str = "") -> Iterable[Case]:
    """All cases of one figure, or of the accuracy part."""
    if figure in ("", "figure1b"):
        yield from (images.case(images.first, name) for name in SPREADS)
    for task in images.tasks:
        if figure in ("", "figure4"):
            yield from (images.case(task, name) for name in ALGORITHMS)
        if figure in ("", "figure7"):
            yield from (images.case(task, name) for name in VARIANTS)
        if figure in ("", "figure8a"):
            yield from (images.period(task, pi) for pi in PERIODS)
        if figure in ("", "dpsgd-convergence"):
            yield from (images.case(task, name) for name in GOSSIP)
    if figure in ("", "figure6"):
        yield from (images.slow(name, factor) for name in STRAGGLING for factor in FACTORS)


def accuracies(results: Results, one: Case) -> list[float]:
    """Final accuracies, seed by seed."""
    return [float(value) for value in results.each(one, "accuracy")]


def reached(results: Results, one: Case, mark: float, by: str) -> list[float | None]:
    """``time`` or ``epoch`` at which an accuracy is reached, seed by seed; None where it never is."""
    import numpy as np

    curves = [{name: np.array(values) for name, values in each.items()} for each in results.curves(one)]
    return [metrics.reached(each, mark, by) for each in curves]


def apart(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of a - b, seed by seed; without bounds if there is one seed only."""
    found = estimate([x - y for x, y in zip(a, b, strict=True)])
    assert found is not None
    half = inf if found["half"] is None else found["half"]
    return found["mean"] - half, found["mean"] + half


def between(interval: tuple[float, float]) -> str:
    """An interval of differences of accuracy, in words."""
    if inf in interval:
        return "one seed gives no interval"
    return f"{100 * interval[0]:+.1f} to {100 * interval[1]:+.1f} points"


def convergence(results: Results, images: Images = SMALL) -> Section:
    """Table 2's accuracies and Figure 4, in kind."""
    tables, claims = [], []
    views: dict[str, dict[str, list[Series]]] = {"time": {}, "epoch": {}}
    for task in images.tasks:
        mark = images.mark(results, task)
        ran = {name: images.case(task, name) for name in ALGORITHMS}
        last = {name: accuracies(results, one) for name, one in ran.items()}
        soon = {name: _in_time(results, one, ran["aladdin"]) for name, one in ran.items()}
        times = {name: reached(results, one, mark, "time") for name, one in ran.items()}
        epochs = {name: reached(results, one, mark, "epoch") for name, one in ran.items()}
        rows = [
            [label(name), estimate(last[name]), estimate(soon[name]), estimate(times[name]),
             estimate(epochs[name]), sum(value is not None for value in times[name])]
            for name in ALGORITHMS
        ]  # fmt: skip
        columns = ("algorithm", "final accuracy", "in half of ALADDIN's time", f"seconds to {mark:.0%}",
                   "epochs", "seeds that reach it")  # fmt: skip
        tables.append(Table(f"{task}: 8 workers", columns, rows))
        claims += _convergence_claims(task, mark, last, times, epochs)
        claims.append(_in_time_claim(task, soon))
        for by, panels in views.items():
            panels[task] = [Series(label(n), curve(results, one, by), n) for n, one in ran.items()]
    return Section(
        "figure4", f"Figure 4 and Table 2: convergence ({images.called})", "ALADDIN, Table 2, Figure 4",
        [*tables, _published()], claims,
        [Picture("figure4", "Accuracy over simulated time", views["time"], "simulated seconds", "accuracy"),
         Picture("figure4-epochs", "Accuracy over epochs", views["epoch"], "epochs", "accuracy")],
        (), [images.case(images.first, "aladdin").command],
    )  # fmt: skip


def _published() -> Table:
    """The accuracies of Table 2, none of which is regenerated."""
    titles = {**TITLES, "resnet50-imagenet": "ResNet-50, ImageNet-1K"}
    rows = [
        [title, label(name), *(f"{published(f'table2.{what}.{model}.{name}'):g}" for what in
                               ("accuracy", "accuracy_in_time", "hours_to_accuracy"))]
        for model, title in titles.items() for name in ALGORITHMS
    ]  # fmt: skip
    columns = ("model", "algorithm", "accuracy", "after 1 h (VGG-16: 2 h, ImageNet: 5 h)",
               "hours to 90 % (ImageNet: 60 %)")  # fmt: skip
    return Table("Published, CIFAR-10 and ImageNet-1K (not regenerated here)", columns, rows)


def _in_time(results: Results, one: Case, ours: Case) -> list[float]:
    """Accuracy at the time at which ALADDIN's training (``ours``) on the same seed is half done."""
    import numpy as np

    pairs = zip(results.curves(one), results.curves(ours), strict=True)
    return [
        float(np.interp(IN_TIME * base["time"][-1], each["time"], each["accuracy"])) for each, base in pairs
    ]


def _in_time_claim(task: str, soon: dict[str, list[float]]) -> Claim:
    ahead = [apart(soon["aladdin"], soon[name])[0] > 0 for name in ALGORITHMS if name != "aladdin"]
    said = ", ".join(f"{label(name)} {shown(estimate(values))}" for name, values in soon.items())
    return Claim(f"ALADDIN is the most accurate in a given time ({task}, half of its own)", "section 5.2",
                 all(ahead), said)  # fmt: skip


def told(values: Sequence[float | None]) -> str:
    """The estimate, if every seed has a value; else how many have."""
    known = sum(value is not None for value in values)
    return shown(estimate(values)) if known == len(values) else f"{known} of {len(values)} seeds"


def _convergence_claims(
    task: str, mark: float, last: dict[str, list[float]], times: dict[str, Any], epochs: dict[str, Any]
) -> list[Claim]:
    """``times`` and ``epochs`` are those to ``mark``, seed by seed; None where a seed never got there."""
    where, source = f"{task}, {mark:.0%}", "section 5.2"
    least = apart(last["aladdin"], last["arsgd"])
    said = ", ".join(f"{label(name)} {told(times[name])}" for name in ALGORITHMS)
    each = ", ".join(f"{label(name)} {told(epochs[name])}" for name in ALGORITHMS)
    return [
        Claim(f"ALADDIN's final accuracy is comparable to AR-SGD's ({task})", source, least[0] > -MARGIN,
              f"ALADDIN less AR-SGD: {between(least)}"),
        Claim(f"ALADDIN reaches the accuracy in the shortest time ({where})", source,
              _soonest(times)[:1] == ["aladdin"], f"seconds: {said}"),
        Claim(f"AR-SGD is best by epochs, ALADDIN second ({where})", source,
              _soonest(epochs)[:2] == ["arsgd", "aladdin"], f"epochs: {each}"),
    ]  # fmt: skip


def _soonest(places: dict[str, Sequence[float | None]]) -> list[str]:
    """Algorithms by their mean times or epochs; without those that some seed did not bring there."""
    known = {name: estimate(values) for name, values in places.items() if None not in values}
    return sorted(known, key=lambda name: mean_of(known[name]))


def curve(results: Results, one: Case, by: str = "time") -> list[tuple[float, float]]:
    """Mean accuracy over the seeds, at the places (``time`` or ``epoch``) of the first one's evaluations."""
    import numpy as np

    curves = results.curves(one)
    places = np.array(curves[0][by])
    mean = np.mean([np.interp(places, each[by], each["accuracy"]) for each in curves], axis=0)
    return [(float(x), float(y)) for x, y in zip(places, mean, strict=True)]


def mixing(results: Results, images: Images = SMALL) -> Section:
    """Figure 1b: parameter variance; Lemma 1's distance along runs."""
    rows, spread = [], {}
    panels: dict[str, list[Series]] = {"variance": [], "Lemma 1's distance": []}
    for name in SPREADS:
        one = images.case(images.first, name)
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
    gap = apart(spread["asp"], spread["sgp"])
    own = apart(spread["aladdin"], spread["sgp"])
    claims = [
        Claim("Decentralized training (SGP) has a larger parameter variance than Hogwild", "Figure 1b",
              gap[1] < 0, said),
        Claim("ALADDIN, being centralized, has a smaller parameter variance than decentralized training",
              "section 3.2", own[1] < 0, said),
    ]  # fmt: skip
    columns = ("algorithm", "mean squared distance of replicas", "Lemma 1: |x̃ − mean|²")
    axis = "squared distance"
    picture = Picture("figure1b", "Distances along training, seed 0", panels, "epochs", axis, log="y")
    return Section(
        "figure1b", f"Figure 1b: parameter variance; Lemma 1 along runs ({images.first})",
        "ALADDIN, Figure 1b, Lemma 1",
        [Table("Second half of training, momentum 0.9", columns, rows)], claims, [picture],
        (), [images.case(images.first, "sgp").command],
    )  # fmt: skip


def _late(curve: Any) -> float | None:
    import numpy as np

    values = {"epoch": np.array(curve["epoch"]), "consensus": np.array(curve["lemma"], dtype=float)}
    return metrics.consensus(values)


def ablation(results: Results, images: Images = SMALL) -> Section:
    """Figure 7: each updating strategy helps."""
    tables, claims, panels = [], [], {}
    for task in images.tasks:
        found = {name: accuracies(results, images.case(task, name)) for name in VARIANTS}
        early = {name: _early(results, images.case(task, name)) for name in VARIANTS}
        columns = ("variant", "accuracy", f"mean over the first {EARLY:.0%} of the epochs")
        tables.append(Table(f"{task}: final accuracy, π = 4", columns, [
            [label(name), estimate(found[name]), estimate(early[name])] for name in VARIANTS
        ]))  # fmt: skip
        for better, worse in (("aladdin_l2", "aladdin_l1"), ("aladdin", "aladdin_l2")):
            gap = apart(found[better], found[worse])
            claims.append(Claim(f"{label(better)} ends more accurate than {label(worse)} ({task})",
                                "section 5.5", gap[0] > 0, between(gap)))  # fmt: skip
        ahead = apart(early["aladdin_l1"], early["aladdin_l2"])
        claims.append(Claim(f"ALADDIN-L1 is ahead of ALADDIN-L2 at first ({task}, the first {EARLY:.0%})",
                            "section 5.5", ahead[0] > 0, f"L1 less L2: {between(ahead)}"))  # fmt: skip
        over = [apart(early["aladdin"], early[name]) for name in VARIANTS[:2]]
        claims.append(Claim(f"ALADDIN is the most accurate of the three at first, too ({task})",
                            "section 5.5", all(low > 0 for low, _ in over),
                            f"less L1: {between(over[0])}; less L2: {between(over[1])}"))  # fmt: skip
        panels[task] = [Series(label(n), curve(results, images.case(task, n), "epoch"), n) for n in VARIANTS]
    return Section(
        "figure7", f"Figure 7: ablation ({images.called})", "ALADDIN, Figure 7, section 5.5", tables, claims,
        [Picture("figure7", "Ablation", panels, "epochs", "accuracy")], (),
        [images.case(images.first, "aladdin_l2").command],
    )  # fmt: skip


def _early(results: Results, one: Case) -> list[float]:
    """Mean accuracy over the evaluations in the first ``EARLY`` of the epochs, seed by seed."""
    import numpy as np

    found = []
    for curve in results.curves(one):
        epochs = np.array(curve["epoch"])
        found.append(float(np.array(curve["accuracy"])[epochs <= EARLY * epochs.max()].mean()))
    return found


def period(results: Results, images: Images = SMALL) -> Section:
    """Figure 8a: convergence is insensitive to the update period."""
    tables, claims, panels = [], [], {}
    for task in images.tasks:
        found = {pi: accuracies(results, images.period(task, pi)) for pi in PERIODS}
        tables.append(Table(f"{task}: final accuracy", ("π", "accuracy"),
                            [[pi, estimate(values)] for pi, values in found.items()]))  # fmt: skip
        gaps = [apart(found[pi], found[1]) for pi in PERIODS[1:]]
        widest = max(max(abs(low), abs(high)) for low, high in gaps)
        said = "; ".join(
            f"π = {pi} less π = 1: {between(one)}" for pi, one in zip(PERIODS[1:], gaps, strict=True)
        )
        claims.append(Claim(f"Convergence is insensitive to π (within a point, {task})", "section 5.6",
                            widest <= MARGIN, said))  # fmt: skip
        panels[task] = [
            Series(f"π = {pi}", curve(results, images.period(task, pi), "epoch")) for pi in PERIODS
        ]
    return Section(
        "figure8a", f"Figure 8a: accuracy by π ({images.called})", "ALADDIN, Figure 8, section 5.6", tables,
        claims, [Picture("figure8a", "ALADDIN's accuracy by π", panels, "epochs", "accuracy")], (),
        [images.period(images.first, 1).command],
    )  # fmt: skip


def robustness(results: Results, images: Images = SMALL) -> Section:
    """Figure 6: accuracy on heterogeneous clusters."""
    last = {(name, f): accuracies(results, images.slow(name, f)) for name in STRAGGLING for f in FACTORS}
    mark = images.common_mark(results)
    times = {
        (name, f): reached(results, images.slow(name, f), mark, "time")
        for name in STRAGGLING
        for f in FACTORS
    }
    columns = ("algorithm", *(f"×{f}" for f in FACTORS))
    tables = [
        Table("Final accuracy", columns,
              [[label(n), *(estimate(last[n, f]) for f in FACTORS)] for n in STRAGGLING]),
        Table(f"Seconds to {mark:.0%}", columns,
              [[label(n), *(told(times[n, f]) for f in FACTORS)] for n in STRAGGLING]),
    ]  # fmt: skip
    gaps = [apart(last["aladdin", f], last["aladdin", 1]) for f in FACTORS[1:]]
    kept = all(low > -MARGIN for low, _ in gaps)
    said = "; ".join(f"×{f}: {between(a)}" for f, a in zip(FACTORS[1:], gaps, strict=True))
    claims = [
        Claim("ALADDIN converges alike whatever the degree of heterogeneity (final accuracy, ×2 to ×100)",
              "section 5.4", kept, said),
        _suffers_least(mark, {n: (times[n, 1], times[n, FACTORS[-1]]) for n in STRAGGLING}),
    ]  # fmt: skip
    panels = {
        f"×{f}": [Series(label(n), curve(results, images.slow(n, f)), n) for n in STRAGGLING] for f in FACTORS
    }
    axis = "simulated seconds"
    picture = Picture("figure6", "Accuracy with one slower worker", panels, axis, "accuracy", log="x")
    return Section(
        "figure6", f"Figure 6: accuracy on heterogeneous clusters ({images.first})",
        "ALADDIN, Figure 6, section 5.4", tables, claims, [picture], (),
        [images.slow("aladdin", 100).command],
    )  # fmt: skip


def _suffers_least(
    mark: float, times: dict[str, tuple[Sequence[float | None], Sequence[float | None]]]
) -> Claim:
    """Seconds to the mark without and with the slow worker: whose grow least, seed by seed, as logarithms.

    A seed that does not reach the mark leaves nothing to compare: then the claim is not testable.
    """
    text = f"ALADDIN's time to accuracy ({mark:.0%}) suffers least from a ×{FACTORS[-1]} slower worker"
    grown: dict[str, list[float]] = {}
    for name, (without, slowed) in times.items():
        pairs = [(a, b) for a, b in zip(without, slowed, strict=True) if a and b]
        if len(pairs) < len(without):
            said = f"{label(name)}: {len(pairs)} of {len(without)} seeds reach it in both clusters"
            return Claim(text, "section 5.4", None, said)
        grown[name] = [log(b / a) for a, b in pairs]
    least = all(apart(grown["aladdin"], grown[name])[1] < 0 for name in grown if name != "aladdin")
    said = ", ".join(f"{label(name)} {exp(fmean(values)):.1f} times" for name, values in grown.items())
    return Claim(text, "section 5.4", least, said)
