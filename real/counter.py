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
    """Two numbers in the file ``path`` that one process writes; they outlive that process.

    They count the steps that a worker has completed, and the gradients whose receipt its servers have
    acknowledged (one that is split over S servers S times).
    """

    def __init__(self, path: str | Path) -> None:
        with open(path, "wb") as file:
            file.write(bytes(2 * _BYTES))
        with open(path, "r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 2 * _BYTES)
        self.acknowledged = 0

    def stepped(self, steps: int) -> None:
        """So many steps are completed."""
        self._shared[:_BYTES] = steps.to_bytes(_BYTES, "little")

    def acknowledge(self, gradients: int) -> None:
        """So many more gradients are acknowledged."""
        self.acknowledged += gradients
        self._shared[_BYTES:] = self.acknowledged.to_bytes(_BYTES, "little")

    @staticmethod
    def read(path: str | Path) -> tuple[int, int]:
        """(steps, acknowledged gradients); zeros where nobody has made the file."""
        try:
            found = Path(path).read_bytes()
        except FileNotFoundError:
            found = b""
        return int.from_bytes(found[:_BYTES], "little"), int.from_bytes(found[_BYTES:], "little")
