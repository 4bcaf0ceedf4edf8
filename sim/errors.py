"""Errors of the simulator."""

from __future__ import annotations

from collections.abc import Sequence

from core.record import Record

__all__ = ["Deadlock", "Diverged"]


class Deadlock(RuntimeError):
    """Nothing can happen any more, yet programs wait. ``waiting`` says who waits for what."""

    def __init__(self, now: float, waiting: Sequence[str]) -> None:
        self.now, self.waiting = now, tuple(waiting)
        lines = "".join(f"\n  {line}" for line in self.waiting)
        super().__init__(f"deadlock at {now:.9g} s: no event is left, but{lines}")


class Diverged(RuntimeError):
    """A loss is no longer a finite number. ``record`` holds what was recorded until then.

    ``worker`` whose mini-batch of ``step`` gave that loss; None: the test set did, after ``step`` steps
    of all workers.
    """

    def __init__(self, loss: float, now: float, *, step: int, worker: int | None = None) -> None:
        self.loss, self.now, self.step, self.worker = loss, now, step, worker
        self.record: Record | None = None
        whose = (
            f"the loss of worker {worker} at its step {step}"
            if worker is not None
            else f"the model's test loss after {step} steps of all workers"
        )
        super().__init__(
            f"training diverged: {whose}, {now:.6g} s of simulated time, is {loss}; a smaller algorithm.lr, "
            "algorithm.lr_scaling: none or algorithm.warmup_epochs may help"
        )
