"""Families of schedules are chosen by costs alone: at each shape all that suit are costed and the cheapest is taken; along sizes that lead from one
family to another, what is predicted takes no leap."""
from __future__ import annotations

import time

import numpy as np
import pytest

import graphc as gc
from graphc.ir import contraction as C
from graphc.ir.builder import Builder
from graphc.ir.dims import size_name
from graphc.ir.ops.attention import Attention, AttentionGrad
from graphc.ir.types import TensorType, bool_, f32
from graphc.passes.fuse import Fuse
from graphc.schedule import attention_forms, choose_contraction
from graphc.schedule.attention_forms import PARTS, WHOLE, is_kept
from graphc.schedule.choose import schedule_node
from graphc.schedule.choose_contraction import contraction_schedule
from graphc.schedule.contraction_schedule import DotSchedule, StreamSchedule, TileSchedule
from graphc.schedule.cost import TOLERANCE, Candidate, ranked
from graphc.schedule.target import AVX2, AVX512, NEON
from graphc.schedule.view import contiguous_strides
from tests.schedule.problems import node, view

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


@pytest.mark.parametrize("target", (AVX2, AVX512, NEON), ids=lambda t: t.name)
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


@pytest.mark.parametrize("target", (AVX2, AVX512, NEON), ids=lambda t: t.name)
def test_sums_across_rows(target):
    """Row by row or column by column, whichever costs less: no number of rows, of columns or of bytes tells where one
    becomes the other."""
    chosen = set()
    for walk in ([(m, 8000) for m in (20, 31, 32, 33, 64, 65, 300)],
                 [(60_000, n) for n in (24, 31, 32, 33, 64, 65, 100, 101)],
                 [(300, n) for n in (512, 1024, 2048, 4096, 8191, 8192, 8193, 16_384)],
                 [(m, 256) for m in (500, 512, 513, 1024, 1025, 4000, 16_000)]):
        before = None
        for m, n in walk:
            x = TensorType(f32, (m, n))
            s = schedule_node(node(lambda b, x: b.sum(x, axes=(0,)), x), [view(m, n)], [view(n)], target)
            chosen.add(s.crosswise)
            each = s.ranking.best.total / (m * n)
            assert before is None or max(each / before, before / each) < LEAP, (m, n, str(s), each / before)
            before = each
    assert chosen == {True, False}


QUERIES = (1, 3, 4, 8, 11, 12, 16, 17, 33, 512)


def attention(gradient: bool, mask: bool, queries: int, keys: int, size: int):
    q, k = (TensorType(f32, (2, 8, n, size)) for n in (queries, keys))
    lse, seen = TensorType(f32, (2, 8, queries)), (TensorType(bool_, (2, 1, 1, keys)),) * mask
    return (q, k, k, *seen, q, lse, q) if gradient else (q, k, k, *seen)


@pytest.mark.parametrize("target", (AVX2, AVX512, NEON), ids=lambda t: t.name)
@pytest.mark.parametrize("gradient", [False, True])
def test_attention_of_any_number_of_queries(gradient, target):
    """Few are products with a softmax between them, many one kernel; nothing but what both cost tells where one becomes the other."""
    for keys, size, mask in ((512, 64, False), (3000, 256, True)):
        before, chosen = None, []
        for queries in QUERIES:
            types = attention(gradient, mask, queries, keys, size)
            op = AttentionGrad() if gradient else Attention()
            forms = attention_forms.attention_forms(op, types, target)
            assert {c.name for c in forms.candidates} == {WHOLE, PARTS} and all(cycles >= 0 for c in forms.candidates for _, cycles in c.terms)
            assert is_kept(op, types, target=target) == (forms.best.name == WHOLE)
            assert before is None or forms.best.total / queries < LEAP * before, (queries, str(forms))
            before = forms.best.total / queries
            chosen.append(forms.best.name)
        assert chosen[0] == PARTS and chosen[-1] == WHOLE, chosen


