"""Who sends what to whom in an all-reduce, as data that the message program and the closed forms read.

Rules this module obeys:

* Members are known by their places 0 .. n-1. The tensor is cut into ``grain`` equal parts; an ``Op``
  names parts by number, so a schedule does not depend on the tensor.
* A member performs its lanes side by side, and what a lane holds in order. A lane is a tuple of phases,
  numbered alike for all members; in all ``count`` steps of a phase the same members send as many parts
  to the same members. So the first step of each phase tells what all of them cost.
* Every part is reduced at one place, which scales it to the mean and hands it to all others: the result
  is the same, bit for bit, everywhere.

Ring: Patarasuk and Yuan 2009. Halving-doubling: Rabenseifner 2004 (vector halving, distance doubling,
then the reverse) with the folding of Thakur, Rabenseifner and Gropp 2005, section 4.4, for n that is no
power of two. Hierarchical: reduce to a leader inside each machine, a ring among the leaders, and back.
The double tree stands in ``core.collectives.trees``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

__all__ = [
    "ADD", "ALGORITHMS", "FLUSH", "SCALE", "SEND", "TAKE",
    "Choice", "Op", "Phase", "Schedule", "Step", "groups_of", "halving_doubling", "hierarchical", "ring",
    "ring_steps",
]  # fmt: skip

ALGORITHMS = ("ring", "tree", "halving_doubling", "hierarchical")

SEND, ADD, TAKE, SCALE, FLUSH = range(5)
"""Kinds of ``Op``: send parts; receive and add them; receive and keep them; scale them to the mean; wait
until what was sent to the peer is delivered."""


@dataclass(frozen=True)
class Choice:
    """Which all-reduce a node takes part in; alike on all of them.

    algorithm   one of ``ALGORITHMS``
    machine_of  rank -> machine (any numbers); empty: every worker has one of its own
    chunk       bytes of the pieces in which the trees pipeline
    """

    algorithm: str = "ring"
    machine_of: tuple[int, ...] = ()
    chunk: float = 1e6


class Op(NamedTuple):
    """One thing that a member does: ``kind`` with parts ``start`` .. ``stop`` and member ``peer``.

    ``lane`` is the lane in which the receiver awaits it.
    """

    kind: int
    peer: int
    start: int
    stop: int
    lane: int = 0


Step = tuple[Op, ...]


@dataclass(frozen=True)
class Phase:
    """``count`` steps of one pattern; ``step(place, i)`` is what a member does in the i-th of them."""

    count: int
    step: Callable[[int, int], Step]


@dataclass(frozen=True)
class Schedule:
    """An all-reduce among ``members``, over ``grain`` parts; at most ``window`` undelivered per pair."""

    members: int
    grain: int
    lanes: tuple[tuple[Phase, ...], ...]
    window: float = 1

    def ops(self, lane: int, place: int) -> Iterator[Op]:
        """What the member at ``place`` does in a lane, in order."""
        for phase in self.lanes[lane]:
            for i in range(phase.count):
                yield from phase.step(place, i)


def ring_steps(members: int) -> int:
    """Messages that each member sends in one ring all-reduce: 2 (n - 1)."""
    return 2 * (members - 1)


def _ring_phase(places: Sequence[int]) -> Phase:
    """The ring over ``places``, one part for each; others have nothing to do."""
    n = len(places)
    index = {place: i for i, place in enumerate(places)}

    def step(place: int, i: int) -> Step:
        if place not in index:
            return ()
        own = index[place]
        gathering = i >= n - 1
        shift = i - n if gathering else i
        sent, got = (own - shift) % n, (own - shift - 1) % n
        ops = (
            Op(SEND, places[(own + 1) % n], sent, sent + 1),
            Op(TAKE if gathering else ADD, places[own - 1], got, got + 1),
        )
        return (*ops, Op(SCALE, place, got, got + 1)) if i == n - 2 else ops

    return Phase(ring_steps(n), step)


def ring(members: int) -> Schedule:
    """n-1 steps of reduce-scatter, n-1 of all-gather, an n-th of the tensor to the right in each."""
    lane = (_ring_phase(range(members)),) if members > 1 else ()
    return Schedule(members, members, (lane,))


def halving_doubling(members: int) -> Schedule:
    """Halve the vector and double the distance log2 p times, then the reverse; p is a power of two.

    A step is over when both its send and its receive are (``MPI_Sendrecv``).

    With n - p = r > 0 members too many, the even ones of the first 2 r fold their vector into their
    right-hand neighbour's before, and get the result from it after.
    """
    power = 1 << (members.bit_length() - 1)
    folded = members - power

    def rank(place: int) -> int:
        """Number among those that halve and double; -1 for those that are folded."""
        if place >= 2 * folded:
            return place - folded
        return place // 2 if place % 2 else -1

    def place_of(rank: int) -> int:
        return 2 * rank + 1 if rank < folded else rank + folded

    def halves(rank: int, level: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """(kept, given) parts of halving number ``level``."""
        kept, given = (0, power), (0, 0)
        for bit in range(level + 1):
            middle = (kept[0] + kept[1]) // 2
            lower, upper = (kept[0], middle), (middle, kept[1])
            kept, given = (upper, lower) if rank >> bit & 1 else (lower, upper)
        return kept, given

    def swap(level: int, halving: bool) -> Phase:
        """Halving, each gives one half away and adds up the other; doubling, they take them back."""

        def step(place: int, _: int) -> Step:
            own = rank(place)
            if own < 0:
                return ()
            kept, given = halves(own, level)
            peer = place_of(own ^ 1 << level)
            out, into = (given, kept) if halving else (kept, given)
            ops = (Op(SEND, peer, *out), Op(ADD if halving else TAKE, peer, *into), Op(FLUSH, peer, *out))
            return (*ops, Op(SCALE, place, *kept)) if halving and 2 << level == power else ops

        return Phase(1, step)

    def fold(place: int, _: int) -> Step:
        if place >= 2 * folded:
            return ()
        return (Op(ADD, place - 1, 0, power) if place % 2 else Op(SEND, place + 1, 0, power),)

    def unfold(place: int, _: int) -> Step:
        if place >= 2 * folded:
            return ()
        return (Op(SEND, place - 1, 0, power) if place % 2 else Op(TAKE, place + 1, 0, power),)

    levels = range(power.bit_length() - 1)
    lane = [swap(level, True) for level in levels] + [swap(level, False) for level in reversed(levels)]
    if folded:
        lane = [Phase(1, fold), *lane, Phase(1, unfold)]
    return Schedule(members, power, (tuple(lane),))


def groups_of(ranks: Sequence[int], machine_of: Sequence[int]) -> list[list[int]]:
    """Places of ``ranks`` by machine, in order of each machine's first; one each without ``machine_of``."""
    groups: dict[int, list[int]] = {}
    for place, rank in enumerate(ranks):
        groups.setdefault(machine_of[rank] if machine_of else rank, []).append(place)
    return list(groups.values())


def hierarchical(groups: Sequence[Sequence[int]]) -> Schedule:
    """Each group's first place adds up its group's tensors, they form a ring, and hand on the result."""
    leader = {place: group[0] for group in groups for place in group}
    leads = {group[0]: group[1:] for group in groups}
    count = len(groups)

    def reduce(place: int, _: int) -> Step:
        if leader[place] != place:
            return (Op(SEND, leader[place], 0, count),)
        added = tuple(Op(ADD, other, 0, count) for other in leads[place])
        return added if count > 1 else (*added, Op(SCALE, place, 0, 1))

    def broadcast(place: int, _: int) -> Step:
        if leader[place] != place:
            return (Op(TAKE, leader[place], 0, count),)
        return tuple(Op(SEND, other, 0, count) for other in leads[place])

    across = (_ring_phase(list(leads)),) if count > 1 else ()
    return Schedule(len(leader), count, ((Phase(1, reduce), *across, Phase(1, broadcast)),), inf)
