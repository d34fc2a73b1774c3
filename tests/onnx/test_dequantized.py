"""QuantizeLinear and DequantizeLinear around products: integers are multiplied, results are ONNX Runtime's."""
from __future__ import annotations

import numpy as np
import pytest
from one_node import floats, helper, in_runtime, onnx, whole

import graphc as gc
from graphc import nn, optim

F, U8, I8, I32 = np.float32, np.uint8, np.int8, np.int32


class Model:
    """Nodes with their initializers; values are called by the operators that make them."""

    def __init__(self, x: np.ndarray, opset: int = 21):
        self.x, self.opset, self.nodes, self.held = x, opset, [], []

    def held_array(self, array) -> str:
        self.held.append(onnx.numpy_helper.from_array(np.asarray(array), f"c{len(self.held)}"))
        return self.held[-1].name

    def node(self, op: str, *inputs: str, **attributes) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [f"v{len(self.nodes)}"], **attributes))
        return self.nodes[-1].output[0]

    def quantized(self, x: str, scale, zero, **how) -> str:
        """x and back again, the same numbers twice in the file, as tools write them."""
        ends = [self.held_array(scale), self.held_array(zero)]
        return self.node("DequantizeLinear", self.node("QuantizeLinear", x, *ends, **how), *ends, **how)

    def weights(self, codes, scale, zero, **how) -> str:
        return self.node("DequantizeLinear", *map(self.held_array, (codes, scale, zero)), **how)

    def proto(self, *outputs: str):
        graph = helper.make_graph(self.nodes, "qdq", [helper.make_tensor_value_info("x", 1, ["B", *self.x.shape[1:]])],
                                  [helper.make_empty_tensor_value_info(o) for o in outputs], self.held)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)


def weight_of(kind, shape, axis: int | None, seed: int = 1):
    """Codes, scale and zero point: signed ones around 0, unsigned ones around something; one scale, or one along the
    axis."""
    codes = np.clip(whole(kind, *shape, seed=seed), -127, 255).astype(kind)
    size = () if axis is None else (shape[axis],)
    scale = (np.abs(floats(*size, seed=seed)) / 40 + 0.004).astype(F)
    zero = np.zeros(size, I8) if kind is I8 else np.full(size, 118, U8)
    return codes, scale, zero


def bias_of(weight, x_scale, n: int) -> tuple:
    scale = (F(x_scale) * weight[1]).astype(F)
    return np.random.default_rng(5).integers(-4000, 4000, n).astype(I32), scale, np.zeros(np.shape(scale), I32)


def integers_alone(graph) -> None:
    """All products of the traced graph that anybody reads add up i32."""
    read = {v for n in graph.nodes for v in n.inputs} | {*graph.results}
    products = [n for n in graph.nodes if n.op.name in ("matmul", "conv2d") and n.outputs[0] in read]
    assert products and all(n.outputs[0].type.dtype is gc.i32 for n in products)


def check(model: Model, *outputs: str, products: bool = True) -> None:
    proto = model.proto(*outputs)
    run = gc.compile(gc.from_onnx(proto))
    actual = run(model.x)
    actual = list(actual.values()) if isinstance(actual, dict) else [actual]
    for a, e in zip(actual, in_runtime(proto, {"x": model.x}), strict=True):
        np.testing.assert_array_equal(a, e)
    if products:
        integers_alone(run.graph)


@pytest.mark.parametrize("data", (U8, I8))
@pytest.mark.parametrize("kind, axis", ((I8, None), (I8, 1), (U8, None)))
@pytest.mark.parametrize("relu", (False, True))
def test_products(data, kind, axis, relu):
    model = Model(floats(3, 40))
    zero = np.array(120 if data is U8 else -6, data)
    x = model.quantized("x", F(0.02), zero)
    y = model.node("MatMul", x, model.weights(*weight_of(kind, (40, 12), axis), axis=1))
    if relu:
        y = model.node("Relu", y)
    check(model, model.quantized(y, F(0.31), zero))


@pytest.mark.parametrize("axis", (None, 0))
@pytest.mark.parametrize("biased", (False, True))
def test_gemm_of_turned_weights(axis, biased):
    model = Model(floats(3, 40))
    x = model.quantized("x", F(0.02), U8(120))
    weight = weight_of(I8, (12, 40), axis)
    bias = [model.weights(*bias_of(weight, 0.02, 12), axis=0)] if biased else []
    y = model.node("Gemm", x, model.weights(*weight, axis=0), *bias, transB=1)
    check(model, model.quantized(y, F(0.31), U8(7)))


