"""Two checkouts side by side: rows, their report, and what is no checkout."""
import math

import pytest

from benchmarks import trees
from benchmarks.contest import Figures
from benchmarks.trees import HERE, Compared, checkout, compared, line, report
from benchmarks.workloads import BY_NAME, INFER, TRAIN, Workload

SIZES = {"sizes": (8, 10, 7, 3)}
ROW = BY_NAME["resnet18 b16 train"]


def test_a_checkout_beside_itself(monkeypatch):
    monkeypatch.setattr(trees, "SECONDS", 0.0)
    workloads = [Workload("mlp", 2, TRAIN, 0.5, SIZES, "tiny"),
                 Workload("attention", 1, INFER, 0.8, {"heads": 1, "size": 8, "length": 8}, "few")]
    with checkout(str(HERE)) as folder:
        rows = list(compared(folder, workloads, 1, math.inf))
    assert [(row.workload, row.error, row.same_bits) for row in rows] == [(w, "", True) for w in workloads]
    assert all(row.ratio > 0 and row.build_ratio > 0 for row in rows)
    assert "the same bits in every row" in report(rows)


def row(old: float, same_bits: bool = True, **changes) -> Compared:
    return Compared(ROW, 2, Figures((1.0, 1.0), build=1.0, **changes), Figures((old, 2 * old), build=1.0), same_bits)


def test_reports_say_what_is_slower_and_what_differs():
    assert "as fast as before" in report([row(0.7), row(1.0)])
    slow = report([row(0.4), row(1.0, same_bits=False)])
    assert f"slower: {ROW.name}" in slow and f"other bits than before: {ROW.name}" in slow
    failed = row(1.0, error="no such operator")
    assert "no such operator" in line(failed) and "1 of 2 rows" in report([failed, row(1.0)])


def test_what_is_no_checkout():
    with pytest.raises(SystemExit, match="no checkout of graphc and no revision"), checkout("nowhere"):
        pass
