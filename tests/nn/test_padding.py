"""Padding, hidden keys and ignored targets reach nothing, whatever numbers stand there: no result, no gradient of a
weight or of a real step.
"""
from __future__ import annotations

import inspect

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.dsl.function import trace_types
from graphc.nn.module import Module

BATCH, TIME, WIDTH = 3, 5, 4
LENGTHS = np.array([5, 2, 0])
PADDING = np.arange(TIME) >= LENGTHS[:, None]
BAD = (np.nan, np.inf, -np.inf)

# Layers that take lengths, in front of what else must not spread. Those that take ids have no padding that is no
# number.
LAYERS = {
    "RNN": lambda: nn.RNN(4, batch_first=True, activation="relu"),
    "LSTM": lambda: nn.LSTM(4, batch_first=True, layers=2, bidirectional=True),
    "GRU": lambda: nn.GRU(4, batch_first=True, bidirectional=True),
    "MultiHeadAttention": lambda: nn.MultiHeadAttention(2, position=nn.RelativePosition()),
    "Attention": lambda: nn.Attention(4),
    "TransformerBlock": lambda: nn.TransformerBlock(2, pre_norm=True) ** 2,
    "DecoderBlock": lambda: nn.DecoderBlock(2),
    "Collapse": lambda: nn.Collapse("last", batch_first=True),
}
OF_IDS = {"LanguageModel", "Seq2Seq"}
OF_MEMORY = {"DecoderBlock": lambda: nn.DecoderBlock(2), "AttendTo": lambda: nn.AttendTo(3)}


def takes(option: str) -> set[str]:
    return {name for name, layer in ((n, getattr(nn, n)) for n in dir(nn)) if inspect.isclass(layer) and issubclass(layer, Module)
            and option in inspect.signature(layer.forward).parameters}


def test_every_layer_with_lengths_is_here():
    """Recurrent is the base of three."""
    assert takes("lengths") - {"Recurrent"} - OF_IDS == LAYERS.keys()
    assert takes("memory_lengths") == OF_MEMORY.keys()


def gradients(f, types, arrays, bad, hidden, which=0):
    """Value and gradients of f with the hidden part of one array as it is and ruined: towards that array and, where
    there are some, parameters.
    """
    traced = trace_types(f, types)
    name = list(types)[which]
    towards = gc.compile(gc.value_and_grad(traced, wrt=name), seed=0)
    runs = []
    for value in (0.5, *bad):
        given = list(arrays)
        given[which] = given[which].copy()
        given[which][hidden] = value
        runs.append(towards(*given))
    return runs


def check(runs, hidden):
    first, *others = runs
    assert all(np.isfinite(a).all() for a in first)
    for other in others:
        for a, b in zip(first, other):
            np.testing.assert_array_equal(a, b)
        assert (other[1][hidden] == 0).all()


def arrays(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=s).astype(np.float32) for s in shapes]


def check_parameters(f, layer, types, values, hidden, which=0):
    run = gc.compile(gc.grad(trace_types(f, types), wrt=layer), seed=0)
    results = []
    for value in (0.5, *BAD):
        values[which] = values[which].copy()
        values[which][hidden] = value
        results.append(run(*values))
    for name in results[0]:
        assert np.isfinite(results[0][name]).all()
        for other in results[1:]:
            np.testing.assert_array_equal(results[0][name], other[name], err_msg=name)


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_padding(name):
    layer = LAYERS[name]()
    collapse = (lambda y, n: y) if name == "Collapse" else nn.Collapse("average", batch_first=True)
    types = {"x": gc.f32[BATCH, TIME, WIDTH], "n": gc.i64[BATCH]}
    x, = arrays((BATCH, TIME, WIDTH))
    if name == "DecoderBlock":
        inner, layer = layer, lambda x, lengths: inner(x, memory=gc.ones((BATCH, 2, 4)), lengths=lengths)
    f = lambda x, n: gc.sum(collapse(layer(x, lengths=n), n) ** 2)                      # noqa: E731
    check(gradients(f, types, [x, LENGTHS], BAD, PADDING), PADDING)
    if name not in ("Collapse", "DecoderBlock"):
        check_parameters(f, layer, types, [x, LENGTHS], PADDING)


@pytest.mark.parametrize("how", ("first", "last", "average"))
def test_a_sequence_of_no_steps_collapses_to_zero(how):
    f = trace_types(lambda x, n: nn.Collapse(how, batch_first=True)(x, lengths=n),
                    {"x": gc.f32[BATCH, TIME, WIDTH], "n": gc.i64[BATCH]})
    assert (gc.compile(f)(np.ones((BATCH, TIME, WIDTH), np.float32), LENGTHS) == [[1], [1], [0]]).all()


