"""gc.from_onnx: what it reads, what the network is, what it refuses."""
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import graphc as gc
from graphc import nn, optim

from small_onnx import info, model, node, save

RNG = np.random.default_rng(0)
W, B = RNG.standard_normal((3, 4)).astype("f"), RNG.standard_normal(4).astype("f")


def dense(size="N", **options):
    return model([node("Gemm", "x w b", "h"), node("Relu", "h", "y")], [("x", [size, 3])], [("y", [size, 4])],
                 {"w": W, "b": B}, **options)


def expected(x):
    return np.maximum(x @ W + B, 0)


def numbers(*shape):
    return RNG.standard_normal(shape).astype("f")


@pytest.mark.parametrize("form", ["path", "bytes", "message"])
def test_forms(form, tmp_path):
    made = dense()
    source = {"path": save(made, tmp_path / "m.onnx"), "bytes": made.SerializeToString(), "message": made}[form]
    x = numbers(5, 3)
    np.testing.assert_allclose(gc.compile(gc.from_onnx(source))(x), expected(x), rtol=1e-5)


def test_one_program_for_all_sizes():
    run = gc.compile(gc.from_onnx(dense()))
    for n in (1, 2, 7, 64):
        x = numbers(n, 3)
        np.testing.assert_allclose(run(x=x), expected(x), rtol=1e-5)


def test_sizes():
    net = gc.from_onnx(dense(), sizes={"N": 2})
    assert net.declared_inputs() == {"x": gc.f32[2, 3]}
    assert gc.from_onnx(dense(), sizes={"x": ("M", 3)}).declared_inputs() == {"x": gc.f32["M", 3]}
    with pytest.raises(gc.GraphError, match="sizes= names 'K'"):
        gc.from_onnx(dense(), sizes={"K": 2})


def test_numbers_of_an_input_that_decides_sizes():
    made = model([node("Reshape", "x s", "y")], [("x", [6]), ("s", [2], "i64")], [("y", [None, None])])
    with pytest.raises(gc.GraphError, match="give the numbers of s"):
        gc.compile(gc.from_onnx(made))
    run = gc.compile(gc.from_onnx(made, sizes={"s": np.array([2, -1])}))
    assert run(numbers(6)).shape == (2, 3)


def test_parameters_have_their_names_and_numbers():
    net = gc.from_onnx(dense())
    step = gc.train_step(net >> nn.Linear(2), loss=nn.cross_entropy, optimizer=optim.SGD(0.1), y=gc.i32["N"])
    np.testing.assert_array_equal(step.state["0.w"], W)
    x, y = numbers(8, 3), RNG.integers(0, 2, 8).astype("i4")
    losses = [float(step(x, y)) for _ in range(50)]
    assert losses[-1] < losses[0] and not np.array_equal(step.state["0.w"], W)


def constant(name, numbers):
    return node("Constant", "", name, value=numpy_helper.from_array(numbers))


def arm(*nodes):
    """A branch that gives the last node's output."""
    return helper.make_graph(nodes, "arm", [], [info(nodes[-1].output[0], ["N", 4])])


def test_constants_of_several_axes_are_weights_as_initializers_are():
    """Also those of bodies, with names of their own; those of one axis stay constants."""
    made = model([constant("w", W), constant("b", B), node("Gemm", "x w b", "h"),
                  node("If", "c", "y", then_branch=arm(constant("v", -W), node("MatMul", "x v", "t")),
                       else_branch=arm(node("Identity", "h", "e")))],
                 [("x", ["N", 3]), ("c", [], "bool")], [("y", ["N", 4])])
    run, x = gc.compile(gc.from_onnx(made)), numbers(5, 3)
    np.testing.assert_allclose(run(x, np.array(True)), -x @ W, rtol=1e-5)
    np.testing.assert_allclose(run(x, np.array(False)), x @ W + B, rtol=1e-5)
    step = gc.train_step(gc.from_onnx(made) >> nn.Linear(2), loss=nn.mse, optimizer=optim.SGD(0.1), y=gc.f32["N", 2])
    step(x, np.array(False), numbers(5, 2))
    assert {"0.w", "0.v"} <= set(step.state) and "0.b" not in step.state
    assert not np.array_equal(step.state["0.w"], W) and np.array_equal(step.state["0.v"], -W)


