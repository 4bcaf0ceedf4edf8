"""Files that users name: where they are, and what is in them.

Rules this module obeys:

* What is no path is bad input, told by the name of the argument that it was given as.
* Nothing is read without end: a device or a mistaken name must not fill the memory.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from scenarios.errors import ScenarioError

__all__ = ["MOST", "place", "text"]

MOST = 256 << 20
"""Bytes that a text file may hold: many times those of a profile, of oracle cases or of a device list."""


def place(value: Any, name: str) -> Path:
    """``value`` as a path; raises ``ScenarioError`` where it is none. ``name``: the argument's."""
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ScenarioError(name, value, "the path of a file or folder")
    if "\0" in os.fsdecode(value):
        raise ScenarioError(name, value, "a path without null characters")
    return Path(os.fsdecode(value))


def text(path: str | Path, encoding: str = "utf-8") -> str:
    """What the file holds; raises ``OSError``, also where that is more than ``MOST`` bytes."""
    if "\0" in str(path):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
    with open(path, "rb") as file:
        found = file.read(MOST + 1)
    if len(found) > MOST:
        raise OSError(errno.EFBIG, f"holds more than {MOST >> 20} MiB", str(path))
    return found.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
