"""Every example in its short form: the loss falls, the figures are printed."""
import char_lstm
import char_transformer
import digits_cnn
import numpy as np
import pytest

from graphc import demo

SHORT = ["--steps", "60", "--hidden", "48", "--batch", "16", "--length", "32", "--characters", "40000", "--sample",
         "20", "--lr", "0.01"]


def test_digits_in_two_epochs(capsys):
    accuracy = digits_cnn.main(["--epochs", "2", "--seeds", "1"])
    said = capsys.readouterr().out
    assert accuracy > 0.9
    assert "seed 0: held-out accuracy" in said and "of 360 held-out digits" in said


def test_demo_saves_a_picture(tmp_path):
    data = demo.digits()
    result = demo.train(1, 0, data)
    assert np.mean(result.losses[-5:]) < 0.6 * np.mean(result.losses[:5])
    demo.picture(result, data.y_held_out[:24], data, str(tmp_path / "digits.png"))
    assert (tmp_path / "digits.png").read_bytes()[:4] == b"\x89PNG"


def test_the_split_is_fixed_and_stratified():
    a, b = demo.digits(), demo.digits()
    assert np.array_equal(a.x_held_out, b.x_held_out) and len(a.y_held_out) == 360 and len(a.y) == 1437
    assert max(np.bincount(a.y_held_out)) - min(np.bincount(a.y_held_out)) <= 3


@pytest.mark.parametrize("example", [char_lstm, char_transformer])
def test_language_model(example, capsys):
    figures = example.main(SHORT)
    said = capsys.readouterr().out
    assert figures["last"] < 0.75 * figures["first"]
    assert figures["held_out"] < figures["first"]
    for part in ("characters/s", "bits per character; interpolated 5-gram model:", "--- sample\nThe "):
        assert part in said