@pytest.mark.parametrize("freeze, moved", [(None, {"w", "b"}), (True, set()), ("w", {"b"}), (["b*"], {"w"})])
def test_freeze(freeze, moved):
    net = gc.from_onnx(dense(), freeze=freeze)
    step = gc.train_step(net >> nn.Linear(2), loss=nn.mse, optimizer=optim.SGD(0.1), y=gc.f32["N", 2])
    step(numbers(4, 3), numbers(4, 2))
    assert {n for n, a in (("w", W), ("b", B)) if not np.array_equal(step.state[f"0.{n}"], a)} == moved


def test_outputs_and_intermediate_values():
    made = model([node("Gemm", "x w b", "h"), node("Relu", "h", "y"), node("Neg", "h", "z")], [("x", [2, 3])],
                 [("y", [2, 4]), ("z", [2, 4])], {"w": W, "b": B})
    x = numbers(2, 3)
    found = gc.compile(gc.from_onnx(made), outputs=["h"])(x)
    assert list(found) == ["y", "z", "h"]
    np.testing.assert_allclose(found["z"], -found["h"])


def cut_model():
    """y from h; h from x; z from x and another input, by an operator that there is none of."""
    nodes = [node("Gemm", "x w b", "h"), node("Relu", "h", "y"), node("Nothing", "x u", "z")]
    return model(nodes, [("x", ["N", 3]), ("u", ["N", 3])], [("y", ["N", 4]), ("z", ["N", 4])], {"w": W, "b": B})


def test_a_network_ends_at_values_of_the_file():
    net = gc.from_onnx(cut_model(), outputs="h")
    assert net.takes() == {"x"}
    x = numbers(5, 3)
    np.testing.assert_allclose(gc.compile(net)(x), x @ W + B, rtol=1e-5)
    both = gc.compile(gc.from_onnx(cut_model(), outputs=["y", "h"]))(x)
    assert list(both) == ["y", "h"]
    np.testing.assert_array_equal(both["y"], np.maximum(both["h"], 0))
    step = gc.train_step(gc.from_onnx(cut_model(), outputs="h", freeze=True) >> nn.Linear(2), loss=nn.cross_entropy,
                         optimizer=optim.SGD(0.1), y=gc.i32["N"])
    step(x, np.int32([0, 1, 0, 1, 0]))
    np.testing.assert_array_equal(step.state["0.w"], W)


def test_a_network_that_ends_behind_a_branch_has_what_its_bodies_read():
    branches = {f"{name}_branch": helper.make_graph([node(op, "h", f"{name}y")], name, [], [
        helper.make_tensor_value_info(f"{name}y", 1, None)]) for name, op in (("then", "Neg"), ("else", "Relu"))}
    nodes = [node("Gemm", "x w b", "h"), node("ReduceSum", "h", "s", keepdims=0), node("Greater", "s zero", "c"),
             node("If", "c", "t", **branches), node("Exp", "t", "y")]
    made = model(nodes, [("x", [2, 3])], [("y", [2, 4])], {"w": W, "b": B, "zero": np.float32(0)})
    x = numbers(2, 3)
    h = x @ W + B
    np.testing.assert_allclose(gc.compile(gc.from_onnx(made, outputs="t"))(x), -h if h.sum() > 0 else expected(x),
                               rtol=1e-5)


@pytest.mark.parametrize("outputs, words", [("w", "does not compute; it has h"), ("hh", "it has h"),
                                            ([], "takes names"), (3, "takes names"), ([3], "takes names")])
def test_what_is_no_value_to_end_at(outputs, words):
    with pytest.raises(gc.GraphError, match=words):
        gc.from_onnx(cut_model(), outputs=outputs)


