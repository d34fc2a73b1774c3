"""What people try first, and what they are told: the right words, at their line."""
from __future__ import annotations

import contextlib
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
