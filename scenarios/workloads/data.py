"""Data sets as torch tensors: digits and CIFAR-10 (real), synthetic images (made up).

Rules this module obeys:

* A batch depends on (seed, rank, step) alone: it can be asked for in any order, again, by anyone.
  Its samples are drawn from the training set without replacement within the batch, independently
  between steps and ranks. Every worker sees the whole set.
* Images are float32 (N, C, H, W), normalised; labels int64 (N,).
* Synthetic images are noise over a pattern per class: learnable, of the right shape, and nothing more.
  They are made on demand, so their number costs no memory.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch.nn.functional import interpolate

from scenarios.errors import ScenarioError
from scenarios.streams import RUN, stream
from scenarios.workloads import cifar
from scenarios.workloads.layers import DATASETS, class_count, image_shape, training_samples

if TYPE_CHECKING:
    from scenarios.schema import Workload

__all__ = ["Data", "load"]

Batch = tuple[torch.Tensor, torch.Tensor]

_CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
_CIFAR_STD = (0.2470, 0.2435, 0.2616)


class Data(Protocol):
    """Training batches by (rank, step), and the test set in chunks."""

    samples: int
    tests: int

    def batch(self, rank: int, step: int, size: int) -> Batch:
        """Images (size, C, H, W) and labels (size,)."""
        ...

    def batches(self, keys: Sequence[tuple[int, int]], size: int) -> Batch:
        """``batch`` of each (rank, step) in ``keys``, stacked: (B, size, C, H, W) and (B, size)."""
        ...

    def test(self, start: int, stop: int) -> Batch:
        """Samples ``start:stop`` of the test set."""
        ...

    def describe(self) -> str:
        """What it is, in words."""
        ...


def load(workload: Workload, seed: int, device: str) -> Data:
    """The data set of a workload on a device; raises ``ScenarioError`` where it cannot be read."""
    if workload.data == "synthetic":
        return Synthetic(workload, seed, device)
    (train, labels), (test, answers) = (
        _digits() if workload.data == "digits" else cifar.read(workload.data_dir)
    )
    return Stored(workload, seed, device, (train, labels), (test, answers))


def _digits() -> tuple[cifar.Images, cifar.Images]:
    """scikit-learn's 1797 digits of 8 x 8 pixels, split once and for all into 1437 and 360.

    The file is read where it lies, because importing scikit-learn costs every process a second.
    """
    spec = find_spec("sklearn")
    places = (spec.submodule_search_locations or []) if spec else []
    for place in places:
        path = Path(place) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            with gzip.open(path, "rt", encoding="ascii") as file:
                rows = np.loadtxt(file, delimiter=",", dtype=np.int64)
            order = stream(0, RUN, "digits-split").permutation(len(rows))
            rows, cut = rows[order], DATASETS["digits"].train
            images = rows[:, :-1].reshape(-1, 1, 8, 8)
            return (images[:cut], rows[:cut, -1]), (images[cut:], rows[cut:, -1])
    raise ScenarioError(
        "workload.data", "digits", hint="needs scikit-learn, which ships it: pip install 'aladdin[real]'"
    )


class Stored:
    """A data set held in memory; resampled to the workload's image size batch by batch."""

    def __init__(
        self, workload: Workload, seed: int, device: str, train: cifar.Images, test: cifar.Images
    ) -> None:
        self._seed, self._name, self._shape = seed, workload.data, image_shape(workload)
        self._train, self._labels = _tensors(train, device)
        self._test, self._answers = _tensors(test, device)
        if workload.data == "digits":
            mean, std = torch.tensor([4.884]), torch.tensor([6.017])
        else:
            mean, std = torch.tensor(_CIFAR_MEAN) * 255, torch.tensor(_CIFAR_STD) * 255
        self._mean, self._std = (t.to(device).view(1, -1, 1, 1) for t in (mean, std))
        self.samples, self.tests = len(self._labels), len(self._answers)
        if workload.batch > self.samples:
            raise ScenarioError(
                "workload.batch", workload.batch, f"at most {self.samples}, the training samples"
            )

    def batch(self, rank: int, step: int, size: int) -> Batch:
        """Drawn by the stream (seed, rank, "batch", step)."""
        index = torch.from_numpy(self._picked(rank, step, size)).to(self._labels.device)
        return self._images(self._train[index]), self._labels[index]

    def batches(self, keys: Sequence[tuple[int, int]], size: int) -> Batch:
        """Gathered at once."""
        picked = np.concatenate([self._picked(rank, step, size) for rank, step in keys])
        index = torch.from_numpy(picked).to(self._labels.device)
        shape = (len(keys), size)
        return self._images(self._train[index]).unflatten(0, shape), self._labels[index].view(shape)

    def _picked(self, rank: int, step: int, size: int) -> np.ndarray:
        return stream(self._seed, rank, "batch", step + 1).choice(self.samples, size, replace=False)

    def test(self, start: int, stop: int) -> Batch:
        """As stored."""
        return self._images(self._test[start:stop]), self._answers[start:stop]

    def _images(self, raw: torch.Tensor) -> torch.Tensor:
        images = (raw.float() - self._mean) / self._std
        size = self._shape[1]
        if size == images.shape[-1]:
            return images
        return interpolate(images, size=(size, size), mode="bilinear", align_corners=False)

    def describe(self) -> str:
        """Name and size."""
        return f"{self._name}: {self.samples} training and {self.tests} test images, real data"


def _tensors(images: cifar.Images, device: str) -> Batch:
    pixels, labels = images
    return torch.from_numpy(pixels.astype(np.uint8)).to(device), torch.from_numpy(labels).to(device)


class Synthetic:
    """Noise over one coarse pattern per class, made on demand on the device."""

    def __init__(self, workload: Workload, seed: int, device: str) -> None:
        self._seed, self._device = seed, device
        self._shape, self._classes = image_shape(workload), class_count(workload)
        self.samples, self.tests = training_samples(workload), DATASETS["synthetic"].test
        rng = stream(seed, RUN, "synthetic-patterns")
        patterns = rng.standard_normal((self._classes, self._shape[0], 4, 4), dtype=np.float32)
        self._patterns = torch.from_numpy(patterns).to(device)

    def batch(self, rank: int, step: int, size: int) -> Batch:
        """Drawn by the stream (seed, rank, "batch", step)."""
        return self._make(stream(self._seed, rank, "batch", step + 1), size)

    def batches(self, keys: Sequence[tuple[int, int]], size: int) -> Batch:
        """Made one by one."""
        images, labels = zip(*(self.batch(rank, step, size) for rank, step in keys), strict=True)
        return torch.stack(images), torch.stack(labels)

    def test(self, start: int, stop: int) -> Batch:
        """Made by blocks that start at ``start``."""
        return self._make(stream(self._seed, RUN, "synthetic-test", start + 1), stop - start)

    def _make(self, rng: np.random.Generator, size: int) -> Batch:
        labels = torch.from_numpy(rng.integers(0, self._classes, size)).to(self._device)
        noise = torch.Generator(self._device).manual_seed(int(rng.integers(2**62)))
        images = interpolate(self._patterns[labels], size=self._shape[1:], mode="nearest")
        images += torch.randn(images.shape, generator=noise, device=self._device)
        return images, labels

    def describe(self) -> str:
        """Says that it is made up."""
        shape = " x ".join(str(d) for d in self._shape)
        return f"synthetic images of {shape}, {self._classes} classes: made up, no real data"