def test_nodes_keep_their_numbers():
    made = model([node("Neg", "x", "a"), node("Relu", "x", "r"), node("MatMul", "r w", "y")], [("x", [2, 5])],
                 [("a", [2, 5]), ("y", [2, 4])], {"w": W})
    with pytest.raises(gc.GraphError, match="at model:3\n"):
        gc.compile(gc.from_onnx(made, outputs="y"))


def test_plan_and_text_name_the_file(tmp_path):
    net = gc.from_onnx(save(dense(4), tmp_path / "m.onnx"))
    assert "16 parameters" in str(gc.plan(net))
    with pytest.raises(gc.GraphError, match="m.onnx:1"):
        gc.compile(gc.from_onnx(save(model([node("MatMul", "x w", "y")], [("x", [2, 5])], [("y", [2, 4])], {"w": W}),
                                     tmp_path / "m.onnx")))


def test_shape_arithmetic_with_names():
    """[B, T, 12] -> [B, T, 3, 4] -> [B, 3, T, 4] -> [B, 3, T * 4], by Shape, Gather, Concat, Mul."""
    nodes = [node("Shape", "x", "s"), node("Gather", "s i0", "b"), node("Gather", "s i1", "t"),
             node("Concat", "b t c34", "to4", axis=0), node("Reshape", "x to4", "x4"),
             node("Transpose", "x4", "xt", perm=[0, 2, 1, 3]), node("Mul", "t four", "t4"),
             node("Concat", "b three t4", "to3", axis=0), node("Reshape", "xt to3", "y")]
    made = model(nodes, [("x", ["B", "T", 12])], [("y", [None, 3, None])],
                 {"i0": np.array([0]), "i1": np.array([1]), "c34": np.array([3, 4]), "four": np.array([4]),
                  "three": np.array([3])})
    run = gc.compile(gc.from_onnx(made))
    for b, t in ((2, 5), (1, 1), (3, 8)):
        x = numbers(b, t, 12)
        np.testing.assert_array_equal(run(x), x.reshape(b, t, 3, 4).transpose(0, 2, 1, 3).reshape(b, 3, t * 4))


def test_positions_of_a_named_size():
    nodes = [node("Shape", "x", "s"), node("Gather", "s one", "t"), node("Range", "zero t step", "r"),
             node("Cast", "r", "rf", to=1), node("Add", "x rf", "y")]
    made = model(nodes, [("x", ["B", "T"])], [("y", ["B", "T"])],
                 {"one": np.array(1), "zero": np.array(0), "step": np.array(1)})
    run = gc.compile(gc.from_onnx(made))
    for shape in ((2, 3), (1, 9)):
        x = numbers(*shape)
        np.testing.assert_array_equal(run(x), x + np.arange(shape[1], dtype="f"))


@pytest.mark.parametrize("step", (2, 3, -1, -2))
def test_steps_of_a_named_size(step):
    ends = ("zero", "t") if step > 0 else ("last", "under")
    nodes = [node("Shape", "x", "s"), node("Gather", "s one", "t"), node("Sub", "t one", "last"),
             node("Range", f"{ends[0]} {ends[1]} step", "r"), node("Gather", "x r", "y", axis=1)]
    made = model(nodes, [("x", ["B", "T"])], [("y", ["B", "K"])],
                 {"one": np.array(1), "zero": np.array(0), "under": np.array(-1), "step": np.array(step)})
    run = gc.compile(gc.from_onnx(made))
    for shape in ((2, 3), (1, 10), (2, 7)):
        x = numbers(*shape)
        np.testing.assert_array_equal(run(x), x[:, ::step])


def test_functions_of_the_model():
    inner = helper.make_function("local", "Scaled", ["a"], ["c"],
                                 [node("Constant", "", "k", value_float=3.0), node("Mul", "a k", "c")],
                                 [helper.make_opsetid("", 20)])
    made = model([node("Scaled", "x", "y", domain="local")], [("x", [2])], [("y", [2])], functions=[inner],
                 domains=["local"])
    np.testing.assert_allclose(gc.compile(gc.from_onnx(made))(np.float32([1, 2])), [3, 6])


