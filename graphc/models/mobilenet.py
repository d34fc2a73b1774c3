"""Depthwise separable convolutions: Howard et al. (2017), "MobileNets", arXiv:1704.04861."""
from __future__ import annotations

from graphc import nn

STAGES = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


def mobilenet(classes: int = 1000) -> nn.Module:
    """MobileNet of width 1: images [B, 3, H, W] -> scores [B, classes]. 4.2 M parameters with 1000 classes."""
    net, inside = _normed(nn.Conv2d(32, 3, 2, 1, bias=False)), 32
    for channels, stride in STAGES:
        net, inside = net >> separable(inside, channels, stride), channels
    return net >> nn.GlobalAvgPool2d() >> nn.Linear(classes)


def separable(inside: int, channels: int, stride: int = 1) -> nn.Module:
    """A 3×3 convolution of each of the `inside` channels by itself, then a 1×1 convolution to `channels`."""
    return _normed(nn.Conv2d(inside, 3, stride, 1, groups=inside, bias=False)) >> _normed(nn.Conv2d(channels, 1, bias=False))


def _normed(conv: nn.Conv2d) -> nn.Module:
    return conv >> nn.BatchNorm2d() >> nn.relu
