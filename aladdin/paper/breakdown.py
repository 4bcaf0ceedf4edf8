"""Figure 2: where a worker's time goes under ASP. Figure 1a: communication, central against decentral.

Rules this module obeys: communication is whatever is not compute: sending, waiting, receiving, and putting
what was received in its place (the record's *update*), which the paper counts as receiving.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aladdin.paper.cases import Case, Results, case
from analysis.names import label
from analysis.paper import Claim, Picture, Section, Series, Table, published
from analysis.paper.sections import mean_of

__all__ = ["figure1a", "figure2", "wanted1a", "wanted2"]

SERIAL = "paper/vgg16-one-server"
WORKERS = (1, 2, 4, 8)
PARTS = ("compute", "send", "wait", "receive", "update")


def _case(workers: int, scenario: str = SERIAL, algorithm: str = "") -> Case:
    changes: dict[str, Any] = {"run.steps": 30}
    if algorithm:
        changes["algorithm.name"] = algorithm
    if workers < 8:
        placement = [rank % 4 for rank in range(workers)]
        changes |= {"cluster.workers": workers, "cluster.placement": placement}
    return case(scenario, changes)


def wanted2() -> Iterable[Case]:
    """All cases of Figure 2."""
    for workers in WORKERS:
        yield _case(workers)
        yield _case(workers, algorithm="asp")


def figure2(results: Results) -> Section:
    """The breakdown of ASP's time with one server that serves one worker at a time."""
    ours = {n: _parts(results, _case(n)) for n in WORKERS}
    overlapped = {n: _parts(results, _case(n, algorithm="asp")) for n in WORKERS}
    shares = {n: mean_of(_communication(ours[n])) for n in WORKERS}
    bounds = published("figure2.communication_above")
    tables = [
        _table("Served one at a time (paper/vgg16-one-server), share of a worker's time", ours),
        _table("The same with sending, receiving and tensor work overlapped (asp)", overlapped),
    ]
    claims = [
        Claim(f"Communication takes more than {least:.0%} of the time with {n} workers", "section 3.1",
              shares[n] > least, f"ours {shares[n]:.0%}")
        for n, least in bounds.items()
    ]  # fmt: skip
    waits = {n: {part: mean_of(ours[n][part]) for part in PARTS[1:]} for n in WORKERS}
    largest = max(waits[8], key=lambda part: waits[8][part])
    growth = {part: waits[8][part] - waits[2][part] for part in PARTS[1:]}
    claims += [
        Claim("Most of the communication with 8 workers is waiting", "section 3.1", largest == "wait",
              ", ".join(f"{part} {share:.0%}" for part, share in waits[8].items())),
        Claim("What grows with the number of workers is waiting", "section 3.1",
              max(growth, key=lambda part: growth[part]) == "wait",
              ", ".join(f"{part} {change:+.0%}" for part, change in growth.items()) + " from 2 to 8 workers"),
    ]  # fmt: skip
    series = [Series(part, [(str(n), mean_of(ours[n][part])) for n in WORKERS], part) for part in PARTS]
    return Section(
        "figure2", "Figure 2: breakdown of the time under ASP", published("figure2.source"), tables, claims,
        [Picture("figure2", "VGG-16 under ASP, one server", {"": series}, "workers", "share of the time",
                 kind="stack")],
        (), [_case(8).command], {str(n): share for n, share in shares.items()},
    )  # fmt: skip


def _parts(results: Results, one: Case) -> dict[str, Any]:
    return {part: results.estimate(one, "breakdown", "all", "fraction", part) for part in PARTS}


def _communication(parts: dict[str, Any]) -> dict[str, Any]:
    """The share of all that is not compute; its interval is that of compute's share."""
    return {**parts["compute"], "mean": 1.0 - mean_of(parts["compute"])}


def _table(title: str, found: dict[int, dict[str, Any]]) -> Table:
    rows = [[n, *(parts[part] for part in PARTS), _communication(parts)] for n, parts in found.items()]
    return Table(title, ("workers", *PARTS, "communication"), rows)


def wanted1a() -> Iterable[Case]:
    """All cases of Figure 1a."""
    for n in WORKERS[1:]:
        yield _case(n)
        yield _case(n, "paper/cifar10-vgg16-asp")
        yield _case(n, "paper/cifar10-vgg16-sgp")


def figure1a(results: Results) -> Section:
    """Share of communication under a centralized and a decentralized algorithm."""
    kinds = {
        "ASP, one server": _case,
        "ASP, four servers": lambda n: _case(n, "paper/cifar10-vgg16-asp"),
        label("sgp"): lambda n: _case(n, "paper/cifar10-vgg16-sgp"),
    }
    shares = {
        name: {n: _communication(_parts(results, make(n))) for n in WORKERS[1:]}
        for name, make in kinds.items()
    }
    rows = [[name, *values.values()] for name, values in shares.items()]
    table = Table("VGG-16, share of communication", ("", *(f"n = {n}" for n in WORKERS[1:])), rows)
    at8 = {name: mean_of(values[8]) for name, values in shares.items()}
    claims = [
        Claim("Centralized training (Hogwild) spends more of its time on communication than SGP", "Figure 1a",
              min(at8, key=lambda name: at8[name]) == label("sgp"),
              "; ".join(f"{name} {share:.0%}" for name, share in at8.items()) + " with 8 workers"),
    ]  # fmt: skip
    looks = ("asp", "ssp", "sgp")
    lines = [
        Series(name, [(n, share["mean"], share["half"] or 0.0) for n, share in shares[name].items()], look)
        for name, look in zip(shares, looks, strict=True)
    ]
    return Section(
        "figure1a", "Figure 1a: communication overhead", "ALADDIN, Figure 1a", [table], claims,
        [Picture("figure1a", "Communication overhead, VGG-16", {"": lines}, "workers", "share of the time")],
        (), [_case(8, "paper/cifar10-vgg16-sgp").command],
    )  # fmt: skip
