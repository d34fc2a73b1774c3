"""If, Loop, Scan, sequences and optionals."""
from __future__ import annotations

import numpy as np
import pytest
from one_node import floats, helper, in_graphc, in_runtime, onnx

import graphc as gc

F, I, B = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL
node, info = helper.make_node, helper.make_tensor_value_info


def model(nodes, inputs, outputs, initializers=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs, [onnx.numpy_helper.from_array(a, n) for n, a in initializers])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def body(nodes, inputs, outputs, initializers=()):
    return helper.make_graph(nodes, "body", inputs, outputs, [onnx.numpy_helper.from_array(a, n) for n, a in initializers])


def same(model, /, **arrays):
    expect, actual = in_runtime(model, arrays), in_graphc(model, arrays)
    for a, e in zip(actual, expect, strict=True):
        assert a.dtype == e.dtype and a.shape == e.shape
        np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-6)
    return actual


def branches(then, otherwise, shape=(3,)):
    return {"then_branch": body(then, [], [info("t", F, shape)]), "else_branch": body(otherwise, [], [info("e", F, shape)])}


def test_if_on_data_and_on_what_the_file_knows():
    parts = branches([node("Mul", ["x", "w"], ["t"])], [node("Neg", ["x"], ["e"])])
    m = model([node("ReduceSum", ["x"], ["s"], keepdims=0), node("Greater", ["s", "zero"], ["c"]), node("If", ["c"], ["y"], **parts)],
              [info("x", F, [3])], [info("y", F, [3])], [("zero", np.zeros((), np.float32)), ("w", floats(3))])
    for sign in (1, -1):
        same(m, x=sign * np.abs(floats(3, seed=1)))
    assert gc.check_gradients(gc.from_onnx(m), x=gc.f32[3])
    m = model([node("Shape", ["x"], ["n"]), node("Equal", ["n", "three"], ["c"]), node("If", ["c"], ["y"], **parts)],
              [info("x", F, [3])], [info("y", F, [3])], [("three", np.array([3])), ("w", floats(3))])
    same(m, x=floats(3))
    assert "cond" not in str(gc.compile(gc.from_onnx(m), seed=0).dump("graph"))


def counting_loop(condition="going", rounds=None, extra=()):
    """s = s * 0.5 + x, with the running values stacked."""
    inner = body([node("Mul", ["s", "half"], ["a"]), node("Add", ["a", "x"], ["s1"]), node("Identity", ["s1"], ["row"]),
                  node("Identity", ["c"], ["c1"]), *extra],
                 [info("i", I, []), info("c", B, []), info("s", F, [3])],
                 [info("c1" if not extra else extra[-1].output[0], B, []), info("s1", F, [3]), info("row", F, [3])],
                 [("half", np.array(0.5, np.float32)), ("far", np.array(4.0, np.float32))])
    return model([node("Loop", ["m" if rounds else "", condition, "start"], ["last", "rows"], body=inner)],
                 [info("start", F, [3]), info("x", F, [3])], [info("last", F, [3]), info("rows", F, ["n", 3])],
                 [("m", np.array(rounds or 1)), ("going", np.array(True))])


def test_loop_of_known_rounds_is_a_scan():
    m = counting_loop(rounds=5)
    same(m, start=floats(3), x=floats(3, seed=1))
    assert "scan(" in gc.compile(gc.from_onnx(m)).dump("graph")
    assert gc.check_gradients(gc.from_onnx(m), start=gc.f32[3], x=gc.f32[3])


def test_loop_that_its_body_ends():
    """By the number of the round: known while importing."""
    ends = [node("Less", ["i", "three"], ["go"])]
    inner = body([node("Add", ["s", "x"], ["s1"]), *ends], [info("i", I, []), info("c", B, []), info("s", F, [3])],
                 [info("go", B, []), info("s1", F, [3])], [("three", np.array(3))])
    m = model([node("Loop", ["", "", "start"], ["last"], body=inner)], [info("start", F, [3]), info("x", F, [3])],
              [info("last", F, [3])])
    same(m, start=floats(3), x=floats(3, seed=1))


def test_loop_that_data_end():
    inner = body([node("Mul", ["s", "two"], ["s1"]), node("ReduceSum", ["s1"], ["t"], keepdims=0), node("Less", ["t", "far"], ["go"])],
                 [info("i", I, []), info("c", B, []), info("s", F, [3])], [info("go", B, []), info("s1", F, [3])],
                 [("two", np.array(2.0, np.float32)), ("far", np.array(100.0, np.float32))])
    for names in (["", ""], ["m", ""], ["", "yes"]):
        m = model([node("Loop", [*names, "start"], ["last"], body=inner)], [info("start", F, [3])], [info("last", F, [3])],
                  [("m", np.array(3)), ("yes", np.array(True))])
        for scale in (1.0, 30.0):
            same(m, start=np.abs(floats(3)) * np.float32(scale))


def test_loop_of_as_many_rounds_as_an_input_says():
    inner = body([node("Add", ["s", "x"], ["s1"]), node("Identity", ["c"], ["c1"])],
                 [info("i", I, []), info("c", B, []), info("s", F, [3])], [info("c1", B, []), info("s1", F, [3])])
    m = model([node("Loop", ["m", "", "start"], ["last"], body=inner)], [info("m", I, []), info("start", F, [3]), info("x", F, [3])],
              [info("last", F, [3])])
    for rounds in (0, 1, 7):
        same(m, m=np.array(rounds), start=floats(3), x=floats(3, seed=1))


