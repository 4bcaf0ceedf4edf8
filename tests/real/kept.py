"""A cluster in memory whose servers keep journals and can be killed between any two frames or effects.

Frames of a pair keep their order, all else is drawn by seed: which frame moves next, whose program goes on.
A killed server loses its process's memory and all frames to and from it; its folder stays.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from core.effects import Compute, Flush, Now, Poll, Receive, Send, TrySend
from core.node import Finished, Left
from core.record import GRADIENT_COLUMNS, Ledger, StepLog
from real import reunion, wire
from real.buffers import allocate, expose
from real.endpoint import Endpoint
from real.keeping import KeptTensors, Registry
from real.kept import KeptEndpoint
from real.pacing import Links
from real.replay import Keeper
from real.tensors import TimedTensors
from scenarios.plan import plan
from tests.real.runs import tiny

__all__ = ["Cluster"]

AGAIN = object()


@dataclass
class Life:
    """One node's programs, as the driver would run them."""

    node: Any
    endpoint: Endpoint
    program: Any
    effect: Any = None
    answer: Any = AGAIN
    over: bool = False
    keeper: Keeper | None = None


@dataclass
class Cluster:
    """Workers and servers of ``algorithm``; ``run`` until all workers are done and nothing moves."""

    algorithm: Any
    folder: Path
    workers: int = 2
    servers: int = 1
    steps: int = 6
    seed: int = 0
    every: float = 0.0
    ticks: int = 0
    computed: dict[int, int] = field(default_factory=dict)
    down: set[int] = field(default_factory=set)
    dead: set[int] = field(default_factory=set)
    number: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cluster = {"servers": {"count": self.servers}}
        self.plan = plan(tiny(self.algorithm, self.workers, cluster=cluster, workload={"hidden": [4]}))
        self.agreed = wire.Agreed(b"01234567", len(self.plan.nodes), 4 * self.plan.parameters)
        self.random = random.Random(self.seed)
        self.initial = torch.linspace(-1, 1, self.plan.parameters)
        self.frames: dict[tuple[int, int], deque[tuple[bytes, Any]]] = {}
        self.lives = {node: self.live(node) for node in self.plan.nodes}

    def there(self) -> list[int]:
        """Workers that have not died."""
        return [worker for worker in range(self.workers) if worker not in self.dead]

    def clock(self) -> float:
        """A tick is a second."""
        return float(self.ticks)

    def live(self, node: int) -> Life:
        """A (new) life of ``node``; a server's goes on where its journal ends."""
        server = node >= self.workers
        number = self.number[node] = self.number.get(node, -1) + 1
        common: dict[str, Any] = {"clock": self.clock, "expose": expose, "life": number}
        links = Links(paced=False)
        if not server:
            endpoint = Endpoint(node, self.agreed, links, allocate=allocate, **common)
            made = self.plan.node(node, self.initial.clone(), TimedTensors())
            program = self.plan.algorithm.worker(made)
            life = Life(made, endpoint, program)
        else:
            registry = Registry()
            endpoint = KeptEndpoint(node, self.agreed, links, allocate=registry.room, **common)
            keeper = Keeper(
                self.folder / str(node),
                {"run": "test", "node": node},
                registry,
                every=self.every,
                clock=self.clock,
            )
            tensors = KeptTensors(registry)
            values = tensors.copy_of(self.plan.shards[node - self.workers].of(self.initial))
            ledger = Ledger(node, StepLog(GRADIENT_COLUMNS), clock=keeper.now)
            made = self.plan.node(node, values, tensors, ledger)
            keeper.keep(made, endpoint)
            life = Life(made, endpoint, keeper.program(self.plan.algorithm.server(made)), keeper=keeper)
        endpoint.told = lambda news: (made.live.discard if type(news) is Left else made.live.add)(news.rank)
        reached = set(self.plan.nodes) - self.dead
        endpoint.introduce({other: self.number.get(other, 0) for other in reached}, reached)
        if life.keeper is not None:
            life.keeper.begin()
        life.effect = next(life.program)
        return life

    def lose(self, worker: int) -> None:
        """A worker's process is gone for good."""
        del self.lives[worker]
        self.down.add(worker)
        self.dead.add(worker)
        for life in self.lives.values():
            life.endpoint.depart(worker)
        for pair in [pair for pair in self.frames if worker in pair]:
            del self.frames[pair]

    def kill(self, server: int) -> None:
        """The server's process is gone."""
        old = self.lives.pop(server)
        assert old.keeper is not None
        old.keeper.journal.close()
        self.down.add(server)
        for worker in self.there():
            reunion.part(self.lives[worker].endpoint, server)
        for pair in [pair for pair in self.frames if server in pair]:
            del self.frames[pair]

    def revive(self, server: int) -> None:
        """A new process takes its place."""
        self.down.discard(server)
        self.lives[server] = self.live(server)
        for worker in self.there():
            self.lives[worker].endpoint.meet(server, self.number[server])

    def run(self, kills: dict[int, int] | None = None, outage: int = 30, most: int = 200_000) -> None:
        """Tick until done; ``kills``: tick -> who dies then, a server for ``outage`` ticks."""
        due = dict(kills or {})
        back: dict[int, int] = {}
        idle = 0
        while idle < 200 or due or back:
            self.ticks += 1
            assert self.ticks < most, {node: life.effect for node, life in self.lives.items()}
            if self.ticks in due:
                server = due.pop(self.ticks)
                if server < self.workers:
                    self.lose(server)
                elif server not in self.down:
                    self.kill(server)
                    back[self.ticks + outage] = server
            if self.ticks in back:
                self.revive(back.pop(self.ticks))
            idle = 0 if self.tick() else idle + 1
        assert all(self.lives[worker].over for worker in self.there())

    def tick(self) -> bool:
        """One frame moves or one program goes on; whether anything could."""
        for node, life in self.lives.items():
            for to, header, payload in life.endpoint.tick():
                if to not in self.down:
                    self.frames.setdefault((node, to), deque()).append((header, payload))
        chances: list[Any] = [*self.frames, *self.lives]
        self.random.shuffle(chances)
        return any(
            self.move(chance) if isinstance(chance, tuple) else self.advance(chance) for chance in chances
        )

    def move(self, pair: tuple[int, int]) -> bool:
        header, payload = self.frames[pair].popleft()
        if not self.frames[pair]:
            del self.frames[pair]
        size = 0 if payload is None else len(payload)
        self.lives[pair[1]].endpoint.on_frame(wire.unpack(header, self.agreed, size), payload)
        return True

    def advance(self, node: int) -> bool:
        """Let a program go on if it can."""
        life = self.lives[node]
        if life.over:
            return self.goodbye(life)
        try:
            answer = self.attempt(life, life.effect)
            if answer is AGAIN:
                return False
            life.effect = life.program.send(answer)
        except Finished as finished:
            try:
                life.effect = life.program.throw(finished)
            except StopIteration:
                life.over = True
        except StopIteration:
            life.over = True
        return True

    def goodbye(self, life: Life) -> bool:
        """After a worker's program: what is unread may go; then say so, once all is delivered."""
        endpoint = life.endpoint
        if endpoint.goodbye is not None:
            return False
        endpoint.discard()
        if not endpoint.delivered(list(endpoint.undelivered)):
            return False
        endpoint.say(wire.BYE, [node for node in self.plan.nodes if node != life.node.id])
        return True

    def attempt(self, life: Life, effect: Any) -> Any:
        node, endpoint = life.node, life.endpoint
        if isinstance(effect, Compute):
            if node.step == self.steps:
                raise Finished
            gradient = node.params * 0.1 + 0.01 * (node.id + 1) * (node.step + 1)
            node.step += 1
            self.computed[node.id] = self.computed.get(node.id, 0) + 1
            return gradient
        if isinstance(effect, Send):
            return None if endpoint.submit(effect.pairs, effect.window) else AGAIN
        if isinstance(effect, TrySend):
            return endpoint.submit(effect.pairs)
        if isinstance(effect, Flush):
            return None if endpoint.delivered(effect.to) else AGAIN
        if isinstance(effect, Receive | Poll):
            tags = (effect.tag,) if isinstance(effect.tag, str) else effect.tag
            item, _ = endpoint.take(tags, effect.source, effect.step)
            return AGAIN if item is None and isinstance(effect, Receive) else item
        if isinstance(effect, Now):
            return self.clock()
        raise TypeError(effect)

    def ledgers(self) -> dict[int, list[int]]:
        """Per worker: gradients that each server has applied or holds."""
        found: dict[int, list[int]] = {}
        for worker in range(self.workers):
            ledgers = [self.lives[server].node.ledger for server in self.plan.servers]
            found[worker] = [
                ledger.applied.get(worker, 0) + ledger.pending().get(worker, 0) for ledger in ledgers
            ]
        return found

    def model(self) -> torch.Tensor:
        """The servers' parameters."""
        return torch.cat([self.lives[server].node.params for server in self.plan.servers])
