"""Residual networks: He et al. (2016), "Deep residual learning for image recognition", arXiv:1512.03385. Names as in
torchvision."""
from __future__ import annotations

from collections.abc import Sequence

import graphc as gc
from graphc import nn
from graphc.dsl.form import formed


@formed
class BasicBlock(nn.Module):
    """relu(shortcut(x) + two 3×3 convolutions), the first with the stride. The shortcut is x, or a 1×1 convolution
    where the shape changes."""
    expansion = 1

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d()
        self.conv2, self.bn2 = nn.Conv2d(channels, 3, padding=1, bias=False), nn.BatchNorm2d()
        self.downsample = nn.Conv2d(channels, 1, stride=stride, bias=False) >> nn.BatchNorm2d()

    def forward(self, x: gc.Array) -> gc.Array:
        y = nn.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return nn.relu(y + (x if x.shape == y.shape else self.downsample(x)))


@formed
class Bottleneck(nn.Module):
    """As BasicBlock, of three convolutions: 1×1 to `channels`, 3×3 with the stride, 1×1 to four times `channels`."""
    expansion = 4

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, 1, bias=False), nn.BatchNorm2d()
        self.conv2, self.bn2 = nn.Conv2d(channels, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d()
        self.conv3, self.bn3 = nn.Conv2d(4 * channels, 1, bias=False), nn.BatchNorm2d()
        self.downsample = nn.Conv2d(4 * channels, 1, stride=stride, bias=False) >> nn.BatchNorm2d()

    def forward(self, x: gc.Array) -> gc.Array:
        y = nn.relu(self.bn1(self.conv1(x)))
        y = nn.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return nn.relu(y + (x if x.shape == y.shape else self.downsample(x)))


class ResNet(nn.Module):
    """A 7×7 convolution, a pool, four stages of blocks of width, 2 width, 4 width, 8 width, the mean over space, a
    linear layer."""

    def __init__(self, block: type, blocks: Sequence[int], classes: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, 7, stride=2, padding=3, bias=False)
        self.bn1, self.maxpool = nn.BatchNorm2d(), nn.MaxPool2d(3, 2, 1)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(block(width << i, 2 if i else 1), *(block(width << i) for _ in range(n - 1)))
            for i, n in enumerate(blocks))
        self.avgpool, self.fc = nn.GlobalAvgPool2d(), nn.Linear(classes)

    def forward(self, x: gc.Array) -> gc.Array:
        x = self.maxpool(nn.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x))


@formed
def resnet(block: type, blocks: Sequence[int], classes: int = 1000, width: int = 64) -> nn.Module:
    """Images [B, 3, H, W] -> scores [B, classes]; so many `blocks` of the kind BasicBlock or Bottleneck in each of the
    four stages."""
    return ResNet(block, blocks, classes, width)


@formed
def resnet18(classes: int = 1000) -> nn.Module:
    """ResNet-18: 11.7 M parameters with 1000 classes."""
    return resnet(BasicBlock, (2, 2, 2, 2), classes)


@formed
def resnet50(classes: int = 1000) -> nn.Module:
    """ResNet-50, the stride in the 3×3 convolution (torchvision's variant): 25.6 M parameters with 1000 classes."""
    return resnet(Bottleneck, (3, 4, 6, 3), classes)
