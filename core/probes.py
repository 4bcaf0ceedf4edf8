"""Probe programs: what a machine's constants are measured with.

Rules this module obeys:

* A probe is a node program like any algorithm, so it runs through the same driver, transport and
  tensor operations as what it calibrates; and it runs in the simulator, where a test can hold the
  fitted constants against the true ones.
* A probe measures one thing while nothing else goes on. It reports with ``node.observe``.

=================  ===========================================  =====================================
probe              observes (kind, bytes, seconds)              of
=================  ===========================================  =====================================
``StepProbe``      ``STEP``, workers at once, the step's number  which rows in ``steps`` are steps of how
                                                                many workers that never talk meanwhile
``RelayProbe``     nothing, likewise                            steps after pauses, and without
``BesideProbe``    nothing, likewise                            steps beside messages, and in silence
``TensorProbe``    operation, tensor's bytes, duration          each tensor operation, after a step
``LinkProbe``      ``PING``, message's bytes, half a round trip an idle link
                   ``STREAM``, bytes, seconds per message       messages back to back, one way
                   ``DUPLEX``, bytes, seconds per message       the same, both ways at once
``AllReduceProbe`` ``ALLREDUCE``, tensor's bytes, duration      an all-reduce that all enter at once
                   ``HUB``, bytes, seconds per message          one node that all others send to at once
=================  ===========================================  =====================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from core.effects import AllReduce, Compute, Effect, Now, Poll, Receive, Send
from core.errors import require
from core.node import Finished, Left, Message, Node, Program
from core.tensors import OPERATIONS

__all__ = [
    "ALLREDUCE",
    "DUPLEX",
    "HUB",
    "PING",
    "STEP",
    "STREAM",
    "TALKS",
    "TURN",
    "AllReduceProbe",
    "BesideProbe",
    "LinkProbe",
    "RelayProbe",
    "StepProbe",
    "TensorProbe",
    "fewest",
]

PING, STREAM, DUPLEX, ALLREDUCE, STEP, HUB = (len(OPERATIONS) + i for i in range(6))
"""Kinds of observation; smaller numbers are indices into ``core.tensors.OPERATIONS``."""

TURN = 3
"""Steps that a worker of a ``RelayProbe`` makes before it is the other's turn."""

TALKS = 2
"""Every so many steps of a ``TensorProbe`` the last is followed by messages, not by tensor operations."""

_COLD_BYTES = 64e6
"""Bytes that a probe's vectors have together, if not that makes them more than 16."""

_COMPUTE, _NOW, _RECEIVE, _RECEIVE_ACK = Compute(), Now(), Receive("probe"), Receive("probe.ack")


