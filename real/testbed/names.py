"""Names of namespaces that say whose they are, and the proof that their owner is gone.

Rules this module obeys:

* A name holds all that proves ownership: the program's own prefix, the owner's process id, the time
  that process started at (clock ticks since boot, ``/proc/PID/stat``), the inode of its pid namespace,
  a random part for each test-bed, and which of its namespaces this is.
* An owner is gone only if that is certain: its pid namespace is ours (elsewhere the same number is
  another process), and no live process has both its number and its starting time.
* Whatever is not named exactly so is somebody else's and is never touched.
"""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FOLDER", "Owner", "leftovers", "owner", "prefix"]

FOLDER = Path("/run/netns")
"""Where ``ip netns`` keeps the names of namespaces, too."""

_NAME = re.compile(
    r"aladdin-(?P<pid>\d{1,10})-(?P<started>\d{1,20})-(?P<space>\d{1,20})-[0-9a-f]{8}-(?:bridge|\d{1,4})",
    re.ASCII,
)
_STATE, _STARTED = 0, 19
"""Fields of ``/proc/PID/stat`` behind the command's name, which may hold anything."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, told apart from all others that had or will have its number."""

    pid: int
    started: int
    space: int

    def gone(self) -> bool:
        """Whether it is certain that this process has ended."""
        return self.space == _space() and self.started != _started(self.pid)


def _space() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _started(pid: int) -> int:
    """When process ``pid`` started, clock ticks since boot; -1 where there is none, or only its zombie."""
    try:
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except (FileNotFoundError, ProcessLookupError):
        return -1
    return -1 if fields[_STATE] in "ZX" else int(fields[_STARTED])


def prefix() -> str:
    """What the names of a new test-bed of this process begin with."""
    pid = os.getpid()
    return f"aladdin-{pid}-{_started(pid)}-{_space()}-{secrets.token_hex(4)}-"


def owner(name: str) -> Owner | None:
    """Whose namespace ``name`` is, if it is one of this program's."""
    match = _NAME.fullmatch(name)
    return Owner(*(int(match[part]) for part in ("pid", "started", "space"))) if match else None


def leftovers() -> list[str]:
    """Names of this program's namespaces whose owner is certainly gone, sorted."""
    names = sorted(os.listdir(FOLDER)) if FOLDER.is_dir() else []
    owners = {name: found for name in names if (found := owner(name)) is not None}
    return [name for name, found in owners.items() if found.gone()]