@pytest.mark.parametrize("name", sorted(OF_MEMORY))
def test_padded_memory(name):
    layer = OF_MEMORY[name]()
    f = lambda m, x, n: gc.sum(layer(x, memory=m, memory_lengths=n) ** 2)               # noqa: E731
    types = {"m": gc.f32[BATCH, TIME, WIDTH], "x": gc.f32[BATCH, 2, WIDTH], "n": gc.i64[BATCH]}
    values = [*arrays((BATCH, TIME, WIDTH), (BATCH, 2, WIDTH)), LENGTHS]
    check(gradients(f, types, values, BAD, PADDING), PADDING)
    check_parameters(f, layer, types, values, PADDING)


@pytest.mark.parametrize("shape", ((BATCH, 1, 1, TIME), (BATCH, 1, 2, TIME), (BATCH, 2, 2, TIME)))
@pytest.mark.parametrize("which", (1, 2))
def test_keys_that_a_mask_hides(shape, which):
    types = {"q": gc.f32[BATCH, 2, 2, WIDTH], "k": gc.f32[BATCH, 2, TIME, WIDTH], "v": gc.f32[BATCH, 2, TIME, 3]}
    mask = np.broadcast_to(~PADDING[:, None, None], shape).copy()
    hidden = np.broadcast_to(PADDING[:, None], (BATCH, 2, TIME))
    f = lambda q, k, v: gc.sum(gc.attention(q, k, v, mask=mask) ** 2)                   # noqa: E731
    check(gradients(f, types, arrays(*(t.shape for t in types.values())), BAD, hidden, which), hidden)


LOSSES = {
    "cross_entropy": (nn.cross_entropy, gc.i64[BATCH, TIME]),
    "mse": (nn.mse, gc.f32[BATCH, TIME, WIDTH]),
    "bce": (nn.bce, gc.f32[BATCH, TIME, WIDTH]),
    "own": (lambda y, target, reduction: gc.sqrt(gc.sum(gc.log(y * y) * target, axis=-1) ** 2),
            gc.f32[BATCH, TIME, WIDTH]),
}


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("option", ("lengths", "mask"))
def test_steps_that_do_not_count(name, option):
    loss, target = LOSSES[name]
    types = {"y": gc.f32[BATCH, TIME, WIDTH], "t": target}
    t = np.full(target.shape, 1, target.dtype.np)
    values = [*arrays((BATCH, TIME, WIDTH)), t]
    given = {"lengths": LENGTHS} if option == "lengths" else {"mask": ~PADDING}
    for reduction in ("mean", "step"):
        f = lambda y, t: nn.sequence_loss(y, t, loss, batch_first=True, reduction=reduction,
                                          **given)       # noqa: E731, B023
        check(gradients(f, types, values, BAD, PADDING), PADDING)


@pytest.mark.parametrize("reduction", ("mean", "sum", "none"))
@pytest.mark.parametrize("axis", (-1, 1))
def test_ignored_targets(reduction, axis):
    shape = (BATCH, TIME, WIDTH) if axis == -1 else (BATCH, WIDTH, TIME)
    ids = np.where(PADDING, -100, 2)
    hidden = PADDING if axis == -1 else np.broadcast_to(PADDING[:, None], shape)
    f = lambda y, t: gc.sum(nn.cross_entropy(y, t, axis=axis, ignore_index=-100, label_smoothing=0.1,
                                             reduction=reduction))     # noqa: E731
    runs = gradients(f, {"y": gc.f32[shape], "t": gc.i64[BATCH, TIME]}, [*arrays(shape), ids], BAD, hidden)
    check(runs, hidden)


def test_accuracy_of_steps_that_count():
    y, = arrays((BATCH, TIME, WIDTH))
    f = trace_types(lambda y, t, n: nn.accuracy(y, t, lengths=n, batch_first=True),
                    {"y": gc.f32[BATCH, TIME, WIDTH], "t": gc.i64[BATCH, TIME], "n": gc.i64[BATCH]})
    ruined = np.where(PADDING[..., None], np.nan, y).astype(np.float32)
    target = y.argmax(-1)
    assert gc.compile(f)(y, target, LENGTHS) == gc.compile(f)(ruined, target, LENGTHS) == 1
