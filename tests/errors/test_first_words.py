"""What people try first, and what they are told: the right words, at their line."""
from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc import models, nn, optim
from graphc.dsl import context

HERE = Path(__file__).name


def step(**options):
    return gc.train_step(nn.Linear(2), loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32["B", 3], y=gc.f32["B", 2], **options)


def refused(call, *words):
    with pytest.raises((gc.GraphError, AttributeError)) as error:
        call()
    for word in words:
        assert word in str(error.value), str(error.value)
    return error.value


@pytest.mark.parametrize("call", [
    lambda x: step()(x, x[:, :2]), lambda x: gc.compile(nn.Linear(2), x=gc.f32["B", 3], seed=0)(x),
    lambda x: gc.compile(nn.Linear(2), x=gc.f32[4, 3], seed=0)(x)], ids=["step", "named sizes", "static"])
def test_arrays_of_another_type_are_told_how_to_become_right(call):
    refused(lambda: call(np.zeros((4, 3))), "convert it: x.astype(np.float32)")


def test_a_layer_on_arrays_is_told_to_be_compiled_at_the_users_line():
    error = refused(lambda: (nn.Linear(2) >> nn.relu)(np.zeros((3, 4), np.float32)), "gc.compile(net, x=")
    assert HERE in str(error)


def test_a_step_and_its_model_are_told_apart():
    made = step()
    refused(lambda: made.model(np.zeros((4, 3), np.float32)), "gc.compile(step.model, x=", "step.predict(x)")
    refused(lambda: gc.compile(made), "compiled already", "give step.model")


@pytest.mark.parametrize("name, words", [("summary", "gc.plan(net"), ("fit", "gc.train_step"), ("eval", "inference")])
def test_names_of_other_frameworks_layers(name, words):
    refused(lambda: getattr(nn.Linear(2) >> nn.relu, name), f"has no {name}", words)
    assert not hasattr(nn.Linear(2), name)


def test_a_mask_of_keys_is_told_its_shape():
    bert = models.bert(100, 16, 2, 2)
    refused(lambda: gc.compile(bert, x=gc.i32[2, 8], mask=gc.bool_[2, 8], seed=0), "mask[:, None, None, :]", "lengths=")
    refused(lambda: gc.compile(bert, x=gc.i32[2, 8], attention_mask=gc.i32[2, 8], seed=0),
            "no layer takes 'attention_mask'", "lengths = attention_mask.sum(1)")
    square = gc.compile(nn.MultiHeadAttention(2), q=gc.f32[3, 8, 4], mask=gc.bool_[8, 8], seed=0)
    assert square(np.zeros((3, 8, 4), np.float32), np.ones((8, 8), bool)).shape == (3, 8, 4)


def test_sizes_that_are_not_known():
    refused(lambda: gc.compile(lambda x: gc.sum(x) * (1 / x.shape[0]), x=gc.f32["B", 3]),
            "1 / B: a size that has a name", "gc.mean")


def test_a_line_is_the_users_and_not_that_of_a_library(monkeypatch):
    """A metric of another package, say, that graphc calls."""
    @contextlib.contextmanager
    def library():
        yield nn.relu(np.zeros(3))
    error = refused(lambda: library().__enter__())
    assert HERE in str(error)
    assert context._installed(contextlib.__file__) and not context._installed(__file__)


def test_a_compiled_function_has_a_state_where_it_lives():
    made = step()
    run = gc.compile(made.model, x=gc.f32[4, 3])
    assert run.state is made.state
    refused(lambda: gc.compile(nn.Linear(2), x=gc.f32[4, 3], seed=0).state, "no state", "step.model")


def test_a_plan_in_a_console_is_its_table():
    plan = gc.plan(nn.Linear(2) >> nn.relu, x=gc.f32[4, 3])
    assert repr(plan) == str(plan) and plan.planned().graph.nodes


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
    assert name == "a text that ends" or Path(caught.value.loc.file).name == HERE, caught.value.loc


@pytest.mark.parametrize("use", (range, int, float, round, math.sqrt, np.sqrt, np.log, np.zeros, lambda n: 1 / n, lambda n: n / 2, lambda n: n * 0.5,
                                 lambda n: 0.5 ** n, lambda n: n ** 2, lambda n: 7 // n, lambda n: n > 3 and 1, lambda n: [0] * n, lambda n: gc.zeros(()) / n,
                                 lambda n: math.floor(n), lambda n: np.float64(2) * n))
def test_a_size_that_has_a_name_is_no_number(use):
    def f(x: gc.f32["B", 3]):
        use(x.shape[0])
        return gc.sum(x)
    with pytest.raises(gc.GraphError, match="not known while the graph is traced; give it as an int, or bind it first") as caught:
        gc.graph(f)
    assert Path(caught.value.loc.file).name == HERE


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


def test_random_numbers_want_a_seed():
    refused(lambda: gc.compile(lambda x: x + gc.uniform(x.shape), x=gc.f32[3]), "draws random numbers: give seed=0")
