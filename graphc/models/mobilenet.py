"""Depthwise separable convolutions: Howard et al. (2017), "MobileNets", arXiv:1704.04861."""
from __future__ import annotations

from graphc import nn
from graphc.dsl.form import formed

FIRST = 32                          # channels of the first convolution
STAGES = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


@formed
def mobilenet(classes: int = 1000, width: int = FIRST) -> nn.Module:
    """MobileNet: images [B, 3, H, W] -> scores [B, classes]. 4.2 M parameters with 1000 classes; `width` channels come
    out of the first convolution, and all others scale with it."""
    net, inside = _normed(nn.Conv2d(width, 3, stride=2, padding=1, bias=False)), width
    for channels, stride in STAGES:
        outside = channels * width // FIRST
        net, inside = net >> separable(inside, outside, stride), outside
    return net >> nn.GlobalAvgPool2d() >> nn.Linear(classes)


def separable(inside: int, channels: int, stride: int = 1) -> nn.Module:
    """A 3×3 convolution of each of the `inside` channels by itself, then a 1×1 convolution to `channels`."""
    return (_normed(nn.Conv2d(inside, 3, stride=stride, padding=1, groups=inside, bias=False))
            >> _normed(nn.Conv2d(channels, 1, bias=False)))


def _normed(conv: nn.Conv2d) -> nn.Module:
    return conv >> nn.BatchNorm2d() >> nn.relu
