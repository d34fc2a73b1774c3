"""Factors per channel behind a convolution by lasting weights move into the weights."""
from __future__ import annotations

import numpy as np

from graphc.ir.builder import Builder
from graphc.ir.interp import evaluate
from graphc.ir.printer import print_graph
from graphc.ir.types import f32
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
