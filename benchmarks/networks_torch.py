"""The networks in PyTorch, with PyTorch's own layers and fused attention."""
from __future__ import annotations

from collections import OrderedDict
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from graphc.models.mobilenet import STAGES

FIRST = 32


def mlp(sizes):
    layers = [nn.Linear(sizes[0], sizes[1])]
    for inside, outside in zip(sizes[1:], sizes[2:]):
        layers += [nn.Sigmoid(), nn.Linear(inside, outside)]
    return nn.Sequential(*layers)


def lenet(channels=(32, 64), size=28):
    first, second = channels
    return nn.Sequential(nn.Conv2d(1, first, 3, padding=1), nn.ReLU(), nn.Conv2d(first, second, 3, padding=1),
                         nn.ReLU(), nn.MaxPool2d(2),
                         nn.Flatten(), nn.Linear(second * (size // 2) ** 2, 128), nn.ReLU(), nn.Linear(128, 10))


class FeedForward(nn.Linear):
    def forward(self, x):
        return F.relu(super().forward(x))


def alexnet(size=224, classes=1000):
    convolutions = [nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2),
                    nn.ReLU(), nn.MaxPool2d(3, 2),
                    nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
                    nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten()]
    with torch.no_grad():
        features = nn.Sequential(*convolutions)(torch.zeros(1, 3, size, size)).shape[1]
    return nn.Sequential(*convolutions, FeedForward(features, 4096), FeedForward(4096, 4096), nn.Linear(4096, classes))


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, inside: int, channels: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inside, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)
        self.downsample = _downsample(inside, channels, stride)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inside: int, channels: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inside, channels, 1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels)
        self.conv3, self.bn3 = nn.Conv2d(channels, 4 * channels, 1, bias=False), nn.BatchNorm2d(4 * channels)
        self.downsample = _downsample(inside, 4 * channels, stride)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


def _downsample(inside: int, outside: int, stride: int):
    if inside == outside and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))


def resnet(blocks, bottleneck=False, width=64, size=224, classes=1000):
    block, inside = Bottleneck if bottleneck else BasicBlock, width
    layers = [nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    for i, count in enumerate(blocks):
        for j in range(count):
            layers.append(block(inside, width << i, 2 if i and not j else 1))
            inside = (width << i) * block.expansion
    return nn.Sequential(*layers, Mean(), nn.Linear(inside, classes))


class Mean(nn.Module):
    """Over the pixels."""

    def forward(self, x):
        return x.mean((2, 3))


def mobilenet(width=FIRST, size=224, classes=1000):
    layers, inside = _normed(nn.Conv2d(3, width, 3, 2, 1, bias=False)), width
    for channels, stride in STAGES:
        channels = channels * width // FIRST
        layers += _normed(nn.Conv2d(inside, inside, 3, stride, 1, groups=inside,
                                    bias=False)) + _normed(nn.Conv2d(inside, channels, 1, bias=False))
        inside = channels
    return nn.Sequential(*layers, Mean(), nn.Linear(inside, classes))


def _normed(conv):
    return [conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU()]


class Recurrent(nn.Module):
    """The outputs of a recurrent layer; its parameters as if they were this module's."""

    def __init__(self, layer: nn.RNNBase):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


def recurrent(kind, hidden=512, layers=2, length=64, vocabulary=1000):
    return nn.Sequential(nn.Embedding(vocabulary, 256), Recurrent(kind(256, hidden, layers)),
                         nn.Linear(hidden, vocabulary))


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int, causal: bool):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.in_proj, self.out_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        b, t, width = x.shape
        q, k, v = self.in_proj(x).view(b, t, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out_proj(y.transpose(1, 2).reshape(b, t, width))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, causal: bool, eps: float, approximate: str):
        super().__init__()
        self.self_attn, self.approximate, self.pre_norm = SelfAttention(width, heads, causal), approximate, causal
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)

    def forward(self, x):
        if self.pre_norm:
            x = x + self.self_attn(self.norm1(x))
            return x + self.feed_forward(self.norm2(x))
        x = self.norm1(x + self.self_attn(x))
        return self.norm2(x + self.feed_forward(x))

    def feed_forward(self, x):
        return self.linear2(F.gelu(self.linear1(x), approximate=self.approximate))


class BertEmbedding(nn.Module):
    def __init__(self, vocabulary: int, width: int):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions, self.segments = nn.Embedding(512, width), nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, 1e-12)

    def forward(self, ids):
        return self.norm(self.tokens(ids) + self.positions.weight[:ids.shape[1]] + self.segments.weight[0])


def bert(width, layers, heads, length, vocabulary):
    blocks = [Block(width, heads, False, 1e-12, "none") for _ in range(layers)]
    return nn.Sequential(BertEmbedding(vocabulary, width), nn.Sequential(*blocks))


class Position(nn.Module):
    def __init__(self, length: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(length, width))

    def forward(self, x):
        return x + self.weight[:x.shape[1]]


def gpt(width, layers, heads, length, vocabulary):
    blocks = [Block(width, heads, True, 1e-5, "tanh") for _ in range(layers)]
    return nn.Sequential(nn.Embedding(vocabulary, width), Position(length, width), nn.Identity(),
                         nn.Sequential(*blocks), nn.LayerNorm(width),
                         nn.Linear(width, vocabulary, bias=False))


class Attention(nn.Module):
    def __init__(self, heads, size, length, causal=False):
        super().__init__()
        self.causal = causal

    def forward(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)


NETWORKS = {"mlp": mlp, "lenet": lenet, "alexnet": alexnet, "resnet": resnet, "mobilenet": mobilenet,
            "rnn": partial(recurrent, nn.RNN),
            "lstm": partial(recurrent, nn.LSTM), "gru": partial(recurrent, nn.GRU), "bert": bert, "gpt": gpt,
            "attention": Attention}
RENAMED = ((".layer.", "."), ("in_proj.", "in_proj_"))      # PyTorch's submodules -> graphc's names
DROPPED = "num_batches_tracked"


def build(network: str, options, seed: int = 0) -> nn.Module:
    """The network with weights drawn from `seed`."""
    torch.manual_seed(seed)
    net = NETWORKS[network](**options)
    for module in net.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
    return net


def weights(net: nn.Module) -> OrderedDict:
    """The tensors of the network (not copies) by graphc's names."""
    return OrderedDict((graphc_name(name), tensor) for name, tensor in net.state_dict(keep_vars=True).items()
                       if not name.endswith(DROPPED))


def graphc_name(name: str) -> str:
    for old, new in RENAMED:
        name = name.replace(old, new)
    return name
