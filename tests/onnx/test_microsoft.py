"""Operators of com.microsoft against ONNX Runtime."""
from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from one_node import floats, helper, in_graphc, in_runtime, model_of, same, whole

same = partial(same, domain="com.microsoft")
F = np.float32
U8, I8 = np.uint8, np.int8


@pytest.mark.parametrize("a, b, how", (
    ((2, 3, 4), (2, 4, 5), {"alpha": 0.5}), ((2, 4, 3), (2, 4, 5), {"transA": 1}), ((2, 3, 4), (5, 4), {"transB": 1}),
    ((3, 4), (4, 5), {}), ((3, 2, 4), (2, 4, 5), {"transBatchA": 1})))
def test_fused_matmul(a, b, how):
    same("FusedMatMul", {"a": floats(*a), "b": floats(*b, seed=1)}, **how)


@pytest.mark.parametrize("activation, numbers", (
    ("Relu", ()), ("Sigmoid", ()), ("Tanh", ()), ("LeakyRelu", (0.1,)), ("Clip", (-0.5, 0.5)), ("HardSigmoid", (0.2, 0.5))))
def test_fused_conv(activation, numbers):
    given = {"x": floats(1, 3, 6, 5), "w": floats(4, 3, 3, 3, seed=1), "b": floats(4, seed=2)}
    how = {"activation_params": numbers} if numbers else {}
    same("FusedConv", given, constants=("w", "b"), activation=activation, pads=[1, 1, 1, 1], **how)


def test_fused_conv_with_a_sum():
    same("FusedConv", {"x": floats(1, 3, 6, 5), "w": floats(4, 3, 3, 3, seed=1), "b": floats(4, seed=2),
                       "z": floats(1, 4, 4, 3, seed=3)}, constants=("w", "b"), activation="Relu")


def test_fused_gemm():
    same("FusedGemm", {"a": floats(3, 4), "b": floats(5, 4, seed=1), "c": floats(5, seed=2)}, transB=1, alpha=0.5,
         activation="LeakyRelu", activation_alpha=0.2)


@pytest.mark.parametrize("op, count", (("Gelu", 1), ("FastGelu", 2), ("QuickGelu", 1), ("BiasGelu", 2), ("FastGelu", 1)))
def test_gelu(op, count):
    same(op, dict(list({"x": floats(2, 3, 8, scale=2), "b": floats(8, seed=1)}.items())[:count]))


@pytest.mark.parametrize("outputs", (1, 4))
def test_skip_layer_norms(outputs):
    given = {"x": floats(2, 3, 8), "s": floats(2, 3, 8, seed=1), "g": floats(8, seed=2)}
    names = ["y", "", "", "sum"][:outputs]
    same("SkipLayerNormalization", {**given, "b": floats(8, seed=3), "bias": floats(8, seed=4)}, names, epsilon=1e-5)
    same("SkipSimplifiedLayerNormalization", {**given, "bias": floats(8, seed=4)}, names, epsilon=1e-5)


def test_simplified_layer_norm():
    same("SimplifiedLayerNormalization", {"x": floats(2, 3, 8), "g": floats(8, seed=1)}, domain="", epsilon=1e-5)


def test_embed_layer_norm():
    ids = np.array([[1, 2, 3], [4, 5, 0]], np.int32)
    given = {"ids": ids, "kinds": (ids % 2).astype(np.int32), "words": floats(6, 8), "places": floats(4, 8, seed=1),
             "segments": floats(2, 8, seed=2), "g": floats(8, seed=3), "b": floats(8, seed=4),
             "mask": np.array([[1, 1, 1], [1, 1, 0]], np.int32)}
    same("EmbedLayerNormalization", given, 2, constants=("words", "places", "segments", "g", "b"), mask_index_type=1)


