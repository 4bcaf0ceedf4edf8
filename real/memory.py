"""The transport's twin in memory: the same endpoints, no sockets, no threads, a clock of its own.

Rules this module obeys:

* Frames pass through ``real.wire`` like those on a socket; per pair they arrive in the order sent.
* Time stands still while frames travel and jumps from deadline to deadline, so a test sees the
  protocol's own timing, exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from real import wire
from real.endpoint import Endpoint
from real.pacing import Links

__all__ = ["MemoryNetwork", "allocate", "expose"]


def allocate(nbytes: int, dtype: str) -> tuple[Any, memoryview]:
    """A flat NumPy array and its bytes."""
    if dtype == "none":
        return None, memoryview(bytearray())
    array = np.empty(nbytes // wire.DTYPES[dtype][1], dtype=dtype)
    return array, array.view(np.uint8).data


def expose(tensor: Any) -> tuple[str, memoryview]:
    """(dtype name, bytes) of a flat NumPy array or None."""
    if tensor is None:
        return "none", memoryview(b"")
    return str(tensor.dtype), np.ascontiguousarray(tensor).view(np.uint8).data


class MemoryNetwork:
    """``nodes`` endpoints that share a clock; ``run`` moves frames until nothing is left to do."""

    def __init__(
        self, nodes: int, links: Links | None = None, *, slots: int = 1, window: float = 1,
        inbox: float = 2, max_bytes: int = 1 << 24,
    ) -> None:  # fmt: skip
        self.now = 100.0
        self.agreed = wire.Agreed(b"01234567", nodes, max_bytes)
        self.endpoints = [
            Endpoint(
                node, self.agreed, links or Links(paced=False), allocate=allocate, expose=expose,
                clock=lambda: self.now, slots=slots, window=window, inbox=inbox,
            )
            for node in range(nodes)
        ]  # fmt: skip
        self.frames: list[tuple[float, int, int, int]] = []

    def settle(self) -> None:
        """Move frames at the present instant until none is left."""
        moved = True
        while moved:
            moved = False
            for endpoint in self.endpoints:
                for to, packed, payload in endpoint.tick():
                    moved = True
                    size = len(payload) if payload is not None else 0
                    header = wire.unpack(packed, self.agreed, size)
                    self.frames.append((self.now, endpoint.me, to, header.kind))
                    if to not in endpoint.gone:
                        self.endpoints[to].on_frame(header, payload)

    def run(self, until: float = float("inf")) -> None:
        """Go on, deadline by deadline, until nothing is due any more or the clock reaches ``until``."""
        while True:
            self.settle()
            due = min(endpoint.deadline() for endpoint in self.endpoints)
            if due > until or due == float("inf"):
                self.now = max(self.now, until) if until != float("inf") else self.now
                return
            self.now = max(self.now, due)
