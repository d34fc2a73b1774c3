"""Quantised operators: integers equal to those of ONNX Runtime."""
from __future__ import annotations

import numpy as np
import pytest
from one_node import floats, in_graphc, model_of, onnx, same, whole

import graphc as gc

F, U8, I8, I32 = np.float32, np.uint8, np.int8, np.int32
SMALL = (U8, I8, np.uint16, np.int16)


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("zero", (False, True))
def test_quantize_and_dequantize(kind, zero):
    x = np.concatenate([floats(40, scale=400), np.array([0.5, 1.5, 2.5, -0.5, -1.5, 1e9, -1e9], F)])
    z = np.array(np.iinfo(kind).max // 3, kind) if zero or kind is not U8 else None
    same("QuantizeLinear", {"x": x, "s": np.array(0.5, F), "z": z})
    same("DequantizeLinear", {"x": whole(kind, 50), "s": np.array(0.3, F), "z": z}, tolerance=1e-6)


def test_axes_and_blocks():
    x, s = floats(3, 4, 6), np.abs(floats(4, seed=1)) + 0.1
    z = whole(I8, 4, seed=2)
    same("QuantizeLinear", {"x": x, "s": s, "z": z}, axis=1)
    same("DequantizeLinear", {"x": whole(I8, 3, 4, 6), "s": s, "z": z}, axis=-2, tolerance=1e-6)
    blocks = np.abs(floats(3, 2, 6, seed=3)) + 0.1
    same("QuantizeLinear", {"x": x, "s": blocks, "z": whole(I8, 3, 2, 6)}, axis=1, block_size=2)
    same("DequantizeLinear", {"x": whole(U8, 3, 4, 6), "s": blocks, "z": whole(U8, 3, 2, 6)}, axis=1, block_size=2, tolerance=1e-6)


def test_dequantize_i32_and_output_type():
    same("DequantizeLinear", {"x": whole(I32, 9), "s": np.array(0.3, F)}, tolerance=1e-6)
    y, = in_graphc(model_of("QuantizeLinear", {"x": floats(5), "s": np.array(0.1, F)}, output_dtype=3), {"x": floats(5), "s": np.array(0.1, F)})
    assert y.dtype == I8


@pytest.mark.parametrize("kind", ("INT4", "UINT4", "INT2", "UINT2", "FLOAT8E4M3FN", "FLOAT4E2M1"))
def test_narrow_zero_points_of_data(kind):
    """Of types that are held in wider ones, with a zero point that is an input."""
    element = getattr(onnx.TensorProto, kind)
    infos = [onnx.helper.make_tensor_value_info(n, t, s) for n, t, s in (("x", element, (5,)), ("s", onnx.TensorProto.FLOAT, ()), ("z", element, ()))]
    node = onnx.helper.make_node("DequantizeLinear", ["x", "s", "z"], ["y"])
    graph = onnx.helper.make_graph([node], "one", infos, [onnx.helper.make_empty_tensor_value_info("y")])
    run = gc.compile(gc.from_onnx(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 25)])))
    types = run.graph.inputs
    x, z = (np.array(v, types[i].type.dtype.np) for i, v in ((0, [0, 1, 1, 0, 1]), (2, 1)))
    np.testing.assert_array_equal(run(x, np.array(0.5, F), z), np.array([-0.5, 0, 0, -0.5, 0], F))


@pytest.mark.parametrize("x", (floats(30), np.abs(floats(30)) + 1, -np.abs(floats(30)) - 1, np.zeros(4, F)))
def test_dynamic_quantize(x):
    same("DynamicQuantizeLinear", {"x": x}, 3)


@pytest.mark.parametrize("a_kind", (U8, I8))
@pytest.mark.parametrize("b_kind", (U8, I8))
def test_matmul_integer(a_kind, b_kind):
    a, b = whole(a_kind, 2, 5, 40), whole(b_kind, 40, 6, seed=1)
    same("MatMulInteger", {"a": a, "b": b})
    same("MatMulInteger", {"a": a, "b": b, "za": np.array(7, a_kind), "zb": np.array(90, b_kind)})
    same("MatMulInteger", {"a": a, "b": b, "za": np.array(7, a_kind), "zb": whole(b_kind, 6, seed=3)})


