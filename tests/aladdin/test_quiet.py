"""How busy the machine is: told where the system says, unknown where it does not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from aladdin import quiet
from core.record import Record


def stat(path: Path, ticks: int) -> None:
    path.write_text(f"cpu  {ticks} 0 10 500 3 0 0 {ticks} 0 0\ncpu0 0\n", encoding="ascii")


def test_used_and_stolen_time_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "stat"
    stat(file, 100)
    monkeypatch.setattr(quiet, "_STAT", file)
    clock = iter([0.0, 2.0])
    fake = SimpleNamespace(perf_counter=lambda: next(clock), sleep=lambda _: stat(file, 200))
    monkeypatch.setattr(quiet, "time", fake)
    assert quiet.busy() == pytest.approx(1.0)


def test_where_the_system_says_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(quiet, "_STAT", tmp_path / "nothing")
    assert quiet.busy(0.0) is None
    assert quiet.word(None) == ""


def test_only_busy_neighbours_are_worth_a_word() -> None:
    assert quiet.word(0.1) == ""
    assert "1.3 cores" in quiet.word(1.3)


def test_the_worst_of_several_runs_counts() -> None:
    runs = [Record({"environment": {"stolen": share}}, {}, {}) for share in (0.01, 0.2, None)]
    assert quiet.stolen([*runs, Record({}, {}, {})]) == 0.2
    assert quiet.stolen([]) == 0.0
