"""Algorithms whose worker 1 turns against the others after its third step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from core.algorithms.asp import ASP
from core.node import Node, Program

__all__ = ["Babbling", "Boasting"]

TOTAL = 11
"""Place of a message's size among a header's fields."""


def boast(header: bytes) -> bytes:
    """The same request, for a message of a petabyte."""
    from real import wire

    fields = list(wire._FORMAT.unpack(header))
    fields[TOTAL] = 1 << 50
    return wire._FORMAT.pack(*fields)


def babble(header: bytes) -> bytes:
    return bytes(len(header))


@dataclass(frozen=True)
class Boasting(ASP):
    """It announces more than was agreed."""

    name: ClassVar[str] = "boasting"

    def worker(self, node: Node) -> Program:
        from real import wire
        from real.transport import ZmqTransport

        send, lie = ZmqTransport._send, babble if self.name == "babbling" else boast

        def spoilt(self: ZmqTransport, to: int, header: bytes, payload: memoryview | None) -> None:
            late = node.step >= 3 and header[wire.KIND_AT] == wire.REQ
            send(self, to, lie(header) if late else header, payload)

        if node.id == 1:
            ZmqTransport._send = spoilt  # type: ignore[method-assign]
        return super().worker(node)


@dataclass(frozen=True)
class Babbling(Boasting):
    """It sends zeros."""

    name: ClassVar[str] = "babbling"
