"""D-PSGD's Figures 2a, 2b and 3a and AD-PSGD's convergence: like centralized SGD by epochs, sooner in time?

Rules this module obeys: those of ``learning``, whose images, marks and tests over seeds these are.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log

from aladdin.paper import learning
from aladdin.paper.cases import Results
from aladdin.paper.learning import GOSSIP, MARGIN, SMALL, Images
from analysis.names import label
from analysis.paper import Claim, Picture, Section, Series, Table
from analysis.seeds import estimate

__all__ = ["section"]

ALIKE = 1.25
"""So many times the epochs to an accuracy are still called similar; fewer are no objection."""

Values = dict[str, list[float | None]]


def section(results: Results, images: Images = SMALL) -> Section:
    """Accuracies, and epochs and seconds to a mark, of what is synchronous and what is not."""
    tables, claims, panels = [], [], {}
    for task in images.tasks:
        mark = images.mark(results, task)
        ran = {name: images.case(task, name) for name in GOSSIP}
        last = {name: learning.accuracies(results, one) for name, one in ran.items()}
        epochs, seconds = (
            {name: learning.reached(results, one, mark, by) for name, one in ran.items()}
            for by in ("epoch", "time")
        )
        columns = ("algorithm", "final accuracy", f"epochs to {mark:.0%}", f"seconds to {mark:.0%}")
        tables.append(Table(f"{task}: 8 workers", columns, [
            [label(name), estimate(last[name]), learning.told(epochs[name]), learning.told(seconds[name])]
            for name in GOSSIP
        ]))  # fmt: skip
        for name, paper in (("dpsgd", "section 5.2"), ("adpsgd", "abstract")):
            claims.append(_alike(f"{label(name)} converges like all-reduce by epochs ({task})", paper,
                                 last[name], last["arsgd"], epochs[name], epochs["arsgd"]))  # fmt: skip
        claims.append(_sooner(task, mark, seconds))
        panels[task] = [
            Series(label(name), learning.curve(results, one, "epoch"), name) for name, one in ran.items()
        ]
    return Section(
        "dpsgd-convergence", f"D-PSGD, Figures 2a, 2b and 3a, and AD-PSGD: convergence ({images.called})",
        "D-PSGD, section 5.2; AD-PSGD, abstract", tables, claims,
        [Picture("dpsgd-convergence", "Accuracy over epochs", panels, "epochs", "accuracy")], (),
        [images.case(images.first, "dpsgd").command],
    )  # fmt: skip


def _ratio(a: Sequence[float | None], b: Sequence[float | None]) -> tuple[float, float] | None:
    """The 95 % interval of a / b, seed by seed; None if some seed lacks one of them."""
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x and y]
    if len(pairs) < len(a):
        return None
    low, high = learning.apart([log(x) for x, _ in pairs], [log(y) for _, y in pairs])
    return exp(low), exp(high)


def _alike(text: str, source: str, last: list[float], theirs: list[float], epochs: Sequence[float | None],
           base: Sequence[float | None]) -> Claim:  # fmt: skip
    low, high = learning.apart(last, theirs)
    ratio = _ratio(epochs, base)
    if ratio is None:
        return Claim(text, source, False, "not every seed reaches the mark")
    holds = low > -MARGIN and ratio[1] < ALIKE
    said = (
        f"final accuracy {learning.between((low, high))}, {ratio[0]:.2f} to {ratio[1]:.2f} times its epochs"
    )
    return Claim(text, source, holds, said)


def _sooner(task: str, mark: float, seconds: Values) -> Claim:
    ratios = {name: _ratio(seconds["dpsgd"], seconds[name]) for name in ("arsgd", "bsp")}
    said = ", ".join(f"{label(name)} {learning.told(seconds[name])}" for name in ("dpsgd", *ratios))
    text = f"D-PSGD is sooner at an accuracy than both centralized ones ({task}, {mark:.0%})"
    holds = all(ratio is not None and ratio[1] < 1 for ratio in ratios.values())
    return Claim(text, "section 5.2", holds, f"seconds: {said}")