@pytest.mark.parametrize("how", ({}, {"pads": [1, 1, 1, 1]}, {"strides": [2, 2], "dilations": [1, 2]}, {"group": 2}))
def test_conv_integer(how):
    channels = 4 // how.get("group", 1)
    given = {"x": whole(U8, 2, 4, 7, 6), "w": whole(U8, 6, channels, 3, 3, seed=1), "zx": np.array(12, U8), "zw": np.array(130, U8)}
    same("ConvInteger", given, **how)
    same("ConvInteger", {**given, "zx": None, "zw": None}, **how)
    for w, zw in ((given["w"], np.array(128, U8)), (whole(I8, 6, channels, 3, 3, seed=2), np.array(0, I8))):
        same("ConvInteger", {**given, "w": w, "zw": zw}, constants=("w", "zw"), **how)


@pytest.mark.parametrize("b_kind", (U8, I8))
def test_qlinear_matmul(b_kind):
    given = {"a": whole(U8, 5, 40), "sa": np.array(0.02, F), "za": np.array(120, U8), "b": whole(b_kind, 40, 6, seed=1),
             "sb": np.array(0.011, F), "zb": np.array(3, b_kind), "sy": np.array(0.7, F), "zy": np.array(100, U8)}
    same("QLinearMatMul", given, constants=("b", "sb", "zb"))
    by_column = {"sb": np.abs(floats(6)) / 50 + 0.001, "zb": np.zeros(6, b_kind)}
    same("QLinearMatMul", {**given, **by_column}, constants=("b", "sb", "zb"))


@pytest.mark.parametrize("kind", (U8, I8))
@pytest.mark.parametrize("how", ({"pads": [1, 1, 1, 1]}, {"strides": [2, 2]}, {"group": 2}))
def test_qlinear_conv(kind, how):
    channels = 4 // how.get("group", 1)
    given = {"x": whole(U8, 2, 4, 7, 6), "sx": np.array(0.02, F), "zx": np.array(120, U8),
             "w": whole(kind, 6, channels, 3, 3, seed=1), "sw": np.abs(floats(6)) / 50 + 0.001,
             "zw": np.zeros(6, kind) if kind is I8 else np.full(6, 128, kind),
             "sy": np.array(0.6, F), "zy": np.array(100, U8), "b": whole(np.int16, 6, seed=2).astype(I32) // 30}
    same("QLinearConv", given, constants=("sx", "zx", "w", "sw", "zw", "sy", "zy", "b"), **how)


@pytest.mark.parametrize("kind", ("INT4", "UINT4", "INT2", "UINT2", "FLOAT4E2M1", "FLOAT8E4M3FN", "INT8"))
def test_narrow_weights_in_a_file_of_their_own(kind, tmp_path):
    codes = np.array([[1, 0, 3, 2, 1], [0, 1, 1, 0, 1], [3, 1, 0, 0, 2]])
    kept = onnx.helper.make_tensor("w", getattr(onnx.TensorProto, kind), codes.shape, np.minimum(codes, 1) if kind == "INT2" else codes)
    scale = onnx.numpy_helper.from_array(F(0.5), "s")
    info = onnx.helper.make_tensor_value_info
    nodes = [onnx.helper.make_node("DequantizeLinear", ["w", "s"], ["d"]), onnx.helper.make_node("Add", ["d", "x"], ["y"])]
    graph = onnx.helper.make_graph(nodes, "one", [info("x", 1, codes.shape)], [info("y", 1, codes.shape)], [kept, scale])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 25)])
    x = floats(*codes.shape)
    expect = gc.compile(gc.from_onnx(made))(x)
    kept = made.graph.initializer[0]
    raw = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(kept)).raw_data
    (tmp_path / "w.bin").write_bytes(b"123" + raw)
    for field in ("int32_data", "raw_data"):
        kept.ClearField(field)
    kept.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "w.bin"), ("offset", "3"), ("length", str(len(raw)))):
        kept.external_data.add(key=key, value=value)
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    np.testing.assert_array_equal(gc.compile(gc.from_onnx(tmp_path / "m.onnx"))(x), expect)
