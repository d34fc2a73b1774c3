"""What a condition hides has the gradient 0, whatever it is: every operator behind a `where`, full of NaN."""
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.autodiff.backward import backward
from graphc.ir.builder import Builder
from graphc.ir.image import SPATIAL_NAMES
from graphc.ir.interp import evaluate
from graphc.ir.ops import OPS
from graphc.ir.types import TensorType, bool_, dtype_of, f64

sys.path.insert(0, str(Path(__file__).parent.parent / "ops"))
from samples import CHECKED_ELSEWHERE, NON_DIFFERENTIABLE, SAMPLES  # noqa: E402

NAN = np.nan
DIFFERENTIABLE = {s.op.name: s for s in reversed(SAMPLES) if s.differentiable and s.op.name not in NON_DIFFERENTIABLE}
DIFFERENTIABLE["matmul"] = next(s for s in SAMPLES if s.op.name == "matmul" and s.differentiable
                                and [t.rank for t in s.types] == [3, 2])

# Operators behind which a condition over elements (or whole rows) of the result is followed no further; one bool is,
# through everything.
PRODUCTS = frozenset((
    *(name.format(axes) for axes in SPATIAL_NAMES
      for name in ("conv{}d", "conv{}d_input_grad", "conv{}d_weight_grad", "conv_transpose{}d")),
    "einsum", "attention", "scan",
    "while_loop", "cond", "custom_vjp", "remat", "hold",
    "batch_norm", "batch_norm_inference", "group_norm", "cholesky", "triangular_solve", "lu", "symmetric_eigen", "lq",
    "solve", "det", "slogdet"))
# Zeros pass them as they are: no slope of theirs is other than 0, 1 or a constant.
MOVES = frozenset((
    "tile", "take", "take_along_axis", "scatter_add", "scatter_add_along_axis", "add_rows", "pick_rows",
    "dynamic_slice", "dynamic_update_slice",
    "topk",
    *(name.format(axes) for axes in SPATIAL_NAMES
      for name in ("avg_pool{}d", "avg_pool{}d_grad", "max_pool{}d", "max_pool{}d_grad", "max_pool{}d_pick")),
    "resize", "dropout", "tril",
    "triu", "unequal", "mse",
    "bce_with_logits",
    "cross_entropy", "cross_entropy_soft"))
ROWS = {"softmax": -1, "log_softmax": -1, "layer_norm": -1, "rms_norm": -1, "cumsum": None, "cumprod": None,
        "linear_scan": None, "sort": None,
    "matmul": -1}


