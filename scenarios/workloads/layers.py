"""Data sets' shapes and models' layer sizes, in pure Python: what timing needs, without torch.

Rules this module obeys:

* A layer is one module's parameters (weight and bias together), in the order in which the flat
  parameter vector holds them; tests hold the lists against the torch models.
* Published counts are tested: ResNet-50 25 557 032, VGG-16 138 357 544 (224 pixels, 1000 classes).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scenarios.schema import Workload

__all__ = [
    "DATASETS",
    "DataSet",
    "class_count",
    "hidden_widths",
    "image_shape",
    "layer_sizes",
    "training_samples",
]


@dataclass(frozen=True)
class DataSet:
    """Shape of a data set: channels, pixels a side, classes, training and test samples, real or made up."""

    channels: int
    size: int
    classes: int
    train: int
    test: int
    real: bool


DATASETS = {
    "digits": DataSet(1, 8, 10, 1437, 360, real=True),
    "cifar10": DataSet(3, 32, 10, 50_000, 10_000, real=True),
    "synthetic": DataSet(3, 32, 10, 50_000, 1_000, real=False),
}

RESNET50 = ((64, 3), (128, 4), (256, 6), (512, 3))
"""Width and number of bottleneck blocks of each stage (He et al. 2016, Table 1)."""

VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
"""Output channels of the convolutions, 0 for max-pooling (Simonyan and Zisserman 2015, Table 1, D)."""

CNN = (16, 32, 64)
"""Output channels of the small network's two convolutions, and its hidden width."""


def image_shape(workload: Workload) -> tuple[int, int, int]:
    """(channels, height, width) of one image as the model sees it."""
    data = DATASETS[workload.data]
    size = workload.image_size or data.size
    return data.channels, size, size


def class_count(workload: Workload) -> int:
    """Outputs of the model."""
    return workload.classes or DATASETS[workload.data].classes


def hidden_widths(workload: Workload) -> tuple[int, ...]:
    """Widths of the MLP's hidden layers."""
    return workload.hidden or (256,)


def training_samples(workload: Workload) -> int:
    """Training samples in one epoch."""
    return workload.samples or DATASETS[workload.data].train


def layer_sizes(workload: Workload) -> tuple[int, ...]:
    """Parameters of each layer, in the order of the flat vector; one layer if ``parameters`` is set."""
    if workload.parameters:
        return (workload.parameters,)
    channels, height, width = image_shape(workload)
    classes = class_count(workload)
    if workload.model == "mlp":
        widths = (channels * height * width, *hidden_widths(workload), classes)
        return tuple(_linear(a, b) for a, b in pairwise(widths))
    if workload.model == "cnn":
        first, second, hidden = CNN
        flat = second * (height // 2) * (width // 2)
        return (
            _conv(channels, first, 3),
            _conv(first, second, 3),
            _linear(flat, hidden),
            _linear(hidden, classes),
        )
    return _resnet50(channels, classes) if workload.model == "resnet50" else _vgg16(channels, classes)


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _conv(inputs: int, outputs: int, kernel: int, bias: bool = True) -> int:
    return inputs * outputs * kernel * kernel + (outputs if bias else 0)


def _resnet50(channels: int, classes: int) -> tuple[int, ...]:
    sizes = [_conv(channels, 64, 7, bias=False), 2 * 64]
    inputs = 64
    for width, blocks in RESNET50:
        for block in range(blocks):
            for a, b, kernel in ((inputs, width, 1), (width, width, 3), (width, 4 * width, 1)):
                sizes += [_conv(a, b, kernel, bias=False), 2 * b]
            if block == 0:
                sizes += [_conv(inputs, 4 * width, 1, bias=False), 2 * 4 * width]
            inputs = 4 * width
    return (*sizes, _linear(inputs, classes))


def _vgg16(channels: int, classes: int) -> tuple[int, ...]:
    """The classifier sees 7 x 7 positions whatever the image size (adaptive pooling)."""
    sizes = []
    for outputs in VGG16:
        if outputs:
            sizes.append(_conv(channels, outputs, 3))
            channels = outputs
    return (*sizes, _linear(channels * 49, 4096), _linear(4096, 4096), _linear(4096, classes))
