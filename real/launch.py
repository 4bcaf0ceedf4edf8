"""Starts the processes of a real run, watches over them and gathers what they leave behind.

Rules this module obeys:

* It is the only one that reads or sets environment variables.
* Every wait is bounded: starting up, silence (heartbeats), standstill, stopping. It reads from pipes
  what is there and never waits for the rest of a message, so a process that is stopped in the middle
  of one is silent, no more.
* A run stands still when every worker and server has waited for others for a while in which no
  frame moved anywhere: what counts is progress, not what seems to be under way.
* It alone decides who is dead: a process that ended without saying so, or one that fell silent for
  ``run.heartbeat_timeout`` (which is then killed). It tells all others.
* A dead worker leaves the run to the rest; a dead server ends it with ``TransportError``. Whatever
  happens, no node's process outlives ``train``; the fork server that they come from does, on purpose:
  the next run need not import torch again. If this process is killed, they all notice and end.
"""

from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from core.errors import Diverged
from core.record import Record
from real.errors import Interrupted, TransportError
from real.faults import Faults
from real.interrupts import Interrupts, deferred
from real.pipe import End, pair
from scenarios.errors import ScenarioError
from scenarios.plan import Plan, plan
from scenarios.schema import Scenario

__all__ = ["check", "train"]

Progress = Callable[[int, int], None]

_STARTING = 600.0
_STOPPING = 10.0
_HEAD_START = 0.2
_STANDSTILL = 10.0
_SENDING = 5.0


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

    Raises ``ScenarioError`` for what this driver or this machine cannot do, ``TransportError`` when
    a server dies, a process does not start or nothing moves any more, and ``Interrupted`` (with the
    partial record) on Ctrl-C.
    """
    made = plan(scenario)
    check(made)
    faults = Faults(dict(kill or {}), dict(stall or {}))
    faults.check(len(made.nodes))
    return _Launch(made, faults, on_progress).run()


def check(plan: Plan) -> None:
    """Raise ``ScenarioError`` for a scenario that is valid but not possible here."""
    scenario = plan.scenario
    topology = scenario.cluster.topology
    if topology is not None and topology.joined:
        field, value = ("sites", topology.sites) if topology.sites else ("racks", topology.racks)
        count = value if isinstance(value, int) else len(value)
        why = (
            "nothing: all nodes run on this machine, where nothing plays up-links and WAN links; simulate it"
        )
        raise ScenarioError(f"cluster.{field}", count, why)
    if scenario.cluster.network.admission == "fair":
        raise ScenarioError(
            "cluster.network.admission",
            "fair",
            "fifo or a number: only links shaped by the kernel are shared fairly",
        )
    network = scenario.cluster.network
    if plan.algorithm.collective and network.collective == "native" and network.allreduce != "ring":
        why = "ring, or collective: messages (gloo and NCCL choose their native all-reduce themselves)"
        raise ScenarioError("cluster.network.allreduce", network.allreduce, why)
    if getattr(plan.algorithm, "overlap", None) == "backward" and scenario.run.compute == "native":
        why = "none, or run.compute: paced (a native step hands out its gradient as a whole)"
        raise ScenarioError("algorithm.overlap", "backward", why)
    if scenario.run.links == "paced":
        if scenario.cluster.network.admission not in ("fifo", 1):
            raise ScenarioError(
                "cluster.network.admission", scenario.cluster.network.admission,
                "fifo with run.links: paced (a paced link moves one message at a time)",
            )  # fmt: skip
        home: dict[int, int] = {}
        for node, machine in enumerate(plan.machine_of):
            if machine in home:
                name = scenario.cluster.machines[machine].name or str(machine)
                raise ScenarioError(
                    "run.links", "paced",
                    f"native, or one node per machine: nodes {home[machine]} and {node} share machine {name}",
                )  # fmt: skip
            home[machine] = node
    if scenario.run.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ScenarioError("run.device", "cuda", "cpu: torch finds no CUDA device here")


def _start_fork_server(context: Any) -> None:
    """Start the process that all others are forked from, deaf to Ctrl-C like those will be.

    It would otherwise hear Ctrl-C until it has imported everything. The tracker of resources has to
    run by then: starting it unblocks the signal.
    """
    context.set_forkserver_preload(["torch", "sklearn.datasets", "real.process", "scenarios.workloads.task"])
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def child(end: socket.socket) -> None:
    """Entry of every node's process. It leaves Ctrl-C to its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    from real.process import main

    main(End(end))


