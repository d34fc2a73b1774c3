"""einsum of any number of operands against numpy's: equations, broadcasting, diagonals, named sizes, mistakes."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.dsl.function import finish
from graphc.dsl.trace import Trace
from graphc.nn.network import trace_network

SIZES = {"a": 2, "b": 3, "c": 4, "d": 5, "e": 1, "i": 3, "j": 3, "k": 2}
EQUATIONS = (
    "ab,bc,cd->ad", "ab,bc,cd,da->", "a,b,c->abc", "ab,ab,ab->ab", "ab,bc,cd", "ij,jk,k", "ii,ij,j->i", "ii,jj,ij->",
    "...ab,...bc,...cd->...ad", "...a,a,ab->...b", "ab...,bc...,c->a...", "a,a,a->", "a,b,ab,bc,cd,d->", "aa,aa,aa->a",
    ",ab,->ba", "a,bc,d->", "ab,cb,db,eb->acde", "abc,abd,acd->b", "ab,ba,ab,ba,ab,ba,bc->c", "ab->", "aab->b", "iji,j->i",
    "...,...,...", "ab,...b,b...->a...")


def arrays(equation: str, dtype=np.float64) -> list[np.ndarray]:
    rng = np.random.default_rng(len(equation))
    out = []
    for n, term in enumerate(equation.split("->")[0].split(",")):
        shape = []
        for part in term.replace("...", "."):
            shape += [SIZES[part]] if part != "." else [7, 2][n % 2:] if n else [2]
        out.append(rng.uniform(0.5, 1.5, shape).astype(dtype))
    return out


def test_is_numpys():
    """All equations in one graph."""
    given = [arrays(equation) for equation in EQUATIONS]
    with Trace("equations") as trace:
        results = []
        for n, (equation, xs) in enumerate(zip(EQUATIONS, given)):
            ins = [trace.input(f"x{n}_{i}", gc.f64[x.shape]) for i, x in enumerate(xs)]
            results.append(gc.einsum(equation, *ins))
        run = gc.compile(finish(trace, tuple(results)))
    for equation, xs, result in zip(EQUATIONS, given, run(*(x for xs in given for x in xs))):
        np.testing.assert_allclose(result, np.einsum(equation, *xs), rtol=1e-12, err_msg=equation)


@pytest.mark.parametrize("equation", ("ab,bc,cd->ad", "ii,ij,j->i", "...ab,...bc,...cd->...ad", "a,b,ab->"))
def test_gradients(equation):
    """First and second."""
    xs = dict(zip("xyz", arrays(equation)))

    def f(x, y, z):
        return gc.sum(gc.einsum(equation, x, y, z) ** 2)
    first = gc.grad(trace_network(f, True, **{n: gc.f64[x.shape] for n, x in xs.items()}), wrt=tuple(xs))

    def of_first(x, y, z):
        return sum(gc.sum(g * g) for g in first(x, y, z))
    gc.check_gradients(f, raises=True, **xs)
    gc.check_gradients(of_first, raises=True, **xs)


def test_axes_of_size_1_broadcast():
    x, y, z = np.ones((1, 3)), np.arange(12.0).reshape(4, 3), np.arange(4.0)[:, None]

    @gc.graph
    def f(x: gc.f64[1, 3], y: gc.f64[4, 3], z: gc.f64[4, 1]):
        return gc.einsum("ab,ab,ab->a", x, y, z)
    np.testing.assert_allclose(gc.compile(f)(x, y, z), np.einsum("ab,ab,ab->a", x, y, z))


def test_the_cheapest_order_is_taken():
    """(1000 × 2) (2 × 1000) (1000 × 1): from the right 8,000 multiplications, from the left 3 million."""
    @gc.graph
    def f(x: gc.f32[1000, 2], y: gc.f32[2, 1000], z: gc.f32[1000, 1]):
        return gc.einsum("ab,bc,cd->ad", x, y, z)
    largest = max(v.type.size for node in f.graph.nodes for v in node.outputs)
    assert largest == 1000


def test_named_sizes():
    @gc.graph
    def f(x: gc.f32["B", 3], y: gc.f32[3, "N"], z: gc.f32["N", "B"]):
        return gc.einsum("bi,in,nb->", x, y, z)
    rng = np.random.default_rng(0)
    x, y, z = (rng.random(s, np.float32) for s in ((5, 3), (3, 7), (7, 5)))
    np.testing.assert_allclose(gc.compile(f)(x, y, z), np.einsum("bi,in,nb->", x, y, z), rtol=1e-5)


@pytest.mark.parametrize("equation, shapes, says", (
    ("ab,bc,cd->ad", ((2, 3), (4, 4), (4, 2)), '"b" is 3 in one place and 4 in another'),
    ("ab,bc->ac", ((2, 3), (3, 4), (4, 2)), "names 2 operands, got 3"),
    ("ab,bc,cd->ax", ((2, 3), (3, 4), (4, 2)), "x"), ("ab,bc,cd->aa", ((2, 3), (3, 4), (4, 2)), "twice"),
    ("abc,bc,cd->ad", ((2, 3), (3, 4), (4, 2)), "names 3 axes, the operand has 2")))
def test_mistakes(equation, shapes, says):
    with pytest.raises(gc.GraphError) as caught:
        gc.compile(lambda x, y, z: gc.einsum(equation, x, y, z), **{n: gc.f32[s] for n, s in zip("xyz", shapes)})
    assert says in caught.value.text and caught.value.loc.file == __file__


def test_a_wrong_operand_in_any_place():
    for wrong in (None, "x", object(), [1, "a"]):
        with pytest.raises(gc.GraphError):
            gc.compile(lambda x, wrong=wrong: gc.einsum("ab,ab,ab->a", x, x, wrong), x=gc.f32[2, 3])
    with pytest.raises(gc.GraphError, match="astype"):
        gc.compile(lambda x, y: gc.einsum("ab,ab,ab->a", x, x, y), x=gc.f32[2, 3], y=gc.f64[2, 3])
