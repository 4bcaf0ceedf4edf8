"""Servers that leave and join: which start late, who keeps whose slice, and what cannot happen.

Rules this module obeys:

* The model is cut into as many slices as there are servers for the whole run. The slice of a server that is
  away lives on the machine of one that is there: of those that keep fewest slices, the next in order of
  number, cyclically.
* One server must be there: a schedule by which the last one leaves is refused, where no rate has others come
  or go besides; what rates bring about does not happen then.
* A server that is away, or down after a crash, cannot leave; one that is there cannot join. Crashes, freezes
  and cuts befall a server wherever its slice lives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from scenarios.errors import ScenarioError

if TYPE_CHECKING:
    from scenarios.faults import Fault

__all__ = ["check_servers", "keeper", "late_servers", "moved_by", "moves"]


def moves(faults: Iterable[Fault]) -> bool:
    """Whether any server leaves or joins."""
    return any(moved_by(fault) for fault in faults)


def moved_by(fault: Fault) -> str:
    """The field by which servers leave or join in ``fault``; empty where none does."""
    if not fault.servers:
        return ""
    if fault.kind in ("leave", "join"):
        return "kind"
    return "leave" if fault.leave else "join" if fault.arrivals else ""


def late_servers(faults: Iterable[Fault]) -> frozenset[int]:
    """Servers that are not there at the start: they join before they ever leave, or join by rate."""
    first: dict[int, str] = {}
    arriving: set[int] = set()
    for _, kind, server in _moments(faults):
        if kind in ("leave", "join"):
            first.setdefault(server, kind)
    for fault in faults:
        if fault.arrivals:
            arriving |= set(fault.servers)
    return frozenset(arriving | {server for server, kind in first.items() if kind == "join"})


def keeper(server: int, there: Collection[int], places: Iterable[int]) -> int:
    """On whose machine the slice of ``server``, which is away, is to live.

    there: servers that are there; places: where the other slices live, by server.
    """
    slices = Counter(places)
    return min(there, key=lambda other: (slices[other], other < server, other))


def _moments(faults: Iterable[Fault]) -> Iterator[tuple[float, str, int]]:
    """(time, kind, server) of all that servers are scheduled to do, in order.

    What is due at once happens as it is listed, whoever comes back last. ``return``: back after a leave;
    ``back``: after a crash.
    """
    found: list[tuple[float, str, int]] = []
    for fault in faults:
        if fault.at is None or fault.kind not in ("crash", "leave", "join"):
            continue
        for server in fault.servers:
            found.append((fault.at, fault.kind, server))
            if fault.back is not None:
                comes = "back" if fault.kind == "crash" else "return"
                found.append((fault.at + fault.back, comes, server))
    return iter(sorted(found, key=lambda one: (one[0], one[1] in ("back", "return"))))


def check_servers(faults: Sequence[Fault], servers: int) -> None:
    """Raise ``ScenarioError`` for leaves and joins that cannot happen among so many ``servers``."""
    if not moves(faults):
        return
    by_rate = {s for fault in faults if fault.kind == "churn" and moved_by(fault) for s in fault.servers}
    away, down = set(late_servers(faults)), set[int]()
    if len(away) == servers:
        raise ScenarioError("faults", hint="all servers join later: one must be there from the start")
    for moment, kind, server in _moments(faults):
        who, sure = f"server {server}", server not in by_rate
        if kind in ("join", "return"):
            if sure and server not in away:
                why = f"{who} joins at {moment:g} s, but it has not left before and does not start late"
                raise ScenarioError("faults", hint=why)
            away.discard(server)
        elif kind == "leave":
            refused = f"{who} cannot leave at {moment:g} s: "
            if sure and server in away:
                raise ScenarioError("faults", hint=f"{refused}it is not there")
            if sure and server in down:
                raise ScenarioError("faults", hint=f"{refused}it has crashed and is not back yet")
            away.add(server)
            if len(away) == servers and not by_rate:
                raise ScenarioError(
                    "faults", hint=f"{refused}it is the last one, and somebody must keep the model"
                )
        elif kind == "crash":
            down.add(server)
        else:
            down.discard(server)
