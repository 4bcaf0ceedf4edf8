"""Many gradients of one task: one by one, or several workers' in one batched call.

Rules this module obeys:

* A batched gradient is that of ``Task.gradient`` at the same (params, rank, step), up to the order in
  which floats are added: it is normalised, decayed and averaged alike.
* Batched calls are bounded in memory: at most ``CHUNK_BYTES`` of parameters, gradients and activations.
* What is faster depends on model and machine, so it is measured (with a timer that the caller brings:
  no clock is read here), unless the caller forces it. Without a timer nothing is measured, and MLPs are
  batched where there are several workers.
* BatchNorm keeps statistics in place, which cannot be batched: such models go one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from scenarios.errors import ScenarioError
from scenarios.memory import keep_pages
from scenarios.workloads.layers import class_count, hidden_widths, image_shape

if TYPE_CHECKING:
    from scenarios.workloads.task import Task

__all__ = ["Choice", "Evaluator", "MLPBatch", "VmapBatch"]

CHUNK_BYTES = 64 * 2**20
MOST = 32
"""At most so many gradients in one batched call: more gain nothing."""

ROW, ROW_BYTES = 64, 8 * 2**20
"""So many gradients, of so many bytes in all, are evaluated one by one but right after each other: that
keeps the code in the processor's caches, and the gradients too."""

ROUNDS = 3
"""Timed rounds of each way of evaluation; the fastest counts."""

Key = tuple[int, int]
"""(rank, step)."""

Timer = Callable[[], float]


class MLPBatch:
    """The MLP's forward and backward pass written out over a batch of workers, by batched products."""

    def __init__(self, task: Task) -> None:
        workload = task.workload
        channels, height, width = image_shape(workload)
        widths = (channels * height * width, *hidden_widths(workload), class_count(workload))
        self._decay = workload.weight_decay
        self._layers: list[tuple[int, int, int]] = []
        self._rooms: dict[str, torch.Tensor] = {}
        start = 0
        for inputs, outputs in pairwise(widths):
            self._layers.append((start, inputs, outputs))
            start += outputs * (inputs + 1)
        self.nbytes = 8 * start + 12 * workload.batch * sum(widths)

    def __call__(
        self, flat: torch.Tensor, images: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, P) parameters, (B, size, C, H, W) images, (B, size) labels -> (B, P) gradients, (B,) losses."""
        count, size = labels.shape
        activations, last = [images.flatten(2)], len(self._layers) - 1
        for i in range(last + 1):
            weight, bias = self._parts(flat, i)
            y = self._room(flat, f"activations {i}", count, size, weight.shape[1])
            torch.baddbmm(bias.unsqueeze(1), activations[i], weight.transpose(1, 2), out=y)
            activations.append(y.relu_() if i < last else y)
        scores = torch.log_softmax(activations.pop(), 2)
        answers = labels.unsqueeze(2)
        losses = -scores.gather(2, answers).sum((1, 2)) / size
        delta = scores.exp_()
        delta.scatter_add_(2, answers, delta.new_full((count, size, 1), -1.0))
        delta /= size
        gradients = torch.empty_like(flat)
        for i in range(last, -1, -1):
            weight, bias = self._parts(gradients, i)
            torch.bmm(delta.transpose(1, 2), activations[i], out=weight)
            torch.sum(delta, 1, out=bias)
            if i:
                below = self._room(flat, f"delta {i}", count, size, weight.shape[2])
                delta = torch.bmm(delta, self._parts(flat, i)[0], out=below)
                delta *= torch.sign(activations[i], out=activations[i])
        if self._decay:
            gradients.add_(flat, alpha=self._decay)
        return gradients, losses

    def _room(self, flat: torch.Tensor, name: str, count: int, *shape: int) -> torch.Tensor:
        """Memory for ``count`` matrices that is used again and again: fresh memory costs page faults."""
        held = self._rooms.get(name)
        if held is None or len(held) < count:
            held = self._rooms[name] = flat.new_empty((count, *shape))
        return held[:count]

    def _parts(self, flat: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Views of one layer: weights (B, outputs, inputs) and biases (B, outputs)."""
        start, inputs, outputs = self._layers[layer]
        end = start + inputs * outputs
        return flat[:, start:end].unflatten(1, (outputs, inputs)), flat[:, end : end + outputs]


