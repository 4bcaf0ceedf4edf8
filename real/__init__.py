"""The real driver: the same node programs on processes, sockets and PyTorch.

Importing this package is cheap; torch and pyzmq are imported when a run starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec

from core.record import Record
from real.errors import Interrupted, TransportError
from scenarios.errors import ScenarioError
from scenarios.schema import Scenario

__all__ = ["Interrupted", "TransportError", "train"]

_NEEDED = ("msgspec", "torch", "zmq")


def train(
    scenario: Scenario,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    kill: Mapping[int, int] | None = None,
    stall: Mapping[int, int] | None = None,
) -> Record:
    """Run ``scenario`` for real on this machine; see ``real.launch.train``."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ScenarioError(
            f"training for real needs {' and '.join(missing)}; install what is missing with: "
            "pip install 'aladdin[real]'"
        )
    from real import launch

    return launch.train(scenario, on_progress=on_progress, kill=kill, stall=stall)
