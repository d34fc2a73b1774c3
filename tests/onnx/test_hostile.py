"""Files of a few hundred bytes that would take all memory, or for ever, to read: refused, or left to run time, at once."""
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, SparseTensorProto
from small_onnx import info, model, node

import graphc as gc
from graphc.doors.onnx import importer

HUGE = 1 << 40
K = np.array([1, 2])


def summed(*nodes, kind="f32", **numbers):
    """What the last node makes, added up, and x."""
    last = nodes[-1].output[0]
    return model([*nodes, node("ReduceSum", last, "r", keepdims=0), node("Add", "x r", "y")], [("x", [2], kind)],
                 [("y", [2], kind)], numbers)


def doubled(first, times):
    return [node("Concat", f"{a} {a}", f"k{i}", axis=0) for i, a in enumerate([first, *(f"k{i}" for i in range(times))])]


def many_trips(trips):
    body = helper.make_graph(
        [node("Identity", "c_in", "c_out"), node("Concat", "v_in x0", "v_out", axis=0)], "b",
        [info("i", [], "i64"), info("c_in", [], "bool"), info("v_in", [None])],
        [info("c_out", [], "bool"), info("v_out", [None])])
    return model([node("Identity", "x", "x0"), node("Loop", "M c x", "y", body=body)], [("x", [2])], [("y", [None])],
                 {"M": np.array(trips), "c": np.array(True)})


def calls(depth):
    """Functions each of which calls the next one twice."""
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("l", 1)]
    functions = [helper.make_function("l", f"F{i}", ["a"], ["b"],
                                      [node(f"F{i + 1}", "a", "t", domain="l"), node(f"F{i + 1}", "t", "b", domain="l")],
                                      opsets) for i in range(depth)]
    functions.append(helper.make_function("l", f"F{depth}", ["a"], ["b"], [node("Relu", "a", "b")], opsets))
    return model([node("F0", "x", "y", domain="l")], [("x", [2])], [("y", [2])], functions=functions, domains=["l"])


def without_data(dims):
    made = model([node("MatMul", "x w", "y")], [("x", [2, 3])], [("y", [2, 3])])
    made.graph.initializer.append(TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims))
    return made


def sparse():
    made = model([node("MatMul", "x w", "y")], [("x", [2, 3])], [("y", [2, 3])])
    made.graph.sparse_initializer.append(SparseTensorProto(
        values=numpy_helper.from_array(np.float32([1]), "w"), indices=numpy_helper.from_array(np.array([3]), "i"),
        dims=[HUGE, HUGE]))
    return made


def window(**attributes):
    return model([node("Conv", "x w", "y", **attributes)], [("x", [1, 1, 4, 4])], [("y", [None] * 4)],
                 {"w": np.ones((1, 1, 3, 3), "f")})


