"""An algorithm that gets nowhere: every worker waits for a message that nobody sends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from core.effects import Compute, Receive
from core.node import Node, Program


@dataclass(frozen=True)
class Stuck:
    """Computes once, then waits for ever."""

    name: ClassVar[str] = "stuck"
    title: ClassVar[str] = "stuck"
    centralized: ClassVar[bool] = False
    collective: ClassVar[bool] = False

    def worker(self, node: Node) -> Program:
        yield Compute()
        yield Receive("never", source=(node.id + 1) % node.workers)

    def server(self, node: Node) -> Program:
        raise NotImplementedError

    def companions(self, node: Node) -> Iterable[Program]:
        return ()
