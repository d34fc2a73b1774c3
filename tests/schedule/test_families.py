"""Families of schedules are chosen by costs alone: at each shape all that suit are costed and the cheapest is taken; along sizes that lead from one
family to another, what is predicted takes no leap."""
from __future__ import annotations

import time

import numpy as np
import pytest

import graphc as gc
from graphc.ir import contraction as C
from graphc.ir.types import f32
from graphc.schedule import choose_contraction
from graphc.schedule.choose_contraction import contraction_schedule
from graphc.schedule.contraction_schedule import DotSchedule, StreamSchedule, TileSchedule
from graphc.schedule.cost import TOLERANCE
from graphc.schedule.target import TARGETS
from graphc.schedule.view import contiguous_strides

LEAP = 2.0                      # of the predicted cycles of a unit of work, from a shape to the next, at most
LENGTHS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 700, 2048, 2049)
# (heads, rows, columns, steps), whether the matrix lies along the steps, whether it never changes
WALKS = {
    "columns of a row": [((1, 1, n, 300), False, False) for n in LENGTHS],
    "columns of three rows by weights": [((1, 3, n, 300), False, True) for n in LENGTHS],
    "columns of some heads": [((5, 1, n, 300), False, False) for n in LENGTHS],
    "steps of a row": [((1, 1, 300, k), False, False) for k in LENGTHS],
    "steps of two rows that lie along": [((1, 2, 300, k), True, False) for k in LENGTHS],
    "steps of a row by weights that lie along": [((1, 1, 300, k), True, True) for k in LENGTHS],
    "rows": [((1, m, 512, 784), False, False) for m in range(1, 12)],
    "rows that lie along": [((1, m, 512, 784), True, False) for m in range(1, 12)],
    "heads of one row": [((b, 1, 64, 300), False, False) for b in range(1, 9)],
}


def schedule(sizes, along, fixed, target, dtype=f32):
    heads, m, n, k = sizes
    x, y, z = (heads, m, k), (heads, k, n), (heads, m, n)
    lies = (n * k, 1, k) if along else (n * k, n, 1)
    return contraction_schedule(C.matmul(x, y), x, contiguous_strides(x), y, lies, contiguous_strides(z), dtype, target, invariant=(False, fixed))


def families(s) -> set[type]:
    ranking = s.phases[0].ranking
    assert ranking.best.total <= TOLERANCE * min(c.total for c in ranking.candidates)
    return {type(c.schedule) for c in ranking.candidates}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("name", WALKS)
def test_products_of_few_rows(name, target):
    before = None
    for sizes, along, fixed in WALKS[name]:
        s = schedule(sizes, along, fixed, target)
        heads, m, n, k = sizes
        if m <= 3 and n > 3 and not s.form.swap:
            wanted = {TileSchedule} | ({StreamSchedule} if not along else {DotSchedule} if k >= target.lanes(4) else set())
            assert wanted <= families(s), (sizes, s)
        each = s.phases[0].ranking.best.total / (heads * m * n * k)
        assert before is None or each < LEAP * before, (sizes, str(s), each / before)
        before = each


# (rows, columns, steps), whether the matrix lies along the steps
MEASURED = [((1, 512, 784), False), ((1, 2048, 20), False), ((3, 4096, 1024), False), ((1, 100, 4000), False),
            ((1, 2048, 12), True), ((1, 2048, 33), True), ((2, 512, 784), True), ((3, 2048, 24), True)]


@pytest.mark.slow
@pytest.mark.parametrize("sizes, along", MEASURED, ids=str)
def test_the_chosen_family_is_not_slower_than_another(sizes, along, monkeypatch):
    """Processor time of one thread, in turns."""
    m, n, k = sizes
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape, np.float32) for shape in ((m, k), (n, k) if along else (k, n)))

    @gc.graph
    def f(x: gc.f32[x.shape], w: gc.f32[w.shape]):
        return x @ (w.T if along else w)
    monkeypatch.setenv("GRAPHC_CACHE", "0")
    cheapest, runs = choose_contraction._cheapest, {}
    for kind in (None, TileSchedule, StreamSchedule, DotSchedule):
        monkeypatch.setattr(choose_contraction, "_cheapest", lambda found: cheapest([s for s in found if kind in (None, type(s))] or found))
        runs[kind] = gc.compile(f, threads=1)
        runs[kind](x, w)
    times = {kind: [] for kind in runs}
    for _ in range(21):
        for kind, run in runs.items():
            start = time.process_time()
            for _ in range(max(1, 400_000 // (m * n * k))):
                run(x, w)
            times[kind].append(time.process_time() - start)
    medians = {kind: float(np.median(t)) for kind, t in times.items()}
    assert medians[None] <= 1.35 * min(medians.values()), medians
