"""Kernels that store where they, or others, read: values that views show again and again, at sizes of one tile and of
many; arrays of `out=`.
"""
from __future__ import annotations


import numpy as np
import pytest

import graphc as gc
from graphc.compiled import CompiledGraph
from graphc.compiler import Compilation
from graphc.dsl.function import trace_function
from graphc.dsl.signature import Argument
from graphc.ir.interp import evaluate

from plan_tags import run_all

VIEWS = {
    "broadcast in front": lambda x, n: gc.broadcast_to(x, (n, *x.shape)),
    "broadcast behind": lambda x, n: gc.broadcast_to(x[..., None], (*x.shape, n)),
    "tile": lambda x, n: gc.tile(x, n),
    "tile of a row": lambda x, n: gc.tile(x.reshape(-1), n).reshape(1, -1),
    "tile in front": lambda x, n: gc.tile(x[None], (n,) + (1,) * x.ndim),
    "transpose": lambda x, n: x.T,
    "flat": lambda x, n: x.reshape(-1),
    "slices that overlap": lambda x, n: gc.concat([x[:-1], x[1:]], 0) if x.shape[0] > 1 else x,
    "every second": lambda x, n: x[::2],
    "broadcast and transpose": lambda x, n: gc.broadcast_to(x, (n, *x.shape)).T,
    "broadcast twice": lambda x, n: gc.broadcast_to(gc.broadcast_to(x, (n, *x.shape))[:, None], (n, 2, *x.shape)),
    "itself": lambda x, n: x,
}
SOURCES = {
    "input": lambda x: x * 2.0,
    "buffer": lambda x: gc.cumsum(x, 0) * 0.5,
    "sum": lambda x: x - gc.mean(x, 0),
    "product": lambda x: (x.reshape(x.shape[0], -1) @ gc.ones((x.size // x.shape[0], 2))).sum(1) * 0.25,
}
READERS = {
    "returned": lambda v: (v, gc.sum(v)),
    "twice": lambda v: (gc.tanh(v) * 0.5, gc.mean(gc.exp(-v * v), -1)),
    "multiplied": lambda v: (v.reshape(v.shape[0], -1) @ v.reshape(v.shape[0], -1).T * 0.1, gc.max(v, 0)),
    "again": lambda v: (gc.sum(v * v, 0) - v[0], v + gc.sum(v)),
}


def numbers(shape):
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32) * 0.5


def check(run, graph, *arrays):
    want = evaluate(graph, arrays)
    got = run(*arrays)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("view", VIEWS)
def test_views_of_values(view, reader):
    """What is in a kernel's way differs with who reads the view: each reader is a program of its own."""
    def f(x, w):
        return tuple(r for v, n in ((x, 2), (w, 34)) for make in SOURCES.values()
                     for r in READERS[reader](VIEWS[view](make(v), n)))
    graph = trace_function(f, [Argument("x", gc.f32[3]), Argument("w", gc.f32[2, 3])], "f").graph
    run_all(Compilation(graph).plan)
    check(CompiledGraph(graph), graph, numbers((3,)), numbers((2, 3)))


@pytest.mark.parametrize("source", ["input", "buffer"])
@pytest.mark.parametrize("view",
                         ["broadcast in front", "broadcast behind", "tile", "transpose", "broadcast and transpose"])
def test_views_of_many_tiles(view, source):
    def f(x):
        v = VIEWS[view](SOURCES[source](x), 60)
        return v, gc.sum(v)
    graph = trace_function(f, [Argument("x", gc.f32[3000])], "f").graph
    check(CompiledGraph(graph), graph, numbers((3000,)))


def test_a_value_that_the_loop_reads_again():
    @gc.graph
    def f(a: gc.f32[2, 1]):
        y = gc.einsum("ab,ac->abc", a, a) * 0.125
        t = gc.tile(y.reshape(2), 34).reshape(1, 68)
        return gc.mean(gc.tanh(t)), gc.mean(gc.tanh(a @ t))
    a = np.array([[0.5], [2.0]], np.float32)
    check(gc.compile(f), f.graph, a)


@pytest.mark.parametrize("late", [False, True])
def test_numbers_and_rows_that_wait_for_all_rows(late):
    """A total that is stored where the factor lay that the sums of columns are still multiplied by."""
    @gc.graph
    def f(w: gc.f32[64, 40], s: gc.f32[2], u: gc.f32[40]):
        factor, row = gc.cumsum(s)[1], gc.cumsum(u)
        total, columns = gc.sum(gc.tanh(gc.sum(w, 1))), gc.sum(w, 0)
        return (total * factor, columns * factor + row) if late else (columns * factor, total * factor, row - columns)
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(v.type.shape).astype(np.float32) for v in f.graph.inputs]
    check(gc.compile(f), f.graph, *arrays)


@pytest.mark.parametrize("rows, columns", [(12, 8), (4000, 8), (4000, 80)])
def test_a_sum_replaces_what_it_is_added_to(rows, columns):
    """An output that is stored after the loop over what it does not run over lies where its operand does: a bias,
    say. Sums of one tile, of parts of columns, and of rows of accumulators.
    """
    @gc.graph
    def f(g: gc.f32[rows, columns], b: gc.f32[columns]):
        return gc.cumsum(gc.sin(gc.cumsum(b) - gc.sum(g, 0) * 0.1))
    run = gc.compile(f)
    check(lambda *xs: (run(*xs),), f.graph, numbers((rows, columns)), numbers((columns,)))
    plan = run.compilation.plan
    kernel = next(n for n in plan.graph.nodes if n.op.name == "fused")
    assert any(plan.places[kernel.outputs[0]].same_memory(plan.places[v]) for v in kernel.inputs)


@pytest.mark.parametrize("steps", [7, 3000])
def test_an_epilogue_in_place(steps):
    """The sums of a long product wait elsewhere until the epilogue has read what lies where they go."""
    @gc.graph
    def f(a: gc.f32[33, steps], b: gc.f32[steps, 50], x: gc.f32[33, 50]):
        return gc.cumsum(gc.tanh(a @ b * 0.01 + gc.cumsum(x, 0)), 1)
    run = gc.compile(f)
    rng = np.random.default_rng(3)
    check(lambda *xs: (run(*xs),), f.graph,
          *(rng.standard_normal(v.type.shape).astype(np.float32) for v in f.graph.inputs))
    plan = run.compilation.plan
    kernel = next(n for n in plan.graph.nodes if n.op.name == "fused")
    assert any(plan.places[kernel.outputs[0]].same_memory(plan.places[v]) for v in kernel.inputs)


@pytest.mark.parametrize("calls", [1, 4])
def test_out_that_lies_over_inputs(calls):
    """The first calls go through Python, later ones do not: in either, the result is as if nothing overlapped."""
    @gc.graph
    def f(x: gc.f32[30, 20], y: gc.f32[20, 30]):
        return gc.cumsum(x, 0) + y.T, x @ y
    run = gc.compile(f)
    rng = np.random.default_rng(2)
    whole = np.empty(3000, np.float32)
    starts = [(0, 600, 0, 1200), (0, 600, 600, 1200), (0, 600, 300, 1200), (600, 0, 1300, 100), (0, 0, 700, 1500),
              (100, 400, 1300, 90)]
    for x_at, y_at, p_at, q_at in starts:
        for _ in range(calls):
            whole[:] = rng.standard_normal(3000)
            x, y = whole[x_at:x_at + 600].reshape(30, 20), whole[y_at:y_at + 600].reshape(20, 30)
            want = np.cumsum(x, 0) + y.T, x @ y
            rest = whole.copy()
            out = whole[p_at:p_at + 600].reshape(30, 20), whole[q_at:q_at + 900].reshape(30, 30)
            assert run(x, y, out=out) is out
            for a, b in zip(out, want):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
            rest[p_at:p_at + 600], rest[q_at:q_at + 900] = out[0].ravel(), out[1].ravel()
            np.testing.assert_array_equal(whole, rest)
        with pytest.raises(gc.GraphError, match="overlap"):
            run(x, y, out=(whole[:600].reshape(30, 20), whole[500:1400].reshape(30, 30)))
