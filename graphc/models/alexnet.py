"""AlexNet in the form of Krizhevsky (2014), "One weird trick for parallelizing convolutional neural networks",
arXiv:1404.5997."""
from __future__ import annotations

from typing import Any

from graphc import nn
from graphc.dsl.form import formed

ALEXNET_NAMES = ((r"features\.(\d+)\.(\w+)", r"\1.\2"),
                 *((rf"classifier\.{old}\.(\w+)", rf"{new}.\1") for old, new in ((1, 14), (4, 15), (6, 16))))
"""Rules for `renamed`: from torchvision's alexnet."""


@formed
def alexnet(classes: int = 1000) -> nn.Module:
    """FeedForward³ ∘ MaxPool ∘ Conv³ ∘ MaxPool ∘ Conv ∘ MaxPool ∘ Conv: images [B, 3, 224, 224] -> scores [B, classes].

    61.1 M parameters with 1000 classes. torchvision's by `models.renamed(arrays, models.ALEXNET_NAMES)`.
    """
    convolutions = (_conv(64, 11, stride=4, padding=2) >> nn.MaxPool2d(3, 2)
                    >> _conv(192, 5, padding=2) >> nn.MaxPool2d(3, 2)
                    >> _conv(384, 3, padding=1) >> _conv(256, 3, padding=1) >> _conv(256, 3, padding=1)
                    >> nn.MaxPool2d(3, 2))
    return convolutions >> nn.Flatten() >> nn.FeedForward(4096) >> nn.FeedForward(4096) >> nn.Linear(classes)


def _conv(channels: int, kernel: int, **options: Any) -> nn.Module:
    return nn.Conv2d(channels, kernel, **options) >> nn.relu