@dataclass(eq=False)
class _Member:
    """One node's process as the launcher sees it.

    heard  when the last bytes of it came; still: since when its signs of life tell of no progress
    """

    node: int
    process: Any
    pipe: End
    unread: deque[bytearray] = field(default_factory=deque)
    heard: float = 0.0
    state: str = "starting"
    steps: int = 0
    waiting: str = ""
    moved: int = 0
    still: float = 0.0
    tables: dict[str, Any] = field(default_factory=dict)
    params: bytes | bytearray = b""
    rows: bytes = b""

    @property
    def gone(self) -> bool:
        return self.state in ("dead", "done")


class _Launch:
    """One run from first process to record."""

    def __init__(self, plan: Plan, faults: Faults, on_progress: Progress | None) -> None:
        self.plan, self.faults, self.on_progress = plan, faults, on_progress
        self.scenario = plan.scenario
        self.members: list[_Member] = []
        self.left: dict[int, str] = {}
        self.finishing = self.reporting = False
        self.diverged: Diverged | None = None
        self.deadline = float("inf")
        self.starting = self.zero = 0.0

    def run(self) -> Record:
        """Start, watch, gather; in any case end all processes."""
        from real.gather import assemble, remains

        with tempfile.TemporaryDirectory(prefix="aladdin-") as folder:
            try:
                self._start(folder)
                interrupted = False
                with deferred() as interrupts:
                    try:
                        self._watch(interrupts)
                    except KeyboardInterrupt:
                        interrupted = True
                    complete = not interrupted and self.diverged is None
                    if not complete:
                        self._stop(interrupts)
                workers = self.plan.workers
                tables = {
                    m.node: m.tables or remains(m.node, m.steps, m.rows, server=m.node >= workers)
                    for m in self.members
                }
                params: dict[int, bytes | bytearray] = {m.node: m.params for m in self.members if m.params}
                record = assemble(self.plan, tables, params if complete else {}, self.left, complete=complete)
            finally:
                self._end()
        if self.diverged is not None:
            self.diverged.record = record
            raise self.diverged
        if interrupted:
            raise Interrupted("the run was interrupted; what was finished is kept", record)
        return record

    # ---- starting -----------------------------------------------------------------------------

    def _start(self, folder: str) -> None:
        context = multiprocessing.get_context("forkserver")
        _start_fork_server(context)
        self.starting = time.monotonic() + _STARTING
        token = secrets.token_bytes(8)
        gpus = self._gpus()
        for node in self.plan.nodes:
            ours, theirs = pair()
            process = context.Process(target=child, args=(theirs,), name=f"aladdin-{node}", daemon=True)
            process.start()
            theirs.close()
            self.members.append(_Member(node, process, End(ours)))
            self.members[-1].pipe.give_up_after(_SENDING)
        for member in self.members:
            worker = member.node < self.plan.workers
            device = f"cuda:{member.node % gpus}" if gpus and worker else "cpu"
            self._tell(
                member, node=member.node, scenario=self.scenario.to_dict(), token=token, device=device,
                rendezvous=str(Path(folder) / "rendezvous"), samples=str(Path(folder) / "samples"),
                nccl=bool(gpus) and self.plan.workers <= gpus,
                kill=dict(self.faults.kill), stall=dict(self.faults.stall),
            )  # fmt: skip
        addresses = {m.node: self._expect(m, "listening")["address"] for m in self.members}
        for member in self.members:
            self._tell(member, addresses=addresses)
        for member in self.members:
            self._expect(member, "ready")
        self.zero = time.monotonic() + _HEAD_START
        for member in self.members:
            member.state, member.heard, member.still = "running", self.zero, self.zero
            self._tell(member, zero=self.zero)

    def _gpus(self) -> int:
        if self.scenario.run.device != "cuda":
            return 0
        import torch

        return torch.cuda.device_count()

    def _expect(self, member: _Member, what: str) -> dict[str, Any]:
        """The next message of a process that is starting up, which must be ``what``.

        Meanwhile any process may end, while ``member`` waits for it: that one is then to blame.
        """
        ends = {m.process.sentinel: m for m in self.members}
        awaited: list[Any] = [member.pipe, *ends]
        while not member.unread:
            ready: list[Any] = wait(awaited, max(0.0, self.starting - time.monotonic()))
            if not ready:
                raise TransportError(f"{self._name(member.node)} did not start within {_STARTING:g} s")
            if member.pipe not in ready:
                self._blame(next(ends[one] for one in ready if one in ends))
            try:
                member.unread.extend(member.pipe.read())
            except (EOFError, OSError):
                self._blame(member)
        return self._started(member, msgspec.msgpack.decode(member.unread.popleft()), what)

    def _blame(self, member: _Member) -> NoReturn:
        """``member``'s process has ended too early; raise what it said about that, if it did."""
        with suppress(EOFError, OSError):
            while messages := member.pipe.read():
                member.unread.extend(messages)
        for message in map(msgspec.msgpack.decode, member.unread):
            if message["is"] in ("refused", "error"):
                self._started(member, message, "")
        raise TransportError(f"{self._name(member.node)} ended while starting up: {self._ending(member)}")

    def _started(self, member: _Member, message: dict[str, Any], what: str) -> dict[str, Any]:
        """``message``, which must be ``what``; anything else is why the process did not start."""
        if message["is"] == "refused":
            raise ScenarioError(message["text"])
        if message["is"] != what:
            raise TransportError(
                f"{self._name(member.node)} failed to start:\n{message.get('text', message)}"
            )
        return message

    # ---- watching -----------------------------------------------------------------------------

    def _watch(self, interrupts: Interrupts) -> None:
        """Until every process has handed over its tables or died, or training diverged."""
        while any(not m.gone for m in self.members) and self.diverged is None:
            for member in self._heard_from():
                self._hear(member)
            interrupts.check()
            self._check_silence()
            self._check_end()
            if time.monotonic() > self.deadline:
                late = ", ".join(self._name(m.node) for m in self.members if not m.gone)
                raise TransportError(f"{late} did not end within {_STOPPING:g} s")

    def _heard_from(self) -> list[_Member]:
        """Who has sent something, or ended; waits for that a moment."""
        pipes: dict[Any, _Member] = {m.pipe: m for m in self.members if not m.gone}
        return [pipes[ready] for ready in wait(list(pipes), timeout=0.2)]

    def _hear(self, member: _Member) -> None:
        """Take what a process has sent; parts of messages are signs of life as well."""
        try:
            messages = member.pipe.read()
        except (EOFError, OSError):
            self._lost(member, self._ending(member))
            return
        member.heard = time.monotonic()
        for message in messages:
            self._heed(member, message)

    def _heed(self, member: _Member, data: bytearray) -> None:
        if member.state == "params":
            member.params, member.state = data, "done"
            return
        message = msgspec.msgpack.decode(data)
        kind = message["is"]
        if kind == "beat":
            self._beat(member, message)
        elif kind in ("ended", "quiet"):
            member.state = kind
        elif kind == "tables":
            member.tables = message
            member.steps = message["totals"]["steps"]
            member.state = "params" if self.scenario.run.evaluate else "done"
        elif kind == "diverged" and self.diverged is None:
            self.diverged = Diverged(
                message["loss"], message["now"], worker=member.node, step=message["step"]
            )
        elif kind == "error":
            raise TransportError(f"{self._name(member.node)} failed:\n{message['text']}")

    def _beat(self, member: _Member, message: dict[str, Any]) -> None:
        told = message["waiting"], message["steps"], message["moved"]
        if told != (member.waiting, member.steps, member.moved):
            member.still = member.heard
        member.waiting, member.steps, member.moved = told
        member.rows += message["rows"]
        if self.on_progress is not None:
            self.on_progress(sum(m.steps for m in self.members), self._total())

    def _total(self) -> int:
        run, n = self.scenario.run, self.plan.workers
        return run.steps * n if run.steps else -(-run.samples // self.scenario.workload.batch)

    def _check_silence(self) -> None:
        """Take for dead who said nothing for too long; give up where nothing moves any more."""
        now, limit = time.monotonic(), self.scenario.run.heartbeat_timeout
        for member in [m for m in self.members if not m.gone]:
            if now - member.heard > limit:
                member.process.kill()
                self._lost(member, f"it was silent for {limit:g} s")
        running = [m for m in self.members if m.state == "running"]
        patience = max(_STANDSTILL, 2 * limit)
        if (
            running
            and not self.finishing
            and all(m.waiting for m in running)
            and all(now - m.still > patience for m in self.members if not m.gone)
        ):
            who = "\n".join(f"  {self._name(m.node)} waits for {m.waiting}" for m in running)
            raise TransportError(f"nothing moves any more:\n{who}")

    def _lost(self, member: _Member, why: str) -> None:
        """A process is gone: a server ends the run, a worker leaves it."""
        if member.gone:
            return
        member.state = "dead"
        self.left[member.node] = why
        if member.node >= self.plan.workers:
            raise TransportError(
                f"{self._name(member.node)} is gone ({why}) after {time.monotonic() - self.zero:.1f} s and "
                f"its part of the model with it; the run cannot go on. Start it again"
            )
        for other in self.members:
            if not other.gone:
                self._tell(other, do="left", node=member.node)
        if all(m.state == "dead" for m in self.members[: self.plan.workers]):
            raise TransportError(f"all workers are gone; the last was {self._name(member.node)} ({why})")

    def _check_end(self) -> None:
        """Once no worker runs, let servers and companions finish; once all is quiet, ask for the tables."""
        workers = self.members[: self.plan.workers]
        if not self.finishing and all(m.state != "running" for m in workers):
            self.finishing = True
            self.deadline = time.monotonic() + _STOPPING + self._pending_seconds()
            for member in self.members:
                if not member.gone:
                    self._tell(member, do="finish")
        if self.finishing and not self.reporting and all(m.state in ("quiet", "dead") for m in self.members):
            self.reporting = True
            for member in self.members:
                if not member.gone:
                    self._tell(member, do="report")

    def _pending_seconds(self) -> float:
        """Time to allow for handing over parameters: a slow 50 MB/s."""
        return 4 * self.plan.parameters * len(self.members) / 50e6

    def _stop(self, interrupts: Interrupts) -> None:
        """Ask all processes to hand over what they have; a second Ctrl-C or the deadline ends that."""
        pressed = interrupts.count
        for member in self.members:
            if not member.gone:
                self._tell(member, do="stop")
        until = time.monotonic() + _STOPPING
        try:
            while any(not m.gone for m in self.members) and time.monotonic() < until:
                for member in self._heard_from():
                    try:
                        self._hear(member)
                    except TransportError:  # its own failure: keep what the others have
                        member.state = "dead"
                interrupts.check(pressed)
        except KeyboardInterrupt:
            return

    # ---- ending -------------------------------------------------------------------------------

    def _end(self) -> None:
        """Let processes go, and end those that do not."""
        for member in self.members:
            if member.state == "done":
                self._tell(member, do="exit")
            else:
                member.process.kill()
        until = time.monotonic() + 3.0
        for member in self.members:
            member.process.join(max(0.0, until - time.monotonic()))
            if member.process.is_alive():
                member.process.kill()
                member.process.join(1.0)
            member.pipe.close()

    def _tell(self, member: _Member, **order: Any) -> None:
        try:
            member.pipe.send_bytes(msgspec.msgpack.encode(order))
        except OSError:
            return

    def _ending(self, member: _Member) -> str:
        """How a process ended that closed its pipe, and what that may mean."""
        member.process.join(1.0)
        code = member.process.exitcode
        if code is None or code >= 0:
            return "its process ended" + (f" with exit code {code}" if code else "")
        what = f"its process was ended by {signal.Signals(-code).name}"
        if code != -signal.SIGKILL:
            return what
        return (
            f"{what}, as kernels do where memory runs out: {len(self.members)} processes hold several copies "
            f"each of {4e-6 * self.plan.parameters:,.1f} MB of parameters"
        )

    def _name(self, node: int) -> str:
        kind = "worker" if node < self.plan.workers else "server"
        pid = next((m.process.pid for m in self.members if m.node == node), None)
        return f"{kind} {node} (process {pid})"
