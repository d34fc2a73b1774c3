"""The networks in graphc. Parameters have the names of `networks_torch.py`."""
from __future__ import annotations

from functools import partial

import graphc as gc
from graphc import models, nn
from graphc.models.mobilenet import STAGES
from graphc.models.resnet import BasicBlock, Bottleneck

FIRST = 32                  # channels of MobileNet's first convolution


def mlp(sizes):
    net = nn.Linear(sizes[1])
    for size in sizes[2:]:
        net = net >> nn.sigmoid >> nn.Linear(size)
    return net


def lenet(channels=(32, 64), size=28):
    first, second = channels
    return (nn.Conv2d(first, 3, padding=1) >> nn.relu >> nn.Conv2d(second, 3, padding=1) >> nn.relu >> nn.MaxPool2d(2)
            >> nn.Flatten() >> nn.Linear(128) >> nn.relu >> nn.Linear(10))


def alexnet(size=224, classes=1000):
    return models.alexnet(classes)


def resnet(blocks, bottleneck=False, width=64, size=224, classes=1000):
    block = Bottleneck if bottleneck else BasicBlock
    net = nn.Conv2d(width, 7, stride=2, padding=3, bias=False) >> nn.BatchNorm2d() >> nn.relu >> nn.MaxPool2d(3, 2, 1)
    for i, count in enumerate(blocks):
        for j in range(count):
            net = net >> block(width << i, 2 if i and not j else 1)
    return net >> nn.GlobalAvgPool2d() >> nn.Linear(classes)


def mobilenet(width=FIRST, size=224, classes=1000):
    net, inside = _normed(nn.Conv2d(width, 3, stride=2, padding=1, bias=False)), width
    for channels, stride in STAGES:
        channels = channels * width // FIRST
        net = net >> _normed(nn.Conv2d(inside, 3, stride=stride, padding=1, groups=inside,
                                       bias=False)) >> _normed(nn.Conv2d(channels, 1, bias=False))
        inside = channels
    return net >> nn.GlobalAvgPool2d() >> nn.Linear(classes)


def _normed(conv):
    return conv >> nn.BatchNorm2d() >> nn.relu


def recurrent(kind, hidden=512, layers=2, length=64, vocabulary=1000):
    return nn.Embedding(vocabulary, 256) >> kind(hidden, layers=layers) >> nn.Linear(vocabulary)


def bert(width, layers, heads, length, vocabulary):
    return models.bert(vocabulary, width, layers, heads)


def gpt(width, layers, heads, length, vocabulary):
    return models.gpt(vocabulary, width, layers, heads, length, pre_norm=True, tied=False)


def attention(heads, size, length, causal=False):
    return lambda q, k, v: gc.attention(q, k, v, causal=causal)


NETWORKS = {"mlp": mlp, "lenet": lenet, "alexnet": alexnet, "resnet": resnet, "mobilenet": mobilenet,
            "rnn": partial(recurrent, nn.RNN),
            "lstm": partial(recurrent, nn.LSTM), "gru": partial(recurrent, nn.GRU), "bert": bert, "gpt": gpt,
            "attention": attention}
