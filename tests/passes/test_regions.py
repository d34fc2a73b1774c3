"""Loops and branches whose results are captured arrays, inputs, constants, views, the same value twice, results of other regions, read by image
operators: values, gradients and second gradients, against the same program without regions; and their memory plans, run on tags.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from plan_tags import run_all

import graphc as gc
from graphc.compiled import CompiledGraph
from graphc.compiler import Compilation
from graphc.dsl.array import as_array
from graphc.dsl.function import trace_function
from graphc.dsl.signature import Argument
from graphc.ir.interp import evaluate
from graphc.schedule.target import AVX2

SHAPE = (2, 3, 2, 2)
CONSTANT = np.linspace(-1, 1, 24).reshape(SHAPE)
NAMES = ("a", "b", "c")


@dataclass(frozen=True)
class Regions:
    """Loops and branches as graphc has them."""
    yes: object                         # the condition: a symbolic bool
    steps: int

    def cond(self, then, otherwise):
        return gc.cond(self.yes, then, otherwise)

    def scan(self, f, init, xs):
        return gc.scan(f, init, xs[:self.steps])

    def backward(self, f, init, xs):
        return gc.scan(f, init, xs[:self.steps], reverse=True)

    def loop(self, f, init):
        return gc.while_loop(lambda c: c[-1] < self.steps, lambda c: (*f(c[:-1]), c[-1] + 1), (*init, 0), max_trips=3)[1][:-1]


@dataclass(frozen=True)
class Unrolled:
    """The same for a condition and a number of steps that are known."""
    yes: bool
    steps: int

    def cond(self, then, otherwise):
        return then() if self.yes else otherwise()

    def scan(self, f, init, xs, order=1):
        ys, carry = [], init
        for t in range(self.steps)[::order]:
            carry, y = f(carry, xs[t])
            ys.append(y)
        return carry, gc.stack(ys[::order]) if ys else gc.zeros((0, *xs.shape[1:]), xs.dtype)

    def backward(self, f, init, xs):
        return self.scan(f, init, xs, -1)

    def loop(self, f, init):
        for _ in range(self.steps):
            init = f(init)
        return init


# What a body returns, of its own value c and what it captures, a and b.
RESULTS = {
    "computed": lambda r, a, b, c: (c * 0.5 + a, a * b),
    "captured": lambda r, a, b, c: (a, b),
    "its own": lambda r, a, b, c: (c, a * 2),
    "exchanged": lambda r, a, b, c: (b, c),
    "constant": lambda r, a, b, c: (gc.full(SHAPE, 0.25, gc.f64), as_array(CONSTANT) + 0 * c),
    "a large constant": lambda r, a, b, c: (as_array(CONSTANT), a),
    "twice": lambda r, a, b, c: (lambda y: (y, y))(gc.sin(c) + a),
    "captured twice": lambda r, a, b, c: (a, a),
    "a transpose": lambda r, a, b, c: (a.transpose(0, 1, 3, 2), c.transpose(0, 1, 3, 2)),
    "a broadcast": lambda r, a, b, c: (gc.broadcast_to(a[:1], SHAPE), gc.broadcast_to(b[:, :1], SHAPE)),
    "a slice": lambda r, a, b, c: (gc.concat([a, b], 1)[:, 1:4], gc.concat([c, a], 0)[1:3]),
    "a reshape": lambda r, a, b, c: (a.reshape(-1).reshape(SHAPE), (c * 2).reshape(4, 6).T.reshape(SHAPE)),
    "an image": lambda r, a, b, c: (gc.avg_pool2d(c, 2).mean((2, 3), keepdims=True) + a, gc.max_pool2d(b, 1)),
    "a branch": lambda r, a, b, c: r.cond(lambda: (a, c), lambda: (c, gc.tanh(b))),
    "a loop": lambda r, a, b, c: r.scan(lambda s, x: ((s[1], s[0]), x), (a, c), gc.stack([b, a, b]))[0],
}
KINDS = {
    "cond": lambda r, body, a, b, c: r.cond(lambda: body(c), lambda: body(b * 0.5)[::-1]),
    "cond of views": lambda r, body, a, b, c: r.cond(lambda: body(c.transpose(0, 1, 3, 2)), lambda: (c, b)),
    "scan": lambda r, body, a, b, c: _flat(r.scan(lambda s, x: (body(s[0] + x), s[1]), (c, b), gc.stack([a, b, c]))),
    "scan of carries": lambda r, body, a, b, c: _flat(r.scan(lambda s, x: (body(s[0]), s[0]), (c, b), gc.stack([a, b, c]))),
    "reverse scan": lambda r, body, a, b, c: _flat(r.backward(lambda s, x: ((lambda y: (y, y[0]))(body(s[1] * x))), (c, b), gc.stack([a, b, c]))),
    "while": lambda r, body, a, b, c: r.loop(lambda s: body(s[0]), (c, b)),
}


def _flat(result):
    (x, y), ys = result
    return x, y, ys


def program(kind: str, result: str, make, order: int):
    """What the region gives and what image operators make of it; or its gradients of the given order."""
    def forward(p, n, a, b, c):
        r = make(p, n)
        x, y, *ys = KINDS[kind](r, lambda own: RESULTS[result](r, a, b, own), a, b, c)
        kernel = as_array(np.linspace(-1, 1, 3 * 3 * 4).reshape(3, 3, 2, 2))
        return (x, y, *ys, gc.max_pool2d(x, 1), gc.avg_pool2d(y, 2), gc.conv2d(x, kernel, padding=1), gc.sin(y) * x)

    def loss(p, n, a, b, c):
        return sum(gc.sum(gc.sin(v) * (i + 1.0)) for i, v in enumerate(forward(p, n, a, b, c)))
    return loss if order else forward


def traced(f, with_predicate: bool, order: int):
    arguments = [Argument("p", gc.bool_[()])] * with_predicate + [Argument(name, gc.f64[SHAPE]) for name in NAMES]

    def named(**given):
        p = given.pop("p", None)
        return f(p, *given.values())
    g = trace_function(named, arguments, "g")
    for n in range(order):
        if n:
            g = trace_function(lambda _first=g, **given: sum(gc.sum(d * d) for d in _first(**given)), arguments, "squares")
        g = gc.grad(g, NAMES)
    return g


def graphs(kind: str, result: str, steps: int, yes: bool, order: int):
    """The program with regions, and without."""
    with_regions = program(kind, result, Regions, order)
    without = program(kind, result, Unrolled, order)
    return (traced(lambda p, *given: with_regions(p, steps, *given), True, order),
            traced(lambda p, *given: without(yes, steps, *given), False, order))


def arrays():
    rng = np.random.default_rng(5)
    return [rng.standard_normal(SHAPE) for _ in NAMES]


RUNS = {0: ((2, True), (0, False)), 1: ((3, False),), 2: ((1, True),)}        # of each order of derivative: steps, and which branch


def orders():
    """The function itself, and first and second derivatives in turns; the others are slow."""
    for i, kind in enumerate(KINDS):
        for j, result in enumerate(RESULTS):
            for order in RUNS:
                yield pytest.param(kind, result, order, marks=[pytest.mark.slow] if order == 1 + (i + j) % 2 else [])


@pytest.mark.parametrize("kind, result, order", list(orders()))
def test_regions(kind, result, order):
    xs = arrays()
    for steps, yes in RUNS[order]:
        f, want = graphs(kind, result, steps, yes, order)
        stages = Compilation(f.graph, AVX2)
        expected = evaluate(want.graph, xs)
        for graph in (f.graph, stages.fused):
            for got, value in zip(evaluate(graph, [np.array(yes), *xs]), expected, strict=True):
                np.testing.assert_allclose(got, value, rtol=1e-9, atol=1e-9)
        run_all(stages.plan)


@pytest.mark.parametrize("kind", KINDS)
def test_native_code(kind):
    """One program of many results, read by image operators: 0, 1 and 2 steps, either branch."""
    for steps, yes in ((0, True), (2, False)):
        many = [graphs(kind, result, steps, yes, 0) for result in ("its own", "a transpose", "an image", "exchanged")]
        arguments = [Argument("p", gc.bool_[()])] + [Argument(name, gc.f64[SHAPE]) for name in NAMES]
        every = trace_function(lambda _all=many, **given: tuple(v for f, _ in _all for v in f(**given)), arguments, "every").graph
        want = [v for _, f in many for v in evaluate(f.graph, arrays())]
        for got, value in zip(CompiledGraph(every)(np.array(yes), *arrays()), want, strict=True):
            np.testing.assert_allclose(got, value, rtol=1e-9, atol=1e-9)


def test_a_branch_that_pooling_reads_stores_channels_last():
    """What is decided once: the branches compute in the order that the reader of their result wants, and copy nothing."""
    @gc.graph
    def f(p: gc.bool_[()], x: gc.f32[2, 8, 6, 6]):
        return gc.max_pool2d(gc.cond(p, lambda: x * 2.0, lambda: x * 3.0), 2)
    plan = Compilation(f.graph, AVX2).plan
    node = next(n for n in plan.graph.nodes if n.op.name == "cond")
    assert plan.places[node.outputs[0]].strides == (288, 1, 48, 8)
    for inner in plan.regions[node].plans.values():
        assert [n.op.name for n in inner.graph.nodes if n.op.name == "copy"] == []
    x = np.arange(576, dtype=np.float32).reshape(2, 8, 6, 6)
    for yes, factor in ((True, 2), (False, 3)):
        want = factor * x.reshape(2, 8, 3, 2, 3, 2).max((3, 5))
        np.testing.assert_array_equal(gc.compile(f)(np.array(yes), x), want)
