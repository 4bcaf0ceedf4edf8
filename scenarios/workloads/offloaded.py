"""A task on a device, for parameters in host memory: gradients of simulations on a GPU.

Rules this module obeys:

* What goes in and comes out lies in host memory, where a simulation's tensors, its checkpoints and its
  messages are; only the forward and the backward pass, and evaluations, happen on the device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scenarios.workloads.task import Task

if TYPE_CHECKING:
    import torch

__all__ = ["Offloaded"]


class Offloaded(Task):
    """``Task``, with copies to its device and back."""

    def initial(self) -> torch.Tensor:
        """Initial parameters, in host memory."""
        return super().initial().cpu()

    def gradient(self, params: torch.Tensor, rank: int, step: int) -> tuple[torch.Tensor, float]:
        """As ``Task.gradient``, of parameters in host memory."""
        gradient, loss = super().gradient(params.to(self.device), rank, step)
        return gradient.cpu(), loss

    def evaluate(self, params: torch.Tensor) -> tuple[float, float]:
        """As ``Task.evaluate``, of parameters in host memory."""
        return super().evaluate(params.to(self.device))
