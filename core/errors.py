"""Errors of both drivers: options that are not valid (``scenarios`` turns them into ScenarioError), and
training that diverged."""

from __future__ import annotations

from typing import Any, TypeGuard

__all__ = ["Diverged", "OptionError", "is_number", "is_whole", "require"]


class OptionError(ValueError):
    """An option has a value that is not valid: names the field, the value and what would be valid."""

    def __init__(self, field: str, value: Any, valid: str) -> None:
        super().__init__(f"{field}: {value!r} is not valid; expected {valid}")
        self.field, self.value, self.valid = field, value, valid


def require(field: str, value: Any, holds: bool, valid: str) -> None:
    """Raise ``OptionError`` unless ``holds``; a comparison with NaN does not hold."""
    if not holds:
        raise OptionError(field, value, valid)


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether an option is a whole number (``True`` is none)."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether an option is a number, of any kind (``True`` is none)."""
    return isinstance(value, int | float) and not isinstance(value, bool)


class Diverged(RuntimeError):
    """A loss is no longer a finite number. ``record`` holds what was recorded until then.

    ``worker`` whose mini-batch of ``step`` gave that loss, ``now`` seconds after the start of the run
    (simulated ones in simulations); None: the test set did, after ``step`` steps of all workers, the
    ``last`` of which was that of (worker, step).
    """

    def __init__(
        self, loss: float, now: float, *, step: int, worker: int | None = None,
        last: tuple[int, int] | None = None,
    ) -> None:  # fmt: skip
        self.loss, self.now, self.step, self.worker, self.last = loss, now, step, worker, last
        self.record: Any = None
        whose = f"the loss of worker {worker} at its step {step}"
        if worker is None:
            latest = "" if last is None else f" (the last: worker {last[0]}'s step {last[1]})"
            whose = f"the model's test loss after {step} steps of all workers{latest}"
        super().__init__(
            f"training diverged: {whose}, {now:.6g} s after the start, is {loss}; a smaller algorithm.lr, "
            "algorithm.lr_scaling: none or algorithm.warmup_epochs may help"
        )
