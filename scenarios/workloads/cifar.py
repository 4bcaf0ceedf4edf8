"""CIFAR-10 from a local folder, in its binary or its Python form (Krizhevsky 2009).

Rules this module obeys:

* Nothing is ever downloaded: the folder is named by the scenario, and a missing file is a clear error.
* The Python form is pickled. It is read by an unpickler that builds plain containers, bytes and
  NumPy arrays and nothing else; anything more is refused by name.
* Images come as uint8 (N, 3, 32, 32), labels as int64 (N,).
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from scenarios.errors import ScenarioError

__all__ = ["read"]

_PIXELS = 3 * 32 * 32
_TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
_TEST = ("test_batch",)
_FIELD = "workload.data_dir"

Images = tuple[np.ndarray, np.ndarray]


def read(folder: str) -> tuple[Images, Images]:
    """((images, labels) for training, (images, labels) for testing); raises ``ScenarioError``."""
    if not folder:
        raise ScenarioError(_FIELD, folder, "the folder that holds CIFAR-10 (data_batch_1.bin ...)")
    base = Path(folder)
    for place in (base, base / "cifar-10-batches-bin", base / "cifar-10-batches-py"):
        for suffix, parse in ((".bin", _binary), ("", _python)):
            if (place / f"{_TRAIN[0]}{suffix}").is_file():
                train, test = ([place / f"{name}{suffix}" for name in names] for names in (_TRAIN, _TEST))
                return _join([parse(path) for path in train]), _join([parse(path) for path in test])
    names = "data_batch_1.bin to data_batch_5.bin and test_batch.bin, or the same without .bin"
    raise ScenarioError(_FIELD, folder, f"a folder with CIFAR-10: {names} (or workload.data: synthetic)")


def _join(parts: list[Images]) -> Images:
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ScenarioError(_FIELD, str(path), hint=f"cannot be read: {error}") from error


def _checked(path: Path, images: np.ndarray, labels: np.ndarray) -> Images:
    if not len(labels) or len(images) != len(labels) or labels.min() < 0 or labels.max() > 9:
        raise ScenarioError(
            _FIELD, str(path), hint="is no CIFAR-10 file: expected a label from 0 to 9 per image"
        )
    return images.reshape(-1, 3, 32, 32), labels.astype(np.int64)


def _binary(path: Path) -> Images:
    """Rows of one label byte and 3072 pixels."""
    raw = np.frombuffer(_bytes(path), dtype=np.uint8)
    if len(raw) % (_PIXELS + 1):
        hint = f"is truncated: {len(raw)} bytes are not a multiple of {_PIXELS + 1}"
        raise ScenarioError(_FIELD, str(path), hint=hint)
    rows = raw.reshape(-1, _PIXELS + 1)
    return _checked(path, rows[:, 1:], rows[:, 0])


class _Unpickler(pickle.Unpickler):
    """Builds NumPy arrays besides what pickle has opcodes for; nothing that could run."""

    ALLOWED = frozenset(
        (module, name)
        for module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
        for name in ("ndarray", "dtype", "_reconstruct")
    ) | {("_codecs", "encode")}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a data file")
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _latin1(text: str, encoding: str) -> bytes:
    """How Python 2 pickles carry bytes; no other codec is accepted."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"codec {encoding} has no place in a data file")
    return text.encode("latin1")


def _python(path: Path) -> Images:
    """A pickled dictionary of ``data`` (N x 3072 uint8) and ``labels``."""
    try:
        tree = _Unpickler(io.BytesIO(_bytes(path)), encoding="bytes").load()
        named = {key.decode() if isinstance(key, bytes) else key: value for key, value in tree.items()}
        images, labels = np.asarray(named["data"]), np.asarray(named["labels"])
        if images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != _PIXELS or labels.ndim != 1:
            raise ValueError(f"data has shape {images.shape} and type {images.dtype}")
    except ScenarioError:
        raise
    except Exception as error:
        raise ScenarioError(_FIELD, str(path), hint=f"is no CIFAR-10 file in Python form: {error}") from error
    return _checked(path, images, labels)
