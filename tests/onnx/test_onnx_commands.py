"""The command line on ONNX models."""
import numpy as np
import onnx
import pytest
from small_onnx import model, node, save

import graphc as gc
from graphc import nn
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
    for more, size in (("--bind", "N=4"), "4"), ((), "N"):
        assert main(["dump", str(path), "--stage", "fused", *more]) == 0
        assert f"graph net(x: f32[{size}, 3]) state(w: f32[3, 2])" in capsys.readouterr().out
    assert main(["profile", str(path), "--bind", "N=4", "--runs", "1"]) == 0


NETWORK = """
import graphc as gc
from graphc import nn
net = nn.Linear(2) >> nn.relu

@gc.graph
def double(x: gc.f32[3]):
    return 2 * x
"""


def test_to_onnx(tmp_path, capsys):
    source, file = tmp_path / "source.py", tmp_path / "net.onnx"
    source.write_text(NETWORK)
    given = ["to-onnx", f"{source}:net", str(file), "--type", "x=f32[N, 3]", "--seed", "3"]
    assert main(given) == 0 and capsys.readouterr().out == f"{file}\n"
    x = np.float32([[1, 2, 3]] * 4)
    expected = gc.compile(nn.Linear(2) >> nn.relu, x=gc.f32["N", 3], seed=3)(x)
    np.testing.assert_allclose(gc.compile(gc.from_onnx(file))(x), expected, rtol=1e-6)
    assert main([*given[:-2], "--opset", "18", "--seed", "3"]) == 0
    assert onnx.load(file).opset_import[0].version == 18
    assert main(["to-onnx", f"{source}:double", str(file)]) == 0
    assert gc.compile(gc.from_onnx(file))(np.float32([1, 2, 3])).tolist() == [2, 4, 6]


@pytest.mark.parametrize("more, words", [((), "x"), (("--type", "x=f32[N, 3]"), "seed"),
                                         (("--type", "x=f33[N]"), "is no type"),
                                         (("--type", "x=f32[N, 3]", "--seed", "0", "--opset", "9"), "opset")])
def test_what_to_onnx_cannot_write(more, words, tmp_path, capsys):
    (tmp_path / "source.py").write_text(NETWORK)
    assert main(["to-onnx", f"{tmp_path / 'source.py'}:net", str(tmp_path / "net.onnx"), *more]) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "net.onnx").exists()


def test_what_is_no_model(tmp_path, capsys):
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    assert main(["run", str(tmp_path / "bad.onnx")]) == 1
    assert "no ONNX model" in capsys.readouterr().err
