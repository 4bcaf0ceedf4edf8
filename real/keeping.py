"""Tensors that a checkpoint can find: a server's own, known by the order of their making, and its messages'.

Rules this module obeys:

* Nothing that a program does depends on the value of a tensor. So up to a checkpoint it can be played again
  with ``hollow`` tensors: allocated, never computed with; then those that are still alive are filled.
* A tensor is known as long as any view of it lives: its memory is NumPy's, watched by a weak reference.
* A program makes its tensors in one order, so they are known by number; messages come in any order, so
  theirs are known by sender, incarnation and sequence.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Any
from weakref import ref

import numpy as np
import torch

from real.buffers import allocate
from real.journal import Key
from real.tensors import TimedTensors

__all__ = ["KeptTensors", "Registry", "name_of"]


def name_of(key: Key) -> str:
    """The name under which a checkpoint holds a message's tensor."""
    return "message {} {} {}".format(*key)


class Registry:
    """All tensors of a server that are alive, by name."""

    def __init__(self) -> None:
        self.hollow = False
        self._made = 0
        self._alive: dict[str, ref[np.ndarray]] = {}

    def empty(self, nbytes: int, dtype: torch.dtype, name: str = "") -> torch.Tensor:
        """A new tensor without values; without a name it is the program's next."""
        memory = np.empty(nbytes, dtype=np.uint8)
        if not name:
            self._made += 1
            name = f"tensor {self._made}"
        self._watch(name, memory)
        return torch.from_numpy(memory).view(dtype)

    def like(self, x: torch.Tensor) -> torch.Tensor:
        """The program's next tensor, of the size and type of ``x``."""
        return self.empty(x.nbytes, x.dtype)

    def adopt(self, key: Key, tensor: Any) -> None:
        """``tensor`` came with message ``key`` (``room`` made it)."""
        if tensor is not None and tensor.nbytes:
            self._watch(name_of(key), tensor.kept)

    @staticmethod
    def room(nbytes: int, dtype: str) -> tuple[Any, memoryview]:
        """As ``real.buffers.allocate``, for messages that ``adopt`` may be told of."""
        if dtype == "none" or not nbytes:
            return allocate(nbytes, dtype)
        memory = np.empty(nbytes, dtype=np.uint8)
        tensor = torch.from_numpy(memory).view(allocate(0, dtype)[0].dtype)
        tensor.kept = memory
        return tensor, memory.data

    def arrays(self) -> dict[str, np.ndarray]:
        """The bytes of every live tensor, by name; writing to them changes it."""
        found = {name: memory() for name, memory in list(self._alive.items())}
        return {name: array for name, array in found.items() if array is not None}

    def fill(self, saved: Mapping[str, np.ndarray]) -> None:
        """Give every live tensor its saved values. Raises ``KeyError`` (the name) where one lacks."""
        gc.collect()
        for name, memory in self.arrays().items():
            if name not in saved or saved[name].nbytes != memory.nbytes:
                raise KeyError(name)
            memory[:] = saved[name]
        self.hollow = False

    def _watch(self, name: str, memory: np.ndarray) -> None:
        alive = self._alive

        def forget(gone: ref[np.ndarray]) -> None:
            if alive.get(name) is gone:
                del alive[name]

        alive[name] = ref(memory, forget)


class KeptTensors(TimedTensors):
    """Timed operations on the tensors of a registry; nothing is computed, or timed, while it is hollow."""

    __slots__ = ("registry",)

    def __init__(self, registry: Registry) -> None:
        super().__init__("cpu")
        self.registry = registry

    def accumulate(self, acc: Any, g: Any, a: float = 1.0) -> None:
        if not self.registry.hollow:
            super().accumulate(acc, g, a)

    def apply(self, x: Any, g: Any, lr: float, momentum: float = 0.0, velocity: Any = None) -> None:
        if not self.registry.hollow:
            super().apply(x, g, lr, momentum, velocity)

    def mix(self, x: Any, y: Any, a: float) -> None:
        if not self.registry.hollow:
            super().mix(x, y, a)

    def assign(self, x: Any, y: Any) -> None:
        if not self.registry.hollow:
            super().assign(x, y)

    def scale(self, x: Any, c: float) -> None:
        if not self.registry.hollow:
            super().scale(x, c)

    def snapshot(self, x: Any) -> Any:
        return self.registry.like(x) if self.registry.hollow else super().snapshot(x)

    def copy_of(self, x: Any) -> Any:  # type: ignore[override]
        made = self.registry.like(x)
        made.copy_(x)
        return made

    def zeros_like(self, x: Any) -> Any:  # type: ignore[override]
        made = self.registry.like(x)
        return made if self.registry.hollow else made.zero_()
