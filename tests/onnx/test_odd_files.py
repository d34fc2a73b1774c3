"""Models that no checker would let pass, each odd in one way: refused with a GraphError, and nothing outside of the
model's folder is read."""
import os

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper
from small_onnx import info, model, node

import graphc as gc

NOTHING = [None] * 4
IMAGE = [("x", [1, 4, 4, 4])]


def base(**changes):
    made = model([node("MatMul", "x w", "y")], [("x", [2, 3])], [("y", [2, 4])], {"w": np.ones((3, 4), "f")})
    for name, value in changes.items():
        setattr(made.graph.initializer[0], name, value)
    return made


def changed(change, made=None):
    """The model, of which the change makes another."""
    made = made or base()
    change(made)
    return made


def one(op, inputs="x", shape=(2, 3), kind="f32", numbers=None, outputs="y", **attributes):
    return model([node(op, inputs, outputs, **attributes)], [("x", shape, kind)], [(o, None) for o in outputs.split()], numbers)


def branches(then, otherwise, condition=("c", [], "bool"), after=(), result="y"):
    bodies = {name: helper.make_graph(nodes, name, [], [info(n.output[0], None) for n in nodes[-1:]])
              for name, nodes in (("then_branch", then), ("else_branch", otherwise)) if nodes is not None}
    return model([helper.make_node("If", ["c"], ["y"], **bodies), *after], [("x", [2]), condition], [(result, None)])


def looped(*nodes, inputs=("i", "c_in", "v"), carried="w"):
    kinds = {"i": ([], "i64"), "c_in": ([], "bool"), "v": ([2], "f32")}
    body = helper.make_graph([node("Identity", "c_in", "c_out"), *nodes], "b", [info(n, *kinds[n]) for n in inputs],
                             [info("c_out", [], "bool"), *[info(carried, None)] * bool(carried)])
    return model([node("Loop", "M c x", "y", body=body)], [("x", [2])], [("y", [2])], {"M": np.array(3), "c": np.array(True)})


def functions(*bodies, version=20):
    opsets = [helper.make_opsetid("", version), helper.make_opsetid("l", 1)]
    made = [helper.make_function("l", "F", ["x"], [result], nodes, opsets) for result, nodes in bodies]
    return model([node("F", "x", "y", domain="l")], [("x", [2])], [("y", [2])], functions=made, domains=["l"])


def window(op="Conv", kernel=(4, 4, 1, 1), **attributes):
    return model([node(op, "x w" if op == "Conv" else "x", "y", **attributes)], IMAGE, [("y", NOTHING)], {"w": np.ones(kernel, "f")})


RELU, NEG = [node("Relu", "x", "t")], [node("Neg", "x", "t2")]
CALLS_ITSELF = [node("Greater", "x x", "g"), node("Squeeze", "g", "c"), helper.make_node(
    "If", ["c"], ["b"], **{name: helper.make_graph(nodes, name, [], [info("t", None)]) for name, nodes in (
        ("then_branch", [node("F", "x", "t", domain="l")]), ("else_branch", RELU))})]
