"""``python -m real.testbed.enter PLACE PARENT COMMAND...``: become COMMAND inside a place of a test-bed.

Rules this module obeys: it verifies that it is inside before anything of COMMAND runs, and asks the
kernel to end COMMAND (SIGKILL) when the process that started it ends.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import msgspec

from real.errors import TransportError
from real.testbed.places import Place, enter, libc

__all__ = ["REFUSED", "arguments"]

REFUSED = 125
"""Exit code where the place could not be entered, or COMMAND not be started."""

_PR_SET_PDEATHSIG = 1


def arguments(place: Place, command: list[str]) -> list[str]:
    """The command line that runs ``command`` in ``place`` for as long as this process lives."""
    spec = msgspec.json.encode(place).decode()
    return [sys.executable, "-m", "real.testbed.enter", spec, str(os.getpid()), *command]


def main(spec: str, parent: str, *command: str) -> Any:
    """Enter and become ``command``; returns only where that is impossible."""
    libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        return REFUSED
    try:
        enter(msgspec.json.decode(spec, type=Place), alone=False)  # other threads end where COMMAND begins
        os.execvp(command[0], command)
    except (TransportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
    return REFUSED


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
