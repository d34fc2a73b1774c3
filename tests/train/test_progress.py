"""Plain lines when the output is no terminal."""
import io

import pytest

from graphc.progress import Progress


def test_lines_show_loss_and_rate():
    out = io.StringIO()
    bar = Progress([1, 2, 3], "epoch 1", examples=64, file=out)
    for batch in bar:
        bar.loss(batch / 2)
    line, = out.getvalue().splitlines()
    assert line.startswith("epoch 1: 3/3 steps, loss 1.5000, ") and line.endswith(" examples/s")


def test_length_need_not_be_known():
    out = io.StringIO()
    assert list(Progress(iter("ab"), "t", file=out)) == ["a", "b"]
    assert out.getvalue().startswith("t: 2 steps, loss nan")


def test_a_terminal_gets_a_bar():
    class Terminal(io.StringIO):
        def isatty(self):
            return True
    pytest.importorskip("tqdm")
    out = Terminal()
    bar = Progress([1, 2, 3], "epoch 1", examples=64, file=out)
    for batch in bar:
        bar.loss(batch / 2)
    assert "epoch 1: 100%" in out.getvalue() and "3/3" in out.getvalue()
