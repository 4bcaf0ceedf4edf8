"""Who comes to an all-reduce: launcher and workers in memory, in any order of orders, reports and messages.

The agreement of ``core.collectives``, ``real.halts`` and ``real.intake`` are the real ones; what lies between
is a test's: pipes keep their order, and so do messages of a pair; nothing else is promised.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("zmq")

from core.algorithms import make
from core.collectives.exchange import PIECE
from core.node import Left, Message
from real.halts import GO_ON, Halts
from real.intake import Intake
from tests.conformance import problem
from tests.conformance.scripted import Scripted

WORKERS, LATE, STEPS = 5, (3, 4), 16


class Fake:
    """A member as ``real.intake`` sees it."""

    def __init__(self, node: int, state: str) -> None:
        self.node, self.state = node, state
        self.orders: deque[dict[str, Any]] = deque()
        self.reports: deque[dict[str, Any]] = deque()

    def report(self, **message: Any) -> None:
        self.reports.append(message)

    def tell(self, **order: Any) -> None:
        if self.state != "dead":
            self.orders.append(order)


class Taking(Scripted):
    """Workers 3 and 4 come late; ``mortal`` die at some turn."""

    def __init__(self, name: str, options: dict[str, Any], seed: int, mortal: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.algorithm = make(name, options)
        nodes = problem.build(WORKERS, 0)
        choose = lambda count: int(self.rng.integers(count))  # noqa: E731
        super().__init__(self.algorithm, nodes, problem.gradient, STEPS, choose)
        self.members = [Fake(rank, "absent" if rank in LATE else "running") for rank in range(WORKERS)]
        self.intake = Intake(lambda: self.members, self._come)  # type: ignore[arg-type, return-value]
        self.coming = deque(LATE)
        self.hand: int | None = None
        self.awaited: set[int] = set()
        self.together: dict[str, Any] = {}
        self.halts = [self._halts(rank) for rank in range(WORKERS)]
        self.mains = {task.node.id: task for task in self.tasks}
        for task in self.tasks:
            task.stack = [self.halts[task.node.id].program(task.node, task.stack[0])]
            task.node.live = set(range(WORKERS)) - set(LATE)
        self.tasks = [task for task in self.tasks if task.node.id not in LATE]
        self.gone |= set(LATE)
        self.pipes, self.speeds = (
            dict(enumerate(10.0 ** -self.rng.choice([0, 0, 1, 2, 3], WORKERS))) for _ in range(2)
        )
        self.deaths = dict.fromkeys(int(turn) for turn in self.rng.integers(0, 2500, mortal))
        self.seen: Counter[str] = Counter()

    def _halts(self, rank: int) -> Halts:
        def wake() -> None:
            self.inbox[rank].append(Message(GO_ON, source=rank))

        return Halts(self.members[rank].report, wake, lambda: None)

    # ---- what may happen ----------------------------------------------------------------------

    def befall(self, turn: int) -> bool:
        there = [m.node for m in self.members if m.state in ("running", "meeting")]
        alive = [rank for rank in there if rank not in self.crashed and not self.mains[rank].done]
        if turn in self.deaths and len(alive) > 1:
            victim = alive[self.choose(len(alive))]
            if self.nodes[victim].step < STEPS - 4:
                self.crash(victim)
        return False

    def _actions(self) -> Iterator[tuple[Any, ...]]:
        yield from super()._actions()
        for member in self.members:
            if member.orders and member.node not in self.crashed:
                yield ("order", member.node)
            if member.reports:
                yield ("report", member.node)
        if self.coming and not self.intake.busy and not self.awaited and self.turns > 20:
            yield ("arrive", self.coming[0])
        if self.hand is not None:
            yield ("enter", self.hand)

    def _weight(self, action: tuple[Any, ...]) -> float:
        """Pipes may be slow, each by itself, and so may workers be."""
        kind, what = action
        if kind in ("order", "report"):
            return self.pipes[what]
        return self.speeds[self.tasks[what].node.id] if kind == "resume" else 1.0

    def crash(self, rank: int) -> None:
        self.gone.discard(rank)
        super().crash(rank)
        self.members[rank].orders.clear()
        self.members[rank].reports.append({"is": "died"})
        if rank == self.hand:
            self.hand = None

    def _depart(self, rank: int) -> None:
        """Those that end say goodbye to all; of the dead the launcher tells."""
        if rank in self.crashed:
            self.gone.add(rank)
            self._fall_silent(rank)
            self.farewells = [f for f in self.farewells if rank not in f]
            return
        super()._depart(rank)
        self.members[rank].reports.append({"is": "ended"})

    # ---- the launcher -------------------------------------------------------------------------

    def _arrive(self, rank: int) -> None:
        self.coming.popleft()
        self.members[rank].state = "meeting"
        self.intake.begin(self.members[rank])  # type: ignore[arg-type]

    def _come(self, joiner: Any) -> None:
        joiner.state = "running"
        if joiner.node not in self.crashed:
            self.gone.discard(joiner.node)
            live = {m.node for m in self.members if m.state == "running"}
            self.nodes[joiner.node].live = live
            self.told[joiner.node] = set(range(WORKERS)) - live
            self.hand = joiner.node
        standing = [self.mains[m.node] for m in self.members if m is not joiner and m.node not in self.gone]
        for task in standing:
            assert len(task.stack) == 1, "who stands is in no all-reduce"
        under_way = {message.tag for wire in self.wires.values() for message in wire}
        assert PIECE not in under_way, "nothing is under way where all stand"
        assert len({task.node.step for task in standing}) <= 1, "all stand before the same step"
        self.seen["stood"] += bool(standing)

    def _report(self, rank: int) -> None:
        member = self.members[rank]
        message = member.reports.popleft()
        kind = message["is"]
        if kind in ("paused", "stands"):
            self.intake.heed(member, message)  # type: ignore[arg-type]
        elif kind == "ended":
            member.state = "ended"
            self.intake.gone(member)  # type: ignore[arg-type]
        elif kind == "died":
            member.state = "dead"
            self.awaited.discard(rank)
            self.seen["deaths while busy"] += self.intake.busy
            self.intake.gone(member)  # type: ignore[arg-type]
            for other in self.members:
                if other.state in ("running", "ended"):
                    other.tell(do="left", rank=rank)
            self._welcome()
        elif kind == "entered" and member.state == "running":
            self.together = {**self.intake.entered(), "joiner": rank}
            others = [m for m in self.members if m.state in ("running", "ended") and m is not member]
            self.awaited = {m.node for m in others}
            for other in others:
                other.tell(do="joined", **self.together)
            self._welcome()
        elif kind == "met":
            self.awaited.discard(rank)
            self._welcome()

    def _welcome(self) -> None:
        if self.together and not self.awaited:
            self.members[self.together["joiner"]].tell(do="welcome", **self.together)
            self.together = {}

    # ---- a worker -----------------------------------------------------------------------------

    def _order(self, rank: int) -> None:
        order = self.members[rank].orders.popleft()
        do, halts = order.pop("do"), self.halts[rank]
        if do == "left":
            if order["rank"] not in self.told[rank]:
                self.told[rank].add(order["rank"])
                self.inbox[rank].append(Left(order["rank"]))
        elif do in ("joined", "welcome"):
            joiner = order.pop("joiner")
            self.told[rank].discard(joiner)
            halts.resume(**order)
            if do == "joined":
                self.nodes[rank].live.add(joiner)
                self.members[rank].reports.append({"is": "met"})
            elif joiner == rank:
                self.tasks.append(self.mains[rank])
        else:
            getattr(halts, do)(**order)

    def _enter(self, rank: int) -> None:
        """The joiner has what the lowest one that stands has."""
        self.hand = None
        node = self.nodes[rank]
        there = [m.node for m in self.members if m.node not in self.gone and m.node != rank]
        if not there:
            self.crash(rank)  # nobody is left to learn from
            return
        giver = self.nodes[min(there)]
        node.params[:] = giver.params
        node.step = giver.step
        velocity = giver.optimizer.velocity
        node.optimizer.velocity = None if velocity is None else velocity.copy()
        self.members[rank].reports.append({"is": "entered"})
        self.seen["came"] += 1


def played(name: str, options: dict[str, Any], seed: int, mortal: int) -> Taking:
    driver = Taking(name, options, seed, mortal)
    driver.run(limit=100_000)
    left = [rank for rank in range(WORKERS) if rank not in driver.crashed and driver.mains[rank].done]
    assert left
    for rank in left:
        assert driver.nodes[rank].step == STEPS
        np.testing.assert_array_equal(driver.nodes[rank].params, driver.nodes[left[0]].params)
    return driver


VARIANTS = [
    ("arsgd", {}),
    ("arsgd", {"overlap": "backward", "buckets": 3}),
    ("local_sgd", {"h": 2}),
]


def many(name: str, options: dict[str, Any], seeds: range) -> Counter[str]:
    seen: Counter[str] = Counter()
    for seed in seeds:
        seen += played(name, options, seed, mortal=seed % 3).seen
    return seen


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_in_any_order_all_go_on_together_and_replicas_agree(name: str, options: dict[str, Any]) -> None:
    seen = many(name, options, range(15))
    assert seen["came"] > 10
    assert seen["stood"] > 10


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_in_many_more_orders(name: str, options: dict[str, Any]) -> None:
    assert many(name, options, range(15, 600))["deaths while busy"] > 10
