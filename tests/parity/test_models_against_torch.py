"""Image networks with the weights of the same networks in PyTorch, under torchvision's names: same scores, same input
gradients.

Bound: graphc's f32 is no further from PyTorch's f64 than 4 times PyTorch's own f32, or 1e-6 of the largest value.
"""
import numpy as np
import pytest
import torch

import graphc as gc
from graphc import models

pytestmark = pytest.mark.peers
T = torch.nn
CLASSES = 10


def conv(inside, channels, kernel, stride=1, padding=0, groups=1):
    return T.Conv2d(inside, channels, kernel, stride, padding, groups=groups, bias=False)


class Block(T.Module):
    """torchvision's BasicBlock (expansion 1) and Bottleneck (4)."""

    def __init__(self, inside, channels, stride, expansion):
        super().__init__()
        out = channels * expansion
        if expansion == 1:
            layers = [conv(inside, channels, 3, stride, 1), conv(channels, channels, 3, 1, 1)]
        else:
            layers = [conv(inside, channels, 1), conv(channels, channels, 3, stride, 1), conv(channels, out, 1)]
        self.count = len(layers)
        for i, layer in enumerate(layers, 1):
            setattr(self, f"conv{i}", layer)
            setattr(self, f"bn{i}", T.BatchNorm2d(layer.out_channels))
        self.downsample = T.Sequential(conv(inside, out, 1, stride),
                                       T.BatchNorm2d(out)) if stride != 1 or inside != out else None

    def forward(self, x):
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = torch.relu(y) if i < self.count else y
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(T.Module):
    def __init__(self, blocks, expansion):
        super().__init__()
        self.conv1, self.bn1, inside = conv(3, 64, 7, 2, 3), T.BatchNorm2d(64), 64
        for i, n in enumerate(blocks):
            stage = []
            for j in range(n):
                stage.append(Block(inside, 64 << i, 2 if i and not j else 1, expansion))
                inside = (64 << i) * expansion
            setattr(self, f"layer{i + 1}", T.Sequential(*stage))
        self.fc = T.Linear(inside, CLASSES)

    def forward(self, x):
        x = torch.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.fc(self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3)))


class AlexNet(T.Module):
    def __init__(self):
        super().__init__()
        self.features = T.Sequential(
            T.Conv2d(3, 64, 11, 4, 2), T.ReLU(), T.MaxPool2d(3, 2), T.Conv2d(64, 192, 5, padding=2), T.ReLU(),
            T.MaxPool2d(3, 2),
            T.Conv2d(192, 384, 3, padding=1), T.ReLU(), T.Conv2d(384, 256, 3, padding=1), T.ReLU(),
            T.Conv2d(256, 256, 3, padding=1), T.ReLU(), T.MaxPool2d(3, 2))
        self.classifier = T.Sequential(T.Dropout(), T.LazyLinear(4096), T.ReLU(), T.Dropout(), T.Linear(4096, 4096),
                                       T.ReLU(), T.Linear(4096, CLASSES))

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


def mobilenet():
    def normed(layer):
        return layer, T.BatchNorm2d(layer.out_channels), T.ReLU()
    layers, inside = [*normed(conv(3, 32, 3, 2, 1))], 32
    for channels, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2),
                             (1024, 1)):
        layers += [*normed(conv(inside, inside, 3, stride, 1, inside)), *normed(conv(inside, channels, 1))]
        inside = channels
    return T.Sequential(*layers, T.AdaptiveAvgPool2d(1), T.Flatten(), T.Linear(1024, CLASSES))


def lenet():
    return T.Sequential(T.Conv2d(1, 32, 3, padding=1), T.ReLU(), T.Conv2d(32, 64, 3, padding=1), T.ReLU(),
                        T.MaxPool2d(2),
                        T.Flatten(), T.LazyLinear(128), T.ReLU(), T.Linear(128, CLASSES))


def same(net, arrays):
    return arrays


ROUNDING = 2.0 ** -23           # of f32
CASES = {                       # name: graphc's network, PyTorch's, how its names become graphc's, an image
    "resnet18": (models.resnet18, lambda: ResNet((2, 2, 2, 2), 1), same, (2, 3, 64, 48)),
    "resnet50": (models.resnet50, lambda: ResNet((3, 4, 6, 3), 4), same, (1, 3, 64, 64)),
    "alexnet": (models.alexnet, AlexNet, lambda net, arrays: models.renamed(arrays, models.ALEXNET_NAMES),
                (2, 3, 99, 70)),
    "mobilenet": (models.mobilenet, mobilenet, models.in_order, (2, 3, 65, 64)),
    "lenet": (models.lenet, lenet, models.in_order, (3, 1, 12, 10)),
}


def settled(net, x):
    """The network with running statistics of the image itself, so that scores keep their size through the layers; ready
    for inference.
    """
    torch.manual_seed(0)
    for m in net.modules():
        if isinstance(m, T.BatchNorm2d):
            m.momentum = 1.0
    with torch.no_grad():
        net.train()(torch.cat([x, torch.randn_like(x)]))
        for p in net.parameters():
            p.add_(0.05 * torch.randn_like(p) * p.abs().mean())
    return net.eval()


def derived(net, x):
    """The scores, and the gradient of the sum of their cosines towards the image."""
    x = x.clone().requires_grad_()
    y = net(x)
    y.cos().sum().backward()
    return y.detach().numpy(), x.grad.numpy()


@pytest.mark.parametrize("name", CASES)
def test_scores_and_input_gradients(name):
    """As near to f64 as PyTorch's f32, or as f64 itself on images that differ by rounding: where one flips a relu, the
    gradient jumps.
    """
    make, theirs, names, shape = CASES[name]
    torch.manual_seed(1)
    x = torch.randn(shape)
    theirs, net = settled(theirs(), x), make(CLASSES)

    @gc.graph
    def score(x: gc.f32[shape]):
        y = net(x)
        return gc.sum(gc.cos(y))
    arrays = {f"net.{n}": a
              for n, a in names(net, {n: a.numpy().copy() for n, a in theirs.state_dict().items()}).items()}
    found = gc.compile(gc.grad(score, "x"), state=arrays, outputs=["net"])(x.numpy())
    single, exact = derived(theirs, x), derived(theirs.double(), x.double())
    near = [derived(theirs, x.double() * (1 + ROUNDING * torch.randn(shape))) for _ in range(4)]
    for mine, true, *others in zip((found["net"], found["result"]), exact, single, *near):
        spread = max(np.abs(other - true).max() for other in others)
        assert mine.shape == true.shape and np.abs(mine - true).max() <= 4 * spread + 1e-6 * np.abs(true).max()
