"""A small convolutional network for digits, after LeCun et al. (1998), "Gradient-based learning applied to document
recognition"."""
from __future__ import annotations

from graphc import nn
from graphc.dsl.form import formed


@formed
def lenet(classes: int = 10, channels: tuple[int, int] = (32, 64)) -> nn.Module:
    """Two convolutions, a pool and two linear layers: images [B, C, H, W] -> scores [B, classes]."""
    return (nn.Conv2d(channels[0], 3, padding=1) >> nn.relu >> nn.Conv2d(channels[1], 3, padding=1) >> nn.relu
            >> nn.MaxPool2d(2)
            >> nn.Flatten() >> nn.FeedForward(128) >> nn.Linear(classes))
