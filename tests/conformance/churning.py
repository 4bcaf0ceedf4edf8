"""The scripted driver with nodes that come, go and fall silent: the news of it is on its way, too.

Rules this module obeys:

* What happens to whom at which turn is given; what cannot happen yet (a worker that comes back before its
  former life has delivered everything) happens later, and what makes no sense any more does not happen.
* News of who left and who joined reaches every node in its own time, in order, before any message of the new
  life. Who has not taken it up sends to a former life: that falls out.
* A frozen node's programs do not act, and nothing moves to or from it; to and from one that is cut off
  nothing moves. Workers without servers answer joiners as transports would, unknown to their programs.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from core.effects import Compute, Poll, Receive
from core.joining import JOIN, STATE, enter, state
from core.node import Finished, Joined, Left, Message, Node, Program
from tests.conformance.scripted import Action, Scripted, Task

__all__ = ["Churning", "Event"]

Event = tuple[str, int, int]
"""crash | leave | join | freeze | cut; the node; for how many turns it is silent."""

LATER = 20
"""Turns after which what could not happen is tried again."""


class Churning(Scripted):
    """``events`` by turn; ``fresh(rank)`` makes the node of a life; ``late`` are not there at the start.

    life      by worker, counted from 0
    met       workers that have met their budget; ever_crashed: those that have once died
    retired   nodes of former lives; sent: messages that nobody has taken in, with the life they are for
    began_anew  joiners that found nobody who had the parameters; struck: what befell nodes, by kind
    """

    def __init__(
        self,
        algorithm: Any,
        nodes: list[Node],
        *arguments: Any,
        fresh: Callable[[int], Node],
        events: Mapping[int, list[Event]],
        late: frozenset[int] = frozenset(),
        **options: Any,
    ) -> None:
        super().__init__(algorithm, nodes, *arguments, **options)
        self.algorithm, self.fresh = algorithm, fresh
        self.events = {turn: list(found) for turn, found in events.items()}
        self.news: dict[tuple[int, int], deque[Left | Joined]] = {}
        self.unlearned: dict[int, list[Left | Joined]] = {i: [] for i in self.nodes}
        self.life = dict.fromkeys(self.nodes, 0)
        self.going: set[int] = set()
        self.met: set[int] = set()
        self.ever_crashed: set[int] = set()
        self.struck: Counter[str] = Counter()
        self.began_anew = 0
        self.retired: list[Node] = []
        self.entering: set[int] = set()
        self.askers: dict[int, list[int]] = {i: [] for i in self.nodes}
        self.frozen: dict[int, int] = {}
        self.cut: dict[int, int] = {}
        self.sent: dict[int, tuple[Message, int]] = {}
        for rank in late:
            self._end_programs(rank)
            self.gone.add(rank)
            self.deaf.add(rank)
            self.nodes[rank].weight = 0.0
        for node in nodes:
            node.joins = True
            node.live -= late

    @property
    def present(self) -> set[int]:
        """Workers that are there, with parameters or without."""
        return {i for i, node in self.nodes.items() if i < node.workers and i not in self.gone}

    @property
    def ready(self) -> set[int]:
        """Those that have parameters."""
        return self.present - self.entering

    @property
    def weight(self) -> float:
        """All push-sum weight: of nodes of all lives, and of messages that nobody has taken in."""
        nodes = [*self.retired, *(node for id, node in self.nodes.items() if id < node.workers)]
        messages = (message for message, _ in self.sent.values())
        return sum(node.weight for node in nodes) + sum(message.number for message in messages)

    # What happens

    def befall(self, turn: int) -> bool:
        for silent in (self.frozen, self.cut):
            for node in [node for node, until in silent.items() if until <= turn]:
                del silent[node]
        for kind, node, turns in self.events.pop(turn, ()):
            getattr(self, f"_befall_{kind}")(node, turn, turns)
        return bool(self.events or self.frozen or self.cut)

    def _befall_crash(self, rank: int, turn: int, _: int) -> None:
        if rank not in self.gone:
            self.frozen.pop(rank, None)
            self.ever_crashed.add(rank)
            self.struck["crash"] += 1
            self.crash(rank)

    def _befall_leave(self, rank: int, turn: int, _: int) -> None:
        if rank not in self.gone:
            self.going.add(rank)
            self.struck["leave"] += 1

    def _befall_freeze(self, node: int, turn: int, turns: int) -> None:
        if node not in self.gone:
            self.struck["freeze"] += 1
            self.frozen[node] = max(self.frozen.get(node, 0), turn + turns)

    def _befall_cut(self, node: int, turn: int, turns: int) -> None:
        if node not in self.gone:
            self.struck["cut"] += 1
            self.cut[node] = max(self.cut.get(node, 0), turn + turns)

    def _befall_join(self, rank: int, turn: int, _: int) -> None:
        if rank in self.met or (self.met and not self.present):
            return
        if rank in self.gone and not any(wire for pair, wire in self.wires.items() if pair[0] == rank):
            self._come(rank)
        elif rank in self.gone or rank in self.going:
            self.events.setdefault(turn + LATER, []).append(("join", rank, 0))

    def _come(self, rank: int) -> None:
        self._end_programs(rank)
        self.going.discard(rank)
        self.gone.discard(rank)
        self.deaf.discard(rank)
        for pair in [*self.wires, *self.news]:
            if pair[1] == rank:
                self.wires.get(pair, deque()).clear()
                self.news.get(pair, deque()).clear()
        self.inbox[rank], self.unlearned[rank], self.told[rank], self.askers[rank] = [], [], set(), []
        self.retired.append(self.nodes[rank])
        self.life[rank] += 1
        self.struck["join"] += 1
        node = self.nodes[rank] = self.fresh(rank)
        node.joins, node.live = True, self.present if self.algorithm.centralized else self.ready | {rank}
        if not self.algorithm.centralized:
            node.weight = 0.0
        self.entering.add(rank)
        self.tasks.append(Task(node, self._life(node), main=True))
        if self.algorithm.centralized:
            self._announce(Joined, rank)

    def _life(self, node: Node) -> Program:
        """A joiner's main program, as drivers have it."""
        algorithm = self.algorithm
        while not (yield from enter(node, getattr(algorithm, "enter", None))) and self.ready - {node.id}:
            node.live = self.ready | {node.id}
        if self.met and not algorithm.centralized and not self.ready - {node.id}:
            node.weight = 0.0
            return
        self.entering.discard(node.id)
        if not algorithm.centralized:
            self.began_anew += node.weight == 1 / node.workers
            self._announce(Joined, node.id)
        self.tasks += [Task(node, program, main=False) for program in algorithm.companions(node)]
        for rank in self.askers[node.id]:
            self._hand_over(node.id, rank)
        self.askers[node.id] = []
        yield from algorithm.worker(node)

    def _end_programs(self, rank: int) -> None:
        for task in self.tasks:
            if task.node.id == rank:
                task.done, task.ready = True, False
                for program in reversed(task.stack):
                    program.close()

    def _announce(self, kind: type, rank: int) -> None:
        for to in self.nodes:
            if to != rank and to not in self.gone:
                self.news.setdefault((rank, to), deque()).append(kind(rank))

    def _depart(self, rank: int) -> None:
        self.gone.add(rank)
        if rank not in self.crashed and rank not in self.going and rank not in self.entering:
            self.met.add(rank)
        if rank in self.entering:
            self.nodes[rank].weight = 0.0
            self.entering.discard(rank)
        self._fall_silent(rank)
        self._announce(Left, rank)
        self.crashed.discard(rank)

    # Joiners without servers

    def _asked(self, host: int, rank: int) -> None:
        if host in self.entering and rank > host:
            self.askers[host].append(rank)
        elif host in self.entering:
            self._reply(host, rank, Message(STATE))
        elif host not in self.gone:
            self._hand_over(host, rank)

    def _hand_over(self, host: int, rank: int) -> None:
        node = self.nodes[host]
        if rank not in self.entering:
            return
        tensors, share = state(node, False), getattr(self.algorithm, "share", None)
        weight = share(node) if share is not None else 1.0
        for tensor in tensors:
            copy = node.tensors.snapshot(tensor)
            self._reply(host, rank, Message(STATE, copy, node.step, len(tensors), number=weight))

    def _reply(self, host: int, rank: int, message: Message) -> None:
        message.source = host
        self.sent[id(message)] = message, self.life[rank]
        self.wires.setdefault((host, rank), deque()).append(message)

    # Turns

    def _silent(self, node: int) -> bool:
        return node in self.frozen or node in self.cut

    def _returned(self, pair: tuple[int, int]) -> bool:
        """Whether what is on the wire is of a life that its receiver has not been told of."""
        return any(type(news) is Joined for news in self.news.get(pair, ()))

    def _actions(self) -> Iterator[Action]:
        for index, task in enumerate(self.tasks):
            if task.done or task.node.id in self.frozen:
                continue
            if task.ready or self._can_go_on(task):
                yield ("resume", index)
        for pair, wire in sorted(self.wires.items()):
            if not wire or self._returned(pair) or self._silent(pair[0]) or self._silent(pair[1]):
                continue
            if pair[1] in self.deaf or self._unread(*pair) < self.inbox_limit:
                yield ("deliver", pair)
        for pair, queue in sorted(self.news.items()):
            if queue and (self._returned(pair) or not self.wires.get(pair)):
                yield ("tell", pair)

    def _deliver(self, pair: tuple[int, int]) -> None:
        message = self.wires[pair][0]
        if message.tag == JOIN and pair[1] < self.nodes[pair[1]].workers:
            self.wires[pair].popleft()
            self._asked(pair[1], pair[0])
        else:
            super()._deliver(pair)

    def _tell(self, pair: tuple[int, int]) -> None:
        (rank, to), news = pair, self.news[pair].popleft()
        if to in self.gone:
            return
        (self.told[to].add if type(news) is Left else self.told[to].discard)(rank)
        self.inbox[to].append(news)  # type: ignore[arg-type]
        self.unlearned[to].append(news)

    # Effects

    def _begin(self, task: Task, effect: Any) -> None:
        if isinstance(effect, Compute) and task.node.id in self.going:
            task.effect, task.failure, task.ready = effect, Finished(), True
        else:
            super()._begin(task, effect)

    def _former(self, source: int, to: int) -> bool:
        """Whether ``source`` knows only of a life of ``to`` that is over."""
        return bool(self.news.get((to, source))) or any(news.rank == to for news in self.unlearned[source])

    def _room(self, source: int, pairs: Any, limit: float) -> bool:
        return super()._room(source, [(to, m) for to, m in pairs if not self._former(source, to)], limit)

    def _take(self, source: int, pairs: Any) -> None:
        pairs = [(to, m) for to, m in pairs if not self._former(source, to)]
        super()._take(source, pairs)
        for to, _ in pairs:
            wire = self.wires.get((source, to))
            if wire:
                self.sent[id(wire[-1])] = wire[-1], self.life[to]

    def _match(self, to: int, effect: Receive | Poll) -> Any:
        tags = effect.tag if isinstance(effect.tag, tuple) else (effect.tag,)
        box: list[Any] = self.inbox[to]
        for index, item in enumerate(box):
            if type(item) is not Message:
                if item.tag in tags and effect.source is None and item.rank != to:
                    self._learn(to, index + 1)
                    return box.pop(index)
            elif (
                item.tag in tags and effect.source in (None, item.source) and effect.step in (None, item.step)
            ):
                self._learn(to, index)
                _, life = self.sent.pop(id(item))
                assert life == self.life[to], f"{item.tag} of node {item.source} is for a former life of {to}"
                return box.pop(index)
        source = effect.source
        left = any(type(news) is Left and news.rank == source for news in self.unlearned[to])
        gone = source in self.told[to] or left
        self._learn(to, len(box))
        return Left(source) if gone and source is not None else None

    def _learn(self, to: int, upto: int) -> None:
        node, unlearned = self.nodes[to], self.unlearned[to]
        for item in self.inbox[to][:upto]:
            if type(item) is Message or not any(news is item for news in unlearned):
                continue
            unlearned[:] = [news for news in unlearned if news is not item]
            (node.live.discard if type(item) is Left else node.live.add)(item.rank)
