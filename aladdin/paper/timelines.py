"""Figure 3: three kinds of communication, as timelines.

Rules this module obeys: three short runs, made here because timelines need their spans, which no summary has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from aladdin.paper.cases import Case, Results, case
from analysis.names import label
from analysis.paper import Claim, Section, Table
from analysis.paper.sections import mean_of

__all__ = ["draw", "figure3", "wanted"]

KINDS = {"bsp": "synchronous", "asp": "asynchronous", "aladdin": "asymmetric"}
PARTS = ("compute", "update", "send", "wait", "receive")


def _case(algorithm: str) -> Case:
    options: dict[str, Any] = {"algorithm.on_busy": "coalesce"} if algorithm == "aladdin" else {}
    placement = {"cluster.workers": 4, "cluster.placement": [0, 1, 2, 3], "run.steps": 30}
    slower = {"cluster.slowdowns": [{"kind": "fixed", "ranks": [3], "factor": 1.5}]}
    return case("paper/cifar10-vgg16", {"algorithm.name": algorithm, **options, **placement, **slower})


def wanted() -> Iterable[Case]:
    """All cases of Figure 3."""
    return map(_case, KINDS)


def figure3(results: Results) -> Section:
    """Where the time goes under the three kinds of communication, one worker 1.5 times slower."""
    shares = {
        name: {p: results.estimate(_case(name), "breakdown", "all", "fraction", p) for p in PARTS}
        for name in KINDS
    }
    rows = [[KINDS[name], label(name), *parts.values()] for name, parts in shares.items()]
    blocked = {
        name: sum(mean_of(parts[p]) for p in ("send", "wait", "receive")) for name, parts in shares.items()
    }
    evidence = (
        ", ".join(f"{KINDS[name]} {share:.1%}" for name, share in blocked.items()) + " of the time blocked"
    )
    fast = {name: mean_of(results.estimate(_case(name), "breakdown", "fast", "fraction", "wait"))
            for name in KINDS}  # fmt: skip
    claims = [
        Claim("Asymmetric training is completely wait-free: a worker never waits, for workers or servers",
              "section 3.1", blocked["aladdin"] == 0.0, evidence),
        Claim("Asynchronous workers wait for the server, not for the slow worker", "section 3.1",
              0 < blocked["asp"] < blocked["bsp"] and fast["asp"] < fast["bsp"],
              f"{evidence}; the fast ones wait {fast['bsp']:.0%} (synchronous), {fast['asp']:.0%}"),
    ]  # fmt: skip
    return Section(
        "figure3", "Figure 3: three kinds of communication", "ALADDIN, Figure 3, section 3.1",
        [Table("VGG-16, 4 workers, one of them 1.5 times slower, share of the time",
               ("communication", "algorithm", *PARTS), rows)],
        claims, (), (), [_case(name).command + " --spans --out DIR" for name in KINDS],
    )  # fmt: skip


def draw(folder: Path) -> Sequence[Path]:
    """The timelines, into ``folder``."""
    from aladdin import api
    from analysis.plots import save, timeline

    records = []
    for name in KINDS:
        one = _case(name)
        changes = {**dict(one.values), "run.spans": True, "run.steps": 8, "run.warmup_steps": 1}
        records.append(api.simulate(one.scenario, overrides=changes).record)
    return [save(timeline(records), folder / "figure3.png")]
