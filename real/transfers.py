"""Messages under way, as their sender and as their receiver see them.

Rules this module obeys: no behaviour; ``real.endpoint`` moves them from state to state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from core.node import Message
from real.mailbox import Motion
from real.wire import Header

__all__ = ["Incoming", "Outgoing"]


@dataclass(slots=True, eq=False)
class Outgoing:
    """A message on its way out; ``asked``/``aside``/``motion`` say how far it has come."""

    to: int
    message: Message
    dtype: str
    payload: memoryview
    sequence: int
    ready: float
    asked: bool = False
    aside: bool = False
    motion: Motion | None = None
    pieces: list[tuple[float, int, int]] = field(default_factory=list)

    def head(self, kind: int, source: int, life: int, offset: int, time: float) -> Header:
        """Header of a frame of this message."""
        message = self.message
        return Header(
            kind, source, self.sequence, message.tag, self.dtype, life, message.step, message.count,
            message.versions, message.number, len(self.payload), offset, time,
        )  # fmt: skip


@dataclass(slots=True, eq=False)
class Incoming:
    """A message that is granted and moving in."""

    head: Header
    tensor: Any
    buffer: memoryview
    motion: Motion
    received: int = 0
    begun: bool = False

    @property
    def complete(self) -> bool:
        return self.begun and self.received == self.head.total
