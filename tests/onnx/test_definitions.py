"""Forms of operators that few files have, by onnx's own definitions in numpy."""
import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator
from small_onnx import helper, numpy_helper

import graphc as gc

F = np.float32


def floats(*shape, scale=1.0):
    return (np.random.default_rng(0).standard_normal(shape) * scale).astype(F)


def model_of(op, inputs, opset, constants=(), **attributes):
    """A model of one node; None: an operand that is left out."""
    infos = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in inputs.items()
             if a is not None and n not in constants]
    node = helper.make_node(op, ["" if a is None else n for n, a in inputs.items()], ["y"], **attributes)
    graph = helper.make_graph([node], "one", infos, [helper.make_empty_tensor_value_info("y")],
                              [numpy_helper.from_array(inputs[n], n) for n in constants])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def found(model, inputs):
    net = gc.from_onnx(model)
    return gc.compile(net, seed=0)(**{n: inputs[n] for n in net.declared_inputs()})


def same(op, inputs, opset, constants=(), **attributes):
    model = model_of(op, inputs, opset, constants, **attributes)
    expect, = ReferenceEvaluator(model).run(None, {n: a for n, a in inputs.items() if a is not None and n not in constants})
    np.testing.assert_allclose(found(model, inputs), expect, atol=1e-5)