def test_batch_norm_and_dropout_are_for_training_in_a_training_step():
    one, zero = np.ones(3, "f"), np.zeros(3, "f")
    made = model([node("BatchNormalization", "x scale bias mean var", "h"), node("Dropout", "h rate", "y")],
                 [("x", [16, 3])], [("y", [16, 3])],
                 {"scale": one, "bias": zero, "mean": zero, "var": one, "rate": np.float32(0.5)})
    net, x = gc.from_onnx(made), numbers(16, 3) * 2 + 5
    np.testing.assert_allclose(gc.compile(net)(x), x / np.sqrt(1 + 1e-5), rtol=1e-5)
    trained = gc.compile(net, training=True, seed=1)(x)
    assert 0.2 < np.mean(trained == 0) < 0.8
    step = gc.train_step(net, loss=nn.mse, optimizer=optim.SGD(0.0), y=gc.f32[16, 3])
    step(x, x)
    np.testing.assert_allclose(step.state["mean"], 0.1 * x.mean(0), rtol=1e-4)
    np.testing.assert_allclose(step.state["var"], 0.9 + 0.1 * x.var(0), rtol=1e-4)


def test_external_data_is_read_from_the_folder_alone(tmp_path):
    (tmp_path / "model").mkdir()
    path = save(dense(), tmp_path / "model" / "m.onnx", save_as_external_data=True, location="weights.bin",
                size_threshold=0)
    x = numbers(2, 3)
    np.testing.assert_allclose(gc.compile(gc.from_onnx(path))(x), expected(x), rtol=1e-5)
    (tmp_path / "model" / "weights.bin").rename(tmp_path / "weights.bin")
    for location in ("../weights.bin", str(tmp_path / "weights.bin"), ".", ""):
        made = onnx.load(path, load_external_data=False)
        for tensor in made.graph.initializer:
            next(e for e in tensor.external_data if e.key == "location").value = location
        path.write_bytes(made.SerializeToString())
        with pytest.raises(gc.GraphError, match="outside of the model's folder"):
            gc.compile(gc.from_onnx(path))
    (tmp_path / "model" / "link.bin").symlink_to(tmp_path / "weights.bin")
    for tensor in made.graph.initializer:
        next(e for e in tensor.external_data if e.key == "location").value = "link.bin"
    path.write_bytes(made.SerializeToString())
    with pytest.raises(gc.GraphError, match="outside of the model's folder"):
        gc.compile(gc.from_onnx(path))


def test_all_that_is_not_supported_is_listed_at_once():
    made = model([node("StringNormalizer", "s", "t"), node("ImageDecoder", "x", "u"), node("ImageDecoder", "u", "y")],
                 [("x", [3]), ("s", [3])], [("y", [3])])
    with pytest.raises(gc.GraphError) as error:
        gc.from_onnx(made)
    assert "StringNormalizer: 1 node, the first t = StringNormalizer(s)" in str(error.value)
    assert "ImageDecoder: 2 nodes, the first u = ImageDecoder(x)" in str(error.value)


@pytest.mark.parametrize("nodes, text", [
    ([node("Add", "x z", "y"), node("Neg", "y", "z")], "a cycle"),
    ([node("Add", "x q", "y")], "made by nothing"),
    ([node("Neg", "x", "y"), node("Abs", "x", "y")], "a second time"),
    ([node("Neg", "x", "z")], "nothing makes the output 'y'"),
    ([node("Transpose", "x", "y", perm=[0, 5])], "out of range"),
    ([node("Elu", "x", "y", alpha="three")], "attribute alpha"),
    ([node("Gather", "x", "y")], "needs the operand indices"),
    ([node("Concat", "x x", "y")], "needs the attribute axis")])
def test_damaged_graphs(nodes, text):
    with pytest.raises(gc.GraphError, match=text):
        gc.compile(gc.from_onnx(model(nodes, [("x", [2, 3])], [("y", [2, 3])])))


