"""Algorithms that get nowhere: they wait for ever, send what nobody takes, fail, or yield rubbish."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from core.effects import Compute, Flush, Now, Receive, Send
from core.node import Finished, Message, Node, Program


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


@dataclass(frozen=True)
class Deaf(Stuck):
    """Worker 1 grants a message and then loses all of its payload: it stays under way for ever."""

    name: ClassVar[str] = "deaf"
    title: ClassVar[str] = "deaf"

    def worker(self, node: Node) -> Program:
        from real.endpoint import Endpoint

        if node.id == 1:
            Endpoint._data = lambda *_: None  # type: ignore[method-assign]
        gradient = yield Compute()
        if node.id == 0:
            yield Send((1, Message("gradient", gradient)))
            yield Flush(1)
        else:
            yield Receive("gradient", source=0)


@dataclass(frozen=True)
class Choking(Stuck):
    """Worker 1 is stopped by a signal in the middle of a message to its launcher; worker 0 goes on."""

    name: ClassVar[str] = "choking"
    title: ClassVar[str] = "choking"

    def worker(self, node: Node) -> Program:
        if node.id == 1:
            _choke()
        try:
            while True:
                yield Compute()
        except Finished:
            pass


@dataclass(frozen=True)
class Oversized(Stuck):
    """Worker 0 sends a gradient, and then as float64: twice as many bytes as any message may have."""

    name: ClassVar[str] = "oversized"
    title: ClassVar[str] = "oversized"

    def worker(self, node: Node) -> Program:
        gradient = yield Compute()
        if node.id == 0:
            yield Send((1, Message("gradient", gradient)), (1, Message("gradient", gradient.double())))
        else:
            yield Receive("gradient", source=0)
            yield Receive("gradient", source=0)


@dataclass(frozen=True)
class Garbage(Stuck):
    """Worker 1 yields what is no effect."""

    name: ClassVar[str] = "garbage"
    title: ClassVar[str] = "garbage"

    def worker(self, node: Node) -> Program:
        yield Compute()
        if node.id == 1:
            yield "rubbish"  # type: ignore[misc]
        yield Receive("never", source=1 - node.id)


@dataclass(frozen=True)
class Faulty(Stuck):
    """Worker 1 fails in its third step."""

    name: ClassVar[str] = "faulty"
    title: ClassVar[str] = "faulty"

    def worker(self, node: Node) -> Program:
        for step in range(100):
            yield Compute()
            if node.id == 1 and step == 2:
                raise ZeroDivisionError("a mistake in the third step")


@dataclass(frozen=True)
class FaultyServer(Stuck):
    """Its server fails at once; its workers go on."""

    name: ClassVar[str] = "faulty_server"
    title: ClassVar[str] = "faulty_server"
    centralized: ClassVar[bool] = True

    def worker(self, node: Node) -> Program:
        try:
            while True:
                yield Compute()
        except Finished:
            return

    def server(self, node: Node) -> Program:
        yield Now()
        raise ZeroDivisionError("a mistake of the server")


@dataclass(frozen=True)
class Programless(Stuck):
    """Its worker is a function without a ``yield``."""

    name: ClassVar[str] = "programless"
    title: ClassVar[str] = "programless"

    def worker(self, node: Node) -> Program:
        return None  # type: ignore[return-value]


@dataclass(frozen=True)
class Tireless(Stuck):
    """Does not know that a budget ends."""

    name: ClassVar[str] = "tireless"
    title: ClassVar[str] = "tireless"

    def worker(self, node: Node) -> Program:
        while True:
            yield Compute()


def _choke() -> None:
    """Let this process stop before the last byte of the next message to its launcher."""
    from real.pipe import End

    def send(end: End, data: bytes) -> None:
        os.write(end.fileno(), struct.pack("<Q", len(data)) + bytes(data)[:-1])
        os.kill(os.getpid(), signal.SIGSTOP)

    End.send_bytes = send  # type: ignore[method-assign,assignment]
