"""The command line on ONNX models."""
import numpy as np
import pytest
from small_onnx import model, node, save

from graphc.cli import main


@pytest.fixture
def path(tmp_path):
    made = model([node("Gemm", "x w", "h"), node("Relu", "h", "y")], [("x", ["N", 3])], [("y", ["N", 2])],
                 {"w": np.float32([[1, -1], [2, -2], [3, -3]])})
    return save(made, tmp_path / "m.onnx")


def test_run_takes_sizes_from_the_arrays(path, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.ones((4, 3), np.float32))
    assert main(["run", str(path), f"x={tmp_path / 'x.npy'}", "--out", str(tmp_path)]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "output0.npy"), [[6, 0]] * 4)


def test_dump_and_profile(path, capsys):
    assert main(["dump", str(path), "--stage", "fused", "--bind", "N=4"]) == 0
    assert "graph net(x: f32[4, 3]) state(w: f32[3, 2])" in capsys.readouterr().out
    assert main(["profile", str(path), "--bind", "N=4", "--runs", "1"]) == 0


def test_what_is_no_model(tmp_path, capsys):
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    assert main(["run", str(tmp_path / "bad.onnx")]) == 1
    assert "no ONNX model" in capsys.readouterr().err
