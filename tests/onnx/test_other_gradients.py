"""Gradients of imported operators that the backend suite has no cases of, against differences."""
from __future__ import annotations

import numpy as np
import pytest
from one_node import floats, helper, model_of, whole
from small_onnx import info, model, node

import graphc as gc

MS, ML = "com.microsoft", "ai.onnx.ml"
X, G, B = floats(2, 3, 8), floats(8, seed=1), floats(8, seed=2)
WEIGHTS = {"w": floats(8, 24, seed=1), "b": floats(24, seed=2)}
HEADS = {"q": X, "k": floats(2, 5, 8, seed=1), "v": floats(2, 5, 8, seed=2)}
IDS = np.array([[1, 2, 3], [4, 5, 0]], np.int32)
POSITIONS = np.array([[3, 4, 5], [0, 1, 2]], np.int64)
GROUPS = {"q": floats(2, 3, 64), "k": floats(2, 3, 32, seed=1), "v": floats(2, 3, 32, seed=2),
          "pk": floats(2, 2, 0, 16), "pv": floats(2, 2, 0, 16), "lens": np.array([2, 2], np.int32),
          "total": np.array(3, np.int32)}
WINDOW = {"x": floats(1, 3, 6, 5), "w": floats(4, 3, 3, 3, seed=1), "b": floats(4, seed=2)}
LINEAR = {"coefficients": floats(8, seed=1), "intercepts": [0.1, 0.2]}
NBITS = {"a": floats(3, 64), "b": whole(np.uint8, 6, 2, 16), "s": np.abs(floats(12, seed=1)) / 10}

# operator, domain, inputs, number of outputs, attributes
ROWS = {
    "matmul": ("FusedMatMul", MS, {"a": floats(2, 3, 4), "b": floats(2, 4, 5)}, 1, {"alpha": 0.5}),
    "matmul turned": ("FusedMatMul", MS, {"a": floats(2, 4, 3), "b": floats(5, 4)}, 1, {"transA": 1, "transB": 1}),
    "matmul, batches": ("FusedMatMul", MS, {"a": floats(3, 2, 4), "b": floats(2, 4, 5)}, 1, {"transBatchA": 1}),
    "conv": ("FusedConv", MS, WINDOW, 1, {"activation": "Tanh", "pads": [1, 1, 1, 1]}),
    "conv with a sum": ("FusedConv", MS, {**WINDOW, "z": floats(1, 4, 4, 3)}, 1, {"activation": "Sigmoid"}),
    "gemm": ("FusedGemm", MS, {"a": floats(3, 4), "b": floats(5, 4), "c": floats(5)}, 1,
             {"transB": 1, "alpha": 0.5, "activation": "LeakyRelu", "activation_alpha": 0.2}),
    "gelu": ("Gelu", MS, {"x": X}, 1, {}), "fast gelu": ("FastGelu", MS, {"x": X, "b": B}, 1, {}),
    "quick gelu": ("QuickGelu", MS, {"x": X}, 1, {"alpha": 1.5}), "bias gelu": ("BiasGelu", MS, {"x": X, "b": B}, 1, {}),
    "skip": ("SkipLayerNormalization", MS, {"x": X, "s": floats(2, 3, 8, seed=3), "g": G, "b": B}, 1, {}),
    "skip simplified": ("SkipSimplifiedLayerNormalization", MS, {"x": X, "s": floats(2, 3, 8, seed=3), "g": G}, 1, {}),
    "simplified": ("SimplifiedLayerNormalization", "", {"x": X, "g": G}, 1, {"epsilon": 1e-5}),
    "embeddings": ("EmbedLayerNormalization", MS, {"ids": IDS, "kinds": IDS % 2, "words": floats(6, 8),
                                                   "places": floats(4, 8, seed=1), "segments": floats(2, 8, seed=2),
                                                   "g": G, "b": B}, 1, {}),
    "attention": ("Attention", MS, {"x": X, **WEIGHTS}, 1, {"num_heads": 2}),
    "causal attention": ("Attention", MS, {"x": X, **WEIGHTS}, 1, {"num_heads": 2, "unidirectional": 1}),
    "attention, a past": ("Attention", MS, {"x": X, **WEIGHTS, "m": None, "past": floats(2, 2, 2, 4, 4)}, 2,
                          {"num_heads": 2, "unidirectional": 1}),
    "attention, lengths": ("Attention", MS, {"x": X, **WEIGHTS, "m": np.array([2, 3], np.int32)}, 1, {"num_heads": 2}),
    "heads": ("MultiHeadAttention", MS, HEADS, 1, {"num_heads": 2}),
    "heads, a bias": ("MultiHeadAttention", MS, {**HEADS, "b": floats(24)}, 1, {"num_heads": 2, "scale": 0.3}),
    "heads, scores": ("MultiHeadAttention", MS, {**HEADS, "b": None, "m": None, "sb": floats(2, 2, 3, 5)}, 1,
                      {"num_heads": 2}),
    "groups": ("GroupQueryAttention", MS, GROUPS, 3, {"num_heads": 4, "kv_num_heads": 2}),
    "groups, a window": ("GroupQueryAttention", MS, GROUPS, 3,
                         {"num_heads": 4, "kv_num_heads": 2, "local_window_size": 2}),
    "rotation": ("RotaryEmbedding", MS, {"x": floats(2, 3, 16), "p": POSITIONS, "c": floats(8, 4), "s": floats(8, 4)}, 1,
                 {"interleaved": 1}),
    "halves rotated": ("RotaryEmbedding", MS, {"x": floats(2, 3, 16), "p": POSITIONS, "c": floats(8, 4),
                                               "s": floats(8, 4)}, 1, {}),
    "packed weights": ("MatMulNBits", MS, NBITS, 1, {"K": 64, "N": 6, "bits": 4, "block_size": 32}),
    "mish": ("Mish", "", {"x": X}, 1, {}), "triangle": ("Trilu", "", {"x": X}, 1, {"upper": 0}),
    "global norm": ("GlobalLpPool", "", {"x": floats(2, 3, 4)}, 1, {"p": 3}),
    "reversed": ("ReverseSequence", "", {"x": X, "n": np.array([2, 1, 2], np.int64)}, 1, {"time_axis": 0, "batch_axis": 1}),
    "scaler": ("Scaler", ML, {"x": floats(4, 3)}, 1, {"offset": [0.1, 0.2, 0.3], "scale": [2.0, 0.5, 1.0]}),
    **{f"normalizer {n}": ("Normalizer", ML, {"x": np.abs(floats(4, 3)) + 0.1}, 1, {"norm": n}) for n in ("L1", "L2")},
    **{f"regressor {p}": ("LinearRegressor", ML, {"x": floats(3, 4)}, 1, {**LINEAR, "targets": 2, "post_transform": p})
       for p in ("NONE", "SOFTMAX", "LOGISTIC")},
    "side by side": ("FeatureVectorizer", ML, {"a": floats(3, 2), "b": floats(3, 1)}, 1, {"inputdimensions": [2, 1]}),
    "filled": ("Imputer", ML, {"x": floats(3, 4)}, 1, {"imputed_value_floats": [0.5], "replaced_value_float": 7.0})}
