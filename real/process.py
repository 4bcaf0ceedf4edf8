"""One node's process: sets the node up, runs its programs, hands back its tables.

Rules this module obeys:

* The process obeys its launcher over one inherited pipe (messages of ``msgspec.msgpack``, never
  pickles) and ends when that pipe breaks: no orphans. It ignores Ctrl-C, which is the launcher's.
* The pipe also carries heartbeats, apart from all data; a thread of its own sends them.
* Nothing slow happens after the clock has started: connections are opened, one gradient and one
  native all-reduce are done before.
* A worker that comes while the run is under way gets ready beforehand, and is told the others' addresses
  when its time has come: by then they all take its frames.
"""

from __future__ import annotations

import ctypes
import gc
import os
import select
import signal
import threading
import time
import traceback
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np
import torch

from core.joining import JOIN
from core.node import GRADIENT, Message
from core.record import GRADIENT_COLUMNS, Ledger, StepLog
from real import reunion, wire
from real.booking import Booker
from real.buffers import allocate, expose
from real.compute import Computer
from real.counter import Counter, Tally
from real.driver import Driver, Hooks, Stopped
from real.endpoint import Endpoint
from real.errors import Refused, TransportError
from real.faults import Faults
from real.keys import load as load_keys
from real.life import Life
from real.native import NativeGroup
from real.pacing import Links
from real.pipe import End
from real.server import Custody
from real.shaped import shaped_links
from real.tensors import TimedTensors
from real.testbed.places import Place, enter, verify
from real.transport import ZmqTransport
from scenarios.errors import ScenarioError
from scenarios.faults import returns
from scenarios.machines import MOST
from scenarios.memory import keep_pages
from scenarios.plan import Plan, plan
from scenarios.schema import Scenario
from scenarios.steptime import StepTimes
from scenarios.streams import stream
from scenarios.workloads import load

__all__ = ["BEAT", "links_of", "main", "slots_of"]

BEAT = 0.2
"""Seconds between heartbeats."""

_PR_SET_PDEATHSIG, _PR_SET_TIMERSLACK = 1, 29
_M_ARENA_MAX = -8
_OPENING = 30.0


def main(pipe: End, place: Place | None = None) -> None:
    """Entry of a node's process; its launcher is at the other end of ``pipe``.

    place  the namespace that it lives in, entered before there is a thread or a socket
    """
    tell: Callable[..., None] = partial(_say, pipe)
    try:
        if place is not None:
            enter(place)
        _tune()
        threading.Thread(target=_end_with, args=(pipe,), name="launcher", daemon=True).start()
        process = _Process(pipe, place)
        tell = process.tell  # heartbeats share the pipe from now on
        process.run()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(1)
    except ScenarioError as error:
        _end(tell, "refused", str(error), 2)
    except TransportError as error:
        _end(tell, "error", str(error), 1)
    except BaseException as error:
        _end(tell, "error", _account(error), 1)
    os._exit(0)


def _end(tell: Callable[..., None], what: str, text: str, code: int) -> NoReturn:
    """Say why this process ends, if there still is a launcher to hear it."""
    try:
        tell(**{"is": what}, text=text)
    finally:
        os._exit(code)


def _say(pipe: End, **message: Any) -> None:
    pipe.send_bytes(msgspec.msgpack.encode(message))


def _account(error: BaseException) -> str:
    """What went wrong and where; what lies between this process's entry and a program is left out."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("real."):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace or error.__traceback__)).rstrip()


def _end_with(pipe: End) -> None:
    """End this process when the launcher's end of ``pipe`` is closed, whatever is being waited for."""
    launcher = select.poll()
    launcher.register(pipe.fileno(), 0)
    launcher.poll()
    os._exit(1)


