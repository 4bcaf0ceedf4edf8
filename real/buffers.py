"""Tensors as bytes and back: what the transport sends from and receives into.

Rules this module obeys: no copies on the host; a tensor on another device is copied to the host by
the program's thread before it is handed over, so the transport's thread never waits for a device.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

__all__ = ["allocate", "expose"]

_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def expose(tensor: Any) -> tuple[str, memoryview]:
    """(dtype name, bytes) of a flat torch or NumPy tensor or None, without a copy where it is contiguous.

    Raises ``TypeError`` for anything else and for other dtypes, ``ValueError`` for other shapes.
    """
    if tensor is None:
        return "none", memoryview(b"")
    if isinstance(tensor, np.ndarray):
        tensor = torch.from_numpy(np.require(tensor, requirements="C"))
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"a {type(tensor).__name__} cannot be sent; expected a flat torch or NumPy tensor")
    if tensor.ndim != 1:
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)} cannot be sent; expected a flat one")
    if tensor.dtype not in _NAMES:
        raise TypeError(f"a tensor of {tensor.dtype} cannot be sent; expected one of {', '.join(_DTYPES)}")
    flat = tensor.detach().cpu().contiguous()
    name = _NAMES[flat.dtype]
    return name, memoryview(flat.view(torch.uint8).numpy()) if len(flat) else memoryview(b"")


def allocate(nbytes: int, dtype: str) -> tuple[Any, memoryview]:
    """A flat tensor of ``nbytes`` bytes and its writable bytes; (None, empty) for dtype ``none``."""
    if dtype == "none":
        return None, memoryview(bytearray())
    raw = torch.empty(nbytes, dtype=torch.uint8)
    return raw.view(_DTYPES[dtype]), memoryview(raw.numpy())