MODELS = {
    "zeros": summed(node("ConstantOfShape", "s", "c"), s=np.array([10 ** 6] * 4)),
    "range": summed(node("Range", "a b c", "k"), kind="i64", a=np.array(0), b=np.array(1 << 60), c=np.array(1)),
    "range of floats": summed(node("Range", "a b c", "k"), a=np.float32(0), b=np.float32(1e12), c=np.float32(1)),
    "hann window": summed(node("HannWindow", "n", "w"), n=np.array(HUGE)),
    "mel weights": summed(node("MelWeightMatrix", "a b c d e", "w"), a=np.array(10 ** 6), b=np.array(10 ** 8),
                          c=np.array(16000), d=np.float32(0), e=np.float32(8000)),
    "doubled numbers": summed(*doubled("k", 60), kind="i64", k=K),
    "doubled arrays": model([*doubled("x", 60), node("ReduceSum", "k60", "y")], [("x", [2])], [("y", [1])]),
    "tile": model([node("Tile", "x s", "y")], [("x", [3])], [("y", [None])], {"s": np.array([1 << 61])}),
    "pad": model([node("Pad", "x p", "y")], [("x", [3])], [("y", [None])], {"p": np.array([1 << 56] * 2)}),
    "sequence": model([node("SplitToSequence", "x", "s"), node("SequenceAt", "s z", "y")], [("x", [10 ** 9])],
                      [("y", [None])], {"z": np.array(0)}),
    "input": model([node("Relu", "x", "y")], [("x", [1 << 62, 1 << 62])], [("y", [None, None])]),
    "weights without data": without_data([HUGE, HUGE]), "weights of a negative size": without_data([-1, 3]),
    "sparse weights": sparse(),
    "growing loop": many_trips(1 << 62), "long growing loop": many_trips(10 ** 6),
    "trees": model([node("TreeEnsembleRegressor", "x", "y", domain="ai.onnx.ml", n_targets=10 ** 9, nodes_modes=["LEAF"],
                         nodes_values=[0.0], target_weights=[1.0],
                         **{f"nodes_{n}": [0] for n in ("treeids", "nodeids", "featureids", "truenodeids", "falsenodeids")},
                         **{f"target_{n}": [0] for n in ("treeids", "nodeids", "ids")})],
                   [("x", [2, 3])], [("y", [2, None])], domains=["ai.onnx.ml"]),
    "dilation": window(dilations=[HUGE] * 2, pads=[HUGE] * 4), "stride": window(strides=[0, 0]),
    "resized image": model([helper.make_node("Resize", ["x", "", "", "s"], ["y"], mode="linear")], [("x", [1, 1, 4, 4])],
                           [("y", [None] * 4)], {"s": np.array([1, 1, 10 ** 9, 4])}),
    "unfolded image": model([node("Col2Im", "x a b", "y")], [("x", [1, 4, 4])], [("y", [None] * 4)],
                            {"a": np.array([10 ** 6] * 2), "b": np.array([2, 2])})}


@pytest.mark.parametrize("name", MODELS)
def test_it_is_refused(name):
    with pytest.raises(gc.GraphError):
        gc.plan(gc.from_onnx(MODELS[name]))


def test_more_neighbours_than_channels():
    """LRN across 10^9 of 3 channels is that across all three."""
    def across(size):
        return gc.from_onnx(model([node("LRN", "x", "y", size=size, alpha=float(size))], [("x", [1, 3, 2])],
                                  [("y", [1, 3, 2])]))
    x = np.arange(6, dtype=np.float32).reshape(1, 3, 2)
    np.testing.assert_allclose(gc.compile(across(10 ** 9))(x), x / (1 + np.sum(x * x, 1, keepdims=True)) ** 0.75, rtol=1e-5)


@pytest.mark.parametrize("trips", [1 << 40, 10 ** 9])
def test_a_loop_of_many_trips_stays_a_loop(trips):
    body = helper.make_graph(
        [node("Identity", "c_in", "c_out"), node("Add", "v_in one", "v_out")], "b",
        [info("i", [], "i64"), info("c_in", [], "bool"), info("v_in", [2])],
        [info("c_out", [], "bool"), info("v_out", [2])])
    made = model([node("Loop", "M c x", "y", body=body)], [("x", [2])], [("y", [2])],
                 {"M": np.array(trips), "c": np.array(True), "one": np.float32([1, 1])})
    assert gc.plan(gc.from_onnx(made)).memory.total < 4096


def test_functions_that_multiply(monkeypatch):
    monkeypatch.setattr(importer, "MOST_NODES", 500)
    with pytest.raises(gc.GraphError, match="more than 500 nodes"):
        gc.plan(gc.from_onnx(calls(40)))


def test_numbers_that_meet_are_not_computed_while_importing():
    """[n, 1] + [1, n] of the file."""
    n = 1 << 13
    made = summed(node("Add", "a b", "k"), kind="i64", a=np.arange(n)[:, None], b=np.arange(n)[None])
    net = gc.from_onnx(made)
    assert gc.plan(net).memory.total < 64 * n
    assert gc.compile(net)(np.array([0, 1])).tolist() == [n * n * (n - 1), n * n * (n - 1) + 1]