def test_attention_of_a_number_of_queries_that_comes_with_the_call_holds_no_scores():
    k = TensorType(f32, (2, 2000, 64))
    for queries, whole in ((2, False), (size_name("T", 1, 8, 2), True)):
        assert is_kept(Attention(), (TensorType(f32, (2, queries, 64)), k, k), target=AVX2) == whole


# (rows, columns, steps), whether the matrix lies along the steps
MEASURED = [((1, 512, 784), False), ((1, 2048, 20), False), ((3, 4096, 1024), False), ((1, 100, 4000), False),
            ((1, 2048, 12), True), ((1, 2048, 33), True), ((2, 512, 784), True), ((3, 2048, 24), True)]


def fastest(runs, arrays, calls) -> float:
    """How many times as long as the fastest the run `None` takes: medians of turns."""
    times = {kind: [] for kind in runs}
    for _ in range(21):
        for kind, run in runs.items():
            start = time.process_time()
            for _ in range(calls):
                run(*arrays)
            times[kind].append(time.process_time() - start)
    medians = {kind: float(np.median(t)) for kind, t in times.items()}
    return medians[None] / min(medians.values())


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
    assert fastest(runs, (x, w), max(1, 400_000 // (m * n * k))) <= 1.35


@pytest.mark.slow
@pytest.mark.parametrize("mode, queries", [(mode, n) for mode in ("forward", "gradient") for n in (1, 2, 5, 12, 40, 128)])
def test_the_chosen_form_of_attention_is_not_slower_than_the_other(mode, queries, monkeypatch):
    """Processor time of one thread, in turns."""
    rng = np.random.default_rng(0)
    q, k = (rng.standard_normal((1, 4, n, 64), np.float32) for n in (queries, 512))

    @gc.graph
    def f(q: gc.f32[q.shape], k: gc.f32[k.shape], v: gc.f32[k.shape]):
        return gc.sum(gc.attention(q, k, v) ** 2)
    given = gc.grad(f, wrt=("q", "k", "v")) if mode == "gradient" else f
    monkeypatch.setenv("GRAPHC_CACHE", "0")
    chosen, runs = attention_forms._forms, {}
    for form in (None, WHOLE, PARTS):
        monkeypatch.setattr(attention_forms, "_forms", lambda *a: chosen(*a) if form is None else ranked([Candidate(form, form, (("", 0.0),))]))
        runs[form] = gc.compile(given, threads=1)
        runs[form](q, k, k)
    assert fastest(runs, (q, k, k), 20) <= 1.35


def test_sums_that_cross_are_added_row_by_row_whichever_is_written_first():
    """Columns of far rows are read neither by the one nor by the other."""
    for m, n in (300, 700), (500, 8193):
        for axes in ((0, 1), (1, 0)):
            b = Builder("two")
            y = b.tanh(b.input("x", TensorType(f32, (m, n))))
            nodes = Fuse().run(b.finish([b.sum(y, axes=(axis,)) for axis in axes])).nodes
            s = schedule_node(nodes[0], [view(m, n)], [view(n if axis == 0 else m) for axis in axes], AVX2)
            assert len(nodes) == 1 and (s.outer, s.inner, s.vector) == ((0,), (1,), 1), (m, n, axes, str(s))


def test_sums_that_cross_are_one_kernel_where_that_costs_less():
    """A few long rows of sums would be written and read again, and rows of a few numbers wait for each other."""
    for m, n, kernels in (3000, 700, 1), (3000, 33, 2), (12, 9000, 2), (12, 500, 1), (64, 60_000, 2), (500, 9000, 1):
        b = Builder("two")
        x = b.input("x", TensorType(f32, (m, n)))
        assert len(Fuse().run(b.finish([b.sum(x, axes=(axis,)) for axis in (0, 1)])).nodes) == kernels, (m, n)
