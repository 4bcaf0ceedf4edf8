"""How much of the cores the host of a virtual machine kept for others: told where the kernel says."""

from __future__ import annotations

from pathlib import Path

import pytest

from real import stolen as module
from real.stolen import Stolen


def test_what_the_host_keeps_for_others_is_a_share_of_all_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = iter([10.0, 14.0, 14.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(module.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(module.os, "sysconf", lambda _: 100)
    (tmp_path / "stat").write_text("cpu  1 2 3 4 5 6 7 1000 0 0\ncpu0 1\n")
    stolen = Stolen(tmp_path)
    (tmp_path / "stat").write_text("cpu  1 2 3 4 5 6 7 1080 0 0\ncpu0 1\n")
    assert stolen.share() == pytest.approx(0.1)  # 0.8 of 8 core seconds
    (tmp_path / "stat").write_text("cpu  1 2 3\n")
    assert stolen.share() is None


def test_where_the_system_says_nothing_of_its_host_nothing_is_claimed(tmp_path: Path) -> None:
    assert Stolen(tmp_path).share() is None