CONSTANTS = {"packed weights": ("b", "s"), "embeddings": ("words", "places", "segments", "g", "b"),
             "rotation": ("c", "s"), "halves rotated": ("c", "s")}

@pytest.mark.parametrize("name", ROWS)
def test_gradients(name):
    op, domain, inputs, outputs, attributes = ROWS[name]
    constants = CONSTANTS.get(name, ())
    made = model_of(op, inputs, outputs, domain, constants, **attributes)
    given = {n: a for n, a in inputs.items() if a is not None and n not in constants}
    report = gc.check_gradients(gc.from_onnx(made), samples=4, directions=1, **given)
    assert report.ok, report


def test_gradients_through_sequences_and_a_branch():
    """y = a concatenation of parts of x, or their difference."""
    parts = [node("SplitToSequence", "x", "s", axis=0), node("SequenceAt", "s i0", "a"), node("SequenceAt", "s i1", "b"),
             node("SequenceConstruct", "a b a", "t"), node("ConcatFromSequence", "t", "c", axis=0),
             node("Sub", "a b", "d"), node("ReduceSum", "c", "r", keepdims=0), node("ReduceSum", "d", "q", keepdims=0)]
    branches = {f"{k}_branch": branch(k, v) for k, v in (("then", "r"), ("else", "q"))}
    made = model([*parts, node("If", "p", "z", **branches), node("Mul", "z z", "y")], [("x", [2, 3]), ("p", [], "bool")],
                 [("y", [])], {"i0": np.array(0), "i1": np.array(1)})
    for p in (True, False):
        assert gc.check_gradients(gc.from_onnx(made), x=floats(2, 3), p=np.array(p)).ok


def branch(name, value):
    return helper.make_graph([node("Identity", value, f"{name}_out")], name, [], [info(f"{name}_out", [])])
