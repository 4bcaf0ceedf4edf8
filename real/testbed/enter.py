"""A process of its own that becomes a command inside a place of a test-bed (``arguments`` says how).

Rules this module obeys:

* It verifies that it is inside before anything of the command runs, and asks the kernel to end the command
  (SIGKILL) when the process that started it ends.
* It imports from where that process does, and from nowhere else: it is root's, and the folder that it is
  started in may be anybody's.
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
"""Exit code where the place could not be entered, or the command not be started."""

_PR_SET_PDEATHSIG = 1
_START = """\
import sys
sys.path[:] = sys.argv.pop(1).split(":")
from real.testbed.enter import main
sys.exit(main(*sys.argv[1:]))
"""


def arguments(place: Place, command: list[str]) -> list[str]:
    """The command line that runs ``command`` in ``place`` for as long as this process lives."""
    spec, paths = msgspec.json.encode(place).decode(), ":".join(map(str, sys.path))
    return [sys.executable, "-P", "-c", _START, paths, spec, str(os.getpid()), *command]


def main(spec: str, parent: str, *command: str) -> Any:
    """Enter and become ``command``; returns only where that is impossible."""
    libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        return REFUSED
    try:
        enter(msgspec.json.decode(spec, type=Place), alone=False)  # others end where the command begins
        os.execvp(command[0], command)
    except (TransportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
    return REFUSED
