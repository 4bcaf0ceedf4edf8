"""How long a step is held, on a clock that the test turns."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from real import compute  # noqa: E402
from real.compute import Computer, Step  # noqa: E402


class Clock:
    """Stands still unless it is turned."""

    def __init__(self) -> None:
        self.now = 10.0

    def monotonic(self) -> float:
        return self.now


def step_of(
    monkeypatch: pytest.MonkeyPatch, *, lag: float, late: float, factor: float, paced: bool,
    gradient: Callable[[Clock], Any], device: str = "cpu",
) -> Step:  # fmt: skip
    """One step that is asked for with ``lag``, begins ``late`` seconds after that and is drawn 0.5 s."""
    clock, done = Clock(), threading.Event()
    monkeypatch.setattr(compute, "time", clock)

    def work(*_: Any) -> tuple[Any, float]:
        return gradient(clock), 0.0

    times = SimpleNamespace(draw=lambda *_: (0.5, factor))
    computer = Computer(
        SimpleNamespace(gradient=work), 0, times, paced=paced, device=device, done=done.set  # type: ignore[arg-type]
    )  # fmt: skip
    jobs = computer._jobs

    class Late:
        """Hands a job on once the clock shows that it is late."""

        def put(self, job: Step) -> None:
            clock.now += late
            jobs.put(job)

        def get(self) -> Step:
            return jobs.get()

    computer._jobs = Late()  # type: ignore[assignment]
    job = computer.start(torch.zeros(1), 0, clock.now - lag, 0.0)
    assert done.wait(20)
    return job


def a_fifth(clock: Clock) -> Any:
    clock.now += 0.2
    return torch.zeros(1)


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_a_slow_down_multiplies_the_gradient_and_not_the_hosts_lateness(
    monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    job = step_of(monkeypatch, lag=0.004, late=0.003, factor=factor, paced=False, gradient=a_fifth)
    assert job.end == pytest.approx(10.003 + 0.2 * factor)


def test_a_paced_step_ends_when_a_punctual_host_would_have_ended_it(monkeypatch: pytest.MonkeyPatch) -> None:
    job = step_of(monkeypatch, lag=0.004, late=0.003, factor=3.0, paced=True, gradient=a_fifth)
    assert job.end == pytest.approx(9.996 + 0.5 * 3.0)


def test_a_gpus_step_ends_once_the_device_has_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels run on after the call that launched them has returned."""
    devices: list[str] = []
    clocks: list[Clock] = []

    def launch(clock: Clock) -> Any:
        clocks.append(clock)
        return a_fifth(clock)

    def synchronize(device: str) -> None:
        devices.append(device)
        clocks[0].now += 0.7

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    job = step_of(monkeypatch, lag=0.0, late=0.0, factor=2.0, paced=False, gradient=launch, device="cuda:1")
    assert devices == ["cuda:1"]
    assert job.end == pytest.approx(10.0 + 2 * 0.9)
