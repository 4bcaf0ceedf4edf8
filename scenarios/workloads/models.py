"""The models, in plain torch: an MLP, a small CNN, ResNet-50 and VGG-16.

Rules this module obeys:

* Layer for layer what ``layers.layer_sizes`` says, in the same order (a test holds them together).
* ResNet-50 is that of He et al. 2016 (Table 1; stride in the 3 x 3 convolution), VGG-16 is
  configuration D of Simonyan and Zisserman 2015, without the dropout of its classifier: a gradient
  depends on parameters and batch alone.
* Parameters are drawn from a seeded fork of torch's generator: the caller's is left as it was.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn

from scenarios.workloads.layers import CNN, RESNET50, VGG16, class_count, hidden_widths, image_shape

if TYPE_CHECKING:
    from scenarios.schema import Workload

__all__ = ["make"]


def make(workload: Workload, seed: int) -> nn.Module:
    """The model of a workload with initial parameters of ``seed``, on the CPU, in training mode."""
    shape, classes = image_shape(workload), class_count(workload)
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        if workload.model == "mlp":
            return _mlp(shape, hidden_widths(workload), classes)
        build = {"cnn": _cnn, "resnet50": _resnet50, "vgg16": _vgg16}[workload.model]
        model = build(shape, classes)
        _initialise(model)
        return model


def _initialise(model: nn.Module) -> None:
    """He et al. 2015 for convolutions; the classifiers of VGG by N(0, 0.01) as published."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _mlp(shape: tuple[int, int, int], hidden: tuple[int, ...], classes: int) -> nn.Module:
    widths = (shape[0] * shape[1] * shape[2], *hidden, classes)
    layers: list[nn.Module] = [nn.Flatten()]
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _cnn(shape: tuple[int, int, int], classes: int) -> nn.Module:
    first, second, hidden = CNN
    flat = second * (shape[1] // 2) * (shape[2] // 2)
    return nn.Sequential(
        nn.Conv2d(shape[0], first, 3, padding=1), nn.ReLU(),
        nn.Conv2d(first, second, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(flat, hidden), nn.ReLU(), nn.Linear(hidden, classes),
    )  # fmt: skip


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 convolutions around a shortcut; four times ``width`` channels come out."""

    def __init__(self, inputs: int, width: int, stride: int, project: bool) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(outputs)
        shortcut: list[nn.Module] = []
        if project:
            shortcut = [nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)]
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) -> (N, 4 width, H / stride, W / stride)."""
        y = torch.relu(self.norm1(self.conv1(x)))
        y = torch.relu(self.norm2(self.conv2(y)))
        return torch.relu(self.norm3(self.conv3(y)) + self.shortcut(x))


def _resnet50(shape: tuple[int, int, int], classes: int) -> nn.Module:
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(shape[0], 64, 7, 2, padding=3, bias=False),
        norm=nn.BatchNorm2d(64),
        relu=nn.ReLU(inplace=True),
        pool=nn.MaxPool2d(3, 2, padding=1),
    )
    inputs = 64
    for stage, (width, blocks) in enumerate(RESNET50):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            layers[f"stage{stage}_block{block}"] = Bottleneck(inputs, width, stride, project=not block)
            inputs = 4 * width
    layers |= OrderedDict(mean=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), head=nn.Linear(inputs, classes))
    return nn.Sequential(layers)


def _vgg16(shape: tuple[int, int, int], classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    channels = shape[0]
    for outputs in VGG16:
        if outputs:
            layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.ReLU(inplace=True)]
            channels = outputs
        else:
            layers.append(nn.MaxPool2d(2))
    head = [nn.Linear(channels * 49, 4096), nn.Linear(4096, 4096), nn.Linear(4096, classes)]
    for linear in head:
        nn.init.normal_(linear.weight, 0, 0.01)
        nn.init.zeros_(linear.bias)
    layers += [nn.AdaptiveAvgPool2d(7), nn.Flatten(), head[0], nn.ReLU(), head[1], nn.ReLU(), head[2]]
    return nn.Sequential(*layers)
