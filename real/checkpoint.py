"""A server's checkpoint: the values of all its tensors at one moment, as one safetensors file.

Rules this module obeys:

* Values, not control flow: the journal's records tell what the program did (``real.replay``).
* Written to a new file, synced, renamed: under its own name a checkpoint is whole or not there.
* One that is truncated, damaged, or of another run, scenario, node or format is refused with file and
  reason before anything is taken from it. Nothing in it is executed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from real.errors import TransportError

__all__ = ["CheckpointError", "load", "save", "stored", "sweep"]

FORMAT = "aladdin-server-checkpoint-1"

_NAME = "checkpoint-{:012d}.safetensors"


class CheckpointError(TransportError):
    """A checkpoint that cannot be written or used."""


def stored(folder: Path) -> list[Path]:
    """The checkpoints in ``folder``, the newest first; one that was never finished is none."""
    return sorted(folder.glob("checkpoint-*.safetensors"), reverse=True)


def sweep(folder: Path) -> None:
    """Remove what was never finished: who wrote it is dead. What cannot be removed stays."""
    for partial in folder.glob(".checkpoint-*.partial-*"):
        with suppress(OSError):
            partial.unlink()


def save(
    folder: Path, position: int, identity: Mapping[str, Any], state: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> Path:  # fmt: skip
    """Write the checkpoint at journal position ``position``; its path.

    state   plain values to get back beside the arrays (bytes by name)
    Raises ``CheckpointError`` where it cannot be written; nothing is left of it then.
    """
    path = folder / _NAME.format(position)
    partial = folder / f".{path.name}.partial-{os.getpid()}"
    sizes = {name: array.nbytes for name, array in arrays.items()}
    manifest = {"format": FORMAT, "identity": dict(identity), "position": position, "state": dict(state),
                "sizes": sizes}  # fmt: skip
    try:
        header = {"manifest": json.dumps(manifest), "digest": _digest(manifest, arrays)}
        save_file(dict(arrays), partial, metadata=header)
        _sync(partial)
        partial.replace(path)
        _sync(folder)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {path}: cannot be written ({error})") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return path


def load(path: Path, identity: Mapping[str, Any]) -> tuple[int, dict[str, Any], dict[str, np.ndarray]]:
    """(position, state, arrays) of the checkpoint at ``path``. Raises ``CheckpointError``."""
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            manifest, digest = json.loads(header["manifest"]), header["digest"]
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        whole = digest == _digest(manifest, arrays)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        why = f"it is damaged, truncated or no checkpoint of a server ({error})"
        raise CheckpointError(f"checkpoint {path}: {why}") from error
    if not whole:
        raise CheckpointError(f"checkpoint {path}: it is damaged: its contents are not what was written")
    owner = manifest["identity"]
    if manifest["format"] != FORMAT:
        raise CheckpointError(f"checkpoint {path}: its format is {manifest['format']!r}, not {FORMAT!r}")
    differs = [f"{k} is {owner.get(k)!r}, not {v!r}" for k, v in identity.items() if owner.get(k) != v]
    if differs:
        raise CheckpointError(f"checkpoint {path}: it is of another run: {'; '.join(differs)}")
    return manifest["position"], manifest["state"], arrays


def _digest(manifest: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    digest = sha256(json.dumps(manifest, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(arrays[name].data)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
