"""A driver in memory whose schedule is a test's: every delivery and every resumption is a choice.

Rules this module obeys:

* There is no time; ``Now`` counts turns. At each turn all possible actions are listed in a fixed order
  and ``choose`` picks one, so a seed (or hypothesis) determines the whole run, and any interleaving can
  occur.
* What programs may rely on (windows, inboxes, order within a pair, Left after the last message, and
  for ever after to whoever asks for that node) holds; nothing else does.
* ``speeds`` (of nodes) and ``links`` (of pairs) weigh the choice: a node of speed 0.01 acts a hundred
  times less often than one of 1, but may act at any turn.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from core.collectives import all_reduce
from core.effects import AllReduce, Compute, Flush, Now, Poll, Produced, Receive, Send, TrySend
from core.node import LEFT, Algorithm, Finished, Left, Message, Node, Program

Action = tuple[Any, ...]


_GRAIN = 1 << 20


class Stuck(AssertionError):
    """No action is possible and programs still wait."""


class Task:
    """One program and what it waits for; ``ready`` holds a result that it can be resumed with."""

    def __init__(self, node: Node, program: Program, main: bool) -> None:
        self.node, self.main = node, main
        self.stack = [program]
        self.effect: Any = None
        self.ready = True
        self.result: Any = None
        self.failure: BaseException | None = None
        self.gradient: Any = None
        self.pieces = 0
        self.done = False


class Scripted:
    """Runs ``algorithm`` on ``nodes`` under the schedule that ``choose(count) -> index`` dictates."""

    def __init__(
        self,
        algorithm: Algorithm,
        nodes: list[Node],
        gradient: Callable[[Any, int, int], Any],
        budget: int | dict[int, int],
        choose: Callable[[int], int],
        window: float = 1,
        inbox: float = 2,
        speeds: Mapping[int, float] | None = None,
        links: Mapping[tuple[int, int], float] | None = None,
    ) -> None:
        self.nodes = {node.id: node for node in nodes}
        self.gradient, self.choose = gradient, choose
        self.window, self.inbox_limit = window, inbox
        self.speeds = dict(speeds or {})
        self.links = dict(links or {})
        self.turns = 0
        self.budget = budget if isinstance(budget, dict) else {node.id: budget for node in nodes}
        self.inbox: dict[int, list[Message | Left]] = {i: [] for i in self.nodes}
        self.wires: dict[tuple[int, int], deque[Message]] = {}
        self.farewells: list[tuple[int, int]] = []
        self.told: dict[int, set[int]] = {i: set() for i in self.nodes}
        self.gone: set[int] = set()
        self.crashed: set[int] = set()
        self.deaf: set[int] = set()
        self.blocked: list[str] = []
        self.tasks: list[Task] = []
        for node in nodes:
            is_worker = node.id < node.workers
            node.live = set(range(node.workers))
            main = algorithm.worker(node) if is_worker else algorithm.server(node)
            self.tasks.append(Task(node, main, main=True))
            self.tasks.extend(Task(node, extra, main=False) for extra in algorithm.companions(node))

    # The schedule -----------------------------------------------------------------------------------

    def run(
        self,
        crashes: Mapping[int, int] | None = None,
        limit: int = 1_000_000,
        slow: Mapping[int, tuple[int, float]] | None = None,
    ) -> None:
        """Take turns until all workers are done and all is drained.

        crashes  turn -> rank that dies
        slow     turn -> (node, its speed from then on)
        """
        for turn in range(limit):
            if crashes and turn in crashes:
                self.crash(crashes[turn])
            if slow and turn in slow:
                node, speed = slow[turn]
                self.speeds[node] = speed
            more = self.befall(turn)
            actions = list(self._actions())
            if not actions and more:
                continue
            if not actions:
                break
            kind, *what = actions[self._pick(actions)]
            getattr(self, f"_{kind}")(*what)
            self.turns += 1
        else:
            raise Stuck(f"not finished after {limit} turns")
        waiting = [t for t in self.tasks if t.main and not t.done and t.node.id < t.node.workers]
        if waiting:
            raise Stuck("; ".join(f"worker {t.node.id} waits in {t.effect}" for t in waiting))

    def befall(self, turn: int) -> bool:
        """What else happens at this turn (``tests.conformance.churning``); whether more is to come."""
        return False

    def _pick(self, actions: list[Action]) -> int:
        if not (self.speeds or self.links):
            return self.choose(len(actions))
        sums = list(accumulate(self._weight(action) for action in actions))
        return min(bisect_right(sums, self.choose(_GRAIN) / _GRAIN * sums[-1]), len(actions) - 1)

    def _weight(self, action: Action) -> float:
        kind, what = action
        if kind == "resume":
            return self.speeds.get(self.tasks[what].node.id, 1.0)
        return self.links.get(what, 1.0)

    def crash(self, rank: int) -> None:
        """End the node at once: what it had in flight is lost."""
        if rank in self.gone:
            return
        self.crashed.add(rank)
        for task in self.tasks:
            if task.node.id == rank:
                task.done, task.ready = True, False
                for program in reversed(task.stack):
                    program.close()
        for pair in self.wires:
            if rank in pair:
                self.wires[pair].clear()
        self._depart(rank)

    def _actions(self) -> Iterator[Action]:
        for index, task in enumerate(self.tasks):
            if task.done:
                continue
            if task.ready or self._can_go_on(task):
                yield ("resume", index)
        for pair, wire in sorted(self.wires.items()):
            if wire and (pair[1] in self.deaf or self._unread(*pair) < self.inbox_limit):
                yield ("deliver", pair)
        for farewell in self.farewells:
            if not self.wires.get(farewell):
                yield ("tell", farewell)

    def _unread(self, source: int, to: int) -> int:
        return sum(1 for m in self.inbox[to] if type(m) is Message and m.source == source)

    def _deliver(self, pair: tuple[int, int]) -> None:
        message = self.wires[pair].popleft()
        if pair[1] not in self.deaf:
            self.inbox[pair[1]].append(message)

    def _tell(self, farewell: tuple[int, int]) -> None:
        self.farewells.remove(farewell)
        rank, to = farewell
        self.told[to].add(rank)
        self.inbox[to].append(Left(rank))

    def _depart(self, rank: int) -> None:
        self.gone.add(rank)
        self._fall_silent(rank)
        self.farewells += [(rank, to) for to in self.nodes if to not in self.gone]
        self.farewells = [f for f in self.farewells if f[1] not in self.gone]

    def _fall_silent(self, rank: int) -> None:
        """A node without programs reads nothing: what comes for it is thrown away."""
        if all(task.done for task in self.tasks if task.node.id == rank):
            self.deaf.add(rank)
            self.inbox[rank].clear()

    # The effects ------------------------------------------------------------------------------------

    def _can_go_on(self, task: Task) -> bool:
        """Whether a blocked effect can complete now; leaves its result in the task if so."""
        effect, node = task.effect, task.node
        if isinstance(effect, Compute):
            task.result = task.gradient
        elif isinstance(effect, Produced):
            task.result = None
        elif isinstance(effect, Send):
            limit = self.window if effect.window is None else effect.window
            if not self._room(node.id, effect.pairs, limit):
                return False
            self._take(node.id, effect.pairs)
            task.result = None
        elif isinstance(effect, Flush):
            if any(self.wires.get((node.id, to)) for to in effect.to):
                return False
            task.result = None
        elif isinstance(effect, Receive):
            task.result = self._match(node.id, effect)
            if task.result is None:
                return False
        task.ready = True
        return True

    def _resume(self, index: int) -> None:
        task = self.tasks[index]
        if isinstance(task.effect, Compute | Produced) and task.failure is None:
            task.pieces -= 1
            task.node.step += task.pieces == 0
        value, failure = task.result, task.failure
        task.result = task.failure = task.effect = None
        task.ready = False
        try:
            effect = task.stack[-1].throw(failure) if failure else task.stack[-1].send(value)
        except StopIteration:
            task.stack.pop()
            if task.stack:
                task.ready = True
            else:
                task.done = True
                if task.main and task.node.id < task.node.workers:
                    self._depart(task.node.id)
                elif task.node.id in self.gone:
                    self._fall_silent(task.node.id)
            return
        self._begin(task, effect)

    def _begin(self, task: Task, effect: Any) -> None:
        node = task.node
        task.effect = effect
        if isinstance(effect, Compute):
            if node.step >= self.budget[node.id]:
                task.failure, task.ready = Finished(), True
            else:
                assert not task.pieces, "a step's pieces were not all asked for"
                task.pieces = len(effect.ready) or 1
                task.gradient = self.gradient(node.params, node.id, node.step)
        elif isinstance(effect, TrySend):
            task.result = self._room(node.id, effect.pairs, self.window)
            if task.result:
                self._take(node.id, effect.pairs)
            task.ready = True
        elif isinstance(effect, Poll):
            task.result, task.ready = self._match(node.id, effect), True
        elif isinstance(effect, AllReduce):
            task.stack.append(all_reduce(node, effect.tensor))
            task.effect, task.ready = None, True
        elif isinstance(effect, Now):
            task.result, task.ready = float(self.turns), True
        elif not self._can_go_on(task):
            self.blocked.append(f"{node.id}:{type(effect).__name__}")

    def _room(self, source: int, pairs: Any, limit: float) -> bool:
        return all(to in self.gone or len(self.wires.get((source, to), ())) < limit for to, _ in pairs)

    def _take(self, source: int, pairs: Any) -> None:
        for to, m in pairs:
            if to not in self.gone:
                sent = Message(m.tag, m.tensor, m.step, m.count, m.versions, m.number, source)
                self.wires.setdefault((source, to), deque()).append(sent)

    def _match(self, to: int, effect: Receive | Poll) -> Message | Left | None:
        tags = effect.tag if isinstance(effect.tag, tuple) else (effect.tag,)
        box = self.inbox[to]
        for index, item in enumerate(box):
            if type(item) is Left:
                if LEFT in tags and effect.source is None:
                    self._learn(to, index + 1)
                    return box.pop(index)
            elif (
                item.tag in tags and effect.source in (None, item.source) and effect.step in (None, item.step)
            ):
                self._learn(to, index)
                box.pop(index)
                return item
        self._learn(to, len(box))
        return Left(effect.source) if effect.source in self.told[to] else None

    def _learn(self, to: int, upto: int) -> None:
        """Whoever reads on knows the departures that arrived before: their place in the order counts."""
        self.nodes[to].live -= {item.rank for item in self.inbox[to][:upto] if type(item) is Left}
