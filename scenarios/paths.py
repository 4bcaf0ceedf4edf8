"""Paths between machines: the links beyond their NICs, with rate, latency and overhead of their own.

Rules this module obeys:

* A place is where machines stand: a rack with its up-link, a site, or the core that joins all racks.
  Within a place there is nothing but the machines' NICs; from one place to another a path leaves
  through one up-link, crosses the WAN where the sites differ, and enters through the other up-link.
* Between sites messages take the way of least latency; of equal ones that with the fewest links, then
  the one met first. Links without capacity carry nothing, so no way leads over them.
* Nothing is kept per pair of machines: a path costs two look-ups and, once for each pair of sites, a
  search (Dijkstra 1959).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from scenarios.errors import ScenarioError

__all__ = ["Path", "Paths", "Place", "Wire"]


@dataclass(frozen=True)
class Wire:
    """One direction of a link beyond the NICs.

    name      in records: ``rack3 up``, ``east > west``
    rate      bytes/s; 0: it is down
    latency   seconds that it adds to every message; overhead: seconds per message, in its slot
    field     where the scenario describes it, for errors
    """

    name: str
    rate: float
    latency: float = 0.0
    overhead: float = 0.0
    field: str = ""


@dataclass(frozen=True)
class Place:
    """Where machines stand. ``up`` and ``down``, seen from it, are None where nothing limits it."""

    name: str
    site: int = 0
    up: Wire | None = None
    down: Wire | None = None


@dataclass(frozen=True)
class Path:
    """What lies between two NICs: the links in order, and the sums of their latencies and overheads."""

    wires: tuple[Wire, ...] = ()
    latency: float = 0.0
    overhead: float = 0.0


NOTHING = Path()


def _joined(wires: Iterable[Wire | None]) -> Path:
    found = tuple(wire for wire in wires if wire is not None)
    return Path(found, sum(wire.latency for wire in found), sum(wire.overhead for wire in found))


class Paths:
    """All paths of a cluster.

    places  where machines stand; where: index of each machine's place
    sites   names of the sites; wan: (site index from, to, link), each direction by itself
    """

    def __init__(
        self,
        places: Sequence[Place],
        where: Sequence[int],
        sites: Sequence[str] = (),
        wan: Sequence[tuple[int, int, Wire]] = (),
    ) -> None:
        self.places, self.where, self.sites = tuple(places), tuple(where), tuple(sites)
        self._wan = tuple(wan)
        self._out: list[list[tuple[int, Wire]]] = [[] for _ in sites]
        for a, b, wire in wan:
            if wire.rate:
                self._out[a].append((b, wire))
        self._ways: dict[int, dict[int, tuple[Wire, ...]]] = {}

    def between(self, a: int, b: int) -> Path:
        """The path from machine ``a`` to machine ``b`` (indices), NICs left out."""
        i, j = self.where[a], self.where[b]
        if i == j:
            return NOTHING
        one, other = self.places[i], self.places[j]
        if one.site == other.site:
            return _joined((one.up, other.down))
        return _joined((one.up, *self.way(one.site, other.site), other.down))

    def way(self, a: int, b: int) -> tuple[Wire, ...]:
        """The WAN links from site ``a`` to site ``b`` (indices), where there is a way."""
        if a not in self._ways:
            self._ways[a] = self._search(a)
        return self._ways[a][b]

    def _search(self, start: int) -> dict[int, tuple[Wire, ...]]:
        """The best way from ``start`` to every site that can be reached."""
        found: dict[int, tuple[Wire, ...]] = {}
        count = 0
        heap: list[tuple[float, int, int, int, tuple[Wire, ...]]] = [(0.0, 0, 0, start, ())]
        while heap:
            latency, hops, _, site, way = heappop(heap)
            if site in found:
                continue
            found[site] = way
            for other, wire in self._out[site]:
                if other not in found:
                    count += 1
                    heappush(heap, (latency + wire.latency, hops + 1, count, other, (*way, wire)))
        return found

    def check(self, used: Sequence[int], names: Sequence[str]) -> None:
        """Raise ``ScenarioError`` where a node could not talk to another.

        ``used`` are the machines that hold nodes, ``names`` those of all machines.
        """
        first: dict[int, int] = {}
        for machine in used:
            first.setdefault(self.where[machine], machine)
        if len(first) < 2:
            return
        for index in first:
            place = self.places[index]
            for wire in (place.up, place.down):
                if wire is not None and not wire.rate:
                    hint = f"has no capacity but is in use: nodes in {place.name} talk to nodes elsewhere"
                    raise ScenarioError(wire.field, wire.rate, hint=hint)
        stands: dict[int, int] = {}
        for index, machine in first.items():
            stands.setdefault(self.places[index].site, machine)
        if len(stands) > 1:
            self._check_sites(stands, names)

    def _check_sites(self, stands: dict[int, int], names: Sequence[str]) -> None:
        """Every site that holds nodes reaches every other one, there and back."""
        start = min(stands)
        for forth in (True, False):
            reached = self._reach(start, forth, working=True)
            for site in sorted(stands):
                if site in reached:
                    continue
                one, other = (start, site) if forth else (site, start)
                way = f"from {self.sites[one]} to {self.sites[other]}"
                if site in self._reach(start, forth, working=False):
                    dead = next(
                        wire for a, b, wire in self._wan
                        if not wire.rate and ((a if forth else b) in reached)
                        and ((b if forth else a) not in reached)
                    )  # fmt: skip
                    hint = f"has no capacity but is in use: there is no other way {way}"
                    raise ScenarioError(dead.field, dead.rate, hint=hint)
                machine = names[stands[site]]
                hint = f"no link leads {way}: machine {machine}, at {self.sites[site]}, cannot be reached"
                raise ScenarioError("wan", hint=hint)

    def _reach(self, start: int, forth: bool, working: bool) -> set[int]:
        """Sites that can be reached from ``start`` (or, not ``forth``, from which it can be)."""
        out: dict[int, list[int]] = {}
        for a, b, wire in self._wan:
            if wire.rate or not working:
                out.setdefault(a if forth else b, []).append(b if forth else a)
        found, pending = {start}, [start]
        while pending:
            for other in out.get(pending.pop(), ()):
                if other not in found:
                    found.add(other)
                    pending.append(other)
        return found