@pytest.mark.parametrize("kind, axis", ((I8, None), (I8, 0), (U8, None)))
@pytest.mark.parametrize("how", ({"pads": [1, 1, 1, 1]}, {"strides": [2, 2]}, {"group": 2, "pads": [0, 1, 2, 1]}, {"auto_pad": "SAME_UPPER"}))
def test_convolutions(kind, axis, how):
    model = Model(floats(2, 4, 7, 6))
    x = model.quantized("x", F(0.02), U8(120))
    weight = weight_of(kind, (6, 4 // how.get("group", 1), 3, 3), axis)
    y = model.node("Conv", x, model.weights(*weight, axis=0), model.weights(*bias_of(weight, 0.02, 6), axis=0), **how)
    check(model, model.quantized(model.node("Relu", y), F(0.4), U8(0)))


def test_shapes_between_and_what_is_quantised_twice():
    """Reshaped integers are integers; the same scale again changes nothing."""
    model = Model(floats(2, 4, 3, 3))
    x = model.quantized("x", F(0.02), U8(120))
    flat = model.quantized(model.node("Flatten", model.node("Transpose", x, perm=[0, 2, 3, 1])), F(0.02), U8(120))
    y = model.node("MatMul", flat, model.weights(*weight_of(I8, (36, 5), None)))
    check(model, model.quantized(y, F(0.3), U8(99)), flat)


def used(graph) -> dict[str, list]:
    """The types of what operators give that somebody reads, by the operators' names."""
    needed, found = set(graph.results), {}
    for node in reversed(graph.nodes):
        if needed & set(node.outputs):
            needed.update(node.inputs)
            found.setdefault(node.op.name, []).append(node.outputs[0].type.dtype)
    return found


def int64s(model: Model, *numbers: int) -> str:
    return model.held_array(np.array(numbers, np.int64))


# what moves or chooses elements -> the operator that does it to integers
MOVED = {"slice": lambda m, x: m.node("Slice", x, int64s(m, 1), int64s(m, 3), int64s(m, 2)),
         "take": lambda m, x: m.node("Gather", x, int64s(m, 2, 0, 2), axis=1),
         "tile": lambda m, x: m.node("Tile", x, int64s(m, 1, 2, 1, 1)),
         "pad": lambda m, x: m.node("Pad", x, int64s(m, 0, 0, 1, 0, 0, 0, 0, 2)),
         "concat": lambda m, x: m.node("Concat", x, x, axis=1),
         "max_pool2d": lambda m, x: m.node("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
         "maximum": lambda m, x: m.node("Relu", x),
         "resize": lambda m, x: m.node("Resize", x, "", m.held_array(np.array([1, 1, 1.5, 2], F)), mode="nearest")}


@pytest.mark.parametrize("name", MOVED)
def test_what_moves_elements_moves_integers(name):
    model = Model(floats(2, 4, 6, 5))
    scale, zero = F(0.02), U8(120)
    y = model.quantized(MOVED[name](model, model.quantized("x", scale, zero)), scale, zero)
    weight = weight_of(I8, (3, 8 if name in ("tile", "concat") else 3 if name == "take" else 4, 2, 2), 0)
    y = model.node("Conv", y, model.weights(*weight, axis=0))
    check(model, model.quantized(y, F(0.3), U8(9)))
    kinds = used(gc.compile(gc.from_onnx(model.proto(y))).graph)[name]
    assert gc.u8 in kinds and (gc.f32 not in kinds or name == "maximum")


def test_joined_arrays_of_several_scales():
    """Each part is brought to the scale of the result; what has it already is left alone."""
    model = Model(floats(2, 4, 6, 5))
    x = model.quantized("x", F(0.02), U8(120))
    y = model.quantized(model.node("Sigmoid", x), F(1 / 255), U8(0))
    z = model.quantized(model.node("Concat", x, y, axis=1), F(0.02), U8(120))
    check(model, model.quantized(model.node("Conv", z, model.weights(*weight_of(I8, (3, 8, 2, 2), 0), axis=0)), F(0.3),
                                 U8(9)))
    assert used(gc.compile(gc.from_onnx(model.proto(z))).graph)["concat"] == [gc.u8]


def test_scales_along_an_axis_that_is_transposed():
    model = Model(floats(3, 40))
    weights = model.node("Transpose", model.weights(*weight_of(I8, (12, 40), 0), axis=0), perm=[1, 0])
    y = model.node("MatMul", model.quantized("x", F(0.02), U8(120)), weights)
    check(model, model.quantized(y, F(0.31), U8(7)))


def test_what_has_no_integers_of_the_same_scale():
    """A negative scale turns the order around, and a padding that is no number of the file's."""
    for op, how in (("Relu", {}), ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]})):
        model = Model(floats(1, 2, 4, 4))
        x = model.node("DequantizeLinear", model.node("QuantizeLinear", "x", *(
            ends := [model.held_array(F(-0.02)), model.held_array(U8(120))])), *ends)
        proto = model.proto(model.node("QuantizeLinear", model.node(op, x, **how), *ends))
        codes = np.clip(np.rint(model.x / F(-0.02)) + 120, 0, 255)
        y = (codes - 120) * F(-0.02)
        y = np.maximum(y, 0) if op == "Relu" else y.reshape(1, 2, 2, 2, 2, 2).max((3, 5))
        expect = np.clip(np.rint(y / F(-0.02)) + 120, 0, 255)
        np.testing.assert_array_equal(gc.compile(gc.from_onnx(proto))(model.x), expect)
    model = Model(floats(2, 4))
    scale, zero = F(0.02), U8(120)
    x = model.node("Pad", model.quantized("x", scale, zero), int64s(model, 0, 1, 0, 1), model.held_array(F(0.5)))
    check(model, model.quantized(x, scale, zero), products=False)


