"""A small convolutional network for digits, after LeCun et al. (1998), "Gradient-based learning applied to document recognition"."""
from __future__ import annotations

from graphc import nn


def lenet(classes: int = 10) -> nn.Module:
    """Two convolutions, a pool and two linear layers: images [B, C, H, W] -> scores [B, classes]. H and W even."""
    return (nn.Conv2d(32, 3, padding=1) >> nn.relu >> nn.Conv2d(64, 3, padding=1) >> nn.relu >> nn.MaxPool2d(2)
            >> nn.Flatten() >> nn.FeedForward(128) >> nn.Linear(classes))
