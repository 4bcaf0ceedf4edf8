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
BLOCKED = PARTS[2:]


WAITING = "asymmetric, a gradient waits for the last one to be sent"
"""ALADDIN as in Table 2, which is not wait-free."""


def _case(algorithm: str, on_busy: str = "coalesce") -> Case:
    options: dict[str, Any] = {"algorithm.on_busy": on_busy} if algorithm == "aladdin" else {}
    placement = {"cluster.workers": 4, "cluster.placement": [0, 1, 2, 3], "run.steps": 30}
    slower = {"cluster.slowdowns": [{"kind": "fixed", "ranks": [3], "factor": 1.5}]}
    return case("paper/cifar10-vgg16", {"algorithm.name": algorithm, **options, **placement, **slower})


def wanted() -> Iterable[Case]:
    """All cases of Figure 3."""
    yield from map(_case, KINDS)
    yield _case("aladdin", "wait")


def figure3(results: Results) -> Section:
    """Where the time goes under the three kinds of communication, one worker 1.5 times slower."""
    shares = {
        name: {p: results.estimate(_case(name), "breakdown", "all", "fraction", p) for p in PARTS}
        for name in KINDS
    }
    waiting = {
        p: results.estimate(_case("aladdin", "wait"), "breakdown", "all", "fraction", p) for p in PARTS
    }
    rows = [[KINDS[name], label(name), *parts.values()] for name, parts in shares.items()]
    rows.append([WAITING, label("aladdin"), *waiting.values()])
    blocked = {
        name: sum(mean_of(parts[p]) for p in BLOCKED) for name, parts in {**shares, WAITING: waiting}.items()
    }
    evidence = ", ".join(f"{KINDS[name]} {blocked[name]:.1%}" for name in KINDS) + " of the time blocked"
    fast = {name: mean_of(results.estimate(_case(name), "breakdown", "fast", "fraction", "wait"))
            for name in KINDS}  # fmt: skip
    claims = [
        Claim("Asymmetric training is completely wait-free: a worker never waits, for workers or servers",
              "section 3.1", blocked["aladdin"] == 0.0, f"{evidence}; {blocked[WAITING]:.1%} if a gradient "
              "waits for the last one to be sent, as in Table 2"),
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
