"""Task: a model on its data, seen through one flat parameter vector.

Rules this module obeys:

* Parameters and gradients are flat float32 tensors on the task's device, in the model's order.
* ``gradient`` is a function of (params, rank, step): nothing that it computes depends on what was
  asked before; on the CPU bit for bit, on CUDA up to the order in which kernels add. (BatchNorm
  normalises by the batch; its running statistics are re-estimated for every evaluation.)
* The parameters given are read, never written; a gradient is a fresh tensor.
* A task belongs to one thread at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from scenarios.errors import ScenarioError
from scenarios.workloads import data, models
from scenarios.workloads.layers import layer_sizes

if TYPE_CHECKING:
    from scenarios.schema import Workload

__all__ = ["Task"]

_CHUNK = 256
_ESTIMATION_BATCHES = 8


class Task:
    """Gradients, losses and accuracy of a workload.

    parameters         elements of the flat vector
    layers             elements of each layer, adding up to ``parameters``
    samples_per_epoch  training samples
    """

    def __init__(self, workload: Workload, seed: int, device: str = "cpu") -> None:
        """Builds model and data. Raises ``ScenarioError`` for missing data and for timing-only workloads."""
        if workload.parameters:
            raise ScenarioError(
                "workload.parameters", workload.parameters, "0 (its own count) where a model is trained"
            )
        if workload.model == "resnet50" and workload.batch < 2:
            raise ScenarioError("workload.batch", workload.batch, "at least 2, for batch normalisation")
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ScenarioError("run.device", device, "cpu: torch finds no CUDA device here")
        self.workload, self.device = workload, device
        self.data = data.load(workload, seed, device)
        self._model = models.make(workload, seed).to(device).train()
        self._leaves = list(self._model.parameters())
        self._norms = [m for m in self._model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self._initial = torch.cat([p.detach().reshape(-1) for p in self._leaves])
        self._bound = -1
        self.layers = layer_sizes(workload)
        self.parameters = self._initial.numel()
        self.samples_per_epoch = self.data.samples

    def initial(self) -> torch.Tensor:
        """Initial parameters, the same for a seed wherever they are asked for; a fresh tensor."""
        return self._initial.clone()

    def gradient(self, params: torch.Tensor, rank: int, step: int) -> tuple[torch.Tensor, float]:
        """Gradient of the batch of (rank, step) at ``params``, with weight decay, and the batch's loss.

        The gradient has the shape of ``params``; the loss is the mean cross-entropy without decay.
        """
        self._bind(params)
        images, labels = self.data.batch(rank, step, self.workload.batch)
        loss = cross_entropy(self._model(images), labels)
        parts = torch.autograd.grad(loss, self._leaves)
        flat = torch.cat([part.reshape(-1) for part in parts])
        if self.workload.weight_decay:
            flat.add_(params, alpha=self.workload.weight_decay)
        return flat, loss.item()

    def evaluate(self, params: torch.Tensor) -> tuple[float, float]:
        """(mean cross-entropy, share of right answers) on the test set."""
        self._bind(params)
        with torch.no_grad():
            self._estimate_statistics()
            self._model.eval()
            return self._score()

    def _score(self) -> tuple[float, float]:
        loss = right = 0.0
        for start in range(0, self.data.tests, _CHUNK):
            images, labels = self.data.test(start, min(start + _CHUNK, self.data.tests))
            scores = self._model(images)
            loss += cross_entropy(scores, labels, reduction="sum").item()
            right += (scores.argmax(1) == labels).sum().item()
        self._model.train()
        return loss / self.data.tests, right / self.data.tests

    @property
    def model(self) -> nn.Module:
        """The model itself; its parameters are views of whatever was evaluated last."""
        return self._model

    @property
    def normalised(self) -> bool:
        """Whether the model has BatchNorm, so that gradients change its statistics."""
        return bool(self._norms)

    def describe(self) -> str:
        """Model and data in words; synthetic data is called so."""
        return f"{self.workload.model}, {self.parameters} parameters, on {self.data.describe()}"

    def _estimate_statistics(self) -> None:
        """BatchNorm's mean and variance, averaged over a few training batches at the bound parameters."""
        if not self._norms:
            return
        for norm in self._norms:
            norm.reset_running_stats()
            norm.momentum = None
        self._model.train()
        for step in range(_ESTIMATION_BATCHES):
            self._model(self.data.batch(-1, step, self.workload.batch)[0])

    def _bind(self, params: torch.Tensor) -> None:
        """Make the model's parameters views of ``params``; they hold its storage until the next one."""
        if params.shape != self._initial.shape or params.dtype != torch.float32:
            found = f"{tuple(params.shape)} {params.dtype}"
            raise ValueError(f"expected {self.parameters} float32 parameters, got {found}")
        if params.data_ptr() == self._bound:
            return
        start = 0
        for leaf in self._leaves:
            leaf.data = params.detach()[start : start + leaf.numel()].view(leaf.shape)
            start += leaf.numel()
        self._bound = params.data_ptr()
