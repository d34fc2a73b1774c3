"""Products of a few numbers in loops are spelled out where that costs less, and give the same numbers."""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import graphc as gc
from graphc.compiler import Compilation
from graphc.ir.graph import Graph, Node, regions
from graphc.ir.interp import evaluate

STEPS = 5
SHAPES = (((3, 3), (3, 3)), ((2, 4), (4, 2)), ((3,), (3,)), ((3, 3), (3,)), ((3,), (3, 3)), ((1, 3), (3, 1)), ((5, 3, 2), (2, 3)),
          ((2, 1, 3, 2), (4, 2, 3)), ((5, 1, 2), (1, 2, 2)), ((1, 1), (1, 1)), ((6, 7), (7, 5)))
EQUATIONS = (("ij,kj->ik", (3, 2), (4, 2)), ("i,j->ij", (3,), (4,)), ("ij,ij->", (3, 3), (3, 3)), ("bij,bjk->bki", (2, 3, 2), (2, 2, 3)),
             ("ij,k->j", (3, 2), (4,)), ("ki,kj->ij", (3, 3), (3, 3)), ("ii,ij->j", (3, 3), (3, 2)))


def looped(product, left, right, dtype=gc.f32):
    @gc.graph
    def f(x: dtype[left], y: dtype[(STEPS, *right)]):
        return gc.scan(lambda x, y: (gc.sin(x + gc.sum(p := product(x, y)) * 0.1), p), x, y)
    return f


def check(f, left, right) -> None:
    rng = np.random.default_rng(2)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in (left, (STEPS, *right))]
    for mine, theirs in zip(gc.compile(f)(*arrays), evaluate(f.graph, arrays), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("left, right", SHAPES, ids=str)
def test_matmul(left, right):
    check(looped(lambda x, y: x @ y, left, right), left, right)


@pytest.mark.parametrize("equation, left, right", EQUATIONS, ids=lambda e: str(e))
def test_einsum(equation, left, right):
    check(looped(lambda x, y: gc.einsum(equation, x, y), left, right), left, right)


def test_in_branches_and_inner_loops():
    def step(x, y):
        x = gc.cond(y[0, 0] > 0, lambda x: x @ y, lambda x: x, x)
        return gc.scan(lambda x, _: (gc.tanh(x @ y), None), x, length=2)[0], None

    @gc.graph
    def f(x: gc.f32[3, 3], y: gc.f32[STEPS, 3, 3]):
        return gc.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, gc.scan(step, c[1], y)[0]), (0, x), 3)[1][1]
    x, y = np.random.default_rng(0).standard_normal((STEPS + 1, 3, 3)).astype(np.float32)[[0]][0], \
        np.random.default_rng(1).standard_normal((STEPS, 3, 3)).astype(np.float32)
    expected, = evaluate(f.graph, (x, y))
    np.testing.assert_allclose(gc.compile(f)(x, y), expected, rtol=1e-4, atol=1e-5)
    assert not list(products(Compilation(f.graph).fused))


def products(graph: Graph) -> Iterator[Node]:
    for node in graph.nodes:
        if node.op.is_contraction:
            yield node
        for _, inner in regions(node.op):
            yield from products(inner)


def is_spelled(left, right) -> bool:
    return not list(products(Compilation(looped(lambda x, y: x @ y, left, right).graph).fused))


@pytest.mark.parametrize("n", [2, 3, 4])
def test_products_of_a_few_numbers_are_spelled_out(n):
    assert is_spelled((n, n), (n, n)) and is_spelled((n,), (n,))


@pytest.mark.parametrize("left, right", [((64, 64), (64, 64)), ((16, 128), (128, 16)), ((64, 64), (64,)), ((6, 6), (6,))], ids=str)
def test_others_keep_their_kernels(left, right):
    assert not is_spelled(left, right)


def test_outside_of_loops_products_are_products():
    @gc.graph
    def f(x: gc.f32[3, 3], y: gc.f32[3, 3]):
        return x @ y
    assert len(list(products(Compilation(f.graph).fused))) == 1


def test_gradients():
    def loss(x, y):
        return gc.sum(gc.scan(lambda x, y: (gc.tanh(x @ y), gc.sum(x * y)), x, y)[0])

    @gc.graph
    def f(x: gc.f64[3, 3], y: gc.f64[STEPS, 3, 3]):
        return loss(x, y)
    gc.check_gradients(f)


PLAIN = (("bhqk,bkhd->bqhd", dict(b=14, d=1, h=79, k=9, q=108)), ("bmk,bkn->bmn", dict(b=50, m=100, k=9, n=1)), ("m,n->mn", dict(m=1000, n=800)),
         ("bmk,bkn->bmn", dict(b=50, m=100, k=1, n=50)), ("bi,bi->b", dict(b=5000, i=40)))


@pytest.mark.parametrize("equation, sizes", PLAIN, ids=str)
def test_products_without_reuse_are_loop_nests(equation, sizes):
    assert not list(products(Compilation(einsum(equation, sizes).graph).fused))


@pytest.mark.parametrize("equation, sizes", [("mk,kn->mn", dict(m=1, k=300, n=200)), ("bmk,bkn->bmn", dict(b=40, m=30, k=20, n=16)),
                                             ("bhqk,bkhd->bqhd", dict(b=14, d=1, h=79, k=40, q=108))], ids=str)
def test_those_with_rows_to_share_or_long_sums_are_products(equation, sizes):
    assert list(products(Compilation(einsum(equation, sizes).graph).fused))


@pytest.mark.parametrize("equation", ["bhqk,bkhd->bqhd", "bqhd,bkhd->bhqk", "bhqd,hbkd->qkbh", "hbqk,bkhd->dqhb"])
def test_sizes_of_one_at_any_place(equation):
    """One sum, one row or one column in a batch, the result in any order, as numpy has it."""
    rng = np.random.default_rng(1)
    for ones in ("d", "k", "q", "dk", "dq", "qk", "h", "bd", ""):
        for small in (2, 3, 9, 17):
            sizes = {c: 1 if c in ones else n for c, n in dict(b=3, h=19, q=21, k=small, d=small).items()}
            f = einsum(equation, sizes)
            arrays = [rng.standard_normal([sizes[c] for c in labels]).astype(np.float32) for labels in equation.split("->")[0].split(",")]
            assert np.allclose(gc.compile(f, threads=1)(*arrays), np.einsum(equation, *arrays), atol=1e-4), (ones, small)


def einsum(equation, sizes):
    left, right = ([sizes[c] for c in labels] for labels in equation.split("->")[0].split(","))

    @gc.graph
    def f(x: gc.f32[tuple(left)], y: gc.f32[tuple(right)]):
        return gc.einsum(equation, x, y)
    return f