def _tune() -> None:
    """One thread of torch, timers to the microsecond, an allocator (glibc) that keeps freed tensors' pages.

    The process ends with the fork server, which ends with the launcher: also while it is stopped.
    """
    torch.set_num_threads(1)
    gc.freeze()  # a collection that walks through all of torch, shared until then, takes 0.3 s of a core
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_TIMERSLACK, 1000, 0, 0, 0)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_ARENA_MAX, 1)
    keep_pages()


def _moving() -> float:
    """Processor time of this process beside the calling thread, the program's: what moves its bytes."""
    return time.process_time() - time.thread_time()


def links_of(plan: Plan) -> Links:
    """The NICs of all nodes as the transport paces them; native links without rates."""
    scenario, machines = plan.scenario, plan.scenario.cluster.machines
    if scenario.run.links == "shaped":
        return shaped_links(plan)
    if scenario.run.links != "paced":
        return Links(paced=False)
    own = [machines[plan.machine_of[node]] for node in plan.nodes]
    return Links(
        paced=True,
        up=tuple(m.up for m in own),
        down=tuple(m.down for m in own),
        latency=tuple(m.latency for m in own),
        overhead=scenario.cluster.network.overhead,
    )


def slots_of(scenario: Scenario) -> int:
    """Messages at once through a NIC direction."""
    admission = scenario.cluster.network.admission
    return MOST if admission == "fair" else 1 if admission == "fifo" else int(admission)


