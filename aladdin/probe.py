"""Probe: what is run to measure a machine, and what it costs; Learned: what a profile learns from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from core.record import Record
from scenarios import Scenario
from scenarios.profile import Constant, Profile

__all__ = ["Learned", "Probe"]


@dataclass(frozen=True)
class Learned:
    """What a probe says: constants, how well their fits fit (``Profile.notes``), and the step model.

    failed  why it says nothing, where it was disturbed beyond use
    stolen  share of the cores asked for that the machine's host kept for others; None: nobody says
    """

    constants: Mapping[str, Constant] = field(default_factory=dict)
    fits: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    failed: str = ""
    stolen: float | None = None


@dataclass(frozen=True)
class Probe:
    """Scenarios to run one after the other, and what their records say beside a profile's constants.

    scenarios  by what is known and the share (seconds); none where the probe is known to say nothing
    seconds    what all that takes, by what is known and the share
    spare      whether predictions can do without, for another probe says the same
    """

    what: str
    scenarios: Callable[[Profile, float], list[Scenario]]
    learn: Callable[[list[Record], Profile], Learned]
    seconds: Callable[[Profile, float], float]
    spare: bool = False
