"""What calibrations and cross-checks share: who runs their scenarios, and what must be installed.

Rules this module obeys: torch is not imported before something runs, nor anything else that takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from core.record import Record
from scenarios import Scenario, ScenarioError

__all__ = ["Progress", "Runner", "needed", "run_for_real"]

Progress = Callable[[str, int, int], None]
"""Called with the stage, how many of its parts are done and how many there are."""

Runner = Callable[[Scenario], Record]


def run_for_real(scenario: Scenario) -> Record:
    """The real driver, imported when it is needed."""
    from real import train

    return train(scenario)


def needed(*packages: str) -> None:
    """Raise ``ScenarioError``, before any work, where a package of the extras is not installed."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ScenarioError(
            f"this needs {' and '.join(missing)}; install what is missing with: pip install 'aladdin[all]'"
        )
