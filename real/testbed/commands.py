"""A command run in every place of a test-bed at once.

Rules this module obeys:

* Each copy is told by environment variables who it is and where the others are: ``ALADDIN_NODE``,
  ``ALADDIN_ADDRESS``, ``ALADDIN_ADDRESSES``, and those that torch.distributed reads.
* When one fails the others are asked to end (SIGTERM) and, if they do not, ended with the test-bed.
  None outlives the test-bed, nor the process that started it; what a command itself starts may outlive the
  latter, if that is killed, until the next test-bed.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress

from real.errors import TransportError
from real.testbed.bed import Testbed
from real.testbed.enter import REFUSED, arguments
from real.testbed.places import DEVICE

__all__ = ["run_commands", "variables"]

_PORT = 29500
_LEAVING = 5.0
_LOOK = 0.05


def variables(bed: Testbed, node: int) -> dict[str, str]:
    """What the command of ``node`` is told."""
    all_ = [place.address for place in bed.places]
    return {
        "ALADDIN_NODE": str(node), "ALADDIN_ADDRESS": all_[node], "ALADDIN_ADDRESSES": ",".join(all_),
        "RANK": str(node), "LOCAL_RANK": "0", "WORLD_SIZE": str(len(all_)),
        "MASTER_ADDR": all_[0], "MASTER_PORT": str(_PORT),
        "GLOO_SOCKET_IFNAME": DEVICE, "NCCL_SOCKET_IFNAME": DEVICE,
    }  # fmt: skip


def run_commands(bed: Testbed, command: Sequence[str]) -> None:
    """Run ``command`` in every place and wait for all of them; they write where this process does.

    Raises ``TransportError`` where one ends with another exit code than 0.
    """
    running: dict[int, subprocess.Popen[bytes]] = {}
    try:
        for node, place in enumerate(bed.places):
            told = [f"{name}={value}" for name, value in variables(bed, node).items()]
            line = arguments(place, ["env", *told, *command])
            running[node] = subprocess.Popen(line, stdin=subprocess.DEVNULL)
        failed = _wait(running)
    finally:
        _end(running)
    if failed:
        node, code = failed
        raise TransportError(f"node {node}: {command[0]} {_how(code)}")


def _wait(running: dict[int, subprocess.Popen[bytes]]) -> tuple[int, int] | None:
    """Until all have ended, or one has failed: which, and how."""
    left = dict(running)
    while left:
        for node, process in list(left.items()):
            code = process.poll()
            if code is not None:
                del left[node]
            if code:
                return node, code
        time.sleep(_LOOK if left else 0.0)
    return None


def _end(running: dict[int, subprocess.Popen[bytes]]) -> None:
    for process in running.values():
        process.send_signal(signal.SIGTERM)
    until = time.monotonic() + _LEAVING
    for process in running.values():
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, until - time.monotonic()))
            continue
        process.kill()
        process.wait()


def _how(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return "could not be started" if code == REFUSED else f"ended with exit code {code}"
