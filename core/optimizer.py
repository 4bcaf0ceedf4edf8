"""Momentum SGD and the learning-rate rule that keeps all algorithms comparable.

One gradient moves the global (or mean) model by eta / n: synchronous algorithms apply the mean of
n gradients with eta, servers that apply gradients singly use eta / n, local steps use eta
(ALGORITHMS, "Learning rate"; the linear scaling is that of Goyal et al. 2017, section 2.1).
Weight decay is part of the gradient (the driver's ``Compute`` adds it), so it is sent along.
Momentum lives where parameters are updated; its buffers are never sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from core.errors import OptionError, require
from core.tensors import Phantom, Tensors

__all__ = ["MomentumSGD", "Schedule"]


@dataclass(frozen=True)
class Schedule:
    """Learning rate eta as a function of the samples that all workers have processed together.

    eta = ``lr`` x n (``scaling="linear"``) or ``lr`` (``"none"``), warmed up linearly from ``lr``
    over ``warmup_epochs`` and multiplied by ``decay`` at each epoch in ``milestones``.
    """

    lr: float = 0.05
    workers: int = 1
    scaling: str = "linear"
    warmup_epochs: float = 0.0
    milestones: tuple[float, ...] = ()
    decay: float = 0.1
    samples_per_epoch: int = 1

    def __post_init__(self) -> None:
        require("lr", self.lr, 0 < self.lr < float("inf"), "a finite number above 0")
        require("lr_scaling", self.scaling, self.scaling in ("linear", "none"), "linear or none")
        require(
            "warmup_epochs",
            self.warmup_epochs,
            0 <= self.warmup_epochs < float("inf"),
            "a finite number of at least 0",
        )
        require("decay", self.decay, 0 < self.decay <= 1, "a number in (0, 1]")
        if list(self.milestones) != sorted(self.milestones) or any(m <= 0 for m in self.milestones):
            raise OptionError("milestones", self.milestones, "epochs above 0 in rising order")

    def at(self, samples: float) -> float:
        """Eta after ``samples`` samples of all workers together."""
        base = self.lr * self.workers if self.scaling == "linear" else self.lr
        if not self.warmup_epochs and not self.milestones:
            return base
        epoch = samples / self.samples_per_epoch
        if epoch < self.warmup_epochs:
            base = self.lr + (base - self.lr) * epoch / self.warmup_epochs
        passed = sum(1 for milestone in self.milestones if epoch >= milestone)
        return base * float(self.decay**passed)


@dataclass
class MomentumSGD:
    """x <- x - lr v,  v <- momentum v + g. One instance per parameter vector; owns its velocity."""

    momentum: float = 0.9
    velocity: Any = field(default=None, repr=False)

    def apply(self, tensors: Tensors, x: Any, g: Any, lr: float) -> None:
        """Move ``x`` by ``g`` in place; charged as one ``apply``."""
        if self.momentum and self.velocity is None and type(x) is not Phantom:
            self.velocity = tensors.zeros_like(x)
        tensors.apply(x, g, lr, self.momentum, self.velocity)