@pytest.mark.parametrize("image, pads", (((7, 8), (0, 0, 0, 0)), ((7, 8), (1, 1, 0, 1)), ((5, 4), (1, 0, 1, 1))))
@pytest.mark.parametrize("p", (1, 2, 3))
def test_norms_of_windows_beyond_the_padding(image, pads, p):
    """What a last window has outside of the padding is 0, as the padding is."""
    x = floats(1, 2, *image)
    y = found(model_of("LpPool", {"x": x}, 22, kernel_shape=[3, 3], strides=[2, 3], pads=pads, p=p, ceil_mode=1), {"x": x})
    wide = np.pad(np.abs(x) ** p, [(0, 0), (0, 0), (pads[0], pads[2] + 2), (pads[1], pads[3] + 2)])
    windows = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), (2, 3))[:, :, ::2, ::3].sum((-2, -1)) ** (1 / p)
    assert all(windows.shape[a] >= y.shape[a] for a in (2, 3)) and y.shape[2] == -(-(image[0] + pads[0] + pads[2] - 3) // 2) + 1
    np.testing.assert_allclose(y, windows[:, :, :y.shape[2], :y.shape[3]], rtol=1e-5)


def test_moved_kernels():
    same("DeformConv", {"x": floats(1, 2, 5, 6), "w": floats(3, 2, 3, 3), "moves": floats(1, 18, 5, 6, scale=0.4)}, 19,
         pads=[1, 1, 1, 1], kernel_shape=[3, 3])


def test_kernels_moved_by_whole_elements_read_elements():
    """Nothing of their neighbours, where a sum is 0."""
    given = {"x": F([[[[0, 1, 2], [3, 4, 5], [6, 7, 8]]]]), "w": np.ones((1, 1, 2, 2), F), "moves": np.zeros((1, 8, 4, 4), F)}
    y = found(model_of("DeformConv", given, 19, pads=[1, 1, 1, 1], kernel_shape=[2, 2]), given)
    np.testing.assert_array_equal(y[0, 0], [[0, 1, 3, 2], [3, 8, 12, 7], [9, 20, 24, 13], [6, 13, 15, 8]])


@pytest.mark.parametrize("size", ((5, 1), (1, 6), (1, 1)))
def test_moved_kernels_on_narrow_images(size):
    """Places beside an image of one row or column are 0, too: as if it had zeros around it."""
    narrow = {"x": floats(1, 2, *size), "w": floats(3, 2, 3, 3), "moves": floats(1, 18, *size, scale=0.4)}
    wide = {**narrow, "x": np.pad(narrow["x"], [(0, 0), (0, 0), (1, 1), (1, 1)])}
    y, expect = (found(model_of("DeformConv", given, 19, pads=[pad] * 4, kernel_shape=[3, 3]), given)
                 for given, pad in ((narrow, 1), (wide, 0)))
    np.testing.assert_allclose(y, expect, atol=1e-5)


@pytest.mark.parametrize("roi, sizes", (
    ([0, 0, 0.2, 0.3, 1, 1, 0.8, 0.9], [3, 1, 4, 4]), ([0.5, 0, 0.2, 0.3, 1, 1, 0.8, 0.9], [3, 1, 4, 4]),
    ([0.5, 0, 0, 0, 1, 1, 1, 1], [3, 1, 6, 6]), ([0, 0, 0.2, 0, 1, 1, 0.7, 1], [3, 1, 6, 6])))
@pytest.mark.parametrize("mode", ("nearest", "linear"))
def test_parts_of_any_axis(mode, roi, sizes):
    """Also of axes that keep their size, and halves as of numbers of 32 bits."""
    same("Resize", {"x": floats(3, 1, 6, 6), "roi": np.array(roi, F), "": None, "sizes": np.array(sizes)}, 19, ("roi", "sizes"),
         mode=mode, coordinate_transformation_mode="tf_crop_and_resize")


@pytest.mark.parametrize("op, how", (("MaxPool", {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "storage_order": 0}), (
    "MaxPool", {"kernel_shape": [3, 2], "storage_order": 1}), ("ArgMax", {"axis": 3, "select_last_index": 1})))
def test_places_in_images_of_open_sizes(op, how):
    """As in images whose sizes are known."""
    shapes = ((1, 2, 5, 7), (2, 3, 4, 3))
    models = [model_of(op, {"x": floats(*shape)}, 13, **how) for shape in shapes]
    for model in models:
        if op == "MaxPool":
            model.graph.node[0].output[:] = ["y", "at"]
            model.graph.output.append(helper.make_empty_tensor_value_info("at"))
    run = gc.compile(gc.from_onnx(models[0], sizes={"x": ("N", "C", "H", "W")}))
    for model, shape in zip(models, shapes):
        x = np.round(floats(*shape))
        here, there = run(x), gc.compile(gc.from_onnx(model))(x)
        for a, b in zip(*(list(y.values()) if isinstance(y, dict) else [y] for y in (here, there)), strict=True):
            assert np.array_equal(a, b)


def test_boxes_before_opset_16_begin_at_corners():
    boxes = {"x": floats(2, 3, 8, 7), "rois": np.array([[0.3, 0.3, 5, 6], [2, 1, 4.6, 3]], F), "at": np.array([0, 1])}
    how = {"output_height": 2, "output_width": 3, "sampling_ratio": 2}
    y = found(model_of("RoiAlign", boxes, 10, **how), boxes)
    at_corners, at_middles = (found(model_of("RoiAlign", boxes, 16, coordinate_transformation_mode=mode, **how), boxes)
                              for mode in ("output_half_pixel", "half_pixel"))
    assert np.array_equal(y, at_corners) and not np.allclose(y, at_middles)


@pytest.mark.parametrize("opset", (9, 11))
def test_negative_positions_of_one_hot(opset):
    """From opset 11 on they count from the end; before they are nowhere."""
    given = {"at": np.array([-1, 0, 2, 5, -4]), "depth": np.array(3), "values": np.array([2, 7], F)}
    y = found(model_of("OneHot", given, opset, ("depth",)), given)
    assert y.tolist() == [[2, 2, 7 if opset == 11 else 2], [7, 2, 2], [2, 2, 7], [2, 2, 2], [2, 2, 2]]


def test_parts_of_an_open_size():
    """The last one is smaller, also where the size is known in the call alone."""
    node = helper.make_node("Split", ["x"], ["a", "b", "c"], num_outputs=3)
    graph = helper.make_graph([node], "split", [helper.make_tensor_value_info("x", 1, ["N", 2])],
                              [helper.make_empty_tensor_value_info(n) for n in "abc"])
    run = gc.compile(gc.from_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])))
    for size in (7, 9, 11):
        x = floats(size, 2)
        parts = run(x)
        each = -(-size // 3)
        assert [len(parts[n]) for n in "abc"] == [each, each, size - 2 * each]
        assert np.array_equal(np.concatenate([parts[n] for n in "abc"]), x)


@pytest.mark.parametrize("auto_pad, expect", (("SAME_UPPER", [1, 1, 0, 2, 2, 0]), ("SAME_LOWER", [0, 1, 1, 0, 2, 2])))
def test_a_result_longer_than_its_windows(auto_pad, expect):
    given = {"x": F([[[1, 2]]]), "w": F([[[1, 1]]])}
    y = found(model_of("ConvTranspose", given, 23, strides=[3], output_shape=[6], auto_pad=auto_pad), given)
    assert y.ravel().tolist() == expect


@pytest.mark.parametrize("op, inputs, attributes, message", (
    ("LpNormalization", {"x": floats(2, 3)}, {"p": 3}, "p is 1 or 2"),
    ("Conv", {"x": floats(1, 1, 4, 4), "w": floats(1, 1, 3, 3)}, {"kernel_shape": [2, 2]}, "kernel_shape"),
    ("ConvTranspose", {"x": floats(1, 1, 4, 4), "w": floats(1, 1, 3, 3)}, {"kernel_shape": [2, 2]}, "kernel_shape"),
    ("QuantizeLinear", {"x": floats(3), "scale": F(1), "zero": np.int8(0)}, {"output_dtype": 2}, "output_dtype"),
    ("TopK", {"x": floats(2, 3), "k": np.array([4])}, {"largest": 0}, "4 smallest of 3"),
    ("Resize", {"x": floats(1, 1, 4, 4), "": None, " ": None, "k": np.array([1, 1, 2, 2])},
     {"coordinate_transformation_mode": "tf_crop_and_resize"}, "0 ends for 4 axes")))
def test_what_contradicts_itself(op, inputs, attributes, message):
    with pytest.raises(gc.GraphError, match=message):
        found(model_of(op, inputs, 23, tuple({"k"} & inputs.keys()), **attributes), inputs)


def test_an_attribute_that_is_there_twice():
    given = {"x": floats(2, 3)}
    model = model_of("Softmax", given, 13, axis=0)
    model.graph.node[0].attribute.append(helper.make_attribute("axis", 1))
    with pytest.raises(gc.GraphError, match="axis twice"):
        found(model, given)


def test_statistics_of_each_element():
    given = {name: floats(2, 3, 2, 2) if name == "x" else np.abs(floats(3, 2, 2)) for name in ("x", "s", "b", "m", "v")}
    with pytest.raises(gc.GraphError, match="spatial is 0"):
        found(model_of("BatchNormalization", given, 7, spatial=0), given)


def asking(nodes, shape=("N", 2), **held):
    """A model that asks for sizes of x."""
    nodes = [helper.make_node(op, i.split(), o.split(), **how) for op, i, o, how in nodes]
    graph = helper.make_graph(nodes, "asking", [helper.make_tensor_value_info("x", 1, shape)], [helper.make_empty_tensor_value_info("y")],
                              [numpy_helper.from_array(np.asarray(a), n) for n, a in held.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def branch(op):
    return helper.make_graph([helper.make_node(op, ["x"], [f"of_{op}"])], op, [], [helper.make_empty_tensor_value_info(f"of_{op}")])


ONE = [("Shape", "x", "n", {"start": 0, "end": 1}), ("Equal", "n one", "same", {})]
CHOICES = {
    "If": asking([*ONE, ("If", "same", "y", {"then_branch": branch("Neg"), "else_branch": branch("Exp")})], one=[1]),
    "Where": asking([*ONE, ("Where", "same one n", "w", {}), ("Concat", "w one", "s", {"axis": 0}), ("Expand", "x s", "y", {})], one=[1]),
    "Squeeze": asking([("Squeeze", "x", "y", {})])}


@pytest.mark.parametrize("name", CHOICES)
def test_sizes_that_a_file_compares(name):
    """What it compares a named size with, or takes away where it is 1, the size is taken not to be: such a call is refused."""
    net = gc.from_onnx(CHOICES[name])
    run = gc.compile(net)
    for size in (3, 2):
        expect, = ReferenceEvaluator(CHOICES[name]).run(None, {"x": floats(size, 2)})
        np.testing.assert_allclose(run(floats(size, 2)), expect, rtol=1e-5)
    with pytest.raises(gc.GraphError, match="taken to be different"):
        run(floats(1, 2))
    one, = ReferenceEvaluator(CHOICES[name]).run(None, {"x": floats(1, 2)})
    np.testing.assert_allclose(gc.compile(gc.from_onnx(CHOICES[name], sizes={"N": 1}))(floats(1, 2)), one, rtol=1e-5)


def test_sizes_that_nothing_can_be():
    """Exporters ask whether a size is -1, and whether it is itself."""
    net = gc.from_onnx(asking([("Shape", "x", "n", {}), ("Equal", "n minus", "less", {}), ("Equal", "n n", "same", {}), ("Not", "less", "more", {}),
                               ("Where", "less minus n", "a", {}), ("Where", "same a minus", "s", {}), ("Expand", "x s", "y", {})], minus=[-1, -1]))
    assert gc.compile(net)(floats(1, 2)).shape == (1, 2)
