"""What the host of a virtual machine keeps of its cores for others, as the machine is told by its kernel."""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["Stolen"]


class Stolen:
    """How much of this virtual machine's cores its host keeps for others, from now on."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._begun, self._before = time.monotonic(), self._seconds()

    def share(self) -> float | None:
        """Share of all cores' time since then, 0 to 1; None where the system does not say."""
        after, passed = self._seconds(), time.monotonic() - self._begun
        if self._before is None or after is None or passed <= 0:
            return None
        return min(max((after - self._before) / (passed * (os.cpu_count() or 1)), 0.0), 1.0)

    def _seconds(self) -> float | None:
        """Core seconds that were stolen since the machine started."""
        try:
            fields = (self._proc / "stat").read_text(encoding="ascii").split("\n", 1)[0].split()
            return float(fields[8]) / os.sysconf("SC_CLK_TCK")
        except (OSError, IndexError, ValueError):
            return None
