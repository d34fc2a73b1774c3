"""What a new process pays, beside another checkout."""
from __future__ import annotations

import pytest

from benchmarks import start
from benchmarks.trees import HERE


def test_a_checkout_beside_itself(monkeypatch):
    monkeypatch.setattr(start, "PROGRAMS", {name: start.PROGRAMS[name] for name in ("import graphc",)})
    head, _, imported = start.report(HERE, 1).splitlines()
    assert head.startswith("| program | cache |") and "import graphc | full" in imported
    before, now = imported.strip("| ").split(" | ")[-2:]
    assert int(before) == int(now) > 100


def test_a_program_that_compiles(tmp_path):
    found = start.started(start.PROGRAMS["perceptron"], HERE, tmp_path)
    assert 0 < found.seconds < 60 and found.modules > 200


def test_a_program_that_fails():
    with pytest.raises(SystemExit, match="fails in (.|\n)*ZeroDivisionError"):
        start.started("1 / 0\n", HERE, HERE)
