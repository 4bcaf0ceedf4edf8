"""Node: all that a program can see. Message, Left, Joined: what it receives. Finished: its end.

Rules this module obeys:

* Nodes have ids: workers are 0 .. n-1 (their ranks), servers n .. n+S-1.
* Between two yields a program runs alone on its node, so node state needs no locks.
* Whatever the driver keeps about a node beyond this (clocks, queues) stays in the driver.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

from core.effects import Effect
from core.optimizer import MomentumSGD, Schedule
from core.record import OBSERVATION_COLUMNS, Ledger, StepLog
from core.sharding import Shard
from core.tensors import Tensors

__all__ = [
    "GRADIENT", "JOINED", "LEFT", "MODEL",
    "Algorithm", "Finished", "Joined", "Left", "Message", "Node", "Program",
]  # fmt: skip

GRADIENT, MODEL, LEFT, JOINED = "gradient", "model", "left", "joined"

Program = Generator[Effect, Any, None]


class Finished(Exception):
    """Thrown into a worker at its first ``Compute`` beyond its budget; flush if need be, and return."""


@dataclass(slots=True, eq=False)
class Message:
    """What travels: a tagged tensor with a small fixed header.

    tag       what it is; receivers select by it
    tensor    flat tensor, view or Phantom; None for pure control messages
    step      the sender's step, round or push number
    count     how many gradients the tensor sums up
    versions  sum over those gradients of the server version that each was computed at
    number    one scalar for the algorithm (ALADDIN's alpha, a push-sum weight)
    source    id of the sender, filled in by the driver
    """

    tag: str
    tensor: Any = None
    step: int = 0
    count: int = 1
    versions: int = 0
    number: float = 0.0
    source: int = -1


@dataclass(frozen=True, slots=True)
class Left:
    """Node ``rank`` has ended or died; nothing more of it will come."""

    rank: int
    tag: ClassVar[str] = LEFT


@dataclass(frozen=True, slots=True)
class Joined:
    """Node ``rank`` has joined (again)."""

    rank: int
    tag: ClassVar[str] = JOINED


@dataclass(eq=False)
class Node:
    """One worker or server as its programs see it.

    id         its address; a worker's rank
    workers    n, the number of workers at the start
    params     flat tensor: a worker's whole x_i, a server's slice of the global model; a Phantom
               in timing-only runs
    shards     where the slices of the global model live; empty without servers
    tensors    the metered tensor operations
    optimizer  momentum SGD for ``params``
    schedule   learning rate by global samples
    batch      samples per worker step
    layers     elements of each layer, in order of the flat vector; empty where nobody said
    live       ranks of the workers that have not left, as far as this node was told
    step       completed ``Compute`` effects (workers)
    version    updates applied to ``params`` (servers); version of the model last adopted (workers)
    blends     global models adopted or mixed in (workers)
    weight     push-sum weight that this worker holds (SGP, GoSGD); others leave it at 1
    ledger     what became of every gradient (servers)
    joins      whether workers may join while the run is under way (servers)
    observations  what probe programs measured
    memory     state that outlives one program or effect, by its owner's name (collectives)
    """

    id: int
    workers: int
    params: Any
    shards: tuple[Shard, ...] = ()
    tensors: Tensors = field(default_factory=Tensors)
    optimizer: MomentumSGD = field(default_factory=MomentumSGD)
    schedule: Schedule = field(default_factory=Schedule)
    batch: int = 1
    layers: tuple[int, ...] = ()
    live: set[int] = field(default_factory=set)
    step: int = 0
    version: int = 0
    blends: int = 0
    weight: float = 1.0
    ledger: Ledger = field(default_factory=Ledger)
    stream: Callable[[int, str], np.random.Generator] | None = None
    memory: dict[str, Any] = field(default_factory=dict)
    joins: bool = False
    observations: StepLog = field(default_factory=lambda: StepLog(OBSERVATION_COLUMNS))

    def lr(self) -> float:
        """Eta for the gradient at hand, by the samples of all that were processed before it.

        Workers estimate them from their own steps (the last of which gave this gradient); servers count
        what they have applied.
        """
        if self.id < self.workers:
            return self.schedule.at(max(self.step - 1, 0) * self.batch * self.workers)
        return self.schedule.at(self.ledger.applied_total * self.batch)

    def observe(self, kind: int, nbytes: float, seconds: float) -> None:
        """Leave a measurement in the record (probe programs; ``core.probes`` names the kinds)."""
        self.observations.append((self.id, kind, nbytes, seconds))

    def rng(self, purpose: str) -> np.random.Generator:
        """A seeded random stream of this node, named by its purpose."""
        if self.stream is None:
            raise RuntimeError("this driver was given no random streams")
        return self.stream(self.id, purpose)


class Algorithm(Protocol):
    """What an algorithm's class offers; its dataclass fields are its options.

    A decentralized algorithm has ``centralized = False`` and no servers: its ``server`` is never
    called. ``collective`` says that it yields ``AllReduce``. It may also have ``check(workers)``,
    which raises ``OptionError`` where its options do not go with so many workers; and a centralized one
    whose workers send no gradients (but parameters, say) has ``sends_gradients = False``: the servers'
    ledgers then have nothing to account for.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    centralized: ClassVar[bool]
    collective: ClassVar[bool]

    def worker(self, node: Node) -> Program: ...

    def server(self, node: Node) -> Program: ...

    def companions(self, node: Node) -> Iterable[Program]: ...
