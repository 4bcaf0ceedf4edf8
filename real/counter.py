"""Numbers that outlive the process that counts: samples begun by all workers, steps completed by one.

Rules this module obeys: they live in files; what processes share is under a lock that the kernel takes back
from whoever dies while holding it, so nobody waits for the dead.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from pathlib import Path

__all__ = ["Counter", "Tally"]

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


class Tally:
    """A number in the file ``path`` that one process writes; it outlives that process."""

    def __init__(self, path: str | Path) -> None:
        with open(path, "wb") as file:
            file.write(bytes(_BYTES))
        with open(path, "r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _BYTES)

    def set(self, number: int) -> None:
        """From now on it is ``number``."""
        self._shared[:] = number.to_bytes(_BYTES, "little")

    @staticmethod
    def read(path: str | Path) -> int:
        """The number; 0 where nobody has made the file."""
        try:
            return int.from_bytes(Path(path).read_bytes(), "little")
        except FileNotFoundError:
            return 0
