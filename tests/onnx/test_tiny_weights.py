"""Weights below the least normal number: their inputs are scaled, and no bit changes."""
import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from small_onnx import model, node  # noqa: E402

import graphc as gc  # noqa: E402
from graphc import nn, optim  # noqa: E402
from graphc.doors.onnx.ops import tiny_weights  # noqa: E402

R = np.random.default_rng(0)
CASES = {
    "conv": (node("Conv", "x w b", "y"), (2, 16, 5, 5), (6, 16, 1, 1), 1),
    "strided": (node("Conv", "x w b", "y", strides=[2, 2], pads=[1, 1, 0, 0]), (2, 16, 6, 6), (6, 16, 2, 3), 1),
    "line": (node("Conv", "x w b", "y"), (2, 16, 9), (6, 16, 3), 1),
    "matmul": (node("MatMul", "x w", "y"), (3, 7, 16), (16, 6), 0),
    "gemm": (node("Gemm", "x w b", "y"), (7, 16), (16, 6), 0),
    "turned": (node("Gemm", "x w b", "y", transB=1), (7, 16), (6, 16), 1)}
EXTREMES = np.float32([0, -0.0, 1e-45, -3e-39, 1e-31, 3e-12, -1, 1e20, 3e38, np.inf])


def drawn(name):
    """Weights of which inputs 3 and 5 are tiny throughout, input 7 in part; data of all sizes at the tiny ones."""
    made, data, shape, of = CASES[name]
    w, x = R.standard_normal(shape).astype("f"), R.standard_normal(data).astype("f")
    w, x = np.moveaxis(w, of, 0), np.moveaxis(x, 1 if len(data) > 2 and name != "matmul" else -1, 0)
    w[[3, 5]] *= np.float32(1e-30)
    w[[3, 5]] *= (10.0 ** R.uniform(-14, 0, w[[3, 5]].shape)).astype("f")
    w[7, 0], w[5].flat[0] = 1e-40, 0
    x[[3, 5]] = R.choice(EXTREMES[:-1], x[[3, 5]].shape)
    x[3].flat[0] = EXTREMES[-1]
    w, x = np.moveaxis(w, 0, of), np.moveaxis(x, 0, 1 if len(data) > 2 and name != "matmul" else -1)
    known = {"w": np.ascontiguousarray(w), "b": R.standard_normal(6).astype("f")}
    known = known if "b" in made.input else {"w": known["w"]}
    return model([made], [("x", data)], [("y", None)], known), np.ascontiguousarray(x)


@pytest.mark.parametrize("name", CASES)
def test_no_bit_changes(name, monkeypatch):
    made, x = drawn(name)
    run = gc.compile(gc.from_onnx(made))
    monkeypatch.setattr(tiny_weights, "MOST", 0.0)
    plain = gc.compile(gc.from_onnx(made))
    assert run.graph != plain.graph
    np.testing.assert_array_equal(run(x).view(np.int32), plain(x).view(np.int32))


def test_training_has_the_weights_as_they_are():
    made, x = drawn("gemm")
    step = gc.train_step(gc.from_onnx(made), loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[7, 16], y=gc.f32[7, 6], seed=0)
    assert "where" not in step.dump("graph").split("return")[0].split("matmul")[0]


def test_other_weights_are_left_alone():
    made, _ = drawn("matmul")
    for w in (np.float32([[1e-40], [1]]), np.float32([[1e-20], [1e-30]]), np.float32([[0], [1]])):
        made.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(w, "w"))
        made.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 2
        text = gc.compile(gc.from_onnx(made)).dump("graph")
        assert ("where" in text) == (w[0] < 1e-38 and w[0] > 0)
