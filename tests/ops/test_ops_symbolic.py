"""Operators and their gradients built while sizes are names; binding must give what building with ints gives."""
from __future__ import annotations

import numpy as np
import pytest
from op_sample import floats, ints, values

from graphc.autodiff.backward import backward
from graphc.errors import GraphError
from graphc.ir.builder import Builder, bind_graph
from graphc.ir.dim_text import parse_dim
from graphc.ir.interp import evaluate
from graphc.ir.ops import OPS
from graphc.ir.types import bool_, f32, f64, i64

SIZES = {"B": 4, "T": 3, "C": 6}
B, T, C = map(parse_dim, "BTC")

CASES = (
    ("add", {}, (f64["B", 3], f64[3])),
    ("mul", {}, (f64["B", "T"], f64["T"])),
    ("where", {}, (bool_["B", 1], f64["B", "T"], f64["T"])),
    ("gelu", {}, (f64["B", "T"],)),
    ("cast", {"dtype": f64}, (f64["B"],)),
    ("sum", {"axes": (0,)}, (f64["B", "T"],)),
    ("sum", {"axes": (0, 1), "keepdims": True}, (f64["B", "T"],)),
    ("prod", {"axes": (0, 2)}, (f64["B", 2, "T"],)),
    ("max", {"axes": (1,)}, (f64["B", "T"],)),
    ("mean", {"axes": (0, 1)}, (f64["B", "T"],)),
    ("mean", {"axes": (1,), "keepdims": True}, (f64["B", "2*T + 1"],)),
    ("var", {"axes": (0,), "ddof": 1}, (f64["B", "T"],)),
    ("logsumexp", {"axes": (1,)}, (f64["B", "T"],)),
    ("argmax", {"axis": 1}, (f64["B", "T"],)),
    ("cumsum", {"axis": 0, "exclusive": True}, (f64["B", "T"],)),
    ("cumprod", {"axis": 0}, (f64["B", "T"],)), ("running_arg_extremum", {"axis": 1}, (f64["B", "T"],)),
    ("cumprod", {"axis": 0, "exclusive": True, "reverse": True}, (f64["B", "T"],)),
    ("linear_scan", {"axis": 1}, (f64["B", "T"], f64["B", "T"])),
    ("sort", {"axis": 1}, (f64["B", "T"],)),
    ("topk", {"k": 2, "axis": 1}, (f64["B", "C"],)),
    ("reshape", {"shape": (B * T, 2)}, (f64["B", "T", 2],)),
    ("reshape", {"shape": (T, B)}, (f64["B", "T"],)),
    ("transpose", {"perm": (1, 0)}, (f64["B", "T"],)),
    ("broadcast_to", {"shape": (B, T)}, (f64["T"],)),
    ("broadcast_to", {"shape": (B, T)}, (f64["B", 1],)),
    ("concat", {"axis": 0}, (f64["B", 2], f64["T", 2], f64["B", 2])),
    ("stack", {"axis": 1}, (f64["B"], f64["B"])),
    ("slice", {"start": (1, 0), "stop": (B, T), "step": (1, 1)}, (f64["B", "T"],)),
    ("slice", {"start": (0, 0), "stop": (B - 1, 2 * T), "step": (1, 2)}, (f64["B", "2*T"],)),
    ("pad", {"low": (0, T), "high": (B, 1)}, (f64["B", "T"],)),
    ("flip", {"axes": (0,)}, (f64["B", "T"],)),
    ("dynamic_slice", {"sizes": (2, T)}, (f64["B", "T"], i64[()], i64[()])),
    ("dynamic_update_slice", {}, (f64["B", "T"], f64[2, "T"], i64[()], i64[()])),
    ("tile", {"reps": (2, 3)}, (f64["B", "T"],)),
    ("tril", {}, (f64["B", "T"],)),
    ("unequal", {"differences": (B - T,), "dividends": (B * T,)}, (f64["B", "T"],)),
    ("take", {"axis": 0}, (f64[3, "T"], i64["B", 2])),
    ("take_along_axis", {"axis": 1}, (f64["B", 3], i64["B", "T"])),
    ("scatter_add", {"axis": 0}, (f64[3, "T"], i64["B"], f64["B", "T"])),
    ("scatter_add_along_axis", {"axis": 1}, (f64["B", 3], i64["B", "T"], f64["B", "T"])),
    ("one_hot", {"depth": C, "dtype": f64}, (i64["B"],)),
    ("iota", {"shape": (B, T), "axis": 0, "dtype": f64}, ()),
    ("dimension", {"size": B * T - 1, "dtype": f64}, ()),
    ("resize", {"shape": (5, 4)}, (f64["B", "C", 3, 2],)),
    ("random_uniform", {"shape": (B, T), "dtype": f64}, (i64[2],)),
    ("random_normal", {"shape": (B, T), "dtype": f64}, (i64[2],)),
    ("random_bernoulli", {"shape": (B, T), "p": 0.5}, (i64[2],)),
    ("random_permutation", {"n": B}, (i64[2],)),
    ("dropout", {"rate": 0.5}, (f64["B", "T"], i64[2])),
    ("softmax", {}, (f64["B", "T"],)),
    ("log_softmax", {"axis": 0}, (f64["B", "T"],)),
    ("layer_norm", {}, (f64["B", "T"], f64["T"], f64["T"])),
    ("rms_norm", {}, (f64["B", "T"], f64["T"])),
    ("group_norm", {"groups": 2}, (f64["B", 4, "T"], f64[4], f64[4])),
    ("batch_norm", {}, (f64["B", 3, "T"], f64[3], f64[3])),
    ("batch_norm_inference", {}, (f64["B", 3, "T"], f64[3], f64[3], f64[3], f64[3])),
    ("mse", {}, (f64["B", "T"], f64["B", "T"])),
    ("bce_with_logits", {}, (f64["B"], f64["B"])),
    ("cross_entropy", {"label_smoothing": 0.1}, (f64["B", "C"], i64["B"])),
    ("cross_entropy", {"axis": 1, "ignore_index": 1}, (f64["B", 3, "T"], i64["B", "T"])),
    ("cross_entropy_soft", {}, (f64["B", "T"], f64["B", "T"])),
)


