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
    monkeypatch.setattr(quiet, "_PROC", tmp_path)
    clock = iter([0.0, 2.0])
    fake = SimpleNamespace(perf_counter=lambda: next(clock), sleep=lambda _: stat(file, 200))
    monkeypatch.setattr(quiet, "time", fake)
    assert quiet.busy() == pytest.approx(1.0)


def test_where_the_system_says_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(quiet, "_PROC", tmp_path)
    assert quiet.busy(0.0) is None
    assert quiet.word(None) == ""


def test_only_busy_neighbours_are_worth_a_word() -> None:
    assert quiet.word(0.1) == ""
    assert "1.3 cores" in quiet.word(1.3)


def test_the_worst_of_several_runs_counts() -> None:
    runs = [Record({"environment": {"stolen": share}}, {}, {}) for share in (0.01, 0.2, None)]
    assert quiet.stolen([*runs, Record({}, {}, {})]) == 0.2
    assert quiet.stolen(runs[2:]) is None
    assert quiet.stolen([]) is None


def test_too_much_is_more_than_the_best_quarter_has() -> None:
    some = [0.01, 0.02, 0.3, 0.4, 0.4, None, 0.35, 0.3]
    assert quiet.too_much(0.3, some)
    assert not quiet.too_much(0.06, some)
    assert not quiet.too_much(None, some)
    assert not quiet.too_much(0.4, [0.4, 0.38, 0.41])  # that is how this machine is
    assert not quiet.too_much(0.4, [])


def test_a_host_that_keeps_cores_is_worth_a_word() -> None:
    assert quiet.word(0.1, 0.04) == ""
    assert quiet.word(None, 0.2) == "the machine's host kept 20% of the cores that were asked for"
    assert quiet.word(1.3, 0.2).count(";") == 1