def test_what_stays_in_floats():
    """Data times data, weights of scales along the summed axis, and a bias of another scale."""
    model = Model(floats(5, 5))
    x = model.quantized("x", F(0.02), U8(120))
    y = model.node("MatMul", x, model.node("Transpose", x, perm=[1, 0]))
    check(model, model.quantized(y, F(0.3), U8(99)), products=False)
    model = Model(floats(3, 40))
    dequantised = (np.clip(np.rint(model.x / F(0.02)) + 120, 0, 255) - 120) * 0.02
    x = model.quantized("x", F(0.02), U8(120))
    codes, scale, zero = weight_of(I8, (40, 12), 0)
    y = model.node("MatMul", x, model.weights(codes, scale, zero, axis=0))
    expect = dequantised @ (codes * np.float64(scale)[:, None])
    np.testing.assert_allclose(gc.compile(gc.from_onnx(model.proto(y)))(model.x), expect, atol=1e-5)
    codes, scale, zero = weight_of(I8, (40, 12), None)
    bias, own, none = bias_of((codes, scale, zero), 0.02, 12)
    y = model.node("Gemm", x, model.weights(codes, scale, zero), model.weights(bias, F(2 * own), none))
    expect = dequantised @ (codes * np.float64(scale)) + bias * (2.0 * own)
    np.testing.assert_allclose(gc.compile(gc.from_onnx(model.proto(y)))(model.x), expect, atol=1e-4)


@pytest.mark.parametrize("axis", (None, 1))
@pytest.mark.parametrize("op", ("MatMul", "Gemm"))
@pytest.mark.parametrize("zero", (3, 118, 250))
def test_weights_alone(axis, op, zero):
    """Bytes with a zero point times floats: no floats are made of them in a call."""
    model, turned = Model(floats(3, 160)), op == "Gemm"
    codes, scale, _ = weight_of(U8, (160, 120), axis)
    zeros = np.full(np.shape(scale), zero, U8)
    how = {"transB": 1} if turned else {}
    weights = model.weights(codes.T.copy() if turned else codes, scale, zeros, axis=0 if turned else 1)
    net = gc.from_onnx(model.proto(model.node(op, "x", weights, **how)))
    numbers = (codes.astype(F) - zero) * scale
    found, expect = gc.compile(net)(model.x), model.x.astype(np.float64) @ numbers
    terms = np.abs(model.x).astype(np.float64) @ ((codes.astype(F) + zero) * scale)
    assert np.all(np.abs(found - expect) <= 4e-7 * terms)
    assert gc.plan(net, B=3).memory.arena < codes.nbytes


def test_infinite_numbers_times_weights_around_the_middle():
    """What the zero point would add, infinity times 0, is left out."""
    model = Model(floats(3, 40))
    codes, scale, _ = weight_of(U8, (40, 12), None)
    model.x[1, 3] = np.inf
    net = gc.from_onnx(model.proto(model.node("MatMul", "x", model.weights(codes, scale, U8(128)))))
    found = gc.compile(net)(model.x)
    with np.errstate(invalid="ignore"):         # a code of the middle itself
        expect = np.inf * ((codes[3].astype(F) - 128) * scale)
    np.testing.assert_array_equal(found[1], expect)
    assert np.all(np.isfinite(found[[0, 2]]))


def test_trained_scales_count():
    """Scales along an axis are parameters: what training makes of them is used by integers too."""
    model = Model(floats(3, 40))
    weight = weight_of(I8, (40, 12), 1)
    y = model.node("MatMul", model.quantized("x", F(0.02), U8(120)), model.weights(*weight, axis=1))
    net = gc.from_onnx(model.proto(y))
    step = gc.train_step(net, loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[3, 40], y=gc.f32[3, 12], seed=0)
    before = gc.compile(step.model, x=gc.f32[3, 40])(model.x)
    name = next(n for n in step.state if step.state[n].shape == (12,))
    step(model.x, np.zeros((3, 12), F))
    change = step.state[name] / weight[1]
    assert np.any(change != 1)
    np.testing.assert_allclose(gc.compile(step.model, x=gc.f32[3, 40])(model.x), before * change, rtol=1e-5)