def built(op, types, bound: bool):
    """A graph with the outputs of `op` and, where floats flow, its gradients for the gradients 1."""
    b = Builder()
    ins = [b.input(f"x{i}", t.bind(SIZES) if bound else t) for i, t in enumerate(types)]
    outs = b.apply(op.bind(SIZES) if bound else op, ins)
    seeds = {v: b.broadcast_to(b.constant(1.0, f64), shape=v.type.shape) for v in outs if v.type.dtype.is_float}
    floats_in = [v for v in ins if v.type.dtype.is_float]
    grads = backward(b, list(b.nodes), seeds, floats_in)
    assert [g.type for g in grads if g is not None] == [v.type for v, g in zip(floats_in, grads) if g is not None]
    return b.finish([*outs, *(g for g in grads if g is not None)])


@pytest.mark.parametrize("name, attributes, types", CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_binding_gives_what_ints_give(name, attributes, types):
    op = OPS[name](**attributes)
    symbolic, static = built(op, types, False), built(op, types, True)
    bound = bind_graph(symbolic, SIZES)
    assert not bound.dim_names and [v.type for v in bound.outputs] == [v.type for v in static.outputs]
    arrays = [values(t.shape, t.dtype, seed=i) if t.dtype != i64 else ints(t.shape, i64, 0, 3)
              for i, t in enumerate(v.type for v in static.inputs)]
    if name == "batch_norm_inference":
        arrays[-1] = floats(arrays[-1].shape, f64, 0.5, 2)
    for actual, expect in zip(evaluate(bound, arrays), evaluate(static, arrays)):
        np.testing.assert_allclose(actual, expect, rtol=1e-12)


def test_a_named_size_must_be_bound_before_it_is_compared():
    b = Builder()
    y = b.slice(b.input("x", f32["B"]), start=(0,), stop=(9,), step=(1,))
    with pytest.raises(GraphError, match="slice 0:9 is not inside axis 0"):
        bind_graph(b.finish([y]), {"B": 4})


@pytest.mark.parametrize("size", range(1, 8))
def test_a_slice_with_steps_has_a_size_that_is_rounded_up(size):
    b = Builder()
    x = b.input("x", f32["B"])
    y = b.slice(x, start=(0,), stop=(B,), step=(3,))
    grad, = backward(b, list(b.nodes), {y: y}, [x])
    graph = bind_graph(b.finish([y, grad]), {"B": size})
    array = np.arange(size, dtype=np.float32)
    out, gradient = evaluate(graph, [array])
    assert str(y.type) == "f32[((B + 2)//3)]" and np.array_equal(out, array[::3])
    assert np.array_equal(gradient, np.where(array % 3 == 0, array, 0))
