"""A machine in virtual time, and what a calibration finds of it."""

from __future__ import annotations

from functools import cache
from unittest.mock import patch

import scenarios
from aladdin.calibration import calibrate
from scenarios.profile import Profile
from sim import simulate
from tests.aladdin.test_calibration import TRUTH

__all__ = ["MACHINE", "calibrated"]

MACHINE = scenarios.load("demo", {**TRUTH, "cluster.workers": 2})


@cache
def calibrated() -> Profile:
    """What one short calibration of ``MACHINE``, on two idle cores, finds. Not to be edited: it is shared."""
    with (
        patch("aladdin.prices.hardware", lambda: {"cores": 2}),
        patch("aladdin.quiet.busy", lambda: 0.0),
    ):
        return calibrate(MACHINE, run=simulate, budget=1e-3)
