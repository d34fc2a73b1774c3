"""What people meet on their first day: each mistake has a GraphError with what would be right, at the user's line."""
from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim

X = np.zeros((6, 10))


def made(optimizer):
    return gc.train_step(nn.Linear(1), loss=nn.mse, optimizer=optimizer, x=gc.f32[3, 2], y=gc.f32[3, 1])


@dataclass(frozen=True)
class Made(optim.Optimizer):
    """An optimizer whose update returns what it is told."""
    lr: float = 0.1
    named: tuple = ()
    returned: object = None

    def slots(self):
        return self.named

    def update(self, p, g, slots, s):
        return (p, {name: g for name in self.returned}) if isinstance(self.returned, tuple) else self.returned


def masked(**types):
    net = nn.Embedding(9, 8) >> nn.TransformerBlock(heads=4)
    return gc.compile(net, x=gc.i32["B", "T"], seed=0, **types)


CASES = {
    "a layer on arrays": (lambda: (nn.Linear(3) >> nn.relu)(X), "run = gc.compile(net, x=gc.f64[6, 10], seed=0), then run(x)"),
    "another dtype, named sizes": (lambda: gc.compile(nn.Linear(3), x=gc.f32["B", 10], seed=0)(X), "x.astype(np.float32), or declare gc.f64"),
    "another dtype, fixed sizes": (lambda: gc.compile(nn.Linear(3), x=gc.f32[6, 10], seed=0)(X), "x.astype(np.float32)"),
    "an unknown input": (lambda: masked(attention_mask=gc.bool_["B", "T"]), "no layer takes 'attention_mask'; the network takes x, lengths, mask"),
    "a mask of keys": (lambda: masked(mask=gc.bool_["B", "T"]), "the mask is bool[B, T], and does not broadcast to the scores [B, 4, T, T]; of keys it is mask[:, None, None, :]"),
    "an unknown slot": (lambda: made(Made(returned=("m",))), "Made.update returned slot 'm', which slots() does not name: it names none"),
    "a slot left out": (lambda: made(Made(named=("m", "v"), returned=("m",))), "Made.update returned no 'v', which slots() names"),
    "no slots": (lambda: made(Made(returned=3.0)), "Made.update returns (new parameter, {slot: array}), got 3.0"),
    "Keras' rate": (lambda: optim.Adam(learning_rate=1e-3), "here it is Adam(0.001)"),
    "a text that ends": (lambda: gc.parse("graph f(x: f32[2]) {\n  %0 = exp(x) : f32[2]\n"), "the text ends too early: expected a value"),
}


@pytest.mark.parametrize("name", CASES)
def test_it_says_what_would_be_right(name):
    call, told = CASES[name]
    with pytest.raises(gc.GraphError) as caught:
        call()
    assert told in caught.value.text
    assert name == "a text that ends" or Path(caught.value.loc.file).name == Path(__file__).name, caught.value.loc


@pytest.mark.parametrize("use", (range, int, float, round, math.sqrt, np.sqrt, np.log, np.zeros, lambda n: 1 / n, lambda n: n / 2, lambda n: n * 0.5,
                                 lambda n: 0.5 ** n, lambda n: n ** 2, lambda n: 7 // n, lambda n: n > 3 and 1, lambda n: [0] * n, lambda n: gc.zeros(()) / n,
                                 lambda n: math.floor(n), lambda n: np.float64(2) * n))
def test_a_size_that_has_a_name_is_no_number(use):
    def f(x: gc.f32["B", 3]):
        use(x.shape[0])
        return gc.sum(x)
    with pytest.raises(gc.GraphError, match="not known while the graph is traced; give it as an int, or bind it first") as caught:
        gc.graph(f)
    assert Path(caught.value.loc.file).name == Path(__file__).name


@pytest.mark.parametrize("place, there, here", (
    ("nn", "Dense", "nn.Linear"), ("nn", "MaxPooling2D", "nn.MaxPool2d"), ("nn", "BatchNormalization", "nn.BatchNorm1d, nn.BatchNorm2d or nn.BatchNorm3d"),
    ("optim", "CosineDecay", "optim.cosine(lr, steps)"), ("metrics", "F1Score", "metrics.F1"), ("metrics", "accuracy", "metrics.Accuracy"),
    ("callbacks", "ModelCheckpoint", "callbacks.Checkpoint"), ("callbacks", "ReduceLROnPlateau", "callbacks.ReduceOnPlateau"), ("models", "ResNet50", "models.resnet50")))
def test_names_of_keras(place, there, here):
    with pytest.raises(AttributeError, match=f"graphc.{place} has no {there}: write ") as caught:
        getattr(getattr(gc, place), there)
    assert str(caught.value).endswith(f"write {here}")
    for name in here.split("(")[0].replace(" or ", ", ").split(", "):
        assert hasattr(getattr(gc, place), name.rpartition(".")[2])