class _Process:
    """Set-up, run and hand-over of one node."""

    def __init__(self, pipe: End, place: Place | None) -> None:
        self.pipe, self.place = pipe, place
        self.sending = threading.Lock()
        spec = self.hear()
        self.id, self.device, self.token = spec["node"], spec["device"], spec["token"]
        self.scenario = Scenario.from_dict(spec["scenario"])
        self.plan = plan(self.scenario)
        self.rendezvous, self.nccl = spec["rendezvous"], spec["nccl"]
        self.samples = Counter(spec["samples"])
        self.faults = Faults(spec["kill"], spec["stall"])
        self.journal = spec["journal"]
        self.is_server = self.id >= self.plan.workers
        self.live, self.tally = set(spec["live"]), Tally(spec["tally"])
        self.life = Life(spec["life"], spec["joining"], spec["due"], self.tell, self.now)
        self.quiet, self.over = threading.Event(), threading.Event()
        self.sent_rows = 0

    # ---- the pipe -----------------------------------------------------------------------------

    def hear(self) -> dict[str, Any]:
        """The launcher's next message."""
        message: dict[str, Any] = msgspec.msgpack.decode(self.pipe.recv_bytes(), strict=False)
        return message

    def now(self) -> float:
        """Seconds since the start of the run."""
        return time.monotonic() - self.booker.zero

    def tell(self, **message: Any) -> None:
        """Send the launcher a message."""
        with self.sending:
            _say(self.pipe, **message)

    def _listen(self) -> None:
        """The pipe's thread: heartbeats out, orders in. Ends the process when the launcher is gone."""
        due = time.monotonic() + BEAT
        try:
            while True:
                if not self.pipe.poll(max(0.0, due - time.monotonic())) or time.monotonic() >= due:
                    self._beat()
                    due = time.monotonic() + BEAT
                    continue
                order = self.hear()
                if order["do"] in ("left", "off"):
                    self.transport.depart(order["node"], later=order["do"] == "off")
                elif order["do"] == "parted":
                    reunion.part(self.endpoint, order["node"])
                    self.transport.hang_up(order["node"])
                elif order["do"] in ("meet", "joined"):
                    self._meet(**order)
                elif order["do"] in ("welcome", "pause", "until", "resume"):
                    self.life.heed(**order)
                elif order["do"] == "thaw":
                    self.life.thawed.set()
                elif order["do"] == "leave":
                    self.life.going = True
                elif order["do"] == "finish":
                    self.driver.finish()
                elif order["do"] == "cut":
                    self.transport.cut(order["seconds"])
                elif order["do"] == "survey":
                    self.transport.pulse.survey(order["number"], order["seconds"])
                elif order["do"] == "report":
                    self.quiet.set()
                elif order["do"] == "stop":
                    self.driver.stop()
                    self.quiet.set()
                elif order["do"] == "exit":
                    self.over.set()
        except (OSError, EOFError):
            os._exit(1)
        except Exception as error:
            self._fail(error)

    def _meet(
        self, do: str, node: int, life: int, address: str = "", joined: bool = True, **together: Any
    ) -> None:
        """Node ``node`` is there (again): answer once its frames are taken; if ``joined``, programs know."""

        def met() -> None:
            if joined:
                self.endpoint.welcome(node, life)
                if together:
                    self.life.heed("resume", **together)
            self.tell(**{"is": "met"}, node=node, life=life, order=do)

        if do == "meet":
            self.transport.meet(node, address, life, met)
        else:
            met()

    def _beat(self) -> None:
        """A sign of life: steps done, frames moved, what is waited for, and the rows since the last one."""
        rows = self.booker.rows.values[self.sent_rows :]
        self.sent_rows += len(rows)
        self.tell(
            **{"is": "beat"}, steps=self._made(), moved=self.endpoint.moved,
            waiting=self.driver.waiting(), rows=rows.tobytes(), silent=self.transport.pulse.silent,
            heard=self.transport.pulse.surveyed(),
        )  # fmt: skip

    def _acknowledged(self, message: Message) -> None:
        if message.tag == GRADIENT:
            self.tally.acknowledge(message.count)

    def _made(self) -> int:
        """Steps completed in this life."""
        return 0 if self.life.entering else self.driver.node.step - self.life.base

    # ---- the life of a node -------------------------------------------------------------------

    def run(self) -> None:
        """Set up, wait for the common start, run, hand over."""
        self._build()
        if self.life.entering:
            self._warm()
        self.tell(**{"is": "listening"}, address=self.transport.address)
        told = self.hear()
        self._connect(told)
        if not self.life.entering:
            self._open()
            self.tell(**{"is": "ready"})
            told = self.hear()
        self.driver.booker.zero = zero = told["zero"]
        threading.Thread(target=self._listen, name="pipe", daemon=True).start()
        self.transport.pulse.watch(self.scenario.run.heartbeat_timeout, self.driver.awaited)
        time.sleep(max(0.0, zero - time.monotonic()))
        self.moving = _moving()
        stopped = False
        try:
            self.driver.run(*self.programs)
            if self.is_server:
                self.driver.drain()
            else:
                self._leave()
            self.tell(**{"is": "quiet"})
            self.quiet.wait()
        except Stopped:
            stopped = True
            self.driver.abandon()
        self._report(stopped)
        self.over.wait()
        self.transport.close()

    def _build(self) -> None:
        """Task, node, endpoint, transport, programs."""
        scenario, plan, run = self.scenario, self.plan, self.scenario.run
        torch.manual_seed(run.seed)
        self.booker = Booker(self.id, server=self.is_server, spans=run.spans)
        custody = self.custody = self._custody()
        self.tensors = TimedTensors(self.device) if custody is None else custody.tensors
        task = load(scenario.workload, run.seed, self.device)
        initial = task.initial()
        if self.is_server:
            initial = self.tensors.copy_of(plan.shards[self.id - plan.workers].of(initial))
        self.gradients = StepLog(GRADIENT_COLUMNS)
        ledger = Ledger(self.id, self.gradients, clock=self.now if custody is None else custody.keeper.now)
        node = plan.node(self.id, initial, self.tensors, ledger, self.live)
        if self.life.entering:
            node.weight = 1.0 if plan.algorithm.centralized else 0.0
        if self.life.number and not self.is_server:
            node.stream = lambda id, purpose: stream(run.seed, id, f"{purpose}, life {self.life.number}")
        network = scenario.cluster.network
        agreed = wire.Agreed(self.token, len(plan.nodes), 4 * plan.parameters)
        self.endpoint = (Endpoint if custody is None else custody.endpoint)(
            self.id, agreed, links_of(plan), allocate=allocate, expose=expose, clock=time.monotonic,
            slots=slots_of(scenario), window=network.window, inbox=network.inbox, life=self.life.number,
        )  # fmt: skip
        self.endpoint.acknowledged = self._acknowledged
        self.endpoint.beside = "" if plan.algorithm.centralized else JOIN
        self.endpoint.transfers = [] if run.spans else None
        if self.place is not None:
            verify(self.place)
        keys = load_keys(run.keys) if run.keys else None
        host = self.place.address if self.place else run.address
        self.transport = ZmqTransport(self.endpoint, self._fail, host, keys)
        notify = self.endpoint.notify
        computer = group = None
        if not self.is_server:
            times = StepTimes(scenario.cluster, run.seed)
            paced = run.compute == "paced"
            computer = Computer(task, self.id, times, paced=paced, device=self.device, done=notify)
            alike = plan.workers > 1 and len(self.live) == plan.workers and not self.life.entering
            if plan.algorithm.collective and network.collective == "native" and alike:
                group = NativeGroup(self.id, plan.workers, self.rendezvous, nccl=self.nccl, done=notify)
        hooks = Hooks(
            self._more, partial(self.faults.strike, self.id), self._diverged,
            stepped=lambda step: self.tally.stepped(step - self.life.base),
            answered=lambda rank: self.life.answered(node, rank),
        )  # fmt: skip
        self.driver = Driver(node, self.endpoint, self.booker, hooks, computer, group, self.device)
        algorithm = plan.algorithm
        halts = algorithm.collective and returns(scenario.faults)
        regroup = self.driver.regroup if halts else None
        main = (algorithm.server(node) if self.is_server
                else self.life.program(node, algorithm, self.endpoint, regroup))  # fmt: skip
        if custody is not None:
            main = custody.program(main, self.driver)
        self.programs = [main, *(() if self.is_server else algorithm.companions(node))]
        for program in self.programs:
            if not isinstance(program, Generator):
                raise TypeError(
                    f"{type(algorithm).__name__} has {program!r} for a program; expected a generator"
                )

    def _custody(self) -> Custody | None:
        """What keeps this node, if it is a server that is to come back when it crashes."""
        folder, every = self.journal
        if not folder:
            return None
        clock, parts = self.now, lambda: list(self.booker.parts)
        return Custody(self.plan, self.id, self.token, Path(folder), every, clock, parts)

    def _connect(self, told: dict[str, Any]) -> None:
        """Learn who is there in which life, and connect to all that can be reached."""
        self.live.clear()
        self.live.update(told["live"])
        lives = {int(node): life for node, life in told["lives"].items()}
        self.endpoint.introduce(lives, {*told["live"], *self.plan.servers})
        self.endpoint.lives.finished = told["finished"]
        if self.custody is not None:
            self.custody.keeper.begin()
        self.transport.start({int(node): address for node, address in told["addresses"].items()})

    def _open(self) -> None:
        """See that all connections are open; meanwhile do once what is slow the first time."""
        others = self._others()
        self.endpoint.say(wire.PING, others)
        self._warm()
        with self.endpoint.changed:
            everyone = self.endpoint.changed.wait_for(
                lambda: self.endpoint.received["pong"] == len(others), timeout=_OPENING
            )
        if not everyone:
            raise TransportError(f"node {self.id}: not all other nodes answer within {_OPENING:g} s")

    def _others(self) -> list[int]:
        """All other nodes that can be reached."""
        return [node for node in self.plan.nodes if node != self.id and node not in self.endpoint.gone]

    def _warm(self) -> None:
        """Do once what is slow the first time."""
        driver = self.driver
        if driver.computer is not None:
            driver.computer.warm(driver.node.params)
        if driver.group is not None:
            driver.group.warm(driver.node.params)
        gc.collect()
        gc.freeze()

    def _leave(self) -> None:
        """After a worker's program: deliver what is under way, say goodbye, go on with its companions."""
        if len(self.programs) == 1:
            self.endpoint.discard()
        self.driver.drain()
        with self.endpoint.changed:  # who is met meanwhile is among the others, or hears of it as it is met
            self.life.ended = True
            going = self.life.going
            self.endpoint.say(wire.BYE, self._others(), step=self.driver.reduced, number=float(not going))
        self.tell(**{"is": "ended"}, going=going, now=self.booker.end - self.booker.zero)
        self.driver.serve()

    def _more(self, step: int, now: float) -> bool:
        """Whether faults and the budget allow this worker another step."""
        if not self.life.goes_on(step):
            return False
        run = self.scenario.run
        if run.steps:
            return step < run.steps
        if run.seconds:
            return now < run.seconds
        return self.samples.add(self.scenario.workload.batch) < run.samples

    def _diverged(self, step: int, loss: float, now: float) -> None:
        """Let the launcher stop the run; until it does, this worker goes on."""
        self.tell(**{"is": "diverged"}, step=step, loss=loss, now=now)

    def _fail(self, error: BaseException) -> None:
        """A node was refused: the launcher's to decide. Else the transport cannot go on, nor the node."""
        if isinstance(error, Refused):
            life = self.endpoint.lives.of[error.peer]
            self.tell(**{"is": "refuses"}, node=error.peer, life=life, text=str(error))
            return
        expected = isinstance(error, TransportError)
        text = str(error) if expected else "".join(traceback.format_exception(error))
        self.tell(**{"is": "error"}, text=text)
        os._exit(1)

    # ---- what it hands back -------------------------------------------------------------------

    def _dropped(self) -> dict[str, int]:
        """Frames dropped, by reason."""
        former = self.endpoint.lives.former
        return {**self.transport.dropped, **({"of another life": former} if former else {})}

    def _report(self, stopped: bool) -> None:
        """Tables and totals, then (asked for) the parameters; no sign of life comes between them."""
        driver, booker, node, endpoint = self.driver, self.booker, self.driver.node, self.endpoint
        computer = driver.computer
        for start, end in endpoint.transfers or ():
            booker.transfer(start, end)
        totals = {
            "node": self.id, "role": int(self.is_server), "steps": self._made(),
            "samples": self._made() * node.batch, "parts": booker.parts, "end": booker.end - booker.zero,
            "messages_out": endpoint.sent["messages"], "messages_in": endpoint.received["messages"],
            "bytes_out": endpoint.sent["bytes"], "bytes_in": endpoint.received["bytes"],
            "blends": node.blends, "weight": 0.0 if self.is_server else node.weight,
        }  # fmt: skip
        tables = {
            "is": "tables", "stopped": stopped, "totals": totals,
            "applied": node.ledger.applied, "pending": node.ledger.pending(),
            "rows": booker.rows.values.tobytes(),
            "gradients": self.gradients.values.tobytes(),
            "observations": node.observations.values.tobytes(),
            "spans": booker.spans.values.tobytes() if booker.spans is not None else b"",
            "joins": booker.joins, "losses": driver.losses, "tensors": self.tensors.totals,
            "overruns": min(computer.overruns, self._made()) if computer else 0,
            "transport_seconds": _moving() - self.moving,
            "gradient_seconds": computer.seconds / max(computer.steps, 1) if computer else 0.0,
            "dropped": self._dropped(), "acknowledged": self.tally.acknowledged,
            "journal": self.custody.summary() if self.custody is not None else {},
        }  # fmt: skip
        with self.sending:
            self.pipe.send_bytes(msgspec.msgpack.encode(tables))
            if self.scenario.run.evaluate:
                flat = np.ascontiguousarray(node.params.detach().cpu().numpy())
                self.pipe.send_bytes(flat.view(np.uint8).data)