def hidden_gradients(op, arrays, condition: np.ndarray):
    """Gradients of the sum of where(condition, op(arrays), 0), towards all float arrays."""
    b = Builder()
    ins = [b.input(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(arrays)]
    shown = b.input("shown", TensorType(bool_, condition.shape))
    y = next(v for v in b.apply(op, ins) if v.type.dtype.is_float)
    total = b.sum(b.where(shown, y, b.constant(0.0, f64)), axes=tuple(range(y.type.rank)))
    wrt = [v for v in ins if v.type.dtype.is_float]
    found = backward(b, list(b.nodes), {total: b.constant(1.0, f64)}, wrt)
    with np.errstate(all="ignore"):
        return evaluate(b.finish([g for g in found if g is not None]), [*arrays, condition])


def ruined(arrays, bad=NAN):
    return [np.full_like(a, bad) if a.dtype.kind == "f" else a for a in arrays]


@pytest.mark.parametrize("name", sorted(DIFFERENTIABLE))
@pytest.mark.parametrize("bad", (NAN, np.inf, 0.0))
def test_one_bool_hides_every_operator(name, bad):
    sample = DIFFERENTIABLE[name]
    for g in hidden_gradients(sample.op, ruined(sample.arrays, bad), np.array(False)):
        np.testing.assert_array_equal(g, 0)


def test_every_operator_is_told():
    known = PRODUCTS | MOVES | NON_DIFFERENTIABLE | CHECKED_ELSEWHERE.keys() | followed()
    assert not OPS.keys() - known, "is a condition over the result one over the operands? Say so here and in autodiff/hidden.py"


def followed():
    return DIFFERENTIABLE.keys() - PRODUCTS - MOVES


@pytest.mark.parametrize("name", sorted(followed()))
@pytest.mark.parametrize("bad", (NAN, np.inf, 0.0))
def test_elements_are_hidden(name, bad):
    """Everything is hidden, by a condition of the shape of the result, or of one bool a row for operators on rows."""
    sample = DIFFERENTIABLE[name]
    shape = list(sample.op.infer(*sample.types).shape)
    if name in ROWS:
        shape[sample.op.axis if hasattr(sample.op, "axis") else -1] = 1
        if hasattr(sample.op, "axes"):
            shape[-sample.op.axes:] = [1] * sample.op.axes
    for g in hidden_gradients(sample.op, ruined(sample.arrays, bad), np.zeros(shape, bool)):
        np.testing.assert_array_equal(g, 0)


def run(f, *arrays, order=1):
    """Gradients of the scalar graph towards its first argument, compiled; of order 2 the product of the second
    derivative with ones.
    """
    first = f.graph.inputs[0].name
    if order == 1:
        return gc.compile(gc.grad(f, wrt=first))(*arrays)
    return gc.compile(gc.hvp(f, wrt=first))(*arrays, np.ones_like(arrays[0]))


@gc.graph
def root(x: gc.f32[4]):
    return gc.sum(gc.where(x > 0, gc.sqrt(x), x))


@gc.graph
def either_way(x: gc.f32[4]):
    return gc.sum(gc.where(x <= 0, x, gc.log(x)))


@gc.graph
def used_twice(x: gc.f32[4]):
    s = gc.sqrt(x)
    return gc.sum(gc.where(x > 0, s, 0) + gc.where(x > 0, s * s, x))


@gc.graph
def through_views(x: gc.f32[4]):
    y = gc.concat([gc.sqrt(x), gc.log(x)]).reshape(2, 4)
    return gc.sum(gc.where(x > 0, gc.transpose(gc.flip(y, 1))[::-1].T, 0))


@gc.graph
def clipped(x: gc.f32[4]):
    return gc.sum(gc.clip(gc.log(x), -5, 5)) + gc.sum(gc.relu(gc.log(x))) + gc.sum(gc.maximum(gc.log(x), -3))


@pytest.mark.parametrize("f, x, first, second", (
    (root, [-1, 0, 4, NAN], [1, 1, 0.25, 1], [0, 0, -1 / 32, 0]),
    (either_way, [-1, 0, 4, -np.inf], [1, 1, 0.25, 1], [0, 0, -1 / 16, 0]),
    (used_twice, [-1, 0, 4, NAN], [1, 1, 1.25, 1], [0, 0, -1 / 32, 0]),
    (through_views, [-1, 0, 4, NAN], [0, 0, 0.5, 0], [0, 0, -3 / 32, 0]),
    (clipped, [0, 4, 1e-10, 0.5], [0, 0.75, 0, 4], [0, -3 / 16, 0, -8])), ids=lambda v: getattr(v, "name", ""))
def test_the_side_not_taken(f, x, first, second):
    x = np.array(x, np.float32)
    np.testing.assert_allclose(run(f, x), first, rtol=1e-5)
    np.testing.assert_allclose(run(f, x, order=2), second, rtol=1e-5, atol=1e-7)


@gc.graph
def unit(x: gc.f32[3, 2]):
    length = gc.sqrt(gc.sum(x * x, axis=1))
    return gc.sum(gc.where(gc.expand_dims(length > 0, 1), x / gc.expand_dims(length, 1), 0))


@gc.graph
def rows_that_exist(x: gc.f32[3, 2], real: gc.bool_[3, 1]):
    y = gc.where(real, gc.layer_norm(gc.log_softmax(x), gc.ones((2,)), gc.zeros((2,))), 0)
    return gc.sum(y * [1.0, 3.0])


def test_rows_hidden_whole():
    np.testing.assert_allclose(run(unit, np.array([[0, 0], [3, 4], [1, 0]], np.float32)),
                               [[0, 0], [0.032, -0.024], [0, 1]], atol=1e-6)
    x, real = np.array([[NAN, 0], [-np.inf, -np.inf], [1, 2]], np.float32), np.array([[0], [0], [1]], bool)
    g = run(rows_that_exist, x, real)
    assert (g[:2] == 0).all() and np.isfinite(g).all()


@gc.graph
def unless_broken(w: gc.f32[3, 3], x: gc.f32[2, 3]):
    loss = gc.mean(gc.scan(lambda h, t: (gc.tanh(h @ w) + t, gc.log(h @ w)), gc.zeros((3,)), x)[1])
    return gc.where(gc.isfinite(loss), loss, 0)


def test_one_bool_hides_a_loop():
    np.testing.assert_array_equal(run(unless_broken, np.full((3, 3), np.inf, np.float32), np.ones((2, 3), np.float32)),
                                  0)


@gc.graph
def branches(x: gc.f32[()]):
    return gc.cond(x > 0, lambda: gc.sqrt(x), lambda: x * 1)


@gc.graph
def loop(x: gc.f32[()]):
    return gc.while_loop(lambda c: c[1] < 3, lambda c: (gc.sqrt(c[0]) - 1, c[1] + 1),
                         (x, gc.cast(gc.where(x > 0, 2, 3), gc.i64)), 5)[1][0]


def test_what_is_not_run_has_no_gradient():
    for f in (branches, loop):
        assert [run(f, np.float32(x)) for x in (0, NAN)] == [1, 1]
    assert run(branches, np.float32(4)) == run(loop, np.float32(4)) == 0.25


@gc.graph
def network(w: gc.f32[4, 4], v: gc.f32[4], x: gc.f32[3, 2, 4], real: gc.bool_[3, 2]):
    y = gc.softmax(gc.layer_norm(gc.tanh(x @ w) @ w)) @ v
    return gc.sum(gc.relu(gc.where(real, y, 0)) ** 2)


def test_rows_of_products_are_hidden():
    """Examples that do not count reach no weight of a network of products and functions of rows."""
    rng, real = np.random.default_rng(0), np.array([[1, 0], [0, 1], [1, 1]], bool)
    w, v, x = (rng.normal(size=s).astype(np.float32) for s in ((4, 4), (4,), (3, 2, 4)))
    towards = gc.compile(gc.grad(network, wrt=("w", "v", "x")))
    clean = towards(w, v, np.where(real[..., None], x, 0), real)
    for bad in (NAN, np.inf):
        for a, b in zip(clean, towards(w, v, np.where(real[..., None], x, bad).astype(np.float32), real)):
            np.testing.assert_array_equal(a, b)


@gc.graph
def ordinary(x: gc.f32[8, 4], w: gc.f32[4, 4], v: gc.f32[4]):
    return gc.sum(gc.relu(x @ w + v) * 2.0)


def test_a_long_chain_of_choices_is_walked_without_recursion():
    """Nor does the number of nodes grow with the square of its length."""
    def nodes(n: int) -> int:
        @gc.graph
        def chain(x: gc.f32[4]):
            y = z = gc.log(x)
            for i in range(n):
                y = gc.where(x > i, gc.exp(y.reshape(2, 2).reshape(4) + z), gc.where(x < -i, y, 1))
                z = gc.where(x > -i, z, y)
            for i in range(n):
                y = gc.where(x > i, y, 0) - y.reshape(2, 2).reshape(4)
            return gc.sum(y)
        return len(gc.grad(chain).graph.nodes)
    small, large = nodes(20), nodes(200)
    assert large < 20 * small


def test_ordinary_gradients_choose_once():
    """Nothing is added where zeros pass anyway."""
    ops = [n.op.name for n in gc.grad(ordinary, wrt=("x", "w", "v")).graph.nodes]
    assert ops.count("where") == 1 and not {"bitor", "bitand", "bitnot"} & set(ops)
