"""What a run leaves behind is complete."""

from __future__ import annotations

from typing import Any

import pytest

from core import record
from core.record import StepLog


def test_no_row_is_lost_that_another_thread_appends_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real node's heartbeat reads the rows that its program's thread appends to."""
    log, pack = StepLog(("a", "b")), record.pack

    def interrupted(form: str, *values: Any) -> bytes:
        monkeypatch.setattr(record, "pack", pack)
        log.append((3.0, 4.0))
        return pack(form, *values)

    monkeypatch.setattr(record, "pack", interrupted)
    log.append((1.0, 2.0))
    assert log.values.tolist() == [1.0, 2.0]
    assert log.values.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert len(log) == 2
