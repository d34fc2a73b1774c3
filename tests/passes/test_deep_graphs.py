"""Programs as deep as they are long: no walk over a graph recurses, none takes a way twice. Chains, and ladders,
whose number of ways from end to end doubles with every link, at the top, in bodies of loops and branches, and in
their gradients.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphc as gc
from benchmarks.deadline import deadline
from graphc.ir.interp import evaluate

FLIPPED = np.array([3, 2, 1, 0])
LINKS: dict[str, Callable] = {                  # of h and u, f32[4]: a ladder's link reads h twice
    "residual": lambda h, u: h + .1 * (u - h),
    "doubled": lambda h, u: .4 * h + .4 * h * u,
    "square": lambda h, u: h * h - h,
    "tanh": lambda h, u: gc.tanh(h) + h * .1,
    "where": lambda h, u: gc.where(h > u, h, -h),
    "maximum": lambda h, u: gc.maximum(h, u) + gc.minimum(h, u),
    "sums": lambda h, u: h - gc.sum(h) * .1,
    "softmax": lambda h, u: h * .5 + gc.softmax(h),
    "product": lambda h, u: h * .5 + (h.reshape(1, 4) @ (u.reshape(4, 1) * h * .1)).reshape(4),
    "einsum": lambda h, u: h * .5 + .1 * gc.einsum("i,j->j", h, u),
    "turned": lambda h, u: h.reshape(2, 2).T.reshape(4) * .5 + h * .5,
    "parts": lambda h, u: gc.concat([h[2:], h[:2]]) * .5 + h[::-1] * .5,
    "repeated": lambda h, u: gc.mean(gc.broadcast_to(h, (3, 4)), axis=0) - h * .1,
    "padded": lambda h, u: gc.pad(h[1:], ((1, 0),)) - h * .5,
    "cumulative": lambda h, u: h - .1 * gc.cumsum(h),
    "sorted": lambda h, u: h * .5 + .5 * gc.sort(h),
    "taken": lambda h, u: h * .5 + .5 * gc.take(h, FLIPPED),
    "stopped": lambda h, u: h * .5 + .5 * gc.stop_gradient(h),
    "wide": lambda h, u: h * .5 + (.5 * h.astype(gc.f64)).astype(gc.f32),
    "negative": lambda h, u: -(h / (1 + u * u)) - h,
}
CHAINS: dict[str, Callable] = {                 # of x, f32[2, 6]: long ways with no fork, which have no other reader
    "reshapes": lambda x, i: x.reshape(3, 4) if i % 2 else x.reshape(2, 6),
    "transposes": lambda x, i: x.T,
    "factors": lambda x, i: x * 1.01,
    "casts": lambda x, i: x.astype(gc.f64 if x.dtype == gc.f32 else gc.f32),
}
SECONDS = 60            # of this process: a walk that doubles with every link takes years


def links(names: tuple[str, ...], count: int) -> Callable:
    """The links one after the other, again and again."""
    def chain(h, u):
        for i in range(count):
            h = LINKS[names[i % len(names)]](h, u)
        return h
    return chain


def looped(chain: Callable) -> gc.GraphFunction:
    """The chain of a carry, and of what a step reads, which can leave the loop."""
    @gc.graph
    def f(h: gc.f32[4], u: gc.f32[4], xs: gc.f32[3, 4]):
        def body(s, x):
            new = chain(s + x, u)
            return new, gc.stack([new, chain(x, u)])
        last, every = gc.scan(body, h, xs)
        return gc.sum(last * last) + gc.sum(every * every)
    return f


def branched(chain: Callable) -> gc.GraphFunction:
    @gc.graph
    def f(h: gc.f32[4], u: gc.f32[4]):
        y = gc.cond(gc.sum(h) > 0, lambda: chain(h, u), lambda: chain(u, h))
        return gc.sum(y * y)
    return f


def straight(chain: Callable) -> gc.GraphFunction:
    @gc.graph
    def f(h: gc.f32[4], u: gc.f32[4]):
        y = chain(h, u)
        return gc.sum(y * y)
    return f


@pytest.mark.parametrize("program", (straight, branched, looped))
@pytest.mark.parametrize("name", LINKS)
def test_ladders(name, program):
    f = program(links((name,), 32))
    with deadline(SECONDS):
        gc.plan(gc.grad(f, wrt=("h", "u")))


@pytest.mark.parametrize("program", (straight, *(pytest.param(p, marks=pytest.mark.slow) for p in (branched, looped))))
def test_ten_thousand_nodes(program):
    f = program(links(tuple(LINKS), 2200 if program is straight else 1100))      # bodies have two chains
    assert len(str(f).splitlines()) > 10_000
    with deadline(SECONDS):
        gc.plan(f)


@pytest.mark.parametrize("program", (straight, branched, looped))
def test_gradients_of_thousands_of_nodes(program):
    f = program(links(tuple(LINKS), 160))
    with deadline(SECONDS):
        gc.plan(gc.grad(f, wrt=("h", "u")))


@pytest.mark.parametrize("name", CHAINS)
def test_chains_into_attention(name):
    """Chains that lead to the products of a softmax, and to a product with one_hot, which are looked at through views
    and factors.
    """
    def chain(x):
        for i in range(1500):
            x = CHAINS[name](x, i)
        return x.reshape(2, 6).astype(gc.f32)

    @gc.graph
    def f(q: gc.f32[2, 6], k: gc.f32[2, 6], v: gc.f32[2, 6], ids: gc.i64[2], w: gc.f32[6, 5]):
        y = gc.softmax(chain(q) @ chain(k).T) @ chain(v)
        return y, chain(gc.one_hot(ids, 6)) @ w
    with deadline(SECONDS):
        gc.plan(f)


def test_numbers_of_what_is_deep():
    """Deep graphs are simplified by the same passes as others: what runs is what the graph says."""
    f = gc.grad(looped(links(tuple(LINKS), len(LINKS))), wrt=("h", "u", "xs"))
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(-1, 1, shape).astype(np.float32) for shape in ((4,), (4,), (3, 4))]
    for native, oracle in zip(gc.compile(f)(*arrays), evaluate(f.graph, arrays)):
        np.testing.assert_allclose(native, oracle, rtol=2e-4, atol=2e-5 * np.abs(oracle).max())


def test_a_long_way_to_what_a_condition_hides():
    """The gradient remembers for all of the way that it is zero by choice."""
    @gc.graph
    def f(x: gc.f32[4], u: gc.f32[4]):
        h = gc.sqrt(x)
        for i in range(1000):
            h = (h + u) * 0.5 if i % 2 else h.reshape(2, 2).T.reshape(4)
        return gc.sum(gc.where(u > 0, h, 0.0))
    with deadline(SECONDS):
        gradient = gc.compile(gc.grad(f, wrt="x"))
    np.testing.assert_array_equal(gradient(np.zeros(4, np.float32), np.zeros(4, np.float32)), 0.0)
