"""Factors per channel behind a convolution by lasting weights move into the weights."""
from __future__ import annotations

import numpy as np

from graphc.ir.builder import Builder
from graphc.ir.interp import evaluate
from graphc.ir.ops.conv import Conv
from graphc.ir.printer import print_graph
from graphc.ir.types import TensorType, f32, i8, i32, u8
from graphc.passes.dce import EliminateDeadCode
from graphc.passes.fold_batch_norm import FoldBatchNorm
from graphc.passes.precompute import split_derived

X, W, C = f32[2, 3, 6, 6], f32[4, 3, 3, 3], f32[4, 1, 1]


def _network(b, *steps, scale=C):
    x, w = b.input("x", X), b.state_input("w", W)
    y = b.conv2d(x, w)
    for n, step in enumerate(steps):
        y = getattr(b, step)(y, b.state_input(f"s{n}", scale))
    return y


def _folded(*steps, **options):
    b = Builder()
    graph = b.finish([_network(b, *steps, **options)])
    return graph, EliminateDeadCode().run(FoldBatchNorm().run(graph))


def test_text():
    _, after = _folded("mul", "add")
    assert print_graph(split_derived(after).main) == """\
graph graph(x: f32[2, 3, 6, 6]) state(w: f32[4, 3, 3, 3], s0: f32[4, 1, 1], s1: f32[4, 1, 1], "derived.0": f32[4, 3, 3, 3]) {
  %0 = conv2d(x, "derived.0") : f32[2, 4, 4, 4]
  %1 = add(%0, s1) : f32[2, 4, 4, 4]
  return %1
}"""


def test_values_are_those_of_the_chain():
    rng = np.random.default_rng(0)
    for steps in (("mul",), ("add", "mul", "add"), ("sub", "mul", "sub", "mul"), ("mul", "add", "mul", "add")):
        before, after = _folded(*steps)
        arrays = [rng.normal(size=v.type.shape).astype("f") for v in before.arguments]
        (a,), (b,) = evaluate(before, arrays), evaluate(after, arrays)
        assert [n.op.name for n in split_derived(after).main.nodes].count("mul") == 0
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_folded_stays():
    assert FoldBatchNorm().run(before := _folded("add")[0]) is before                             # nothing to fold
    assert FoldBatchNorm().run(before := _folded("mul", scale=f32[4, 4, 4])[0]) is before          # not per channel
    b = Builder()
    y = _network(b, "mul")
    _stays(b.finish([y, y.node.inputs[0]], ("", "")))                   # the convolution itself is a result
    b = Builder()
    x, w, s = b.input("x", X), b.state_input("w", W), b.state_input("s", C)
    y = b.mul(b.conv2d(x, w), s)
    b.update(w, b.mul(w, 2.0))
    _stays(b.finish([y]))                                               # weights change with every call


def _stays(graph) -> None:
    assert FoldBatchNorm().run(graph) is graph


def _of_integers(dtype, factor, *outputs):
    """Sums of a convolution of bytes, scaled, through relu, times a number, and as integers."""
    b = Builder()
    x, w = b.input("x", TensorType(u8, X.shape)), b.state_input("w", TensorType(i8, W.shape))
    y = b.cast(b.apply(Conv.at(2)((1, 1), ((0, 0), (0, 0)), (1, 1), dtype=i32), (x, w))[0], dtype=f32)
    y = b.add(b.mul(b.mul(y, b.state_input("s", C)), b.state_input("t", C)), b.state_input("u", C))
    y = b.maximum(y, 0.0)
    q = b.cast(b.round(b.mul(y, factor)), dtype=dtype)
    return b.finish([{"y": y, "q": q}[name] for name in outputs], outputs)


def test_sums_of_integers_get_one_factor():
    """With the one behind relu, if that is positive; before integers without sign relu is idle."""
    for dtype, factor, relu, left in ((u8, 3.0, 0, 1), (i8, 3.0, 1, 1), (u8, -3.0, 1, 2)):
        before = _of_integers(dtype, factor, "q")
        after = EliminateDeadCode().run(FoldBatchNorm().run(before))
        names = [n.op.name for n in split_derived(after).main.nodes]
        assert (names.count("maximum"), names.count("mul")) == (relu, left)
        rng = np.random.default_rng(0)
        arrays = [rng.integers(0, 100, v.type.shape).astype(v.type.dtype.np) if v.type.dtype.is_int else
                  rng.uniform(-0.02, 0.02, v.type.shape).astype("f") for v in before.arguments]
        (a,), (b,) = evaluate(before, arrays), evaluate(after, arrays)
        assert np.abs(a.astype(int) - b).max() <= 1 and a.any() == (factor > 0)
    after = FoldBatchNorm().run(_of_integers(u8, 3.0, "y", "q"))        # somebody reads what relu gives
    assert [n.op.name for n in after.nodes].count("maximum") == 1
