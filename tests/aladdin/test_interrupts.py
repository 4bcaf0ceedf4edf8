"""Ctrl-C in a simulation: the run directory is written and flagged, the exit code is 130; and its bars."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import aladdin
import sim
from aladdin import cli
from aladdin.cli import _endings, common
from aladdin.saving import stopping, taking
from analysis.store import read
from real.interrupts import deferred

OVERRIDES = {"run.steps": 60, "workload.hidden": [8], "run.evaluate": False}


def press(at: int) -> Callable[..., None]:
    """Ctrl-C when so many steps have begun: the signal is handled before ``raise_signal`` returns."""
    pressed = []

    def on_clock(*arguments: Any) -> None:
        if arguments[-1] >= at and not pressed:
            pressed.append(arguments[-1])
            signal.raise_signal(signal.SIGINT)

    return on_clock


def test_ctrl_c_keeps_what_is_recorded(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        aladdin.simulate("demo", overrides=OVERRIDES, out=tmp_path / "run", on_clock=press(100))
    assert isinstance(caught.value, sim.Interrupted)
    assert caught.value.path == tmp_path / "run"  # type: ignore[attr-defined]
    kept = read(tmp_path / "run")
    assert 90 <= kept.nodes["steps"].sum() <= 101
    (flag,) = kept.manifest["flags"]
    assert flag.startswith("incomplete: stopped ")
    assert flag.endswith(" steps begun")


def test_ctrl_c_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["simulate", "demo", "--set", "run.steps=60", "--out", str(tmp_path / "run")]
    pressing = press(100)
    monkeypatch.setattr(common.Bars, "clock", lambda _, *arguments: pressing(*arguments))
    assert cli.main(argv) == 130
    out, err = capsys.readouterr()
    assert "* incomplete: stopped " in out
    assert "ALADDIN*" in out
    assert err.splitlines()[-1] == f"stopped: by Ctrl-C; what was finished is in {tmp_path / 'run'}"
    again = press(100)
    monkeypatch.setattr(common.Bars, "clock", lambda _, *arguments: again(*arguments))
    assert cli.main([*argv[:-1], str(tmp_path / "other"), "--json"]) == 130
    found = json.loads(capsys.readouterr().out)
    assert found["stopped"] is True
    assert found["flags"][0].startswith("incomplete: ")
    assert found["runs"][0]["path"] == str(tmp_path / "other")


def test_a_second_ctrl_c_ends_it_at_once() -> None:
    with stopping() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_handlers_of_others_are_left_alone_and_ours_is_taken_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stopping():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
    mine = lambda *_: None  # noqa: E731
    try:
        signal.signal(signal.SIGINT, mine)
        with stopping():
            assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_that_is_ignored_still_is_and_other_signals_come_through(tmp_path: Path) -> None:
    """As in what a script's shell starts with ``&``: schedulers end it by SIGTERM."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stopping() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop.asked
        with _endings() as came:
            with stopping() as stop:
                signal.raise_signal(signal.SIGTERM)
                assert stop.asked
            assert came == [signal.SIGTERM]
        with _endings(), deferred() as interrupts:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGHUP)
            assert interrupts.count == 1
        with _endings(), taking(tmp_path / "checkpoint") as checkpoints:
            signal.raise_signal(signal.SIGINT)
            assert checkpoints is not None
            assert not checkpoints._stop()
            signal.raise_signal(signal.SIGTERM)
            assert checkpoints._stop()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        with pytest.raises(KeyboardInterrupt), _endings():
            signal.raise_signal(signal.SIGTERM)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Screen:
    """In place of rich's progress: what would be shown."""

    def __init__(self) -> None:
        self.started = False
        self.tasks: list[dict[str, Any]] = []

    def start(self) -> None:
        self.started = True

    def add_task(self, name: str, **fields: Any) -> int:
        self.tasks.append({"name": name, **fields})
        return len(self.tasks) - 1

    def update(self, task: int, **fields: Any) -> None:
        self.tasks[task] |= fields


def test_bars_appear_after_two_seconds_and_tell_how_far_and_how_fast() -> None:
    screen, now = Screen(), [100.0]
    bars = common.Bars(screen, "steps", timer=lambda: now[0])  # type: ignore[arg-type]
    bars("asp", 1000, 10_000)
    bars.clock("asp", 1.25, 1000)
    now[0] = 101.5
    bars("asp", 4000, 10_000)
    bars.clock("asp", 5.0, 4000)
    assert not screen.started
    assert screen.tasks[0]["told"] == "5 s simulated, 4,000 steps, 2,000 steps/s"
    now[0] = 102.0
    bars("asp", 5000, 10_000)
    assert screen.started
    assert (screen.tasks[0]["completed"], screen.tasks[0]["total"]) == (5000, 10_000)
    bars("other", 3, 0)
    assert screen.tasks[1]["told"] == "3 steps"
