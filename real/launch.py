"""Starts the processes of a real run, watches over them and gathers what they leave behind.

Rules this module obeys:

* Every wait is bounded: starting up, silence (heartbeats), standstill, stopping. It reads from pipes
  what is there and never waits for the rest of a message, so a process that is stopped in the middle
  of one is silent, no more.
* A run stands still when every worker and server has waited for others for a while in which no
  frame moved anywhere: what counts is progress, not what seems to be under way.
* It alone decides who is dead: a process that ended without saying so, or one that fell silent for
  ``run.heartbeat_timeout``, or whose links did (``real.survey``): it is killed. It tells all others.
* A dead worker leaves the run to the rest; a server that is dead for good ends it with ``TransportError``, as
  do the deaths of all workers: what was recorded until then is kept. What faults have planned, and who comes
  back, is ``real.churn``'s. Whatever happens, no node's process outlives ``train``; the fork server that they
  come from does (``real.forking``). If this process is killed, all end.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import inf
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from core.algorithms import in_main_module
from core.errors import Diverged
from core.record import Record
from real import churn, forking
from real.checks import check
from real.counter import Tally
from real.errors import Interrupted, TransportError
from real.faults import Faults
from real.interrupts import Interrupts, deferred
from real.member import Member
from real.pipe import End, pair
from real.shaped import ShapedLinks, test_bed
from real.survey import Survey
from scenarios.errors import ScenarioError
from scenarios.hardware import Stolen
from scenarios.plan import Plan, plan
from scenarios.schema import Scenario

__all__ = ["check", "train"]

Progress = Callable[[int, int], None]

_STARTING = 600.0
_STOPPING = 10.0
_HEAD_START = 0.2
_STANDSTILL = 10.0
_SENDING = 5.0
_MODELS = 8
"""Whole models that may be on their way to each worker when the run is over, at most."""


def train(
    scenario: Scenario,
    *,
    on_progress: Progress | None = None,
    kill: Mapping[int, int] | None = None,
    stall: Mapping[int, int] | None = None,
) -> Record:
    """Run ``scenario`` on processes of this machine and return its record.

    on_progress  called now and then with the worker steps done and those in all (0 if unknown)
    kill, stall  faults to inject (``real.faults.Faults``)

    Raises ``ScenarioError`` for what this driver or this machine cannot do, ``TransportError`` (with the
    partial record) when a server dies for good, or all workers do, a process does not start or nothing moves
    any more, and ``Interrupted`` (likewise) on Ctrl-C.
    """
    made = plan(scenario)
    check(made)
    faults = Faults(dict(kill or {}), dict(stall or {}))
    faults.check(len(made.nodes))
    return _Launch(made, faults, on_progress).run()


class _Launch:
    """One run from first process to record."""

    def __init__(self, plan: Plan, faults: Faults, on_progress: Progress | None) -> None:
        self.plan, self.faults, self.on_progress = plan, faults, on_progress
        self.scenario = plan.scenario
        self.members: list[Member] = []
        self.lives: list[Member] = []
        self.churn = churn.Churn(self)
        self.bed: ShapedLinks | None = None
        self.left, self.deaths = dict[int, str](), dict[int, str]()
        self.links = Survey(plan.workers, self.scenario.run.heartbeat_timeout)
        self.finishing = self.reporting = self.stopping = False
        self.diverged: Diverged | None = None
        self.deadline, self.allowed, self.starting, self.zero = inf, 0.0, 0.0, 0.0
        self.stolen = Stolen()

    def run(self) -> Record:
        """Start, watch, gather; in any case end all processes."""
        from real.gather import assemble, diverged, merged

        with tempfile.TemporaryDirectory(prefix="aladdin-") as folder, test_bed(self.plan) as self.bed:
            try:
                self._start(folder)
                interrupted, failure = False, None
                with deferred() as interrupts:
                    try:
                        self._watch(interrupts)
                    except KeyboardInterrupt:
                        interrupted = True
                    except TransportError as error:
                        failure = error
                    stolen = self.stolen.share()
                    complete = not interrupted and failure is None and self.diverged is None
                    if not complete:
                        self._stop(interrupts)
                tables = {node: merged(self._tables(node)) for node in self.plan.nodes}
                params = {m.node: m.params for m in self.members if complete and m.has_part}
                keeps = self.scenario.faults or self.scenario.run.server_restarts
                events = self.churn.events if keeps else None
                record = assemble(self.plan, tables, params, self.left, complete=complete, events=events)
                record.manifest["flags"] += self.churn.overcome()
                record.manifest["environment"]["stolen"] = stolen
            finally:
                self._end()
        stop = self.diverged or failure or diverged(record)
        if stop is not None:
            record.manifest["flags"].insert(0, f"incomplete: {str(stop).splitlines()[0]}")
            stop.record = record
            raise stop
        if interrupted:
            raise Interrupted("the run was interrupted; what was finished is kept", record)
        return record

    def _tables(self, node: int) -> list[dict[str, Any]]:
        """What the lives of ``node`` that took part in the run have handed over, or what is known of them."""
        from real.gather import remains

        server = node >= self.plan.workers
        return [
            m.tables or remains(node, m.steps, bytes(m.rows), Tally.read(m.tally), server=server)
            for m in self.lives
            if m.node == node and m.lived
        ] or [remains(node, 0, b"", server=server)]

    # ---- starting -----------------------------------------------------------------------------

    def _start(self, folder: str) -> None:
        forking.start()
        self.starting = time.monotonic() + _STARTING
        self.folder, self.token, self.gpus = Path(folder), secrets.token_bytes(8), self._gpus()
        late = self.churn.late
        self.members = [
            Member(node, None, None, state="absent") if node in late else self.spawn(node)
            for node in self.plan.nodes
        ]
        there = [m for m in self.members if not m.gone]
        for member in there:
            member.address = self._expect(member, "listening")["address"]
            member.state = "running"
        for member in there:
            member.tell(**self.introduction(member), finished=False)
        for member in there:
            self._expect(member, "ready")
        for node in late:
            self.churn.prepare(node, 0)
        self.stolen, self.zero = Stolen(), time.monotonic() + _HEAD_START
        for member in there:
            member.heard = member.still = self.zero
            member.tell(zero=self.zero)

    def spawn(self, node: int, life: int = 0, *, joining: bool = False) -> Member:
        """Start a process for life number ``life`` of ``node``, and say what it has to be."""
        ours, theirs = pair()
        place = self.bed.place(node) if self.bed else None
        main = in_main_module(self.scenario.algorithm.name)
        process = forking.fork(theirs, place, f"aladdin-{node}", main=main)
        theirs.close()
        member = Member(node, process, End(ours), life, self.folder / f"steps-{node}-{life}", pid=process.pid,
                        server=node >= self.plan.workers)  # fmt: skip
        self.lives.append(member)
        member.pipe.give_up_after(_SENDING)
        device = f"cuda:{node % self.gpus}" if self.gpus and node < self.plan.workers else "cpu"
        member.tell(
            node=node, scenario=self.scenario.to_dict(), token=self.token, device=device,
            rendezvous=str(self.folder / "rendezvous"), samples=str(self.folder / "samples"),
            nccl=bool(self.gpus) and self.plan.workers <= self.gpus and self.bed is None,
            kill={} if life else dict(self.faults.kill), stall={} if life else dict(self.faults.stall),
            life=life, joining=joining, due=self.churn.due(node), tally=str(member.tally),
            journal=self.churn.journal(node),
            live=[rank for rank in range(self.plan.workers) if rank not in self.churn.late],
        )  # fmt: skip
        return member

    def introduction(self, to: Member) -> dict[str, Any]:
        """Who can be reached where, in which life, and which workers are there, as ``to`` is told it."""
        others = [m for m in self.members if m.reachable]
        live = [m.node for m in others if m.node < self.plan.workers and m.state == "running"
                and (m.joined or m is to)]  # fmt: skip
        return {"addresses": {m.node: m.address for m in others}, "lives": {m.node: m.life for m in others},
                "live": live}  # fmt: skip

    def _gpus(self) -> int:
        if self.scenario.run.device != "cuda":
            return 0
        import torch

        return torch.cuda.device_count()

    def _expect(self, member: Member, what: str) -> dict[str, Any]:
        """The next message of a process that is starting up, which must be ``what``.

        Meanwhile any process may end, while ``member`` waits for it: that one is then to blame.
        """
        ends = {m.process.sentinel: m for m in self.members if not m.gone}
        awaited: list[Any] = [member.pipe, *ends]
        while not member.unread:
            ready: list[Any] = wait(awaited, max(0.0, self.starting - time.monotonic()))
            if not ready:
                raise TransportError(f"{self.name(member.node)} did not start within {_STARTING:g} s")
            if member.pipe not in ready:
                self._blame(next(ends[one] for one in ready if one in ends))
            try:
                member.unread.extend(member.pipe.read())
            except (EOFError, OSError):
                self._blame(member)
        return self._started(member, msgspec.msgpack.decode(member.unread.popleft()), what)

    def _blame(self, member: Member) -> NoReturn:
        """``member``'s process has ended too early; raise what it said about that, if it did."""
        with suppress(EOFError, OSError):
            while messages := member.pipe.read():
                member.unread.extend(messages)
        for message in map(msgspec.msgpack.decode, member.unread):
            if message["is"] in ("refused", "error"):
                self._started(member, message, "")
        how = member.ending(self._memory())
        raise TransportError(f"{self.name(member.node)} ended while starting up: {how}")

    def _started(self, member: Member, message: dict[str, Any], what: str) -> dict[str, Any]:
        """``message``, which must be ``what``; anything else is why the process did not start."""
        if message["is"] == "refused":
            raise ScenarioError(message["text"])
        if message["is"] != what:
            raise TransportError(f"{self.name(member.node)} failed to start:\n{message.get('text', message)}")
        return message

    # ---- watching -----------------------------------------------------------------------------

    def _watch(self, interrupts: Interrupts) -> None:
        """Until every process has handed over its tables or died, or training diverged."""
        while self.diverged is None and not (self.churn.over() and all(m.gone for m in self.members)):
            for member in self._heard_from(min(0.2, max(0.0, self.churn.next))):
                self._hear(member)
            self.churn.go_on()
            interrupts.check()
            self._check_silence()
            self._check_end()
            if time.monotonic() > self.deadline:
                late = ", ".join(self.name(m.node) for m in self.members if not m.gone)
                raise TransportError(f"{late} did not end within {self.allowed:.3g} s")

    def _heard_from(self, seconds: float = 0.2) -> list[Member]:
        """Who has sent something, or ended; waits for that a moment."""
        pipes: dict[Any, Member] = {m.pipe: m for m in self.lives if not m.gone}
        return [pipes[ready] for ready in wait(list(pipes), timeout=seconds)]

    def _hear(self, member: Member) -> None:
        """Take what a process has sent; parts of messages are signs of life as well."""
        try:
            messages = member.pipe.read()
        except (EOFError, OSError):
            self._lost(member, member.ending(self._memory()))
            return
        member.heard = time.monotonic()
        for message in messages:
            self._heed(member, message)

    def _heed(self, member: Member, data: bytearray) -> None:
        if member.state == "params":
            member.params, member.state = data, "done"
            return
        message = msgspec.msgpack.decode(data)
        kind = message["is"]
        if kind == "beat":
            self._beat(member, message)
        elif kind == "quiet":
            member.state = kind
        elif kind == "tables":
            member.tables = message
            member.steps = message["totals"]["steps"]
            member.state = "params" if self.scenario.run.evaluate else "done"
        elif kind == "refused":
            raise ScenarioError(message["text"])
        elif kind == "refuses":
            if (refused := self.members[message["node"]]).life == message["life"]:
                self._cut_off(refused, message["text"])
        elif kind == "error":
            raise TransportError(f"{self.name(member.node)} failed:\n{message['text']}")
        elif kind == "diverged":
            loss, now, step = message["loss"], message["now"], message["step"]
            self.diverged = self.diverged or Diverged(loss, now, worker=member.node, step=step)
        else:
            self.churn.heed(member, message)

    def _beat(self, member: Member, message: dict[str, Any]) -> None:
        told = message["waiting"], message["steps"], message["moved"]
        if told != (member.waiting, member.steps, member.moved):
            member.still = member.heard
        member.waiting, member.steps, member.moved = told
        member.rows += message["rows"]
        self.links.beat(member.node, message["silent"], message["heard"])
        if self.on_progress is not None:
            self.on_progress(sum(m.steps for m in self.lives), self._total())

    def _total(self) -> int:
        run, n = self.scenario.run, self.plan.workers
        return run.steps * n if run.steps else -(-run.samples // self.scenario.workload.batch)

    def _check_silence(self) -> None:
        """Take for dead who said nothing for too long; give up where nothing moves any more."""
        now, limit = time.monotonic(), self.scenario.run.heartbeat_timeout
        for member in [m for m in self.members if not (m.gone or m.state == "meeting")]:
            if now - member.heard > limit:
                self._cut_off(member, f"it was silent for {limit:g} s")
        for member in self.links.check(now, {m.node: m for m in self.members if m.reachable}):
            self._cut_off(member, f"its links were silent for {limit:g} s")
        running = [m for m in self.members if m.state == "running"]
        patience = max(_STANDSTILL, 2 * limit)
        if (
            running
            and not (self.finishing or self.churn.coming)
            and all(m.waiting for m in running)
            and all(now - m.still > patience for m in self.members if not m.gone)
        ):
            who = "\n".join(f"  {self.name(m.node)} waits for {m.waiting}" for m in running)
            raise TransportError(f"nothing moves any more:\n{who}")

    def _cut_off(self, member: Member, why: str) -> None:
        """End a process that lives but that others cannot work with."""
        if not member.gone:
            member.process.kill()
            self._lost(member, why, cut_off=True)

    def _lost(self, member: Member, why: str, *, cut_off: bool = False) -> None:
        """A process is gone: a server ends the run unless it comes back, a worker leaves it."""
        if member.gone:
            return
        was, member.state = member.state, "dead"
        if was == "retiring":
            return
        planned, server = self.churn.lost(member, why, cut_off=cut_off), member.node >= self.plan.workers
        if not planned:
            self.left[member.node] = why
        self.deaths[member.node] = f"{self.name(member.node)}, {why}"
        if server and not planned:
            raise TransportError(
                f"{self.name(member.node)} is gone ({why}) after {time.monotonic() - self.zero:.1f} s and "
                f"its part of the model with it; the run cannot go on. {self.churn.advice(member)}"
            )
        if server and self.finishing:
            self.reporting, self.deadline = False, inf  # what follows is bounded by itself, until it is there
        for other in self.members if member in self.members else ():
            if other.attached:  # half a message of the dead one would keep a slot that others ask for
                other.tell(do="parted" if server else "left", node=member.node)

    def _check_end(self) -> None:
        """Once no worker runs, let servers and companions finish; once all is quiet, ask for the tables."""
        if not self.finishing and self.churn.over():
            if all(m.gone for m in self.members[: self.plan.workers]):
                who = "\n".join(f"  {what}" for what in self.deaths.values())
                raise TransportError(
                    f"all workers are gone {time.monotonic() - self.zero:.1f} s after the start, before any "
                    f"had met its budget:\n{who}\nStart the run again; what was recorded is kept"
                )
            self.finishing = True
            self._dismiss()
            self.finish([m for m in self.members if not m.gone])
        quiet = not self.churn.down and all(m.gone or m.state == "quiet" for m in self.members)
        if self.finishing and not self.reporting and quiet:
            self.reporting = True
            for member in self.members:
                if not member.gone:
                    member.tell(do="report")

    def finish(self, members: Sequence[Member]) -> None:
        """No worker runs any more: let them come to an end, which takes a bounded time."""
        self.allowed = self._ending_seconds()
        self.deadline = time.monotonic() + self.allowed
        for member in members:
            member.tell(do="finish")

    def _dismiss(self) -> None:
        """Who has not come by now does not come any more."""
        for member in self.lives:
            if not (member.lived or member.gone):
                member.process.kill()
                member.state = "dead"

    def _ending_seconds(self) -> float:
        """Time to allow for the end once no worker runs any more.

        Silences have to end, what is under way has to arrive (on links with rates, one after the other), and
        parameters have to be handed over (a slow 50 MB/s).
        """
        plan, scenario = self.plan, self.scenario
        model = 4 * plan.parameters
        rates = [min(machine.up, machine.down) for machine in scenario.cluster.machines]
        rate = min(rates) if scenario.run.links in ("paced", "shaped") else inf
        models = plan.workers * min(scenario.cluster.network.window, _MODELS)
        return _STOPPING + self.churn.silence + model * models / rate + model * len(plan.nodes) / 50e6

    def _stop(self, interrupts: Interrupts) -> None:
        """Ask all processes to hand over what they have; a second Ctrl-C or the deadline ends that."""
        self.stopping, pressed = True, interrupts.count
        self.churn.thaw_all()
        self._dismiss()
        for member in self.members:
            if not member.gone:
                member.tell(do="stop")
        until = time.monotonic() + _STOPPING
        try:
            while any(not m.gone for m in self.members) and time.monotonic() < until:
                for member in self._heard_from():
                    try:
                        self._hear(member)
                    except TransportError:  # its own failure: keep what the others have
                        member.state = "dead"
                self.churn.thaw_all()  # who had yet to be heard to freeze
                interrupts.check(pressed)
        except KeyboardInterrupt:
            return

    # ---- ending -------------------------------------------------------------------------------

    def _end(self) -> None:
        """Let processes go, and end those that do not."""
        for member in self.lives:
            if member.state == "done":
                member.tell(do="exit")
            elif member.process is not None:
                member.process.kill()
        until = time.monotonic() + 3.0
        for member in self.lives:
            member.let_go(max(0.0, until - time.monotonic()))

    def _memory(self) -> str:
        size = 4e-6 * self.plan.parameters
        return f"{len(self.plan.nodes)} processes hold several copies each of {size:,.1f} MB of parameters"

    def name(self, node: int) -> str:
        """What ``node`` is called in errors: servers by number, as in ``faults``; and its latest process."""
        pid = next((m.pid for m in reversed(self.lives) if m.node == node), None)
        if node < self.plan.workers:
            return f"worker {node} (process {pid})"
        return f"server {node - self.plan.workers} (node {node}, process {pid})"
