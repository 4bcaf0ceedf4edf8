"""Predict, measure and compare distributed training: one description of an algorithm, two drivers.

>>> import aladdin
>>> result = aladdin.simulate("paper/vgg16", algorithm="asp")
>>> round(result.summary["speedup"], 1) > 1
True

Everything is imported when it is first used, so ``import aladdin`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aladdin.api import (
        Result,
        algorithms,
        list_algorithms,
        list_scenarios,
        list_workloads,
        load,
        plot,
        runs,
        simulate,
        trace,
        train,
        verify,
    )
    from aladdin.calibration import calibrate
    from aladdin.comparison import compare
    from aladdin.planning import plan_servers
    from aladdin.validation import crosscheck
    from scenarios import Scenario, ScenarioError

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(
        (
            "Result", "algorithms", "list_algorithms", "list_scenarios", "list_workloads", "load", "plot",
            "runs", "simulate", "trace", "train", "verify",
        ),
        "aladdin.api",
    ),
    "calibrate": "aladdin.calibration",
    "compare": "aladdin.comparison",
    "crosscheck": "aladdin.validation",
    "plan_servers": "aladdin.planning",
    **dict.fromkeys(("Scenario", "ScenarioError"), "scenarios"),
}  # fmt: skip

__all__ = [
    "Result", "Scenario", "ScenarioError", "algorithms", "calibrate", "compare", "crosscheck",
    "list_algorithms", "list_scenarios", "list_workloads", "load", "plan_servers", "plot", "runs",
    "simulate", "trace", "train", "verify",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
