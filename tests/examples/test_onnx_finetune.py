"""The example of a new layer behind an ONNX file's network."""
import pytest

pytest.importorskip("onnx")
import onnx_finetune  # noqa: E402


def test_the_file_s_features_help(capsys):
    found = onnx_finetune.main(["--epochs", "3", "--examples", "40", "--steps", "120"])
    assert found["file, 40"] > found["pixels, 40"] + 0.02
    assert "40 examples of odd and even digits" in capsys.readouterr().out
