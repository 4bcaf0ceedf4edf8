"""Faults in virtual time: workers crash, leave, join, come back and fall silent while a run is under way.

Rules this module obeys:

* One alarm stands for all that is to come: the timetable's next event. The run is over when nobody is
  there any more and nobody can come, or somebody has met its budget; what was due later does not happen.
* Who comes back is a new incarnation: a new node with new programs. Nothing of what was under way to or
  from the old one reaches it, nor what somebody answers to the old one (``Roster.back``).
* A worker that leaves is told at its next ``Compute`` that it has finished.
* Under a collective, a joiner becomes a member at the moment at which the peer that it asked begins a
  step: it gets what that peer begins the step with, and both are in the same round from then on.
* A joiner's request counts only while it waits for that peer: what arrives after it has asked another one,
  because that peer has gone, says nothing.
* Servers are told of a joiner when it comes, for it asks them; peers when it has its parameters.
* Without servers, peers answer joiners without their programs' knowledge, as a transport would.
* Servers that leave and join are ``sim.moving``'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

from core.effects import Poll, Receive
from core.joining import JOIN, STATE, enter, state
from core.node import Message, Program
from core.record import EVENT_COLUMNS, EVENTS, PARTS, Record, StepLog
from scenarios.faults import late, silences
from scenarios.plan import Plan
from scenarios.server_churn import late_servers, moves
from scenarios.streams import stream
from scenarios.timetable import Event, Timetable
from sim.alarm import Alarm
from sim.driver import Driver
from sim.endpoint import Endpoint
from sim.errors import ServerLost
from sim.frozen import KINDS_OF_SILENCE, Silences, StoppablePump, wake_up
from sim.host import Host
from sim.moving import Move, Moves
from sim.network import Transfer
from sim.outages import Outage
from sim.programs import Pump
from sim.silence import resting

__all__ = ["Faulty", "FaultyHost"]

PATIENCE = 1000
"""Events in a row after which nothing moves: then the run is stuck, and no further event is waited for."""

NOTHING = (0.0,) * (len(PARTS) - 1)


class FaultyHost(Host):
    """A node that may have several lives.

    incarnation  how many lives it had before this one
    going        it leaves at its next ``Compute``; after: and comes back so many seconds later
    entering     it is there, but has no parameters yet
    askers       joiners that wait for its parameters: (rank, incarnation)
    freezes, cuts  when each of the silences that it is in ends, seconds
    silent_since, frozen_since  when the last ones began; expires: it will be taken for dead for the former
    stopped      seconds for which it has been frozen, all together, but for a freeze under way
    missed, postponed  alarms that went off, programs that were woken, during that one: with the time
    move         a server's, while its slice is on its way; resting: its programs wait for that
    """

    __slots__ = (
        "after", "askers", "blended", "carried", "cuts", "driver", "entering", "expires", "freezes",
        "frozen_since", "going", "incarnation", "missed", "move", "past", "postponed", "resting",
        "silent_since", "stopped",
    )  # fmt: skip

    driver: Faulty

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.going = self.entering = False
        self.after: float | None = None
        self.incarnation = self.past = self.blended = 0
        self.carried = NOTHING
        self.askers: list[tuple[int, int]] = []
        self.sources = []
        self.freezes: list[float] = []
        self.cuts: list[float] = []
        self.stopped = self.silent_since = self.frozen_since = 0.0
        self.expires = self.resting = False
        self.move: Move | None = None
        self.missed: list[tuple[Any, float]] = []
        self.postponed: list[tuple[Pump, Any, float]] = []

    @property
    def silent(self) -> bool:
        """Whether nothing moves to or from it."""
        return bool(self.freezes or self.cuts)

    @property
    def callers(self) -> list[Endpoint]:
        """Nodes that have a connection to it."""
        return self.sources or []

    @property
    def made(self) -> int:
        return self.past + (0 if self.entering else self.node.step - self.base)

    @property
    def mixed(self) -> int:
        return self.blended + self.node.blends

    @property
    def absent(self) -> bool:
        return self.crashed or self.entering or (self.ended and self.going)

    @property
    def deaf(self) -> bool:
        return self.crashed or self.entering

    def block(self, want: Receive | Poll | None) -> None:
        super().block(want)
        if self.move is not None:
            self.move.rest()

    def resume(self) -> None:
        """Its programs, which had to rest, go on; those of a frozen node when it goes on."""
        self.resting = False
        wake_up(self)

    def unrecorded(self) -> tuple[float, ...]:
        return tuple(a + b for a, b in zip(self.carried, super().unrecorded(), strict=True))

    def delivered(self, transfer: Transfer) -> None:
        if transfer.message.tag == JOIN and not self.server:
            transfer.pair.read()
            self.driver.asked(self, transfer.message.source)
        else:
            super().delivered(transfer)

    def begin_again(self, now: float) -> None:
        """Keep what the last life adds to the record, and forget everything else of it."""
        self.past, self.blended, self.carried = self.made, self.mixed, self.unrecorded()
        self.compute = self.update = self.send = self.wait = self.receive = 0.0
        self.row = self.mark = now
        self.base = self.blends = self.matched = 0
        self.want = self.backward = self.pieces = None
        self.ended = self.crashed = self.leaving = self.watching = self.blocked = self.going = False
        self.after = None
        for things in (self.inbox, self.waiting, self.senders, self.incoming, self.askers):
            things.clear()
        for source in self.callers:
            source.pairs[self.id].unread = 0


class Faulty(Driver):
    """A run with the faults of its scenario."""

    kind_of_host = FaultyHost
    hosts: list[FaultyHost]  # type: ignore[assignment]

    def __init__(self, plan: Plan, **options: Any) -> None:
        faults = plan.scenario.faults
        self.late = late(faults)
        self.present = plan.workers - len(self.late)
        self.finished = False
        self.returning: set[FaultyHost] = set()
        """Those that have left, are still delivering, and come back some time after that."""
        self.kind_of_pump = StoppablePump if silences(faults) or moves(faults) else Pump
        super().__init__(plan, **options)
        if silences(faults):
            resting(self.network)
        self.silences = Silences(self, plan.scenario.run.heartbeat_timeout, self.note)
        self.events = StepLog(EVENT_COLUMNS)
        self.timetable = Timetable(faults, plan.workers, plan.scenario.run.seed)
        self._due, self._still = inf, 0
        self._alarm = _Next(self)
        self.down: dict[FaultyHost, Outage] = {}
        for host in self.hosts:
            host.driver = self
        self.moves = Moves(self, late_servers(faults)) if moves(faults) else None
        self.past = self.moves.past if self.moves is not None else None
        for rank in self.late:
            host = self.hosts[rank]
            host.ended = host.crashed = True
            host.incarnation = -1
            self.active.pop(host)
            self.roster.departed.add(rank)
            self.roster.quiet = False

    def run(self) -> Record:
        self._wait()
        return super().run()

    def _wait(self) -> None:
        """Be called at the next event, if the run may last until then."""
        due = self.timetable.next
        if due < self._due and not self._over():
            self._due = due
            self.clock.at(due, self._alarm)

    @property
    def lasts(self) -> bool:
        """Whether anybody is there, or may come, or has not delivered everything yet."""
        return not self._over() or any(host.leaving for host in self.hosts)

    def _over(self) -> bool:
        if self.present or self.down or self.silences.hold_up or (self.returning and not self.finished):
            return False
        return self.finished or not self.timetable.coming

    def happen(self) -> None:
        """What is due now."""
        now = self.clock._now
        if now < self._due:
            return
        self._due = inf
        while self.timetable.next <= now and not self._over():
            self._befall(self.timetable.pop())
        if self.clock._queue:
            self._still = 0
        elif not (self.timetable.coming or self.silences):  # nobody is to come who could set things going
            self._still += 1
        if self._still < PATIENCE:
            self._wait()

    def _befall(self, event: Event) -> None:
        host = self.hosts[event.node]
        if event.kind in KINDS_OF_SILENCE:
            self.silences.befall(host, event)
        elif host.server:
            self._befall_server(host, event)
        elif event.kind in ("join", "back"):
            if host.crashed or host.going:  # it has gone or is about to; who met its budget does not come
                host.after = 0.0
                if host.ended and not host.leaving and host.id in self.roster.departed:
                    self._come(host)
        elif not host.ended:
            if event.kind == "leave":
                host.going = True
            host.after = event.back
            if event.kind == "crash":
                self.lose(host)

    def _befall_server(self, host: FaultyHost, event: Event) -> None:
        now, down = self.clock._now, self.down
        if event.kind in ("leave", "join", "return"):
            assert self.moves is not None
            self.moves.befall(host, event)
        elif event.kind == "back" and host in down:
            host.incarnation += 1
            self.note(host, "join")
            outage = down.pop(host)
            if self.moves is not None:
                self.moves.go_on(host, outage)
            else:
                outage.end(now)
        elif event.kind == "crash" and host not in down:
            self.note(host, "crash")
            if event.back is None:
                raise ServerLost(now, host.id - self.workers, host.id)
            self.silences.crash(host)
            moving = self.moves.crash(host) if self.moves is not None else None
            down[host] = moving or Outage(self.network, host, self.hosts[: self.workers])
            self.timetable.add(Event(now + event.back, "back", host.id, None, event.fault))

    def note(self, host: FaultyHost, event: str) -> None:
        assert self.events is not None
        self.events.append((self.clock._now, host.id, EVENTS.index(event), host.incarnation))

    def exhausted(self, host: Host) -> bool:
        assert isinstance(host, FaultyHost)
        due = self.timetable.by_step.get(host.id)
        while due and due[-1][0] <= host.node.step:
            _, kind, back, fault = due.pop()
            if kind == "leave":
                host.going, host.after = True, back
            else:
                self.timetable.add(Event(self.clock._now, kind, host.id, back, fault))
                self._wait()
        if host.going or super().exhausted(host):
            return True
        for rank, incarnation in host.askers:
            self._hand_over(host, rank, incarnation)
        host.askers.clear()
        return False

    # Those who go

    def ended(self, pump: Pump) -> None:
        host = pump.host
        assert isinstance(host, FaultyHost)
        if pump.main and not host.server:
            self.present -= 1
            self.finished = self.finished or not host.going
            if host.going:
                self.note(host, "leave")
                if host.after is not None:
                    self.returning.add(host)
        super().ended(pump)

    def lose(self, host: Host) -> None:
        assert isinstance(host, FaultyHost)
        if not host.ended:
            self.note(host, "crash")
            self.present -= not host.server
        super().lose(host)
        self.silences.crash(host)

    def others(self, host: Host) -> Sequence[Endpoint]:
        assert isinstance(host, FaultyHost)
        return host.callers

    def depart(self, host: Host) -> None:
        super().depart(host)
        assert isinstance(host, FaultyHost)
        self.returning.discard(host)
        if host.after is not None and not host.server:
            self.timetable.add(Event(self.clock._now + host.after, "back", host.id, None, 0))
            self._wait()
        if self.moves is not None and not self._live and not self.lasts:
            self.moves.finish()

    # Those who come

    def _come(self, host: FaultyHost) -> None:
        """Worker ``host`` is there (again), without parameters."""
        now, roster, algorithm = self.clock._now, self.roster, self.plan.algorithm
        for pump in host.programs:
            pump.stop()
            roster.listening.pop(pump, None)
        self.relieve(host)
        entering, host.entering = host.entering, True  # deaf: who gets room by this must not send to it
        self.network.drop(host, host.callers)
        host.entering = entering
        host.begin_again(now)
        host.incarnation += 1
        host.entering = True
        self.present += 1
        self._seat(host, self._live if algorithm.centralized else self._live | {host.id})
        if host.incarnation:
            seed, lives = self.plan.scenario.run.seed, host.incarnation
            host.node.stream = lambda node, purpose: stream(seed, node, f"{purpose}, life {lives}")
        host.own_live = not algorithm.centralized
        if not algorithm.centralized:
            host.node.weight = 0.0
        if not algorithm.collective:
            self._activate(host)
        host.heard = host.greeted = len(roster.log)
        host.told = inf if algorithm.centralized else len(roster.log)
        self.note(host, "join")
        host.programs = [self.kind_of_pump(self, host, self._life(host), True)]
        if algorithm.centralized:
            self._welcome(host)
        host.programs[0].run(None)

    def _welcome(self, host: FaultyHost) -> None:
        """Tell everybody that ``host`` has joined."""
        self._live.add(host.id)
        self.tell(self.roster.join(host.id))

    def _life(self, host: FaultyHost) -> Program:
        """A joiner's main program: get the parameters, then do as everybody does."""
        node, algorithm = host.node, self.plan.algorithm
        while not (yield from enter(node, getattr(algorithm, "enter", None))) and self._live - {host.id}:
            node.live = self._live | {host.id}
            host.told = len(self.roster.log)  # that is all news: who was frozen may not have had it
        if self.finished and not algorithm.centralized and not self._live:
            node.weight = 0.0
            return  # the others are done, and nobody is left to learn from
        host.base, host.blends = node.step, node.blends
        host.entering = False
        self.note(host, "ready")
        if host not in self.active:
            self._activate(host)
        if not algorithm.centralized:
            self._welcome(host)
        make = self.kind_of_pump
        companions = [make(self, host, program, False) for program in algorithm.companions(node)]
        host.programs += companions
        for pump in companions:
            pump.run(None)
        yield from algorithm.worker(node)

    def _activate(self, host: FaultyHost) -> None:
        """Collectives go on with ``host``."""
        order = sorted([*self.active, host], key=lambda member: member.id)
        self.active.clear()
        self.active.update(dict.fromkeys(order))

    def asked(self, host: FaultyHost, rank: int) -> None:
        """Joiner ``rank`` asks worker ``host`` for its parameters."""
        joiner, collective = self.hosts[rank], self.plan.algorithm.collective
        if not joiner.entering or joiner.programs[0].awaited != host.id:
            return  # late: it has asked another one since, who may have made it a member
        if collective and joiner in self.active:  # whoever it asked before has died
            del self.active[joiner]
            if self.collective is not None:
                self.collective.leave(joiner)
        if host.ended:
            return
        if host.entering and rank < host.id:
            self._reply(host, joiner, Message(STATE))
        elif host.entering or collective:
            host.askers.append((rank, joiner.incarnation))
        else:
            self._hand_over(host, rank, joiner.incarnation)

    def _hand_over(self, host: FaultyHost, rank: int, incarnation: int) -> None:
        """Send a joiner what ``host`` begins its step with."""
        joiner, algorithm, node = self.hosts[rank], self.plan.algorithm, host.node
        if joiner.ended or joiner.incarnation != incarnation:
            return
        tensors = state(node, algorithm.collective)
        share = getattr(algorithm, "share", None)
        weight = share(node) if share is not None else 1.0
        for tensor in tensors:
            copy = node.tensors.snapshot(tensor)
            self._reply(host, joiner, Message(STATE, copy, node.step, len(tensors), number=weight))
        if algorithm.collective:
            self._activate(joiner)

    def _reply(self, host: FaultyHost, joiner: FaultyHost, message: Message) -> None:
        message.source = host.id
        nbytes = 0.0 if message.tensor is None else message.tensor.nbytes
        self.network.pair(host, joiner).send(message, nbytes)


class _Next(Alarm):
    __slots__ = ("_driver",)

    def __init__(self, driver: Faulty) -> None:
        self._driver = driver

    def fire(self) -> None:
        self._driver.happen()
