"""What a wrong call says, and what a bad index does."""
from __future__ import annotations

import numpy as np
import pytest

from graphc.errors import GraphError
from graphc.ir.builder import Builder
from graphc.ir.ops import OPS
from graphc.ir.ops.index import ScatterAdd, ScatterAddAlongAxis, Take, TakeAlongAxis
from graphc.ir.ops.loss import CrossEntropy
from graphc.ir.types import bool_, f32, f64, i32, i64

KEY = i64[2]


@pytest.mark.parametrize("name, attributes, types, text", (
    ("add", {}, (f32[2], f64[2]), r"add of f32 and f64: convert one side, for example with \.astype\(f32\)"),
    ("add", {}, (f32[2], f32[3]), r"shapes \[2\] and \[3\] do not broadcast"),
    ("add", {}, (bool_[2], bool_[2]), "add takes float or int arrays, got bool"),
    ("exp", {}, (i32[2],), r"exp takes float arrays, got i32; convert it with \.astype\(f32\)"),
    ("div", {}, (i32[2], i32[2]), "div takes float arrays"),
    ("exp", {}, (f32[2], f32[2]), "exp takes 1 operand, got 2"),
    ("where", {}, (f32[2], f32[2], f32[2]), "the condition of where must be bool, got f32; compare it"),
    ("shift_left", {}, (f32[2], f32[2]), "shift_left takes int arrays"),
    ("relu", {}, (bool_[2],), "relu takes float or int arrays, got bool"),
    ("gelu", {}, (i32[2],), "gelu takes float arrays, got i32"),
    ("gelu", {"approximate": "yes"}, (f32[2],), 'approximate is "none" or "tanh", got \'yes\''),
    ("clip", {"low": 0.5}, (i32[2],), "needs whole bounds"),
    ("sum", {"axes": (1, 0)}, (f32[2, 3],), "must be sorted"),
    ("sum", {"axes": (2,)}, (f32[2, 3],), "axis 2 is out of range for an array with 2 axes"),
    ("sum", {"axes": (0,)}, (bool_[2],), r"sum takes float or int arrays, got bool"),
    ("max", {"axes": (0,)}, (f32[0, 3],), "over an axis of size 0 has no value"),
    ("argmax", {"axis": 0}, (f32[0, 3],), "over an axis of size 0 has no value"),
    ("mean", {"axes": (0,)}, (i32[3],), "mean takes float arrays"),
    ("cumsum", {"axis": 1}, (f32[3],), "axis 1 is out of range"),
    ("linear_scan", {"axis": 0}, (f32[3], f32[4]), "two float arrays of one type"),
    ("sort", {"axis": 0}, (bool_[3],), "sort takes float or int arrays, got bool"),
    ("topk", {"k": 4, "axis": 0}, (f32[3],), "k = 4 is not in 0..3"),
    ("reshape", {"shape": (4,)}, (f32[2, 3],), r"cannot reshape \[2, 3\] \(6 elements\) to \[4\] \(4 elements\)"),
    ("transpose", {"perm": (0, 0)}, (f32[2, 3],), "is not a permutation of the 2 axes"),
    ("broadcast_to", {"shape": (3,)}, (f32[2],), "do not broadcast"),
    ("broadcast_to", {"shape": (1,)}, (f32[2],), r"cannot broadcast \[2\] to \[1\]"),
    ("concat", {"axis": 0}, (f32[2, 3], f32[2, 4]), "must agree on every other axis"),
    ("concat", {"axis": 0}, (f32[2], f64[2]), "convert one"),
    ("concat", {"axis": 0}, (), "at least one array"),
    ("stack", {"axis": 0}, (f32[2], f32[3]), "arrays of one type"),
    ("slice", {"start": (2,), "stop": (5,), "step": (1,)}, (f32[4],), "slice 2:5 is not inside axis 0"),
    ("slice", {"start": (0,), "stop": (2,), "step": (0,)}, (f32[4],), "steps > 0, got 0; use flip"),
    ("pad", {"low": (-1,), "high": (0,)}, (f32[4],), "amounts must be >= 0"),
    ("pad", {"low": (1, 1), "high": (0,)}, (f32[4],), "needs 1 pairs"),
    ("flip", {"axes": (1,)}, (f32[4],), "axis 1 is out of range"),
    ("dynamic_slice", {"sizes": (5,)}, (f32[4], i32[()]), "do not fit into"),
    ("dynamic_slice", {"sizes": (2,)}, (f32[4], f32[()]), "starts are integer scalars, got f32"),
    ("dynamic_slice", {"sizes": (2,)}, (f32[4],), "needs 1 starts, got 0"),
    ("dynamic_update_slice", {}, (f32[4], f64[2], i32[()]), "f32 array and f64 update"),
    ("dynamic_update_slice", {}, (f32[4], f32[5], i32[()]), "does not fit into"),
    ("tile", {"reps": (2,)}, (f32[2, 3],), "at least 2 repetitions"),
    ("unequal", {"differences": (1, 0)}, (f32[2, 3],), "taken to be different"),
    ("unequal", {"differences": (), "dividends": (1, -1)}, (f32[2, 3],), "none below 0"),
    ("tril", {}, (f32[2],), "at least 2 axes"),
    ("take", {"axis": 0}, (f32[2], f32[2]),
     r"positions must be i32 or i64, got f32; convert them with \.astype\(i64\)"),
    ("take", {"axis": 0}, (f32[0, 3], i64[2]), r"axis 0 of f32\[0, 3\] is empty, no position can be inside it"),
    ("scatter_add_along_axis", {"axis": 0}, (f32[0], i64[2], f32[2]), "is empty"),
    ("take_along_axis", {"axis": 1}, (f32[2, 3], i64[3, 3]), "on every other axis"),
    ("scatter_add", {"axis": 0}, (f32[4, 3], i64[2], f32[2, 4]), r"updates must be f32\[2, 3\], got f32\[2, 4\]"),
    ("one_hot", {"depth": 3, "dtype": f32}, (f32[2],), "integer class ids"),
    ("iota", {"shape": (3,), "axis": 0, "dtype": bool_}, (), "not in bool"),
    ("iota", {"shape": (3,), "axis": 1, "dtype": f32}, (), "out of range"),
    ("resize", {"shape": (2, 2), "mode": "cubic"}, (f32[1, 1, 2, 2],), "mode is"),
    ("resize", {"shape": (2, 2)}, (f32[1, 2, 2],), r"takes x \[N, C, H, W\]"),
    ("softmax", {"axis": 2}, (f32[2, 3],), "out of range"),
    ("softmax", {"axis": 1}, (i32[2, 3],), "float arrays"),
    ("layer_norm", {}, (f32[2, 3], f32[2]), r"must be f32\[3\], got f32\[2\]"),
    ("layer_norm", {"axes": 3}, (f32[2, 3],), "allowed: 1..2"),
    ("rms_norm", {}, (f32[2, 3], f32[3], f32[3]), "at most 2 operands"),
    ("group_norm", {"groups": 2}, (f32[2, 3],), "3 channels do not split into 2 groups"),
    ("batch_norm", {}, (f32[2, 3], f32[3]), "takes x and 2 arrays per channel, got 1"),
    ("batch_norm", {}, (f32[1, 3, 1], f32[3], f32[3]), "has one number for each channel"),
    ("batch_norm", {}, (f32[2], f32[3], f32[3]), r"takes arrays \[N, C, …\]"),
    ("mse", {}, (f32[2], f32[3]), "two float arrays of one type"),
    ("mse", {"reduction": "max"}, (f32[2], f32[2]), 'reduction is "none", "mean" or "sum"'),
    ("cross_entropy", {"axis": 1}, (f32[2, 3], i64[3]), r"needs ids \[2\], got \[3\]"),
    ("cross_entropy", {"axis": 1}, (f32[2, 3], f32[2]), "for probabilities use cross_entropy_soft"),
    ("cross_entropy", {"axis": 1, "label_smoothing": 2.0}, (f32[2, 3], i64[2]), "label_smoothing must be in 0..1"),
    ("random_uniform", {"shape": (3,), "dtype": i32}, (KEY,), "makes float arrays"),
    ("random_uniform", {"shape": (3,), "dtype": f32}, (i64[3],), r"takes a key i64\[2\] = \(seed, step\)"),
    ("random_bernoulli", {"shape": (3,), "p": 1.5}, (KEY,), "p is a probability"),
    ("random_bits", {"shape": (3,), "stream": -1}, (KEY,), "stream must be in"),
    ("random_bits", {"shape": (1 << 20, 1 << 20)}, (KEY,), "draw them in parts"),
    ("dropout", {"rate": -0.1}, (f32[3], KEY), "rate is a probability"),
), ids=lambda v: v if isinstance(v, str) and v in OPS else "")
def test_wrong_call(name, attributes, types, text):
    b = Builder()
    with pytest.raises(GraphError, match=text):
        getattr(b, name)(*(b.input(f"x{i}", t) for i, t in enumerate(types)), **attributes)


@pytest.mark.parametrize("bad", (-1, 4))
@pytest.mark.parametrize("op, shapes", ((Take(0), ((4, 2),)), (TakeAlongAxis(0), ((4,),)),
                                        (ScatterAdd(0), ((4, 2), (3, 2))), (ScatterAddAlongAxis(0), ((4,), (3,)))))
def test_position_outside(op, shapes, bad):
    base, *updates = (np.zeros(s, np.float32) for s in shapes)
    with pytest.raises(GraphError, match=rf"position {bad} is outside the axis, whose positions are 0\.\.3"):
        op.reference(base, np.array([0, bad, 3]), *updates)


def test_class_id_outside():
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(GraphError, match=r"class id 3 is outside 0\.\.2"):
        CrossEntropy(1).reference(x, np.array([0, 3]))
    CrossEntropy(1, ignore_index=-100).reference(x, np.array([0, -100]))
    with pytest.raises(GraphError, match="class id -1"):
        CrossEntropy(1, ignore_index=-100).reference(x, np.array([0, -1]))


def test_no_gradient_says_so():
    b = Builder()
    x = b.input("x", f32[3])
    assert b.argsort(x, axis=0).node.op.vjp(b, (None,), (x,), ()) == (None,)
