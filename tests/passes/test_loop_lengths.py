"""Loops of 0, 1, 2 and more steps, forward and gradient, in both directions: plans on tags, and native code between
guards.
"""
from __future__ import annotations

import numpy as np
import pytest
from plan_tags import run_all

import graphc as gc
from graphc.compiled import CompiledGraph
from graphc.compiler import Compilation
from graphc.dsl.function import trace_function
from graphc.dsl.signature import Argument
from graphc.ir.graph import Graph
from graphc.ir.interp import evaluate
from graphc.ir.ops.control import Scan, WhileLoop
from graphc.schedule.target import AVX2

GUARD = 4096                    # elements around each array; larger than any of them
BODIES = {
    "the carry before the step": lambda s, x: ((s[0] * 2.0 + x, s[1] + 1.0), s[0]),
    "the carry after the step": lambda s, x: (lambda c: ((c, s[1] + s[0].sum()), c))(gc.tanh(s[0] + x)),
    "both": lambda s, x: (lambda c: ((c, s[1] * 0.5), (s[0], c, s[1])))(gc.sin(s[0]) + x),
    "neither": lambda s, x: ((s[0] + x, s[1] * x.sum()), x * 3.0),
    "exchanged": lambda s, x: ((s[0] + x, s[1]), s[1].sum()),
}


def scan_graph(body: str, length: int, reverse: bool, gradient: bool) -> Graph:
    types = {"c": gc.f32[3], "big": gc.f32[1000], "xs": gc.f32[length, 3]}

    def forward(c, big, xs):
        (a, b), ys = gc.scan(BODIES[body], (c, big), xs, reverse=reverse)
        return (a, b, *(ys if isinstance(ys, tuple) else (ys,)))

    def loss(c, big, xs):
        return sum(gc.sum(gc.sin(v)) for v in forward(c, big, xs))
    f = trace_function(loss if gradient else forward, [Argument(n, t) for n, t in types.items()], "f")
    return (gc.value_and_grad(f, tuple(types)) if gradient else f).graph


def between_guards(values: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Copies of the arrays, and the larger arrays that they lie in the middle of, filled with a number that nothing
    computes.
    """
    wholes = [np.full(2 * GUARD + v.size, 12345, v.dtype) for v in values]
    inner = [w[GUARD:GUARD + v.size].reshape(v.shape) for w, v in zip(wholes, values)]
    for a, v in zip(inner, values):
        a[...] = v
    return inner, wholes


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("body", BODIES)
def test_plans(body, reverse):
    for length in (0, 1, 2, 3, 4):
        for gradient in (False, True):
            run_all(Compilation(scan_graph(body, length, reverse, gradient), AVX2).plan)


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [0, 1, 2])
def test_nothing_is_stored_outside(length, reverse, gradient):
    graph = scan_graph("both" if length else "the carry before the step", length, reverse, gradient)
    rng = np.random.default_rng(length)
    xs = [rng.standard_normal(v.type.shape).astype(np.float32) for v in graph.inputs]
    want = evaluate(graph, xs)
    given, around = between_guards(xs)
    out, outside = between_guards([np.full_like(v, np.nan) for v in want])
    CompiledGraph(graph, 1).executable.run(given, out)
    for got, value in zip(out, want, strict=True):
        np.testing.assert_allclose(got, value, rtol=1e-5, atol=1e-5)
    for whole, v in zip(around + outside, xs + list(want)):
        assert (whole[:GUARD] == 12345).all() and (whole[GUARD + v.size:] == 12345).all()
    for got, value in zip(given, xs):
        np.testing.assert_array_equal(got, value)


def test_a_loop_of_no_steps_computes_nothing():
    """What could be moved out of it, a factor of all that it adds up, is NaN here: 0 / 0. The carries are as they were,
    the stacked results empty.
    """
    @gc.graph
    def f(x: gc.f32[3], d: gc.f32[0], c: gc.f32[3]):
        last, ys = gc.scan(lambda total, step: (total + step / gc.sum(x) * x, total), c, d)
        count, once = gc.while_loop(lambda total: gc.sum(total) < 1e9, lambda total: total / gc.sum(x), c, max_trips=0)
        return last, ys, count, once
    x, c = np.zeros(3, np.float32), np.array([1, 2, 3], np.float32)
    last, ys, count, once = gc.compile(f)(x, np.zeros(0, np.float32), c)
    np.testing.assert_array_equal([last, once], [c, c])
    assert ys.shape == (0, 3) and count == 0
    assert not any(isinstance(node.op, (Scan, WhileLoop)) for node in Compilation(f.graph).simplified.nodes)
    gradient = gc.grad(_total, "x")
    np.testing.assert_array_equal(gc.compile(gradient)(x, np.zeros(0, np.float32)), 0)


@gc.graph
def _total(x: gc.f32[3], d: gc.f32[0]):
    return gc.sum(gc.scan(lambda total, step: (total + gc.sqrt(gc.abs(x)) * step, None), gc.zeros(3), d)[0])
