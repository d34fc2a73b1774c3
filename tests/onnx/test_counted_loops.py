"""Loops whose condition counts, as `while i < length` is written: rounds are a size, results are stacked."""
from __future__ import annotations

import numpy as np
import pytest
from one_node import floats, helper, in_runtime, onnx
from small_onnx import info, node
from small_onnx import model as newest

import graphc as gc
from graphc import nn, optim

LENGTH = [node("Shape", "x", "n", start=0, end=1), node("Squeeze", "n", "t"), node("Cast", "t", "t32", to=6)]
HELD = {"one": np.int32(1), "none": np.int32(0), "two": np.int32(2), "yes": np.array(True)}


def model(*parts):
    made = newest(*parts)
    made.ir_version = 10                # as the runtime has it
    return made


def counting(ends, step="one", limit=False):
    """s + x[i] for i = 0, step, … while the nodes `ends` say so of the next i, stacked. x [T, 3]."""
    inner = helper.make_graph([node("Gather", "x i", "row"), node("Add", "s row", "s1"), node("Add", f"i {step}", "i1"), *ends,
                               node("Identity", "s1", "out")], "body",
                              [info("k", [], "i64"), info("c", [], "bool"), info("i", [], "i32"), info("s", [3])],
                              [info("go", [], "bool"), info("i1", [], "i32"), info("s1", [3]), info("out", [3])])
    nodes = [*LENGTH, node("Less", "none t32", "first"),
             helper.make_node("Loop", ["t" if limit else "", "first", "none", "s0"], ["last", "y", "rows"], body=inner)]
    return model(nodes, [("x", ["T", 3]), ("s0", [3])], [("y", [3]), ("rows", ["R", 3])], HELD)


CASES = {"less": ([node("Less", "i1 t32", "go")], "one", False), "limited": ([node("Less", "i1 t32", "go")], "one", True),
         "greater, of floats": ([node("Cast", "i1", "a", to=1), node("Cast", "t32", "b", to=1), node("Greater", "b a", "go")], "one", False),
         "and": ([node("Less", "i1 t32", "p"), node("LessOrEqual", "k t", "q"), node("And", "p q", "go")], "one", True),
         "in the loop's own number": ([node("Less", "k t", "go")], "one", True)}


@pytest.mark.parametrize("name", CASES)
def test_rounds_are_a_size(name):
    made = counting(*CASES[name])
    run = gc.compile(gc.from_onnx(made))
    for t in (4, 1, 7):
        given = {"x": floats(t, 3), "s0": floats(3, seed=1)}
        for found, expect in zip(run(**given).values(), in_runtime(made, given), strict=True):
            np.testing.assert_allclose(found, expect, atol=1e-5)


def test_what_cannot_be_proved_is_asked_for():
    for made in (counting([node("Less", "i1 t32", "go")], "two"),                          # every second: as many as T is even
                 counting([node("ReduceSum", "s1", "r", keepdims=0), node("Less", "r far", "go")]),
                 counting([node("Cast", "i1", "a", to=3), node("Cast", "t32", "b", to=3), node("Less", "a b", "go")])):     # 8 bits
        made.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(9), "far"))
        with pytest.raises(gc.GraphError, match="the number of rounds"):
            gc.plan(gc.from_onnx(made))


def greedy(limit: int | None):
    """x = x / 2 while its sum is above 1, at most so many times, written as Python's `and`."""
    false = helper.make_graph([node("Identity", "big", "e")], "no", [], [info("e", [], "bool")])
    true = helper.make_graph([node("Less", "i1 limit", "l")], "yes", [], [info("l", [], "bool")])
    ends = [node("If", "big", "go", then_branch=true, else_branch=false)] if limit else [node("Identity", "big", "go")]
    inner = helper.make_graph([node("Mul", "s w", "s1"), node("Add", "i one", "i1"), node("ReduceSum", "s1", "r", keepdims=0),
                               node("Greater", "r far", "big"), *ends], "body",
                              [info("k", [], "i64"), info("c", [], "bool"), info("i", [], "i32"), info("s", [3])],
                              [info("go", [], "bool"), info("i1", [], "i32"), info("s1", [3])])
    return model([helper.make_node("Loop", ["", "yes", "none", "x"], ["n", "y"], body=inner)], [("x", [3])], [("y", [3])],
                 {**HELD, "far": np.float32(1), "w": np.full(3, 0.5, np.float32), "limit": np.int32(limit or 0)})


def test_a_loop_that_data_end_and_a_number_limits_is_trained():
    x = np.abs(floats(3)) * 100
    np.testing.assert_allclose(gc.compile(gc.from_onnx(greedy(4)))(x), in_runtime(greedy(4), {"x": x})[0])
    step = gc.train_step(gc.from_onnx(greedy(4)), loss=nn.mse, optimizer=optim.SGD(1e-4), y=gc.f32[3])
    assert step(x, x) > step(x, x)
    with pytest.raises(gc.GraphError, match="nothing limits"):
        gc.train_step(gc.from_onnx(greedy(None)), loss=nn.mse, optimizer=optim.SGD(1e-4), y=gc.f32[3])
    np.testing.assert_allclose(gc.compile(gc.from_onnx(greedy(None)))(x), in_runtime(greedy(None), {"x": x})[0])
