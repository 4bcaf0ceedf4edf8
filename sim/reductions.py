"""What an all-reduce takes by its schedule, when all workers are in step: alpha-beta closed forms.

Rules this module obeys:

* They read the schedules that the message program performs (``core.collectives.schedules``), so the two
  cannot disagree about who sends what to whom.
* A phase takes alpha + load: alpha is the largest latency among its transfers plus the overhead of the
  messages that share a NIC; the load is that of the link with the most bytes per capacity. Phases
  follow one another (Thakur, Rabenseifner and Gropp 2005).
* The trees are pipelined (Sanders, Speck and Traeff 2009): the first chunk goes up and down a tree on
  its longest way (2 h hops, where all take as long); after that the busiest link sets the pace, once
  per chunk.
* The scenario may give alpha, and the bandwidth of a connection; then links are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from math import ceil, isinf
from typing import TYPE_CHECKING, NamedTuple

from core.collectives import Choice, ring_steps, schedule_of
from core.collectives.schedules import SEND, Op, Schedule
from core.collectives.trees import Family, families
from scenarios.schema import Network as NetworkSettings
from sim.fluid import Link
from sim.network import Network, Pair

if TYPE_CHECKING:
    from sim.host import Host

__all__ = ["Cost", "reduction_cost", "ring_seconds"]

Cost = Callable[[float], float]
"""Bytes of a tensor -> seconds of its all-reduce."""


def ring_seconds(members: int, nbytes: float, alpha: float, bandwidth: float) -> float:
    """Seconds of a ring all-reduce of ``nbytes`` over ``members``: 2 (n-1) (alpha + nbytes/n/bandwidth)."""
    return ring_steps(members) * (alpha + nbytes / members / bandwidth) if members > 1 else 0.0


def reduction_cost(
    network: Network, settings: NetworkSettings, choice: Choice, members: Sequence[Host]
) -> Cost:
    """How long an all-reduce of ``choice`` among ``members`` (in order of rank) takes, by bytes."""
    if len(members) == 1:
        return lambda _: 0.0
    if choice.algorithm == "ring":
        return _ring(network, settings, members)
    if choice.algorithm == "tree":
        return _tree(network, settings, choice, members)
    ranks = tuple(host.id for host in members)
    return _phases(network, settings, schedule_of(choice, ranks, 0), members)


def _ring(network: Network, settings: NetworkSettings, members: Sequence[Host]) -> Cost:
    """alpha: largest latency plus overhead; bandwidth: of the link with the least room per connection."""
    uses: dict[Link, int] = {}
    latency, count = 0.0, len(members)
    for i, host in enumerate(members):
        pair = network.pair(host, members[(i + 1) % count])
        latency = max(latency, pair.latency + pair.overhead)
        for link in pair.path:
            uses[link] = uses.get(link, 0) + 1
    alpha = settings.allreduce_alpha or latency
    rate = settings.allreduce_bandwidth or min(link.capacity / shared for link, shared in uses.items())
    return lambda nbytes: ring_seconds(count, nbytes, alpha, rate)


class _Load(NamedTuple):
    """What transfers that go on at once cost.

    alpha      seconds before the bytes of the last one move
    per_byte   seconds per byte of the whole tensor, on the busiest link
    sharing    most messages in one NIC direction; serial: most from one member to one other
    overhead   the largest per message, seconds
    """

    alpha: float
    per_byte: float
    sharing: int
    serial: int
    overhead: float


def _load(
    network: Network, settings: NetworkSettings, members: Sequence[Host], sends: Iterable[tuple[int, Op]],
    grain: int,
) -> _Load:  # fmt: skip
    """What transfers (from place, op) that go on at once cost."""
    shares: dict[Link, float] = {}
    uses: dict[Link, int] = {}
    between: dict[tuple[int, int], int] = {}
    latency = overhead = largest = 0.0
    for place, op in sends:
        between[place, op.peer] = between.get((place, op.peer), 0) + 1
        source, target = members[place], members[op.peer]
        pair = source.pairs.get(target.id) or Pair(network, source, target)
        latency, overhead = max(latency, pair.latency), max(overhead, pair.overhead)
        share = (op.stop - op.start) / grain
        largest = max(largest, share)
        for link in pair.path:
            shares[link] = shares.get(link, 0.0) + share
        if not pair.direct:
            for link in (pair.path[0], pair.path[-1]):
                uses[link] = uses.get(link, 0) + 1
    if not shares:
        return _Load(0.0, 0.0, 0, 0, 0.0)
    sharing = max(uses.values(), default=1)
    serial = max(between.values())
    alpha = settings.allreduce_alpha or latency + max(1, ceil(sharing / network.slots)) * overhead
    rate = settings.allreduce_bandwidth
    load = largest / rate if rate else max(share / link.capacity for link, share in shares.items())
    return _Load(alpha, load, sharing, serial, overhead)


def _phases(network: Network, settings: NetworkSettings, schedule: Schedule, members: Sequence[Host]) -> Cost:
    """The phases of the only lane, one after the other."""
    alpha = per_byte = 0.0
    for phase in schedule.lanes[0]:
        sends = [(p, op) for p in range(len(members)) for op in phase.step(p, 0) if op.kind == SEND]
        load = _load(network, settings, members, sends, schedule.grain)
        alpha += phase.count * load.alpha
        per_byte += phase.count * load.per_byte
    return lambda nbytes: alpha + nbytes * per_byte


def _tree(network: Network, settings: NetworkSettings, choice: Choice, members: Sequence[Host]) -> Cost:
    """The first chunk goes up and down the longer way; the others as fast as the busiest link takes them.

    Under ``fifo`` the overhead of a message keeps a NIC busy, under k beside others; under ``fair`` no
    message asks ahead, so that those between the same two members pay their latency one by one.
    """
    places, ranks = range(len(members)), tuple(host.id for host in members)
    trees = families(len(members))

    @cache
    def seconds(nbytes: float) -> float:
        schedule = schedule_of(choice, ranks, nbytes)
        firsts = [phase.step(p, 0) for (phase,) in schedule.lanes for p in places]
        sends = [(i % len(places), op) for i, step in enumerate(firsts) for op in step if op.kind == SEND]
        load = _load(network, settings, members, sends, schedule.grain)
        chunks = schedule.grain // 2

        @cache
        def hop(place: int, peer: int) -> float:
            pair = members[place].pairs.get(members[peer].id) or Pair(network, members[place], members[peer])
            rate = settings.allreduce_bandwidth or min(link.capacity for link in pair.path)
            return (settings.allreduce_alpha or pair.latency + pair.overhead) + nbytes / 2 / chunks / rate

        slot = nbytes * load.per_byte
        overhead = 0.0 if settings.allreduce_alpha else load.overhead
        if isinf(network.slots):
            slot = max(slot, load.serial * max(hop(place, op.peer) for place, op in sends))
        elif network.slots > 1:
            slot = max(slot, load.sharing / network.slots * overhead)
        else:
            slot += load.sharing * overhead
        return max(_round_trip(tree, hop) for tree in trees) + (chunks - 1) * slot

    return seconds


def _round_trip(tree: list[Family], hop: Callable[[int, int], float]) -> float:
    """Up a tree and down again on its longest way, by the seconds of each hop."""
    longest = 0.0
    ways = [(place, 0.0) for place, (parent, _) in enumerate(tree) if parent < 0]
    while ways:
        place, way = ways.pop()
        longest = max(longest, way)
        ways += [(child, way + hop(child, place) + hop(place, child)) for child in tree[place].children]
    return longest
