"""Gradients where there is no derivative, or where a careless formula makes NaN: PyTorch's choices, written out."""
from __future__ import annotations

import numpy as np
import pytest

from graphc.autodiff.backward import backward
from graphc.errors import GraphError
from graphc.ir.builder import Builder
from graphc.ir.interp import evaluate
from graphc.ir.op import Op
from graphc.ir.ops.activation import Clip, Elu, Gelu, LeakyRelu, Relu, Silu, Softplus
from graphc.ir.ops.elementwise import Elementwise
from graphc.ir.ops.loss import BCEWithLogits, CrossEntropy
from graphc.ir.ops.norm import LogSoftmax, Softmax
from graphc.ir.ops.reduce import LogSumExp, Max, Min, Prod
from graphc.ir.ops.scan_ops import CumProd
from graphc.ir.ops.sort import Sort, TopK
from graphc.ir.ops.special import LogAddExp
from graphc.ir.types import TensorType, f64, i64
from graphc.passes.dce import EliminateDeadCode

INF, NAN = np.inf, np.nan


def gradients(op: Op, *arrays, order: int = 1, seed=None, only: bool = False):
    """Gradients of the (weighted) sum of the first output, or, for order n, of the sum of the gradients of order n - 1.
    `only`: nothing else runs.
    """
    b = Builder()
    arrays = [np.asarray(a, float) if not isinstance(a, np.ndarray) else a for a in arrays]
    ins = [b.input(f"x{i}", TensorType(f64 if a.dtype.kind == "f" else i64, a.shape)) for i, a in enumerate(arrays)]
    y = b.apply(op, ins)[0]
    total = b.sum(b.mul(y, b.constant(np.broadcast_to(1.0 if seed is None else seed, y.type.shape), f64)),
                  axes=tuple(range(y.type.rank)))
    floats = [v for v in ins if v.type.dtype == f64]
    for n in range(order):
        grads = backward(b, list(b.nodes), {total: b.constant(1.0, f64)}, floats)
        total = b.add(b.constant(0.0, f64), b.sum(grads[0], axes=tuple(range(grads[0].type.rank))))
    with np.errstate(all="ignore"):
        graph = b.finish(grads)
        return evaluate(EliminateDeadCode().run(graph) if only else graph, arrays)


@pytest.mark.parametrize("op, x, expect", (
    (Relu(), [-1, 0, 2, NAN], [0, 0, 1, 1]),
    (LeakyRelu(0.1), [-1, 0, 2], [0.1, 0.1, 1]),
    (Elu(2.0), [0, 1, 1000, -1000], [2, 1, 1, 0]),
    (Clip(-1.0, 1.0), [-2, -1, 0, 1, 2], [0, 1, 1, 1, 0]),
    (Softplus(), [0, 1000, -1000, INF, -INF], [0.5, 1, 0, 1, 0]),
    (Silu(), [0, 1000, -1000], [0.5, 1, 0]),
    (Gelu(), [0, 1000, -1000], [0.5, 1, 0]),
    (Gelu("tanh"), [0, 100, -100], [0.5, 1, 0]),
    (Elementwise("abs"), [-2, 0, 3], [-1, 0, 1]),
    (Elementwise("sigmoid"), [0, 1000, -1000], [0.25, 0, 0]),
    (Elementwise("tanh"), [0, 1000, -1000], [1, 0, 0]),
    (Elementwise("sqrt"), [4, 0], [0.25, INF]),
    (Elementwise("log"), [2, 0], [0.5, INF]),
    (Elementwise("erf"), [0, 100, -100], [2 / np.sqrt(np.pi), 0, 0]),
    (Max((0,)), [1, 3, 3, 2], [0, 0.5, 0.5, 0]),
    (Min((0,)), [1, 1, 1, 2], [1 / 3, 1 / 3, 1 / 3, 0]),
    (Prod((0,)), [2, 0, 3], [0, 6, 0]),
    (Prod((0,)), [2, 0, 0], [0, 0, 0]),
    (CumProd(0), [2, 0, 3], [1, 8, 0]),
    (LogSumExp((0,)), [-INF, 0, -INF], [0, 1, 0]),
    (LogSumExp((0,)), [-INF, -INF], [0, 0]),
    (LogSumExp((0,)), [1000, 1000], [0.5, 0.5]),
    (Softmax(0), [1000, 0, -INF], [0, 0, 0]),
    (LogSoftmax(0), [1000, 0], [-1, 1]),
))
def test_gradient_at(op, x, expect):
    np.testing.assert_allclose(gradients(op, x)[0], expect, atol=1e-12)