@pytest.mark.parametrize("kind", (U8, I8))
def test_quantised_products(kind):
    a, b = whole(U8, 5, 16), whole(kind, 16, 6, seed=1)
    scales = {"sa": np.array(0.02, F), "sb": np.array(0.03, F)}
    zeros = {"za": np.array(120, U8), "zb": np.array(3, kind)}
    same("MatMulIntegerToFloat", {"a": a, "b": b, **scales, **zeros, "bias": floats(6)}, constants=("b", "sb", "zb"))
    by_column = {"sb": np.abs(floats(6, seed=2)) + 0.01, "zb": whole(kind, 6, seed=3) // 4}
    same("MatMulIntegerToFloat", {"a": a, "b": b, **scales, **zeros, **by_column}, constants=("b", "sb", "zb"))
    same("DynamicQuantizeMatMul", {"a": floats(5, 16), "b": b, "sb": scales["sb"], "zb": zeros["zb"], "bias": floats(6)},
         constants=("b", "sb", "zb"))


@pytest.mark.parametrize("direction, directions", (("forward", 1), ("bidirectional", 2)))
def test_dynamic_quantize_lstm(direction, directions):
    t, n, inputs, hidden = 4, 2, 5, 6
    given = {"x": floats(t, n, inputs), "w": whole(I8, directions, inputs, 4 * hidden), "r": whole(I8, directions, hidden, 4 * hidden, seed=1),
             "b": floats(directions, 8 * hidden, seed=2), "lens": None, "h": floats(directions, n, hidden, seed=3),
             "c": floats(directions, n, hidden, seed=4), "p": None,
             "sw": np.full((directions,), 0.01, F), "zw": np.zeros(directions, I8), "sr": np.full((directions,), 0.012, F),
             "zr": np.zeros(directions, I8)}
    same("DynamicQuantizeLSTM", given, 3, constants=("w", "r", "b", "sw", "zw", "sr", "zr"), direction=direction,
         hidden_size=hidden, tolerance=2e-3)


@pytest.mark.parametrize("bits, zeros", ((4, False), (4, True), (8, False), (8, True)))
def test_matmul_nbits(bits, zeros):
    n, k, block = 6, 64, 32
    blocks = k // block
    given = {"a": floats(3, k), "b": whole(U8, n, blocks, block * bits // 8), "s": np.abs(floats(n * blocks, seed=1)) / 10,
             "z": whole(U8, n * -(-blocks * bits // 8), seed=2) if zeros else None}
    same("MatMulNBits", given, constants=("b", "s", "z"), K=k, N=n, bits=bits, block_size=block, tolerance=1e-4)


def scale_and_zero(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.array(rng.uniform(0.01, 0.05), F), np.array(rng.integers(100, 150), U8)


@pytest.mark.parametrize("op", ("QLinearAdd", "QLinearMul"))
def test_quantised_arithmetic(op):
    parts = [v for i in range(2) for v in (whole(U8, 4, 5, seed=i), *scale_and_zero(i))] + [*scale_and_zero(5)]
    same(op, dict(zip("abcdefgh", parts)), off=1)       # a half between two integers goes either way


@pytest.mark.parametrize("op, how", (
    ("QLinearSigmoid", {}), ("QLinearLeakyRelu", {"alpha": 0.1}), ("QLinearSoftmax", {"axis": -1, "opset": 13}),
    ("QLinearAveragePool", {"kernel_shape": [2, 2], "strides": [2, 2]}), ("QLinearGlobalAveragePool", {"channels_last": 0}),
    ("QLinearReduceMean", {"axes": [2, 3], "keepdims": 1})))
def test_quantised_functions(op, how):
    s, z = scale_and_zero(1)
    to = (np.array(1 / 256, F), np.array(0, U8)) if op in ("QLinearSigmoid", "QLinearSoftmax") else scale_and_zero(2)
    given = dict(zip("abcde", (whole(U8, 2, 3, 4, 4), s, z, *to)))
    attributes = dict(how)
    opset = attributes.pop("opset", None)
    if opset:
        model = model_of(op, given, domain="com.microsoft", constants="bcde", **attributes)
        model.graph.node[0].attribute.append(helper.make_attribute("opset", opset))
        assert np.abs(in_graphc(model, given)[0].astype(int) - in_runtime(model, given)[0]).max() <= 1
        return
    if op == "QLinearReduceMean":
        pytest.skip("the runtime has no kernel for it")
    same(op, given, constants="bcde", off=1, **attributes)


def test_qlinear_concat_and_where():
    parts = {"ys": np.array(0.03, F), "yz": np.array(128, U8), "a": whole(U8, 2, 3), "sa": np.array(0.02, F), "za": np.array(120, U8),
             "b": whole(U8, 2, 4, seed=1), "sb": np.array(0.04, F), "zb": np.array(130, U8)}
    same("QLinearConcat", parts, constants=("ys", "yz", "sa", "za", "sb", "zb"), axis=1, off=1)
    same("QLinearConcat", {**parts, "ys": parts["sa"], "yz": parts["za"]}, constants=("ys", "yz", "sa", "za", "sb", "zb"),
         axis=1, off=1)
    chosen = {"c": np.array([[True, False, True], [False, True, False]]), "x": whole(U8, 2, 3), "sx": np.array(0.02, F),
              "zx": np.array(120, U8), "y": whole(U8, 2, 3, seed=1), "sy": np.array(0.04, F), "zy": np.array(130, U8),
              "sz": np.array(0.03, F), "zz": np.array(128, U8)}
    same("QLinearWhere", chosen, constants=("sx", "zx", "sy", "zy", "sz", "zz"), off=1)


@pytest.mark.parametrize("quantised", (False, True))
def test_qgemm(quantised):
    given = {"a": whole(U8, 4, 8), "sa": np.array(0.02, F), "za": np.array(120, U8), "b": whole(I8, 6, 8, seed=1),
             "sb": np.array(0.03, F), "zb": np.array(2, I8), "c": whole(np.int16, 6, seed=2).astype(np.int32) // 40,
             "sy": np.array(0.5, F) if quantised else None, "zy": np.array(100, U8) if quantised else None}
    same("QGemm", given, constants=("sa", "za", "b", "sb", "zb", "c", "sy", "zy"), transB=1)


# ---- attention

def lengths(*counts: int) -> np.ndarray:
    return np.array(counts, np.int32)


@pytest.mark.parametrize("mask", (None, lengths(3, 5), np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)))
@pytest.mark.parametrize("causal", (0, 1))
def test_attention(mask, causal):
    given = {"x": floats(2, 5, 8), "w": floats(8, 24, seed=1), "b": floats(24, seed=2), "m": mask}
    same("Attention", given, constants=("w", "b"), num_heads=2, unidirectional=causal, tolerance=1e-4)


def test_attention_with_a_past():
    given = {"x": floats(2, 3, 8), "w": floats(8, 24, seed=1), "b": floats(24, seed=2), "m": None,
             "past": floats(2, 2, 2, 4, 4, seed=3)}
    same("Attention", given, 2, constants=("w", "b"), num_heads=2, unidirectional=1, tolerance=1e-4)


@pytest.mark.parametrize("how", ("plain", "bias", "mask", "past", "score bias", "laid out"))
def test_multi_head_attention(how):
    given = {"q": floats(2, 3, 8), "k": floats(2, 5, 8, seed=1), "v": floats(2, 5, 8, seed=2),
             "b": floats(24, seed=3) if how == "bias" else None,
             "m": np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32) if how == "mask" else None,
             "sb": floats(2, 2, 3, 5, seed=4) if how == "score bias" else None}
    if how == "laid out":
        given |= {"k": floats(2, 2, 5, 4, seed=1), "v": floats(2, 2, 5, 4, seed=2)}
    if how == "past":
        given |= {"pk": floats(2, 2, 4, 4, seed=5), "pv": floats(2, 2, 4, 4, seed=6)}
    same("MultiHeadAttention", given, 3 if how == "past" else 1, num_heads=2, tolerance=1e-4)


@pytest.mark.parametrize("interleaved", (0, 1))
@pytest.mark.parametrize("positions", (np.array([0], np.int64), np.array([[3, 4, 5], [0, 1, 2]], np.int64)))
def test_rotary_embedding(interleaved, positions):
    given = {"x": floats(2, 3, 16), "p": positions, "c": floats(8, 4, seed=1), "s": floats(8, 4, seed=2)}
    same("RotaryEmbedding", given, constants=("c", "s"), interleaved=interleaved)


@pytest.mark.parametrize("past", (0, 4))
@pytest.mark.parametrize("rotary, window", ((0, -1), (1, -1), (0, 3)))
def test_group_query_attention(past, rotary, window):
    t = 1 if past else 3
    given = {"q": floats(2, t, 64), "k": floats(2, t, 32, seed=1), "v": floats(2, t, 32, seed=2),
             "pk": floats(2, 2, past, 16, seed=3), "pv": floats(2, 2, past, 16, seed=4),
             "lens": np.array([past + t - 1] * 2, np.int32), "total": np.array(past + t, np.int32)}
    if rotary:
        given |= {"c": floats(16, 8, seed=5), "s": floats(16, 8, seed=6)}
    same("GroupQueryAttention", given, 3, num_heads=4, kv_num_heads=2, do_rotary=rotary, local_window_size=window,
         tolerance=1e-4)


def grouped(lens, past, room, constants=()):
    """What a new token of each sequence gives, and the keys; `room`: of the arrays of past keys and values."""
    b = len(lens)
    given = {"q": floats(b, 1, 16), "k": floats(b, 1, 8, seed=1), "v": floats(b, 1, 8, seed=2), "pk": past[:, :, :room], "pv": past[:, :, 1:room + 1],
             "lens": np.array(lens, np.int32), "total": np.array(max(lens) + 1, np.int32)}
    model = model_of("GroupQueryAttention", given, 3, domain="com.microsoft", constants=constants, num_heads=4, kv_num_heads=2)
    return in_graphc(model, given)


def test_sequences_of_several_lengths_and_room_for_more():
    """New keys stand behind those that a sequence has, not behind the array of the past."""
    past = floats(1, 2, 9, 4, seed=3)
    y, keys, _ = grouped([3], past, 3)
    wide = grouped([3], past, 8, ("total",))
    ragged = grouped([3, 5], np.concatenate([past, past]), 5)
    np.testing.assert_allclose(wide[0], y, rtol=1e-5)
    np.testing.assert_array_equal(wide[1], np.concatenate([keys, past[:, :, 4:8]], 2))
    np.testing.assert_array_equal(ragged[1][:1, :, :4], keys)
    alone = grouped([5, 5], np.concatenate([past, past]), 5)
    np.testing.assert_allclose(ragged[0][1], alone[0][1], rtol=1e-5)
    assert np.abs(ragged[0][0] - alone[0][0]).max() > 1e-3
