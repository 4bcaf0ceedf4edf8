"""The named tensor operations, and ``Phantom``, the tensor that is only a size.

Rules this module obeys:

* An algorithm touches parameters and gradients through ``Tensors`` only. Every call is metered by
  its name and bytes, so tensor work costs time in the simulator and is timed on real processes,
  and no algorithm carries a cost annotation.
* Operations work in place on flat NumPy arrays, on flat torch tensors (by their in-place methods;
  torch itself is never imported here) and on ``Phantom``.
* Slices of a flat tensor are views of it.

=====================  ==============================  =============================
name                   does                            bytes charged
=====================  ==============================  =============================
``accumulate``         acc += a g                      of ``g``
``apply``              v <- m v + g;  x -= lr v        of ``x``
``mix``                x <- (1 - a) x + a y            of ``x``
``assign``             x <- y                          of ``x``
``scale``              x *= c                          of ``x``
``snapshot``           a copy of x                     of ``x``
=====================  ==============================  =============================
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["OPERATIONS", "Phantom", "Tensors"]

OPERATIONS = ("accumulate", "apply", "mix", "assign", "scale", "snapshot")


class Phantom:
    """A flat float32 tensor of ``size`` elements without values; slicing gives Phantoms.

    Sizes need not be whole numbers: the closed-form comparisons divide bytes evenly.
    """

    __slots__ = ("nbytes", "size")

    def __init__(self, size: float, itemsize: int = 4) -> None:
        self.size = size
        self.nbytes = size * itemsize

    def __len__(self) -> int:
        return int(self.size)

    def __getitem__(self, index: slice) -> Phantom:
        start = 0 if index.start is None else index.start
        stop = self.size if index.stop is None else min(index.stop, self.size)
        return Phantom(max(stop - start, 0))

    def __repr__(self) -> str:
        return f"Phantom({self.size})"


class Tensors:
    """The operations of one node, metered by ``charge(operation, nbytes)``.

    ``charge`` does nothing here. The simulator overrides it to add to the running program's debt;
    the real driver times the operations instead (``real.tensors.TimedTensors``).
    """

    __slots__ = ()

    def charge(self, operation: str, nbytes: float) -> None:
        """Account for one operation on ``nbytes`` bytes; overridden by the drivers."""

    def accumulate(self, acc: Any, g: Any, a: float = 1.0) -> None:
        """``acc += a g``, in place."""
        self.charge("accumulate", g.nbytes)
        if type(acc) is Phantom:
            return
        if a == 1.0:
            acc += g
        elif hasattr(acc, "add_"):
            acc.add_(g, alpha=a)
        else:
            acc += acc.dtype.type(a) * g

    def apply(self, x: Any, g: Any, lr: float, momentum: float = 0.0, velocity: Any = None) -> None:
        """``x -= lr * g``, or with a velocity buffer ``v <- momentum v + g; x -= lr v``, in place."""
        self.charge("apply", x.nbytes)
        if type(x) is Phantom:
            return
        if velocity is not None:
            velocity *= momentum
            velocity += g
            g = velocity
        if hasattr(x, "add_"):
            x.add_(g, alpha=-lr)
        else:
            x -= x.dtype.type(lr) * g

    def mix(self, x: Any, y: Any, a: float) -> None:
        """``x <- (1 - a) x + a y``, in place."""
        self.charge("mix", x.nbytes)
        if type(x) is Phantom:
            return
        if hasattr(x, "lerp_"):
            x.lerp_(y, a)
        else:
            x += x.dtype.type(a) * (y - x)

    def assign(self, x: Any, y: Any) -> None:
        """``x <- y``, in place."""
        self.charge("assign", x.nbytes)
        if type(x) is not Phantom:
            x[...] = y

    def scale(self, x: Any, c: float) -> None:
        """``x *= c``, in place."""
        self.charge("scale", x.nbytes)
        if type(x) is not Phantom:
            x *= c

    def snapshot(self, x: Any) -> Any:
        """A copy of ``x`` that nobody else holds."""
        self.charge("snapshot", x.nbytes)
        if type(x) is Phantom:
            return x  # it has no values that could change
        return self.copy_of(x)

    @staticmethod
    def copy_of(x: Any) -> Any:
        """A copy of the array or tensor ``x``; not charged."""
        return x.clone() if hasattr(x, "clone") else x.copy()

    @staticmethod
    def zeros_like(x: Any) -> Any:
        """A zero tensor of the shape, type and device of ``x``; not charged (set-up work)."""
        if type(x) is Phantom:
            return Phantom(x.size)
        return x.new_zeros(x.shape) if hasattr(x, "new_zeros") else np.zeros_like(x)