def test_loop_over_a_named_size():
    inner = body([node("Gather", ["x", "i"], ["row"]), node("Add", ["s", "row"], ["s1"]), node("Identity", ["c"], ["c1"])],
                 [info("i", I, []), info("c", B, []), info("s", F, [3])], [info("c1", B, []), info("s1", F, [3])])
    m = model([node("Shape", ["x"], ["n"], start=0, end=1), node("Squeeze", ["n"], ["m"]),
               node("Loop", ["m", "", "start"], ["last"], body=inner)], [info("x", F, ["T", 3]), info("start", F, [3])],
              [info("last", F, [3])])
    for t in (4, 2):
        same(m, x=floats(t, 3), start=floats(3, seed=1))


def test_loop_that_grows_what_it_carries():
    """An array that gets longer, and a sequence: written out."""
    inner = body([node("Concat", ["s", "x"], ["s1"], axis=0), node("SequenceInsert", ["q", "s1"], ["q1"]), node("Identity", ["c"], ["c1"])],
                 [info("i", I, []), info("c", B, []), info("s", F, ["k"]), helper.make_tensor_sequence_value_info("q", F, None)],
                 [info("c1", B, []), info("s1", F, ["n"]), helper.make_tensor_sequence_value_info("q1", F, None)])
    m = model([node("SequenceEmpty", [], ["none"]), node("Loop", ["m", "", "x", "none"], ["last", "all"], body=inner),
               node("ConcatFromSequence", ["all"], ["y"], axis=0)], [info("x", F, [2])],
              [info("last", F, [8]), info("y", F, [18])], [("m", np.array(3))])
    same(m, x=floats(2))


def scan_body():
    return body([node("Add", ["s", "a"], ["s1"]), node("Mul", ["s1", "b"], ["y"]), node("Sub", ["a", "w"], ["z"])],
                [info("s", F, [3]), info("a", F, [3]), info("b", F, [3])], [info("s1", F, [3]), info("y", F, [3]), info("z", F, [3])])


@pytest.mark.parametrize("ways", ({}, {"scan_input_directions": [0, 1], "scan_output_directions": [1, 0]}))
def test_scan(ways):
    m = model([node("Scan", ["s", "a", "b"], ["last", "ys", "zs"], body=scan_body(), num_scan_inputs=2, **ways)],
              [info("s", F, [3]), info("a", F, ["T", 3]), info("b", F, ["T", 3]), info("w", F, [3])],
              [info("last", F, [3]), info("ys", F, ["T", 3]), info("zs", F, ["T", 3])])
    for t in (4, 2):
        same(m, s=floats(3), a=floats(t, 3, seed=1), b=floats(t, 3, seed=2), w=floats(3, seed=3))
    assert gc.check_gradients(gc.from_onnx(m), T=3)


def test_scan_along_other_axes():
    m = model([node("Scan", ["s", "a", "b"], ["last", "ys", "zs"], body=scan_body(), num_scan_inputs=2, scan_input_axes=[1, 0],
                    scan_output_axes=[1, -1])],
              [info("s", F, [3]), info("a", F, [3, 4]), info("b", F, [4, 3]), info("w", F, [3])],
              [info("last", F, [3]), info("ys", F, [3, 4]), info("zs", F, [3, 4])])
    same(m, s=floats(3), a=floats(3, 4, seed=1), b=floats(4, 3, seed=2), w=floats(3, seed=3))


def test_sequences():
    m = model([node("SplitToSequence", ["x"], ["parts"], axis=0), node("SequenceLength", ["parts"], ["n"]),
               node("SequenceAt", ["parts", "minus"], ["last"]), node("SequenceErase", ["parts", "zero"], ["fewer"]),
               node("SequenceInsert", ["fewer", "last", "zero"], ["turned"]),
               node("ConcatFromSequence", ["turned"], ["y"], axis=1, new_axis=0), node("Reshape", ["n", "one"], ["count"])],
              [info("x", F, [3, 2])], [info("y", F, [1, 6]), info("count", I, [1])],
              [("minus", np.array(-1)), ("zero", np.array(0)), ("one", np.array([1]))])
    same(m, x=floats(3, 2))


def test_optionals():
    m = model([node("Optional", ["x"], ["o"]), node("OptionalHasElement", ["o"], ["has"]), node("OptionalGetElement", ["o"], ["v"]),
               node("If", ["has"], ["y"], **branches([node("Neg", ["v"], ["t"])], [node("Identity", ["x"], ["e"])]))],
              [info("x", F, [3])], [info("y", F, [3])])
    same(m, x=floats(3))


def test_what_data_decide_is_said():
    grows = body([node("Concat", ["s", "s"], ["s1"], axis=0), node("ReduceSum", ["s1"], ["t"], keepdims=0), node("Less", ["t", "far"], ["go"])],
                 [info("i", I, []), info("c", B, []), info("s", F, ["k"])], [info("go", B, []), info("s1", F, ["n"])],
                 [("far", np.array(9.0, np.float32))])
    m = model([node("Loop", ["", "", "x"], ["y"], body=grows)], [info("x", F, [2])], [info("y", F, ["n"])])
    with pytest.raises(gc.GraphError, match="Loop: 1 node"):
        gc.compile(gc.from_onnx(m))
    uneven = {"then_branch": body([node("Concat", ["x", "x"], ["t"], axis=0)], [], [info("t", F, [6])]),
              "else_branch": body([node("Neg", ["x"], ["e"])], [], [info("e", F, [3])])}
    m = model([node("If", ["c"], ["y"], **uneven)], [info("c", B, []), info("x", F, [3])], [info("y", F, ["n"])])
    with pytest.raises(gc.GraphError, match="If: 1 node.*branches give different types"):
        gc.compile(gc.from_onnx(m))
