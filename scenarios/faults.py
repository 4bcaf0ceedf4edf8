"""Faults: who crashes, leaves, joins, comes back or falls silent, and when. Data that both drivers inject.

Rules this module obeys:

* A fault names its victims by rank (or server number) and its moment by time or by step, or gives rates.
* Times by rate are exponential, from streams named by (seed, purpose, rank): what happens to one rank
  never changes what happens to another.
* Silence, of a node that is frozen or cut off, loses nothing; but whoever is silent for longer than
  ``run.heartbeat_timeout`` is taken for dead that long after it fell silent, and is gone for good.
* A plan that cannot happen is refused: nobody of that name, who is away cannot go, who is there cannot
  come, and somebody must be left to go on (of servers: ``scenarios.server_churn``).

=========  =============================================================================================
kind       what happens
=========  =============================================================================================
``crash``  dies at once; what it had not delivered is lost
``leave``  finishes its step, sends what it has to send, says goodbye; a server hands its slice over
``join``   starts late, or comes again after it has gone
``churn``  every rank crashes and leaves at ``crash`` and ``leave`` (rates), again and again; who is away
           comes after ``back`` seconds, or at ``join`` (a rate). With ``join`` alone all start late
``freeze`` stops for ``back`` seconds, then goes on where it was
``cut``    goes on, but for ``back`` seconds nothing moves to or from it; what was to move does so later
=========  =============================================================================================
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from core.node import Algorithm
from scenarios.errors import ScenarioError
from scenarios.fields import LARGEST, check, choice, integer, numbers, of_kind, real
from scenarios.machines import MOST
from scenarios.server_churn import check_servers
from scenarios.units import DIMENSIONS

__all__ = ["SILENT", "Fault", "check_faults", "coming", "late", "rate", "returns", "silences", "too_long"]

SILENT = ("freeze", "cut")
"""Kinds after which a node is silent for a while."""

KINDS = ("crash", "leave", "join", "churn", *SILENT)

RATES = ("crash", "leave", "join")
"""Fields of ``churn``."""

_RATE = re.compile(r"\s*([-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(?:per|/)\s*(\S+)\s*", re.ASCII)
_LONG = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "d": 86400.0, "day": 86400.0, "week": 604800.0}
_PER = {unit: float(seconds) for unit, seconds in DIMENSIONS["seconds"].items()} | _LONG
MOST_OFTEN = 1000.0
"""Events per second of one rank, at most."""


def rate(value: Any, name: str) -> float:
    """A kind of field: events per second; text such as ``0.5 per hour`` or ``2/min``."""
    valid = "a rate of at least 0, such as '0.5 per hour'"
    found: float = math.nan
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST["seconds"]:
        found = float(value)
    elif isinstance(value, str):
        match = _RATE.fullmatch(value)
        if match is not None and match[2] in _PER:
            found = float(match[1].replace("_", "")) / _PER[match[2]]
        elif match is not None:
            raise ScenarioError(name, value, f"{valid}; units: {', '.join(_PER)}")
    if not 0 <= found < math.inf:
        raise ScenarioError(name, value, valid)
    if found > MOST_OFTEN:
        raise ScenarioError(name, value, f"a rate of at most {MOST_OFTEN:g} per second")
    return found


def _maybe(reads: Any) -> Any:
    """A field that may be left out (None)."""
    return of_kind(None, lambda value, name: None if value is None else reads(value, name))


_seconds = real(dimension="seconds", low=0.0)
_later = real(dimension="seconds", above=0.0)


@dataclass(frozen=True)
class Fault:
    """One line of ``faults``.

    kind     crash | leave | join | churn | freeze | cut
    ranks    workers it befalls, also as text such as ``8-15``; ``churn``: left out, all of them
    servers  servers it befalls, by number from 0
    at       seconds; of ``churn``: from when on
    step     instead of ``at``: when the worker has completed so many steps
    back     seconds after which the victim comes back; left out: never. ``freeze``, ``cut``: how long
    crash, leave  rates of ``churn``: events per second of each rank or server, or ``0.5 per hour``
    join     likewise, of each that is away: instead of ``back``, or alone, of those that start late
    checkpoint_every  seconds between a real server's checkpoints; 0: as often as its journal has grown enough
    """

    kind: str = choice("crash", *KINDS)
    ranks: tuple[int, ...] = of_kind((), numbers(MOST))
    servers: tuple[int, ...] = of_kind((), numbers(MOST))
    at: float | None = _maybe(_seconds)
    step: int | None = _maybe(integer(1))
    back: float | None = _maybe(_later)
    crash: float = of_kind(0.0, rate)
    leave: float = of_kind(0.0, rate)
    join: float = of_kind(0.0, rate)
    checkpoint_every: float = of_kind(0.0, _seconds)

    NOT: ClassVar[dict[str, tuple[str, ...]]] = {
        "crash": RATES,
        "leave": (*RATES, "checkpoint_every"),
        "join": (*RATES, "checkpoint_every", "step", "back"),
        "churn": ("step",),
        "freeze": (*RATES, "checkpoint_every"),
        "cut": (*RATES, "checkpoint_every", "step"),
    }
    """Fields that a kind does not have."""

    def __post_init__(self) -> None:
        check(self)
        for name in self.NOT[self.kind]:
            if getattr(self, name):
                raise ScenarioError(name, getattr(self, name), f"nothing: kind {self.kind} has no such field")
        for name in ("ranks", "servers"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ScenarioError(name, getattr(self, name), "every number once")
        if self.kind == "churn":
            self._check_rates()
        else:
            self._check_moment()
        if 0 < self.checkpoint_every < 1e-3:
            raise ScenarioError("checkpoint_every", self.checkpoint_every, "0 or at least 1 ms")
        if self.checkpoint_every and not (self.servers and (self.kind == "crash" or self.crash)):
            raise ScenarioError("checkpoint_every", self.checkpoint_every, "nothing where no server crashes")

    @property
    def arrivals(self) -> bool:
        """Whether its ranks, or servers, start late, and join by rate."""
        return bool(self.join) and not (self.crash or self.leave)

    def _check_rates(self) -> None:
        if not (self.crash or self.leave or self.join):
            raise ScenarioError("crash", self.crash, "a rate above 0 for crash, leave or join")
        if self.servers and self.ranks:
            raise ScenarioError("servers", self.servers, "a churn of their own, without ranks")
        if self.join and self.back is not None:
            raise ScenarioError("join", self.join, f"nothing beside back ({self.back:g} s): one of the two")
        if self.arrivals and not (self.ranks or self.servers):
            valid = "the ranks that start late and join at this rate (or servers)"
            raise ScenarioError("ranks", self.ranks, valid)

    def _check_moment(self) -> None:
        if self.at is not None and self.step is not None:
            raise ScenarioError("step", self.step, f"nothing beside at ({self.at:g} s): one of the two")
        if self.at is None and self.step is None:
            needs = "at" if self.kind in ("join", "cut") or self.servers else "at or step"
            raise ScenarioError("at", hint=f"{needs} is missing: when does this {self.kind} happen?")
        if self.ranks and self.servers:
            raise ScenarioError("servers", self.servers, "a fault of their own, without ranks")
        if not self.ranks and not self.servers:
            raise ScenarioError("ranks", self.ranks, f"the ranks that this {self.kind} befalls")
        if self.servers and self.step is not None:
            raise ScenarioError("step", self.step, "at (a time) for servers, which make no steps")
        if self.kind in SILENT and self.back is None:
            raise ScenarioError("back", hint=f"back is missing: how long does this {self.kind} last?")
        if self.kind == "join" and self.at == 0:
            raise ScenarioError("at", self.at, "a time above 0: who is there from the start needs no join")

    def compact(self) -> dict[str, Any]:
        """Only what is said."""
        said = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in said.items() if name == "kind" or value not in (None, (), 0.0)
                or (name == "at" and value is not None)}  # fmt: skip


def late(faults: Iterable[Fault]) -> frozenset[int]:
    """Ranks that are not there at the start: their first event by time is a join, and none by step is
    listed before it; or they join by rate."""
    timed: dict[int, str] = {}
    for _, kind, rank in _moments(faults):
        timed.setdefault(rank, kind)
    listed: dict[int, bool] = {}
    for fault in faults:
        for rank in fault.ranks:
            listed.setdefault(rank, fault.step is not None)
    first = {rank for rank, kind in timed.items() if kind == "join" and not listed[rank]}
    return frozenset(first | _arriving(faults))


def _arriving(faults: Iterable[Fault]) -> set[int]:
    """Ranks that start late and join by rate."""
    return {rank for fault in faults if fault.arrivals for rank in fault.ranks}


def returns(faults: Iterable[Fault]) -> bool:
    """Whether any worker may come while the run is under way."""
    return any(
        not f.servers and (f.kind == "join" or f.join or (f.back is not None and f.kind not in SILENT))
        for f in faults
    )


def coming(fault: Fault) -> str:
    """The field by which workers come in a fault that lets any come."""
    return "kind" if fault.kind == "join" else "join" if fault.join else "back"


def silences(faults: Iterable[Fault]) -> bool:
    """Whether any node falls silent."""
    return any(fault.kind in SILENT for fault in faults)


def too_long(silence: float, timeout: float) -> bool:
    """Whether so many seconds of silence, a sum of times perhaps, exceed ``run.heartbeat_timeout``."""
    return silence > timeout * (1 + 1e-12)


def _moments(faults: Iterable[Fault], timeout: float = math.inf) -> Iterator[tuple[float, str, int]]:
    """(time, kind, rank) of all that workers are scheduled to do by time, in order; ``back`` is a join.

    What is due at once happens as it is listed, whoever comes back last. A silence of more than
    ``timeout`` seconds ends in a crash; shorter ones are left to themselves.
    """
    found: list[tuple[float, str, int]] = []
    for fault in faults:
        if fault.kind == "churn" or fault.at is None:
            continue
        for rank in fault.ranks:
            found.append((fault.at, fault.kind, rank))
            if fault.kind in SILENT:
                assert fault.back is not None
                if too_long(fault.back, timeout):
                    found.append((fault.at + timeout, "crash", rank))
            elif fault.back is not None:
                found.append((fault.at + fault.back, "back", rank))
    return iter(sorted(found, key=lambda one: (one[0], one[1] == "back")))


def check_faults(
    faults: Sequence[Fault], workers: int, servers: int, algorithm: Algorithm, timeout: float = math.inf
) -> None:
    """Raise ``ScenarioError`` for faults that cannot happen in a cluster of so many workers and servers.

    servers is 0 where the algorithm has none; what comes while it runs it must be able to take in.
    timeout: seconds of silence after which a node is taken for dead.
    """
    joins = getattr(algorithm, "joins", False)
    for i, fault in enumerate(faults):
        for name, count in (("ranks", workers), ("servers", servers)):
            for number in getattr(fault, name):
                if number >= count:
                    valid = f"numbers below {count}" if count else f"nothing: {algorithm.name} has no servers"
                    raise ScenarioError(f"faults[{i}].{name}", number, valid)
        if returns([fault]) and not joins:
            field = coming(fault)
            why = f"{algorithm.name} takes in nobody while it runs (docs/churn.md says who does)"
            raise ScenarioError(f"faults[{i}].{field}", getattr(fault, field), f"no joins or returns: {why}")
    _check_order(faults, workers, algorithm.centralized, timeout)
    check_servers(faults, servers)


def _check_order(faults: Sequence[Fault], workers: int, centralized: bool, timeout: float) -> None:
    """Who is there can go, who has gone can come; and never is nobody left."""
    by_step = {rank for fault in faults if fault.step is not None for rank in fault.ranks}
    churned = any(fault.kind == "churn" and not fault.servers for fault in faults)
    away = set(late(faults))
    if len(away) == workers:
        raise ScenarioError("faults", hint="all workers join later: somebody must be there from the start")
    arriving = _arriving(faults)
    away -= arriving  # some time or other
    for moment, kind, rank in _moments(faults, timeout):
        unsure = churned or rank in by_step
        if kind in ("join", "back"):
            if rank not in away and not unsure:
                where = f"rank {rank} joins at {moment:g} s"
                raise ScenarioError(
                    "faults", hint=f"{where}, but it has not left before and does not start late"
                )
            away.discard(rank)
            continue
        if rank in away and not unsure:
            verb = "be cut off" if kind == "cut" else kind
            raise ScenarioError("faults", hint=f"rank {rank} cannot {verb} at {moment:g} s: it is not there")
        if kind in SILENT:
            continue
        away.add(rank)
        if len(away) == workers and not (centralized and _comes(faults, moment)):
            raise ScenarioError(
                "faults", hint=f"nobody is left at {moment:g} s: all workers have gone by then"
            )
    gone = away | {rank for f in faults if f.step is not None and _for_good(f, timeout) for rank in f.ranks}
    joined = arriving | {rank for f in faults if f.kind == "join" for rank in f.ranks}
    if len(gone - joined | away) == workers:
        raise ScenarioError("faults", hint="nobody is left in the end: all workers go, and none comes back")


def _for_good(fault: Fault, timeout: float) -> bool:
    """Whether its victims do not come back."""
    if fault.kind in SILENT:
        return fault.back is not None and too_long(fault.back, timeout)
    return fault.back is None


def _comes(faults: Sequence[Fault], after: float) -> bool:
    """Whether any worker is scheduled to come after that time."""
    return any(kind in ("join", "back") and moment > after for moment, kind, _ in _moments(faults))
