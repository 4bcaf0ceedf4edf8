"""A number that processes share: how many samples the workers of a run have begun.

Rules this module obeys: it lives in a file, under a lock that the kernel takes back from whoever dies
while holding it, so nobody waits for the dead.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

__all__ = ["Counter"]

_BYTES = 8


class Counter:
    """The number in the file ``path``; 0 where the file is new."""

    def __init__(self, path: str | Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def add(self, amount: int) -> int:
        """Add ``amount``; returns what the number was before."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            before = int.from_bytes(os.pread(self._file, _BYTES, 0), "little")
            os.pwrite(self._file, (before + amount).to_bytes(_BYTES, "little"), 0)
            return before
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