@pytest.mark.parametrize("fn, x, y, dx, dy", (
    ("maximum", [1, 2, 2], [2, 2, 1], [0, 0.5, 1], [1, 0.5, 0]),
    ("minimum", [1, 2, 2], [2, 2, 1], [1, 0.5, 0], [0, 0.5, 1]),
    ("pow", [0, 0, 0, 2], [0, 1, 2, 0], [0, 1, 0, 0], [0, 0, 0, np.log(2)]),
    ("pow", [-2, INF, NAN], [2, 0, 0], [-4, 0, 0], [NAN, INF, NAN]),
    ("mod", [7, -7], [3, 3], [1, 1], [-2, 3]),
    ("div", [1, 0], [2, 2], [0.5, 0.5], [-0.25, 0]),
))
def test_gradients_of_two_at(fn, x, y, dx, dy):
    np.testing.assert_allclose(gradients(Elementwise(fn), x, y), [dx, dy], atol=1e-12)


@pytest.mark.parametrize("exponent, orders", ((2.0, ([0, 2], [2, 2], [0, 0])), (3.0, ([0, 3], [0, 6], [6, 6])),
                                              (1.0, ([1, 1], [0, 0], [0, 0])), (0.0, ([0, 0], [0, 0], [0, 0]))))
def test_derivatives_of_whole_powers_at_zero(exponent, orders):
    for order, expect in enumerate(orders, 1):
        np.testing.assert_allclose(gradients(Elementwise("pow"), np.array([0.0, 1.0]), np.full(2, exponent),
                                             order=order)[0], expect)


def test_second_derivatives_of_equals():
    equals = [1, 1000, INF, -INF]
    np.testing.assert_allclose(gradients(LogAddExp(), equals, equals), 0.5 * np.ones((2, 4)))
    np.testing.assert_allclose(gradients(LogAddExp(), equals, equals, order=2), [[0.25, 0.25, 0, 0], [-0.25, -0.25, 0, 0]])


def test_where_lets_nothing_through_to_the_other_side():
    b = Builder()
    x = b.input("x", f64[2])
    y = b.where(b.gt(x, 0), b.log(b.where(b.gt(x, 0), x, b.constant(1.0, f64))), x)
    grads = backward(b, list(b.nodes), {y: b.constant([1.0, 1.0], f64)}, [x])
    np.testing.assert_allclose(evaluate(b.finish(grads), [np.array([-1.0, 4.0])])[0], [1, 0.25])


def test_sort_sends_each_gradient_home():
    np.testing.assert_allclose(gradients(Sort(0), [3, 1, 2], seed=[10, 20, 30])[0], [30, 10, 20])
    np.testing.assert_allclose(gradients(Sort(0, True), [3, 1, 2], seed=[10, 20, 30])[0], [10, 30, 20])
    np.testing.assert_allclose(gradients(TopK(2, 0), [3, 1, 3, 2], seed=[10, 20])[0], [10, 0, 20, 0])


def test_cross_entropy_of_sure_logits():
    x, ids = np.array([[1000.0, 0], [1000, 0]]), np.array([0, 1])
    np.testing.assert_allclose(gradients(CrossEntropy(1, "none"), x, ids)[0], [[0, 0], [1, -1]])
    np.testing.assert_allclose(gradients(CrossEntropy(1, "mean", ignore_index=1), x, ids)[0], [[0, 0], [0, 0]])


@pytest.mark.parametrize("bad", (2, -1))
def test_cross_entropy_gradient_alone_checks_ids(bad):
    with pytest.raises(GraphError, match=f"position {bad} is outside"):
        gradients(CrossEntropy(1), np.zeros((1, 2)), np.array([bad]), only=True)


def test_bce_of_sure_logits():
    np.testing.assert_allclose(gradients(BCEWithLogits("sum"), [1e4, -1e4, 0], [0, 0, 0.5])[0], [1, 0, 0])


def test_gradient_of_nothing_is_nothing():
    b = Builder()
    x = b.input("x", f64[3])
    y = b.sum(b.cast(b.floor(x), dtype=f64), axes=(0,))
    assert backward(b, list(b.nodes), {y: b.constant(1.0, f64)}, [b.inputs[0]]) == [None]
