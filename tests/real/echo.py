"""An algorithm with companions: each worker asks its neighbour, whose companion answers while it computes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from core.effects import Compute, Flush, Now, Poll, Receive, Send
from core.node import Finished, Message, Node, Program


@dataclass(frozen=True)
class Echo:
    """After each step a worker sends its step number round to its right and back."""

    name: ClassVar[str] = "echo"
    title: ClassVar[str] = "echo"
    centralized: ClassVar[bool] = False
    collective: ClassVar[bool] = False

    def worker(self, node: Node) -> Program:
        right, before = (node.id + 1) % node.workers, 0.0
        try:
            while True:
                yield Compute()
                yield Send((right, Message("ask", None, node.step)))
                answer = yield Receive("answer", step=node.step)
                node.blends += answer.step
                assert (yield Poll("answer")) is None
                now = yield Now()
                assert now > before
                before = now
        except Finished:
            yield Flush(right)

    def server(self, node: Node) -> Program:
        raise NotImplementedError

    def companions(self, node: Node) -> Iterable[Program]:
        return (self._answer(node),)

    def _answer(self, node: Node) -> Program:
        while True:
            message = yield Receive("ask")
            yield Send((message.source, Message("answer", None, message.step)), window=float("inf"))