@pytest.mark.parametrize("data", [b"", b"no model at all", dense().SerializeToString()[:40]])
def test_what_is_no_model(data):
    with pytest.raises(gc.GraphError, match="no ONNX model|does not say"):
        gc.from_onnx(data)


def test_missing_files_and_other_things(tmp_path):
    with pytest.raises(gc.GraphError, match="cannot be read"):
        gc.from_onnx(tmp_path / "nothing.onnx")
    with pytest.raises(gc.GraphError, match="takes a path"):
        gc.from_onnx(3)


def test_copies_and_wrong_inputs():
    net = gc.from_onnx(dense())
    with pytest.raises(gc.GraphError, match="takes x"):
        gc.compile(net, other=gc.f32[2, 3])
    with pytest.raises(gc.GraphError, match="is f32"):
        gc.compile(net, x=gc.f64[2, 3])


def test_float_positions_of_a_named_size():
    """As detectors make their grids: Range of floats up to a size."""
    nodes = [node("Shape", "x", "s"), node("Gather", "s one", "t"), node("Cast", "t", "tf", to=1),
             node("Range", "zero tf step", "r"), node("Add", "r half", "h"), node("Mul", "x h", "y")]
    made = model(nodes, [("x", ["B", "T"])], [("y", ["B", "T"])],
                 {"one": np.array(1), "zero": np.float32(0), "step": np.float32(1), "half": np.float32(0.5)})
    run = gc.compile(gc.from_onnx(made))
    for shape in ((2, 3), (1, 9)):
        x = numbers(*shape)
        np.testing.assert_array_equal(run(x), x * (np.arange(shape[1], dtype="f") + np.float32(0.5)))


@pytest.mark.parametrize("nodes, other, hint", [
    ([node("Add", "x z", "y")], ["N", 3], "sizes={'N': 'B'}"),
    ([node("MaxPool", "x4", "p", kernel_shape=[1, 2], strides=[1, 2]), node("ConvTranspose", "p k", "q", strides=[1, 2]),
      node("Concat", "x4 q", "y", axis=1)], None, "sizes={'W': '2*n'}"),
    ([node("Reshape", "x five", "y")], None, "sizes={'B': …}")])
def test_sizes_that_would_do_are_named(nodes, other, hint):
    inputs = [("x", ["B", 3]), *([("z", other)] if other else []), *([("x4", [1, 2, 3, "W"])] if "x4" in nodes[0].input else [])]
    made = model(nodes, inputs, [("y", None)], {"k": np.ones((2, 2, 1, 2), "f"), "five": np.array([5, 3])})
    with pytest.raises(gc.GraphError) as error:
        gc.plan(gc.from_onnx(made))
    assert hint in str(error.value)
    gc.plan(gc.from_onnx(made, sizes={"N": "B"} if other else {"W": "2*n"} if "W" in hint else {"B": 5}))


def test_a_size_in_one_quotient_is_that_of_two_convolutions():
    """As torch.export writes it: (H + 3) // 4 after two steps of 2, computed from the input's size."""
    nodes = [node("Conv", "x k", "h", strides=[2, 2], pads=[1, 1, 1, 1]), node("Conv", "h k", "c", strides=[2, 2], pads=[1, 1, 1, 1]),
             node("Shape", "x", "a", start=2), node("Add", "a three", "b"), node("Div", "b four", "d"), node("ReduceProd", "d", "p"),
             node("Concat", "ones p", "s", axis=0), node("Reshape", "c s", "y")]
    made = model(nodes, [("x", [1, 2, "H", "W"])], [("y", None)],
                 {"k": np.ones((2, 2, 3, 3), "f"), "three": np.array([3]), "four": np.array([4]), "ones": np.array([1, 2])})
    run = gc.compile(gc.from_onnx(made))
    for h, w in ((7, 12), (4, 5)):
        assert run(numbers(1, 2, h, w)).shape == (1, 2, (h + 3) // 4 * ((w + 3) // 4))
