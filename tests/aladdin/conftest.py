"""Drivers that return a record made by hand at once, so that the face is tested by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aladdin import api
from core.record import Record
from scenarios import Scenario
from tests.analysis.fakes import STEP, make


def fake_run(scenario: Scenario, driver: str = "sim", **manifest: Any) -> Record:
    """A record of ``scenario``: every worker repeats the same step."""
    record = make([STEP] * scenario.cluster.workers, spans=scenario.run.spans, driver=driver, **manifest)
    record.manifest["scenario"] = scenario.to_dict()
    record.manifest["environment"] = {"when": "2026-11-21T07:35:53+00:00"}
    return record


@pytest.fixture
def drivers(monkeypatch: pytest.MonkeyPatch) -> list[Scenario]:
    """Both drivers replaced; the list fills up with the scenarios that they were given."""
    ran: list[Scenario] = []

    def driver(name: str) -> Callable[..., Record]:
        def run(scenario: Scenario, *, on_progress: Any = None, **options: Any) -> Record:
            ran.append(scenario)
            if on_progress is not None:
                on_progress(1, 2)
            return fake_run(scenario, name)

        return run

    monkeypatch.setattr(api, "_driver", driver)
    return ran
