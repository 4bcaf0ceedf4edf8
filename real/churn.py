"""What befalls the nodes of a real run, and how workers come back: the launcher's side of its faults.

Rules this module obeys:

* The timetable is the simulator's (``scenarios.timetable``): the same scenario and seed give the same times.
  What is due by step the process itself does, and tells (``real.life``).
* Who comes back is a new process, one life later. It is started as soon as it is known that it will come,
  gets ready, and waits for its moment; so ``back`` seconds are what they are in the simulator.
* One comes at a time: all others are told of its life and address, and have said that they take its frames,
  before it is told theirs. So nothing that it sends is taken for its former life's, or dropped.
* Servers know that it is there before it asks them; peers learn it when it has its parameters, and it begins
  when all of them have said that they know.
* Who left has handed over its tables before its next life begins.
* Where workers meet in an all-reduce they stand still while one comes (``real.intake``).
* A server that dies of what nobody planned comes back from its journal as one that was to crash does, at
  once, as often as ``run.server_restarts`` allows; not where a planned silence was the cause, nor where its
  own failure was (it would fail again).

Source: ``sim.faults``, which plays the same in virtual time.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter, deque
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any

from core.record import EVENT_COLUMNS, EVENTS, StepLog
from real.errors import TransportError
from real.intake import Intake
from real.member import Member
from scenarios.errors import ScenarioError
from scenarios.faults import late
from scenarios.plan import Plan
from scenarios.server_churn import moved_by
from scenarios.timetable import Event, Timetable

if TYPE_CHECKING:
    from real.launch import _Launch

__all__ = ["Churn", "check"]

_STARTING = 600.0
_RETIRING = 10.0
_MEETING = 60.0

_INSTEAD = {
    "kind": "crash, freeze, cut or churn of servers",
    "leave": "0 for servers, which may crash at a rate and come back",
    "join": "0 for servers that start late; beside crash, a rate at which they come back",
}
"""By the field by which a fault moves servers: what real runs play."""


def check(plan: Plan) -> None:
    """Raise ``ScenarioError`` for faults that simulations play and real runs do not."""
    for i, fault in enumerate(plan.scenario.faults):
        if fault.kind == "cut" and plan.native:
            why = "another kind, or collective: messages (connections of gloo and NCCL are not ours to cut)"
            raise ScenarioError(f"faults[{i}].kind", "cut", why)
        if moved := moved_by(fault):
            why = f"{_INSTEAD[moved]} (slices of the model do not move in real runs; simulate it)"
            raise ScenarioError(f"faults[{i}].{moved}", getattr(fault, moved), why)


def _kept(plan: Plan) -> dict[int, float]:
    """Servers that are to come back, and so keep a journal: node -> seconds between checkpoints."""
    run, found = plan.scenario.run, dict[int, float]()
    if run.server_restarts:
        found = dict.fromkeys(plan.servers, run.checkpoint_every)
    for fault in plan.scenario.faults:
        comes_back = (fault.back is not None or fault.join) and (fault.kind == "crash" or fault.crash)
        for node in (plan.workers + server for server in fault.servers if comes_back):
            every = [seconds for seconds in (found.get(node, 0.0), fault.checkpoint_every) if seconds]
            found[node] = min(every, default=0.0)
    return found


class Churn:
    """The faults of one run. ``events``: what happened, as ``core.record`` has it.

    finished  a worker has met its budget: who is to come later does not, unless others are still at work
    restarts  server's node -> how often it died of what nobody planned, and was started again
    """

    def __init__(self, launch: _Launch) -> None:
        plan = launch.plan
        self.launch, self.workers, self.centralized = launch, plan.workers, plan.algorithm.centralized
        self.collective = plan.algorithm.collective
        self.intake = Intake(lambda: launch.members[: plan.workers], self._come)
        self._together: dict[Member, dict[str, Any]] = {}
        self.timetable = Timetable(plan.scenario.faults, plan.workers, plan.scenario.run.seed)
        self.late = late(plan.scenario.faults)
        self.events = StepLog(EVENT_COLUMNS)
        self.finished = False
        self.standby: dict[int, Member] = {}
        self.restarts = Counter[int]()
        self._whys: dict[int, str] = {}
        self._due: deque[int] = deque()
        self._meeting: Member | None = None
        self._before: Member | None = None
        self._kept = _kept(plan)
        self._awaited: dict[Member, set[int]] = {}
        self._thaws: list[tuple[float, Member]] = []
        self._cuts: list[tuple[float, Member]] = []

    @property
    def now(self) -> float:
        """Seconds since the start of the run."""
        return time.monotonic() - self.launch.zero

    @property
    def next(self) -> float:
        """Seconds until something is due; infinite if nothing is, or nothing befalls anybody any more."""
        first = inf if self.over() else self.timetable.next
        return min([first, *(due for due, _ in (*self._thaws, *self._cuts))]) - self.now

    @property
    def silence(self) -> float:
        """Seconds until all who are frozen or cut off go on; 0 where nobody is."""
        return max([self.now, *(due for due, _ in (*self._thaws, *self._cuts))]) - self.now

    @property
    def coming(self) -> bool:
        """Whether anybody is to come who could set things going."""
        meeting = self._meeting is not None and not self.intake.busy
        return bool(self.timetable.coming or self._due or meeting)

    def over(self) -> bool:
        """Whether nobody is there any more and nobody comes."""
        there = any(m.state in ("running", "meeting") for m in self.launch.members[: self.workers])
        return not (there or self.down) and (self.finished or not self.coming)

    @property
    def down(self) -> bool:
        """Whether a server is away."""
        return any(m.state in ("dead", "meeting") for m in self.launch.members[self.workers :])

    def journal(self, node: int) -> tuple[str, float]:
        """Server ``node``'s folder for its journal (empty: it keeps none); seconds between checkpoints."""
        folder = self.launch.folder / f"server-{node}"
        return (str(folder), self._kept[node]) if node in self._kept else ("", 0.0)

    def due(self, node: int) -> list[tuple[int, str, float | None]]:
        """What is to befall ``node`` by step: (steps completed, kind, back)."""
        return [(step, kind, back) for step, kind, back, _ in self.timetable.by_step.get(node, ())]

    # ---- what happens -------------------------------------------------------------------------

    def go_on(self) -> None:
        """Do what is due by now."""
        now = self.now
        while self.timetable.next <= now and not self.over():
            self._befall(self.timetable.pop())
        for due, member in [entry for entry in self._thaws if entry[0] <= now]:
            self._thaws.remove((due, member))
            self._thaw(member)
        for due, member in [entry for entry in self._cuts if entry[0] <= now]:
            self._cuts.remove((due, member))
            self._heal(member)
        self._receive()

    def _befall(self, event: Event) -> None:
        member = self.launch.members[event.node]
        if self.launch.finishing and (event.node < self.workers or event.kind != "back"):
            return  # the training is over; only a server that has to hand over its part comes
        if event.kind in ("join", "back"):
            waits = event.node in self._due or member is self._meeting
            if not waits and (member.state in ("dead", "absent") or member.going):
                member.after = 0.0  # who is about to leave comes back at once
                if member.state != "running":
                    self._due.append(event.node)
        elif member.state != "running":
            return
        elif event.kind == "cut":
            self._cut(member, event)
        elif event.kind == "freeze":
            self._freeze(member, event.back or 0.0)
        else:
            member.after = event.back
            if event.kind == "leave":
                member.going = True
                member.tell(do="leave")
            else:
                member.died = self.now
                member.process.kill()

    def _cut(self, member: Member, event: Event) -> None:
        """Silence the node: in a test-bed by the kernel, where its links are its own; else by itself."""
        seconds, bed = event.back or 0.0, self.launch.bed
        if bed is not None and bed.alone(member.node):
            bed.cut(member.node)
        else:
            member.tell(do="cut", seconds=seconds)
        self._log(member, "cut", self.now)
        self._cuts.append((self.now + seconds, member))

    def _heal(self, member: Member) -> None:
        """A cut of it is over; its links carry again when no other one lasts."""
        if all(other is not member for _, other in self._cuts):
            self._mend(member.node)
        self._log(member, "heal", self.now)

    def _forget_cuts(self, member: Member) -> None:
        """Its process is gone, and its cuts with it: who comes in its place has working links."""
        if any(other is member for _, other in self._cuts):
            self._cuts = [entry for entry in self._cuts if entry[1] is not member]
            self._mend(member.node)

    def _mend(self, node: int) -> None:
        if self.launch.bed is not None:
            self.launch.bed.restore(node)

    def _freeze(self, member: Member, back: float) -> None:
        with suppress(ProcessLookupError):  # it has just died; its pipe will tell
            os.kill(member.process.pid, signal.SIGSTOP)
        member.stopped = time.monotonic()
        self._log(member, "freeze", self.now)
        self._thaws.append((self.now + back, member))

    def _thaw(self, member: Member) -> None:
        """A freeze of it is over; it goes on when no other one lasts."""
        if member.gone:
            return
        self._log(member, "thaw", self.now)
        if all(other is not member for _, other in self._thaws):
            with suppress(ProcessLookupError):
                os.kill(member.process.pid, signal.SIGCONT)
            member.tell(do="thaw")

    def thaw_all(self) -> None:
        """Whoever is frozen goes on: the run is over."""
        while self._thaws:
            self._thaw(self._thaws.pop()[1])

    def _log(self, member: Member, event: str, now: float) -> None:
        self.events.append((now, member.node, EVENTS.index(event), member.life))

    # ---- what the launcher hears --------------------------------------------------------------

    def heed(self, member: Member, message: dict[str, Any]) -> None:
        """A process tells of its coming or going."""
        kind = message["is"]
        if kind == "listening":
            member.address, member.state = message["address"], "standby"
        elif kind == "struck":
            self._struck(member, message)
        elif kind in ("paused", "stands"):
            self.intake.heed(member, message)
        elif kind == "met":
            joiner = self.launch.members[message["node"]]
            if joiner.life == message["life"]:
                self._awaited.get(joiner, set()).discard(member.node)
        elif kind == "entered":
            self._entered(member, message["now"])
        elif kind == "ended":
            self._ended(member, message)

    def _struck(self, member: Member, message: dict[str, Any]) -> None:
        """What was due by step is happening."""
        self.timetable.by_step[member.node].pop()
        if message["kind"] == "freeze":
            self._freeze(member, message["back"])
            return
        member.after = message["back"]
        if message["kind"] == "crash":
            member.died = message["now"]
        else:
            member.going = True

    def _ended(self, member: Member, message: dict[str, Any]) -> None:
        member.state = "ended"
        self.intake.gone(member)
        self.finished |= not message["going"]
        if message["going"]:
            self._log(member, "leave", message["now"])
            self._forget_cuts(member)
            self._expect(member)

    def lost(self, member: Member, why: str, *, cut_off: bool) -> bool:
        """A process is gone (``cut_off``: it was ended because it was of no use to others).

        Says whether that was planned; of a server whether it comes back.
        """
        server = member.node >= self.workers
        if server:
            self._put_off()
            if member.died is None and self._starts_again(member, cut_off):
                self.restarts[member.node] += 1
                self._whys[member.node] = why
                member.died, member.after = self.now, 0.0
        self._forget_cuts(member)
        for awaited in self._awaited.values():
            awaited.discard(member.node)
        self._awaited.pop(member, None)
        self._together.pop(member, None)
        self.standby = {node: one for node, one in self.standby.items() if one is not member}
        if member is self._meeting:
            self._meeting = None
        self.intake.gone(member)
        if not member.lived and member.node in self._due:
            self._due.remove(member.node)
        if member.lived:
            self._log(member, "crash", self.now if member.died is None else member.died)
        if member.died is not None:
            self._expect(member)
        return member.died is not None and (not server or member.after is not None)

    def _starts_again(self, member: Member, cut_off: bool) -> bool:
        """Whether a server that nobody wanted dead is started again."""
        silenced = cut_off and any(one is member for _, one in (*self._thaws, *self._cuts))
        most = self.launch.scenario.run.server_restarts
        return not (silenced or self.launch.stopping) and self.restarts[member.node] < most

    def advice(self, member: Member) -> str:
        """What to do where a server has died for good."""
        often, most = self.restarts[member.node], self.launch.scenario.run.server_restarts
        if member.died is not None:
            return "Start it again; the fault that ends it says no 'back'"
        if not most:
            return "Start it again; with run.server_restarts above 0 servers that die come back"
        if often < most:
            return "Start it again; a planned silence of it was too long (run.heartbeat_timeout)"
        return f"It was started again as often as run.server_restarts allows ({most}): find out what ends it"

    def overcome(self) -> list[str]:
        """What a record says of servers that were started again."""
        return [
            f"server {node - self.workers} died {count} time{'s' * (count > 1)} of what nobody had planned "
            f"(last: {self._whys[node]}) and was started again from its journal"
            for node, count in sorted(self.restarts.items())
        ]

    def _put_off(self) -> None:
        """A server has died: a worker that was about to come does so when that is back, if ever."""
        joiner, before = self._meeting, self._before
        if joiner is not None and before is not None and joiner.node < self.workers:
            self.launch.members[joiner.node], self._meeting = before, None
            self._awaited.pop(joiner, None)
            joiner.state = "standby"
            self.standby[joiner.node] = joiner
            self._due.appendleft(joiner.node)
            for other in self.launch.members:
                if other.reachable:
                    other.tell(do="off", node=joiner.node)

    def _expect(self, member: Member) -> None:
        """Who has gone comes back if it was to: let its next life get ready."""
        if member.after is not None and not self.launch.stopping:
            self.timetable.add(Event(self.now + member.after, "back", member.node, None, 0))
            self.prepare(member.node, member.life + 1)

    # ---- who comes ----------------------------------------------------------------------------

    def prepare(self, node: int, life: int) -> None:
        """Start the process of a worker that is to come."""
        member = self.launch.spawn(node, life, joining=True)
        member.lived = member.joined = False
        member.heard = time.monotonic()
        self.standby[node] = member

    def _receive(self) -> None:
        """Let the next one come whose time it is, and those begin of whom all know."""
        for node in list(self._due) if self._meeting is None and not self.intake.busy else ():
            if (node >= self.workers or not self.down) and self._ready(node):
                self._due.remove(node)
                self._meet(self.standby.pop(node))
                break
        for joiner, awaited in list(self._awaited.items()):
            if awaited:
                self._check_patience(joiner, awaited)
                continue
            del self._awaited[joiner]
            if joiner is not self._meeting:
                joiner.tell(do="welcome", **self._together.pop(joiner, {}))
            elif self.collective:
                self.intake.begin(joiner)
            else:
                self._come(joiner)

    def _ready(self, node: int) -> bool:
        """Whether the next life of ``node`` can begin: it is ready, and the one before is over."""
        before, now = self.launch.members[node], time.monotonic()
        if before.state == "ended":
            before.tell(do="stop")
            before.state, before.stopped = "retiring", now
        elif not before.gone and now - before.stopped > _RETIRING:
            before.process.kill()
        if node not in self.standby:
            self.prepare(node, before.life + (before.state != "absent"))
        elif self.standby[node].state == "starting" and now - self.standby[node].heard > _STARTING:
            raise TransportError(f"{self.launch.name(node)} did not start again within {_STARTING:g} s")
        return before.gone and self.standby[node].state == "standby"

    def _meet(self, joiner: Member) -> None:
        """Tell all others of its life and address."""
        others = [m for m in self.launch.members if m.reachable]
        self._before = self.launch.members[joiner.node]
        self._before.let_go(0.0)
        self.launch.members[joiner.node] = self._meeting = joiner
        joiner.state, joiner.joined = "meeting", self.centralized and joiner.node < self.workers
        self._tell(joiner, others, do="meet", address=joiner.address, joined=joiner.joined)

    def _check_patience(self, joiner: Member, awaited: set[int]) -> None:
        """Who is silent is taken for dead; who lives but does not say that it knows of a joiner is stuck."""
        limit = max(_MEETING, 2 * self.launch.scenario.run.heartbeat_timeout)
        if time.monotonic() - joiner.stopped > limit:
            who = ", ".join(self.launch.name(node) for node in sorted(awaited))
            raise TransportError(
                f"{who} took no notice of {self.launch.name(joiner.node)}, which joins, for {limit:g} s"
            )

    def _tell(self, joiner: Member, others: list[Member], **order: Any) -> None:
        joiner.stopped = time.monotonic()
        self._awaited[joiner] = {other.node for other in others}
        for other in others:
            other.tell(node=joiner.node, life=joiner.life, **order)

    def _come(self, joiner: Member) -> None:
        """It is there: tell it where the others are."""
        self._meeting = None
        joiner.state, joiner.lived = "running", True
        joiner.heard = joiner.still = time.monotonic()
        self._log(joiner, "join", self.now)
        joiner.tell(**self.launch.introduction(joiner), finished=self.finished, zero=self.launch.zero)
        if self.launch.finishing:
            self.launch.finish([joiner])

    def _entered(self, joiner: Member, now: float) -> None:
        """It has its parameters."""
        self._log(joiner, "ready", now)
        if not joiner.joined:
            joiner.joined = True
            others = [m for m in self.launch.members if m.reachable and m is not joiner]
            together = self._together[joiner] = self.intake.entered() if self.collective else {}
            self._tell(joiner, others, do="joined", **together)
