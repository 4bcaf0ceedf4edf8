"""What to run: scenarios, typed, validated and unit-aware; the same for both drivers."""

from __future__ import annotations

from scenarios.errors import ScenarioError
from scenarios.loading import load, names
from scenarios.schema import Scenario

__all__ = ["Scenario", "ScenarioError", "load", "names"]