MODELS = {
    "nothing": ModelProto(), "no bytes": b"", "another type": 3, "no file": "/nonexistent/x.onnx", "a folder": os.sep,
    "no nodes": helper.make_model(helper.make_graph([], "g", [], [])),
    "no outputs": changed(lambda m: m.graph.ClearField("output")),
    "two inputs of one name": changed(lambda m: m.graph.input.append(m.graph.input[0])),
    "two initializers of one name": changed(lambda m: m.graph.initializer.append(m.graph.initializer[0])),
    "an initializer that is made": changed(lambda m: m.graph.node.append(node("Relu", "x", "w"))),
    "an input that is made": model([node("Relu", "x", "x")], [("x", [2])], [("x", [2])]),
    "an input of a negative size": one("Relu", shape=[-3, 2]),
    "an input without a type": changed(lambda m: m.graph.input[0].ClearField("type")),
    "an input of type 99": changed(lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 99)),
    "no opset": changed(lambda m: m.ClearField("opset_import")),
    "opset 99": changed(lambda m: setattr(m.opset_import[0], "version", 99)),
    "opset -1": changed(lambda m: setattr(m.opset_import[0], "version", -1)),
    "opset 99 of a second domain": changed(lambda m: m.opset_import.append(helper.make_opsetid("ai.onnx.ml", 99))),
    "opset -1 of an own domain": changed(lambda m: m.opset_import.append(helper.make_opsetid("l", -1))),
    "opset 2^40 of an own domain": changed(lambda m: m.opset_import.append(helper.make_opsetid("l", 1 << 40))),
    "a function of opset 99": functions(("b", [node("Relu", "x", "b")]), version=99),
    "weights of type 99": base(data_type=99), "weights of no type": base(data_type=0),
    "weights that are strings": base(data_type=TensorProto.STRING),
    "weights of another size": changed(lambda m: m.graph.initializer[0].dims.append(2)),
    "weights of a wrapped size": changed(lambda m: m.graph.initializer[0].dims.extend([1 << 32, 1 << 32])),
    "a cycle through a branch": branches([node("Add", "y x", "t")], NEG),
    "a branch's value outside": branches(RELU, NEG, after=[node("Add", "y t", "z")], result="z"),
    "a branch without result": branches(RELU, []), "no branch": branches(RELU, None),
    "branches of two types": branches(RELU, [node("Cast", "x", "t2", to=7)]),
    "a condition of floats": branches(RELU, NEG, ("c", [3], "f32")),
    "a loop that passes less": looped(inputs=("i", "c_in"), carried=""),
    "a loop that changes types": looped(node("Cast", "v", "w", to=7)),
    "a function that calls itself": functions(("b", [node("F", "x", "b", domain="l")])),
    "a function that calls itself in a branch": functions(("b", CALLS_ITSELF)),
    "two functions of one name": functions(("b", [node("Relu", "x", "b")]), ("b", [node("Neg", "x", "b")])),
    "a function without its result": functions(("z", [node("Relu", "x", "b")])),
    "two types": one("Add", "x w", numbers={"w": np.array([1, 2, 3])}),
    "positions that are floats": one("Gather", "x w", numbers={"w": np.float32([1])}),
    "too many operands": one("Relu", "x x x"), "too many results": one("Relu", outputs="y z"), "no operator": one(""),
    "an axis that is text": one("Softmax", axis="one"), "half an axis": one("Softmax", axis=1.5),
    "an axis too far": one("Softmax", axis=7), "an axis twice": one("Transpose", perm=[0, 0]),
    "too few axes": one("Transpose", perm=[0]), "no equation": one("Einsum"), "another equation": one("Einsum", equation="ij->kk"),
    "two open sizes": one("Reshape", "x s", numbers={"s": np.array([-1, -1])}),
    "sizes below 0": one("Reshape", "x s", numbers={"s": np.array([-2, -3])}),
    "sizes that do not divide": one("Reshape", "x s", numbers={"s": np.array([4, -1])}),
    "steps of 0": one("Slice", "x a b c d", numbers={n: np.array([v]) for n, v in zip("abcd", (0, 5, 0, 0))}),
    "parts that are too small": one("Split", "x s", outputs="y z", numbers={"s": np.array([1, 0])}),
    "more than there are": one("TopK", "x k", outputs="y z", numbers={"k": np.array([9])}),
    "a kernel below 0": window("MaxPool", kernel_shape=[-2, 2]), "groups that do not divide": window(group=3),
    "no groups": window(group=0),
    "scales that do not fit": one("DequantizeLinear", "x s", kind="i8", numbers={"s": np.ones(5, "f")}),
    "zero points of another type": one("DequantizeLinear", "x s z", kind="i8", numbers={"s": np.float32(1), "z": np.uint8(3)}),
    "more zero points than scales": one("QuantizeLinear", "x s z", numbers={"s": np.float32(1), "z": np.uint8([1, 2, 3])}),
    "another width": one("BitCast", to=7),
    "weights without a name": model([helper.make_node("Constant", [], [], value=helper.make_tensor(
        "t", TensorProto.FLOAT, [2, 2], [1, 2, 3, 4]))], [("x", [2, 2])], [("y", [2, 2])]),
    "gates that do not fit": model([node("LSTM", "x w r", "y", hidden_size=4)], [("x", [3, 1, 2])], [("y", NOTHING)],
                                   {"w": np.ones((1, 16, 2), "f"), "r": np.ones((1, 12, 4), "f")})}


@pytest.mark.parametrize("name", MODELS)
def test_it_is_refused(name):
    with pytest.raises(gc.GraphError):
        gc.plan(gc.from_onnx(MODELS[name]))


def linked(target):
    return lambda path: path.symlink_to(target)


BESIDE = {
    "a link out of the folder": ("w", linked("/etc/passwd")), "a folder's link out": ("d/passwd", lambda p: p.parent.symlink_to("/etc")),
    "a link to itself": ("w", linked("w")), "a link to nothing": ("w", linked("nothing")), "a device": ("w", linked("/dev/zero")),
    "a pipe": ("w", os.mkfifo), "a folder": ("w", os.mkdir), "a short file": ("w", lambda p: p.write_bytes(b"8" * 8)),
    "an absolute path": ("/etc/passwd", None), "a path upwards": ("../../etc/passwd", None), "no name": ("", None),
    "a name with a zero byte": ("a\0b", None)}
WITHIN = ({"offset": "-8"}, {"offset": str(1 << 62)}, {"offset": "ten"}, {"length": "8"}, {"length": "ten"})


@pytest.mark.parametrize("name, make, entries", [(*v, {}) for v in BESIDE.values()] + [
    ("w", lambda p: p.write_bytes(bytes(96)), entries) for entries in WITHIN], ids=[*BESIDE, *map(str, WITHIN)])
def test_data_beside_the_file(name, make, entries, tmp_path):
    if make:
        make(tmp_path / name)
    made = base(data_location=TensorProto.EXTERNAL)
    made.graph.initializer[0].ClearField("raw_data")
    for key, value in {"location": name, **entries}.items():
        made.graph.initializer[0].external_data.add(key=key, value=value)
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(gc.GraphError, match="tensor 'w'"):
        gc.plan(gc.from_onnx(tmp_path / "m.onnx"))


def test_functions_that_differ_in_their_overload():
    made = functions(("b", [node("Relu", "x", "b")]), ("b", [node("Neg", "x", "b")]))
    made.functions[1].overload = made.graph.node[0].overload = "other"
    made.ir_version = 10
    assert gc.compile(gc.from_onnx(made))(np.float32([1, -2])).tolist() == [-1, 2]


@pytest.mark.parametrize("made", (base(), one("Relu"), one("DequantizeLinear", "x s", kind="i8", numbers={"s": np.float32(1)}), branches(RELU, NEG),
                                  looped(node("Relu", "v", "w")), window(), functions(("b", [node("Relu", "x", "b")]))))
def test_the_same_without_what_is_odd(made):
    assert gc.plan(gc.from_onnx(made))