class VmapBatch:
    """Any model without state, by ``torch.func.vmap`` over its gradient."""

    def __init__(self, task: Task) -> None:
        self._model, self._decay = task.model, task.workload.weight_decay
        self._shapes = [(name, p.shape) for name, p in task.model.named_parameters()]
        self._gradient = torch.func.vmap(torch.func.grad_and_value(self._loss))
        images = task.workload.batch * int(np.prod(image_shape(task.workload)))
        self.nbytes = 12 * task.parameters + 4 * 100 * images

    def _loss(
        self, leaves: dict[str, torch.Tensor], images: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        return cross_entropy(torch.func.functional_call(self._model, leaves, (images,)), labels)

    def __call__(
        self, flat: torch.Tensor, images: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``MLPBatch``."""
        leaves, start = {}, 0
        for name, shape in self._shapes:
            size = shape.numel()
            leaves[name] = flat[:, start : start + size].unflatten(1, shape)
            start += size
        parts, losses = self._gradient(leaves, images, labels)
        gradients = torch.cat([parts[name].flatten(1) for name, _ in self._shapes], 1)
        if self._decay:
            gradients.add_(flat, alpha=self._decay)
        return gradients, losses


def _batch_of(task: Task) -> MLPBatch | VmapBatch | None:
    if task.normalised:
        return None
    return MLPBatch(task) if task.workload.model == "mlp" else VmapBatch(task)


@dataclass(frozen=True)
class Choice:
    """How gradients are evaluated.

    batched  several workers' in one call; else one by one
    chunk    at most so many are asked for at once
    threads  of torch
    ratio    measured seconds of one by one over seconds batched; 0 where nothing was measured
    """

    batched: bool
    chunk: int
    threads: int
    ratio: float = 0.0


class Evaluator:
    """Gradients, losses and accuracy of a task, as the simulator wants them.

    As a context it sets torch's number of threads to its choice, and restores it; and the process keeps the
    pages of freed tensors from then on (``scenarios.memory``).
    """

    def __init__(
        self, task: Task, *, workers: int = 1, batched: str = "auto", threads: int = 0,
        timer: Timer | None = None,
    ) -> None:  # fmt: skip
        """``workers``: how many gradients can be in flight at once. ``batched``: auto, always or never.
        ``threads``: torch's; 0: as many as there are (or, measured, the better of that and 1).

        Raises ``ScenarioError`` for ``batched="always"`` where the model cannot be batched.
        """
        self._task = task
        self.initial = task.initial()
        self.evaluate = task.evaluate
        self._batch = _batch_of(task)
        self._before = 0
        self._points = self.initial.new_empty((0, len(self.initial)))
        if batched == "always" and self._batch is None:
            why = f"auto or never: {task.workload.model} has BatchNorm"
            raise ScenarioError("run.batched", batched, why)
        fits = max(1, min(MOST, workers, CHUNK_BYTES // self._batch.nbytes)) if self._batch else 1
        most = threads or torch.get_num_threads()
        likely = fits > 1 and isinstance(self._batch, MLPBatch)
        together = batched == "always" or (batched == "auto" and likely)
        self._row = max(1, min(ROW, workers, ROW_BYTES // (4 * task.parameters)))
        self.choice = Choice(together, fits if together else self._row, most)
        if batched == "auto" and timer is not None and fits > 1:
            self.choice = self._measured(timer, fits, {1, most} if not threads else {threads})

    def __enter__(self) -> Evaluator:
        self._before = torch.get_num_threads()
        torch.set_num_threads(self.choice.threads)
        keep_pages()
        return self

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self._before)

    def use(self, choice: dict[str, Any]) -> None:
        """Evaluate as an earlier ``describe`` says, whatever was measured now."""
        self.choice = Choice(**{name: choice[name] for name in asdict(self.choice)})

    def describe(self) -> dict[str, Any]:
        """The choice, and torch's version, for a record's environment."""
        return {**asdict(self.choice), "torch": torch.__version__}

    @property
    def shares(self) -> bool:
        """Whether the gradients of one call share memory, so that one of them keeps all of it alive."""
        return self.choice.batched

    @property
    def chunk(self) -> int:
        """At most so many gradients are evaluated by one call of ``several``."""
        return self.choice.chunk

    def __call__(self, params: torch.Tensor, rank: int, step: int) -> torch.Tensor:
        """One gradient, as ``Task.gradient``."""
        return self._task.gradient(params, rank, step)[0]

    def several(
        self, params: Sequence[torch.Tensor], keys: Sequence[Key]
    ) -> tuple[list[torch.Tensor], list[float]]:
        """Gradients (fresh, maybe rows of one tensor) and losses of each (rank, step) at its ``params``."""
        if not self.choice.batched or self._batch is None:
            found = [self._task.gradient(x, *key) for x, key in zip(params, keys, strict=True)]
            return [g for g, _ in found], [loss for _, loss in found]
        images, labels = self._task.data.batches(keys, self._task.workload.batch)
        if len(params) > len(self._points):
            self._points = self.initial.new_empty((len(params), len(self.initial)))
        points = torch.stack(list(params), out=self._points[: len(params)])
        gradients, losses = self._batch(points, images, labels)
        return list(gradients.unbind()), losses.tolist()

    def adopt(self, array: np.ndarray) -> torch.Tensor:
        """A tensor that shares the memory of a NumPy array, and keeps it."""
        return torch.from_numpy(array)

    def _measured(self, timer: Timer, fits: int, threads: set[int]) -> Choice:
        """The fastest way, by a few rounds of each at the initial parameters."""
        keys = [(rank, 0) for rank in range(fits)]
        chunks, counts = {False: self._row, True: fits}, sorted(threads)
        ways = [Choice(way, chunks[way], count) for way in chunks for count in counts]
        seconds = {choice: self._time(timer, choice, keys) for choice in ways}
        singly, batched = (
            min((c for c in ways if c.batched is way), key=lambda c: seconds[c]) for way in (False, True)
        )
        ratio = seconds[singly] / seconds[batched]
        return replace(batched if ratio > 1 else singly, ratio=ratio)

    def _time(self, timer: Timer, choice: Choice, keys: list[Key]) -> float:
        """Seconds per gradient of the best round."""
        self.choice, best = choice, float("inf")
        keys = keys if choice.batched else keys[:4]
        with self:
            for _ in range(ROUNDS + 1):
                start = timer()
                self.several([self.initial] * len(keys), keys)
                best = min(best, (timer() - start) / len(keys))
        return best
