"""The named tensor operations on torch tensors, timed as they run."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch

from core.tensors import OPERATIONS, Tensors

__all__ = ["TimedTensors"]


class TimedTensors(Tensors):
    """Runs and times every operation; on a GPU the clock stops only when the device has finished.

    ``totals``: operation -> [calls, bytes, seconds].
    """

    __slots__ = ("_synchronize", "totals")

    def __init__(self, device: str = "cpu") -> None:
        self.totals: dict[str, list[float]] = {name: [0, 0.0, 0.0] for name in OPERATIONS}
        self._synchronize = partial(torch.cuda.synchronize, device) if device.startswith("cuda") else None

    def _timed(self, operation: str, nbytes: float, start: float) -> None:
        if self._synchronize is not None:
            self._synchronize()
        total = self.totals[operation]
        total[0] += 1
        total[1] += nbytes
        total[2] += time.monotonic() - start

    def accumulate(self, acc: Any, g: Any, a: float = 1.0) -> None:
        start = time.monotonic()
        super().accumulate(acc, g, a)
        self._timed("accumulate", g.nbytes, start)

    def apply(self, x: Any, g: Any, lr: float, momentum: float = 0.0, velocity: Any = None) -> None:
        start = time.monotonic()
        super().apply(x, g, lr, momentum, velocity)
        self._timed("apply", x.nbytes, start)

    def mix(self, x: Any, y: Any, a: float) -> None:
        start = time.monotonic()
        super().mix(x, y, a)
        self._timed("mix", x.nbytes, start)

    def assign(self, x: Any, y: Any) -> None:
        start = time.monotonic()
        super().assign(x, y)
        self._timed("assign", x.nbytes, start)

    def scale(self, x: Any, c: float) -> None:
        start = time.monotonic()
        super().scale(x, c)
        self._timed("scale", x.nbytes, start)

    def snapshot(self, x: Any) -> Any:
        start = time.monotonic()
        copy = super().snapshot(x)
        self._timed("snapshot", x.nbytes, start)
        return copy