def fewest(workers: int) -> int:
    """Steps that each of so many workers at once makes at least, so that all together make ten or more."""
    return 2 + -(-8 // workers)


@dataclass(frozen=True)
class _Probe:
    """Workers only, no servers."""

    centralized: ClassVar[bool] = False
    collective: ClassVar[bool] = False

    repeats: int = 10

    def __post_init__(self) -> None:
        require("repeats", self.repeats, self.repeats >= 2, "a whole number of at least 2")

    def server(self, node: Node) -> Program:
        raise NotImplementedError("probes have no servers")

    def companions(self, node: Node) -> Iterable[Program]:
        return ()


@dataclass(frozen=True)
class StepProbe(_Probe):
    """Workers compute, and nobody talks meanwhile: first as many at once as ``groups`` says first, and so on.

    Those of a group start together. Each makes ``fewest`` steps, and then, up to ``most``, as many as
    begin within ``seconds``; ``seconds`` may be 0. The first is no measurement, for its worker had paused.
    Who is done goes on computing, unmeasured, until all of the group are: a step is always one beside as
    many others. Without ``groups`` all compute until their budget is met.
    """

    name: ClassVar[str] = "probe.steps"
    title: ClassVar[str] = "probe: step times of n workers that never communicate"

    groups: tuple[int, ...] = ()
    seconds: float = 0.0
    most: int = 40

    def worker(self, node: Node) -> Program:
        try:
            if not self.groups:
                while True:
                    yield _COMPUTE
            for turn, count in enumerate(self.groups):
                require("groups", count, 1 <= count <= node.workers, "at most as many as there are workers")
                if node.id < count:
                    yield from self._measured(node, count)
                yield from _together(node, turn, count)
        except Finished:
            return

    def _measured(self, node: Node, count: int) -> Generator[Effect, Any, None]:
        least, begun = fewest(count), (yield _NOW)
        for number in range(max(least, self.most)):
            if number >= least and (yield _NOW) - begun >= self.seconds:
                return
            if number:
                node.observe(STEP, count, node.step)
            yield _COMPUTE


def _together(node: Node, turn: int, count: int) -> Generator[Effect, Any, None]:
    """Until the first ``count`` workers are all at this point; these compute while they wait."""
    others = [other for other in range(node.workers) if other != node.id]
    missing = sum(other < count for other in others)
    if others and node.id < count:
        yield Send(*((other, Message("probe.done", step=turn)) for other in others), window=math.inf)
        while missing:
            while (yield Poll("probe.done", step=turn)) is not None:
                missing -= 1
            if missing:
                yield _COMPUTE
    for _ in range(missing):
        yield Receive("probe.done", step=turn)


def _part(node: Node, part: float) -> Any:
    """The first ``part`` of a node's parameters, a view."""
    return node.params[: max(1, int(part * len(node.params)))]


@dataclass(frozen=True)
class RelayProbe(_Probe):
    """Two workers in turn adopt the other's vector, send theirs, compute ``TURN`` steps, and pass it on.

    Steps that follow each other at once find the processor as they left it; the first of a turn, whose worker
    was blocked before and beside which a message moves, does not. What that costs is the difference to the
    others, which see the same machine, however its speed drifts.

    ``part`` of a vector is sent; it should move within a step.
    """

    name: ClassVar[str] = "probe.relay"
    title: ClassVar[str] = "probe: step times of a worker that communicates"

    part: float = 1.0

    def worker(self, node: Node) -> Program:
        require("workers", node.workers, node.workers == 2, "2 for a relay")
        other, passed = 1 - node.id, _part(node, self.part)
        try:
            while True:
                if node.step or node.id:
                    while True:
                        message = yield Receive(("probe", "probe.turn"), source=other)
                        if type(message) is Left:
                            return
                        if message.tag == "probe.turn":
                            break
                        node.tensors.assign(passed, message.tensor)
                yield Send((other, Message("probe", node.tensors.snapshot(passed))), window=math.inf)
                for _ in range(TURN):
                    yield _COMPUTE
                yield Send((other, Message("probe.turn")), window=math.inf)
        except Finished:
            return


@dataclass(frozen=True)
class BesideProbe(_Probe):
    """All workers but two compute without a pause; these two send each other vectors in every second phase.

    While a core is idle, what messages cost the steps beside them shows in how much longer steps take in
    those phases than in the silent ones: processor time, cold caches and all. Where none is, it shows in the
    processor time of those two, wherever the driver knows it. Phases that take turns see the same machine,
    however its speed drifts. A phase is ``phase`` steps of the first worker. In it the two answer each
    ``part`` of a vector at once with another, so that both directions are busy however long steps take.
    """

    name: ClassVar[str] = "probe.beside"
    title: ClassVar[str] = "probe: step times of workers while messages come and go"

    part: float = 1.0
    phase: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        require("phase", self.phase, self.phase >= 2, "a whole number of at least 2")

    def worker(self, node: Node) -> Program:
        require("workers", node.workers, node.workers >= 3, "3 or more: two exchange messages")
        pair = (node.workers - 2, node.workers - 1)
        if node.id in pair:
            yield from self._exchange(node, sum(pair) - node.id)
            return
        try:
            while True:
                yield _COMPUTE
                if node.id == 0 and node.step % self.phase == 0:
                    word = "probe.on" if node.step // self.phase % 2 else "probe.off"
                    yield Send(*((other, Message(word)) for other in pair), window=math.inf)
        except Finished:
            if node.id == 0:
                yield Send(*((other, Message("probe.end")) for other in pair), window=math.inf)

    def _exchange(self, node: Node, other: int) -> Generator[Effect, Any, None]:
        tensor = node.tensors.snapshot(_part(node, self.part))
        sending = False
        while True:
            word = (yield Receive(("probe", "probe.on", "probe.off", "probe.end"))).tag
            if word == "probe.end":
                return
            if word != "probe":
                sending = word == "probe.on"
            if sending:
                yield Send((other, Message("probe", tensor)), window=math.inf)


@dataclass(frozen=True)
class TensorProbe(_Probe):
    """One of two workers computes. After every second step it runs each tensor operation on whole parameter
    vectors, after the others it sends ``part`` of one to the other worker, and takes it back.

    So operations and messages find the processor as a gradient left it, as they do in training. The vectors
    take turns, so that they are as cold in the caches as a vector that has just been received, or computed by
    somebody else; and so do the operations, of which one is the first after a step. The first of each is no
    measurement. What it does with messages shows in ``update`` of the ``TALKS`` steps.
    """

    name: ClassVar[str] = "probe.tensors"
    title: ClassVar[str] = "probe: tensor operations, and what programs spend on messages"

    part: float = 1.0

    def worker(self, node: Node) -> Program:
        require("workers", node.workers, node.workers == 2, "2 for a probe of tensor operations")
        if node.id:
            while (message := (yield _RECEIVE)).tensor is not None:
                yield Send((0, Message("probe", message.tensor)))
            return
        tensors, size = node.tensors, node.params.nbytes
        copies = max(2, min(16, int(_COLD_BYTES // size)))
        pool = [tensors.snapshot(node.params) for _ in range(copies)]
        sent = tensors.snapshot(_part(node, self.part))
        calls: dict[str, Callable[[Any, Any], Any]] = {
            "accumulate": tensors.accumulate,
            "apply": lambda x, g: node.optimizer.apply(tensors, x, g, 1e-9),
            "mix": lambda x, y: tensors.mix(x, y, 1e-9),
            "assign": tensors.assign,
            "scale": lambda x, _: tensors.scale(x, 1.0),
            "snapshot": lambda x, _: tensors.snapshot(x),
        }
        turn = 0
        for repeat in range(self.repeats + 1):
            yield _COMPUTE
            for place in range(len(OPERATIONS)):
                kind = (place + repeat) % len(OPERATIONS)
                turn += 2
                first, second = pool[turn % copies], pool[(turn + 1) % copies]
                begun = yield _NOW
                calls[OPERATIONS[kind]](first, second)
                ended = yield _NOW
                if repeat:
                    node.observe(kind, size, ended - begun)
            yield _COMPUTE
            yield Send((1, Message("probe", sent)))
            yield _RECEIVE
        yield Send((1, Message("probe")))


@dataclass(frozen=True)
class LinkProbe(_Probe):
    """Two workers: round trips, then streams one way and both ways, for several message sizes.

    ``parts`` are the sizes, as shares of the parameter vector; only the first ``pings`` of them make round
    trips, for what a link's latency is does not depend on the size.
    """

    name: ClassVar[str] = "probe.links"
    title: ClassVar[str] = "probe: links between two workers"

    parts: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0)
    pings: int = 2

    def worker(self, node: Node) -> Program:
        require("workers", node.workers, node.workers == 2, "2 for a link probe")
        other = 1 - node.id
        for place, part in enumerate(self.parts):
            tensor = node.tensors.snapshot(_part(node, part))
            if place < self.pings:
                yield from self._ping(node, other, tensor)
            yield from self._stream(node, other, tensor, STREAM, sends=node.id == 0, receives=node.id == 1)
            yield from self._stream(node, other, tensor, DUPLEX, sends=True, receives=True)

    def _ping(self, node: Node, other: int, tensor: Any) -> Generator[Effect, Any, None]:
        for repeat in range(self.repeats + 1):
            begun = yield _NOW
            if node.id == 0:
                yield Send((other, Message("probe", tensor)))
            yield _RECEIVE
            if node.id == 1:
                yield Send((other, Message("probe", tensor)))
            elif repeat:
                ended = yield _NOW
                node.observe(PING, tensor.nbytes, (ended - begun) / 2)

    def _stream(
        self, node: Node, other: int, tensor: Any, kind: int, sends: bool, receives: bool
    ) -> Generator[Effect, Any, None]:
        """``repeats`` messages back to back; the first opens the link and is not counted."""
        if sends:
            yield Send(*((other, Message("probe", tensor)) for _ in range(self.repeats + 1)), window=math.inf)
        if receives:
            before = None
            for _ in range(self.repeats + 1):
                yield _RECEIVE
                now = yield _NOW
                if before is not None:
                    node.observe(kind, tensor.nbytes, now - before)
                before = now
            yield Send((other, Message("probe.ack")), window=math.inf)
        if sends:
            yield _RECEIVE_ACK


@dataclass(frozen=True)
class AllReduceProbe(_Probe):
    """All workers reduce ``parts`` of a vector, entering together: the one before is their barrier.

    The vector is fresh in the caches, as a gradient is that has just been computed.

    Then, for ``rounds``, all but the first send it ``hub`` of a vector, each as soon as its last message
    has been answered. The first answers every one at once with another, as servers do, so that a queue stands
    before it and one sender follows the other. It observes rounds, of one message from each, but the first.
    """

    name: ClassVar[str] = "probe.allreduce"
    title: ClassVar[str] = "probe: all-reduce"
    collective: ClassVar[bool] = True

    parts: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0)
    hub: float = 0.0
    rounds: int = 3

    def worker(self, node: Node) -> Program:
        yield from self._reduce(node)
        if self.hub:
            require("workers", node.workers, node.workers >= 3, "3 or more: two send to one")
            yield from self._gather(node, node.tensors.snapshot(_part(node, self.hub)))

    def _gather(self, node: Node, tensor: Any) -> Generator[Effect, Any, None]:
        if node.id:
            for _ in range(self.rounds + 1):
                yield Send((0, Message("probe", tensor)))
                yield _RECEIVE
            return
        senders, before = node.workers - 1, 0.0
        for number in range(self.rounds + 1):
            for _ in range(senders):
                message = yield _RECEIVE
                yield Send((message.source, Message("probe", tensor)), window=math.inf)
            now = yield _NOW
            if number:
                node.observe(HUB, tensor.nbytes, (now - before) / senders)
            before = now

    def _reduce(self, node: Node) -> Generator[Effect, Any, None]:
        for part in self.parts:
            size = max(node.workers, int(part * len(node.params)))
            for repeat in range(self.repeats + 1):
                tensor = node.tensors.snapshot(node.params[:size])
                begun = yield _NOW
                yield AllReduce(tensor)
                ended = yield _NOW
                if repeat:
                    node.observe(ALLREDUCE, tensor.nbytes, ended - begun)
