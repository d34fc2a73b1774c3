"""Gradients of layers towards parameters and inputs against central differences: native code in f64."""
import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.nn.module import Function

RANDOM = np.random.default_rng(0)

LENGTHS = np.int32([3, 2])


def with_lengths(net):
    return Function(lambda x: net(x, lengths=LENGTHS))


def decoder(block):
    """Attends to a function of its own input, so that the gradient takes both ways."""
    return Function(lambda x: block(x, memory=gc.tanh(x), memory_lengths=LENGTHS))


LAYERS = {
    "linear": (lambda: nn.Linear(3) >> nn.tanh, (2, 4)),
    "conv": (lambda: nn.Conv2d(2, 2, stride=2, padding=1) >> nn.gelu, (1, 2, 4, 3)),
    "transposed conv": (lambda: nn.ConvTranspose2d(2, 2, stride=2) >> nn.silu, (1, 2, 2, 3)),
    "batch norm": (lambda: nn.BatchNorm2d() >> nn.sigmoid, (3, 2, 2, 2)),
    "layer norm": (lambda: nn.LayerNorm() >> nn.softplus, (2, 5)),
    "group norm": (lambda: nn.GroupNorm(2) >> nn.tanh, (2, 4, 3)),
    "rms norm": (lambda: nn.RMSNorm() >> nn.tanh, (2, 5)),
    "rnn": (lambda: nn.RNN(2, bidirectional=True), (3, 2, 2)),
    "lstm": (lambda: nn.LSTM(2, layers=2), (3, 2, 2)),
    "gru": (lambda: nn.GRU(2, batch_first=True), (2, 3, 2)),
    "attention": (lambda: nn.MultiHeadAttention(2, causal=True), (1, 3, 4)),
    "block": (lambda: nn.TransformerBlock(2, hidden=3), (1, 3, 4)),
    "residual": (lambda: nn.residual(nn.Linear(4) >> nn.tanh) ** 2, (2, 4)),
    "rnn with lengths": (lambda: with_lengths(nn.RNN(2, bidirectional=True) >> nn.Collapse("average")), (3, 2, 2)),
    "lstm with lengths": (lambda: with_lengths(nn.LSTM(2) >> nn.Collapse("last")), (3, 2, 2)),
    "gru with lengths": (lambda: with_lengths(nn.GRU(2, layers=2, bidirectional=True, batch_first=True)), (2, 3, 2)),
    "collapse": (lambda: nn.FeedForward(3, "tanh") ** 2 >> nn.Collapse("first"), (3, 2, 2)),
    "flipped convolution": (lambda: nn.Conv1d(2, 2, flip=True) >> nn.AvgPool1d(2), (2, 3, 5)),
    "single attention": (lambda: nn.Attention(3), (2, 3, 4)),
    "attention with lengths": (lambda: with_lengths(nn.MultiHeadAttention(2, causal=True)), (2, 3, 4)),
    "rotary": (lambda: nn.MultiHeadAttention(2, position=nn.RotaryPosition()), (1, 3, 4)),
    "relative": (lambda: with_lengths(nn.MultiHeadAttention(1, position=nn.RelativePosition(4, max_distance=3))),
                 (2, 3, 2)),
    "decoder block": (lambda: decoder(nn.DecoderBlock(1, hidden=2, activation="tanh")), (2, 3, 2)),
    "add norm": (lambda: nn.AddNorm(nn.FeedForward(4, "tanh")) >> nn.AddNorm(nn.Linear(4), pre_norm=True, norm="rms"),
                 (2, 4)),
    "average pool": (lambda: nn.AvgPool2d(2, 1) >> nn.GlobalAvgPool2d(), (1, 2, 3, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_match_differences(name):
    """Of every element of every parameter and of the input."""
    make, shape = LAYERS[name]
    net = make()
    report = gc.check_gradients(net, x=RANDOM.normal(size=shape), samples=1000, training=True)
    assert report.ok and not sum(a.kinks for a in report.arguments), str(report)
    assert {a.name for a in report.arguments} >= {"x", *(n for n, p in net.named_parameters() if p.trainable)}
