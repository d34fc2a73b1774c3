"""The order of micro-tiles in a tile: by panels of columns, or by lines, in which results far from the caches are stored
in long runs."""
from dataclasses import replace

import numpy as np
import pytest

from graphc.ir import contraction as C
from graphc.ir.types import f32
from graphc.schedule.choose_contraction import contraction_schedule
from graphc.schedule.target import AVX2, AVX512
from tests.contract import harness


def schedule(m, n, k, target, row_step=0):
    return contraction_schedule(C.matmul((m, k), (k, n)), (m, k), (k, 1), (k, n), (n, 1), (row_step or n, 1), f32, target)


@pytest.mark.parametrize("target", (AVX2, AVX512), ids=lambda t: t.name)
def test_short_sums_with_large_results_go_by_lines(target):
    """Where sums are long, or results stay near, there is nothing to gain; rows that follow each other are one run."""
    by_lines = [schedule(*sizes, target).phases[0].by_lines
                for sizes in ((600, 3000, 6), (600, 3000, 200), (60, 300, 6), (600, target.lanes(4), 6))]
    assert by_lines == [True, False, False, False]


@pytest.mark.parametrize("m, n, k", ((61, 531, 7), (130, 70, 300), (20, 900, 40)))
def test_the_order_changes_no_bit(m, n, k, monkeypatch):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(m, k)).astype(np.float32), rng.normal(size=(k, n)).astype(np.float32)
    found, chosen = [], contraction_schedule

    def ordered(*args, **options):
        s = chosen(*args, **options)
        return replace(s, phases=tuple([replace(p, by_lines=by_lines, prefetch_lines=0) for p in s.phases]))
    monkeypatch.setattr(harness, "contraction_schedule", ordered)
    for by_lines in (False, True):
        out = np.empty((m, n), np.float32)
        kernel = harness.check(C.matmul(a.shape, b.shape), a, b, out, (1, 3))
        assert [p.by_lines for p in kernel.schedule.phases] == [by_lines]
        found.append(out)
    np.testing.assert_array_equal(*found)
