"""Batches and sequences of nothing go through every kind of layer, forward and backward: the gradients of parameters
are 0.
"""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.dsl.function import trace_types

NETWORKS = {
    "rows": (lambda: nn.Linear(3) >> nn.relu >> nn.LayerNorm() >> nn.RMSNorm() >> nn.Dropout(0.5) >> nn.Linear(2),
             [(0, 4), (3, 0, 4)]),
    "images": (lambda: nn.Conv2d(4, 3) >> nn.BatchNorm2d() >> nn.GroupNorm(2) >> nn.MaxPool2d(2) >> nn.Flatten()
               >> nn.Linear(2), [(0, 3, 8, 8)]),
    "recurrent": (lambda: nn.LSTM(3, batch_first=True) >> nn.Collapse("last", batch_first=True) >> nn.Linear(2),
                  [(0, 3, 4)]),
    "attention": (lambda: nn.TransformerBlock(2) >> nn.Attention(3), [(0, 3, 4), (2, 0, 4)]),
    "ids": (lambda: nn.Embedding(5, 4) >> nn.TransformerBlock(2, causal=True, pre_norm=True), [(0, 3), (2, 0)]),
}


@pytest.mark.parametrize("name, shape", [(name, shape) for name, (_, shapes) in NETWORKS.items() for shape in shapes])
def test_nothing_has_no_gradient(name, shape):
    net = NETWORKS[name][0]()
    x = (gc.i64 if name == "ids" else gc.f32)[shape]
    training = name != "images"         # batch norm's statistics of nothing are NaN, as every mean of nothing
    f = trace_types(lambda x: gc.sum(net(x) ** 2), {"x": x}, training=training)
    for key, g in gc.compile(gc.grad(f, wrt=net), seed=0)(np.zeros(shape, x.dtype.np)).items():
        assert (g == 0).all(), key
