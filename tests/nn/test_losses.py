"""Losses against their formulas in numpy, with every reduction; first and second gradients against differences."""
import numpy as np
import pytest
from losses import LOSSES, RNG, WEIGHED

import graphc as gc
from graphc import nn
from graphc.dsl.function import trace_function
from graphc.dsl.signature import Argument
from graphc.ir.interp import evaluate
from graphc.ir.types import TensorType, dtype_of

ALL = {**LOSSES, **{f"{name}, weighed": case[:4] for name, case in WEIGHED.items()}}


def traced(loss, arrays, **options):
    types = {f"x{i}": TensorType(dtype_of(a), a.shape) for i, a in enumerate(arrays)}
    return trace_function(lambda **inputs: loss(*inputs.values(), **options), [Argument(*item) for item in types.items()],
                          "loss")


@pytest.mark.parametrize("name", ALL)
def test_the_formula(name):
    loss, arrays, options, formula = ALL[name]
    singles = formula()
    wanted = {"none": singles, "sum": singles.sum(), "mean": singles.mean()}
    if name.endswith(", weighed"):
        wanted["mean"] = singles.sum() / WEIGHED[name.removesuffix(", weighed")][4].sum()
    for reduction, value in wanted.items():
        found, = evaluate(traced(loss, arrays, reduction=reduction, **options).graph, arrays)
        assert found.shape == value.shape
        np.testing.assert_allclose(found, value, rtol=1e-7, atol=1e-9)
    with pytest.raises(gc.GraphError, match='reduction is one of "?mean|reduction'):
        traced(loss, arrays, reduction="average", **options)


@pytest.mark.parametrize("name", ALL)
def test_native_code_in_f32(name):
    loss, arrays, options, formula = ALL[name]
    arrays = [a.astype(np.float32) if a.dtype == float else a for a in arrays]
    options = {k: v.astype(np.float32) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    run = gc.compile(traced(loss, arrays, reduction="none", **options))
    np.testing.assert_allclose(run(*arrays), formula(), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", ALL)
def test_first_and_second_gradients(name):
    loss, arrays, options, formula = ALL[name]
    f = traced(loss, arrays, reduction="mean", **options)
    first, step = gc.grad(f, "x0"), 1e-6
    direction = RNG.normal(size=arrays[0].shape)
    second = gc.hvp(f, "x0")
    high, low = ((arrays[0] + sign * step * direction, *arrays[1:]) for sign in (1, -1))
    slope = (evaluate(f.graph, high)[0] - evaluate(f.graph, low)[0]) / (2 * step)
    g, = evaluate(first.graph, arrays)
    assert (g * direction).sum() == pytest.approx(slope, rel=1e-5, abs=1e-8)
    curve = (evaluate(first.graph, high)[0] - evaluate(first.graph, low)[0]) / (2 * step)
    h, = evaluate(second.graph, [*arrays, direction])
    np.testing.assert_allclose(h, curve, rtol=1e-4, atol=1e-7)


def test_the_mean_over_the_batch_is_the_divergence():
    loss, arrays, options, formula = LOSSES["kl_div"]
    found, = evaluate(traced(loss, arrays, reduction="batchmean").graph, arrays)
    assert found == pytest.approx(formula().sum() / 4)


@pytest.mark.parametrize("call, text", [
    (lambda x: nn.l1_loss(x, x[0]), r"l1_loss takes a prediction and a target of one shape, got f32\[4, 5\] and f32\[5\]"),
    (lambda x: nn.huber_loss(x, x, delta=0.0), "huber_loss: delta is a number > 0, got 0.0"),
    (lambda x: nn.multi_margin_loss(x, x), "multi_margin_loss takes class ids, integers, as the target, got f32"),
    (lambda x: nn.cross_entropy(x, gc.iota((4,)), weight=np.ones(3, np.float32)),
     r"cross_entropy: weight has one number for each class, f32\[5\], got f32\[3\]"),
    (lambda x: nn.bce(x, x, weight=gc.ones((3, 4, 5))), "bce: weight broadcasts to the losses"),
    (lambda x: nn.nll_loss(x, gc.iota((5,))), r"nll_loss of f32\[4, 5\] with classes on axis 1 takes ids"),
])
def test_what_does_not_fit(call, text):
    with pytest.raises(gc.GraphError, match=text):
        gc.compile(call, x=gc.f32[4, 5])
