"""The tensor operations: alike on NumPy and torch, in place, metered alike on a Phantom."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from core.optimizer import MomentumSGD
from core.tensors import OPERATIONS, Phantom, Tensors


class Counting(Tensors):
    """Notes what is charged."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, float]] = []

    def charge(self, operation: str, nbytes: float) -> None:
        self.calls.append((operation, nbytes))


def work(x: Any, y: Any) -> tuple[Any, list[tuple[str, float]]]:
    """Every operation once, and a momentum step of two; the copy that comes out, and what was charged."""
    tensors, optimizer = Counting(), MomentumSGD(0.5)
    tensors.accumulate(x, y)
    optimizer.apply(tensors, x, y, 0.1)
    optimizer.apply(tensors, x, y, 0.1)
    tensors.mix(x, y, 0.25)
    tensors.scale(x[:1], 3.0)
    tensors.assign(x[1:2], y[1:2])
    return tensors.snapshot(x), tensors.calls


def test_operations_do_what_they_say_on_every_kind_of_tensor() -> None:
    torch = pytest.importorskip("torch")
    x, y = np.array([1, 2, 3], np.float32), np.array([4, 8, -8], np.float32)
    expected = 0.75 * (x + y - 0.1 * (1 + 1.5) * y) + 0.25 * y
    expected[0] *= 3
    expected[1] = y[1]
    there = (torch.from_numpy(x.copy()), torch.from_numpy(y.copy()))
    found, calls = work(x, y)
    assert found == pytest.approx(expected, rel=1e-6)
    assert found.dtype == np.float32
    assert not np.shares_memory(found, x)
    on_torch, same = work(*there)
    assert on_torch.numpy() == pytest.approx(expected, rel=1e-6)
    assert y.tolist() == there[1].tolist() == [4, 8, -8]
    assert calls == same == work(Phantom(3), Phantom(3))[1]
    assert {name for name, _ in calls} == set(OPERATIONS)
    assert dict(calls)["scale"] == 4
    assert dict(calls)["snapshot"] == 12
