"""What is proved about indices is true: random loop nests, every value they take."""
from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.codegen.llvm.control import FOLDS
from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.index import Ix, Sym, undivided
from graphc.codegen.loops.index_proofs import at_least, at_most, grows, lower, upper
from graphc.codegen.loops.loop_ir import Define, For
from graphc.ir.dims import size_name

SMALL = st.integers(-6, 6)


def affine(draw, known: list[Ix]) -> Ix:
    total = Ix(draw(SMALL))
    for ix in known:
        total = total + ix * draw(st.integers(-3, 3))
    return total


@st.composite
def nests(draw) -> tuple[LoopFunction, Ix]:
    """A function of nested loops and index definitions, and an expression in its innermost place."""
    f = LoopFunction("nest")
    known: list[Ix] = []

    def grow(depth: int) -> Ix:
        kind = draw(st.sampled_from(["loop", "min", "max", "divmod", "product"])) if depth else "end"
        if kind == "end":
            return affine(draw, known)
        if kind == "loop":
            lo = affine(draw, known)
            with f.loop(lo, draw(st.sampled_from([lo + draw(st.integers(0, 5)), affine(draw, known)])),
                        step=draw(st.integers(1, 3))) as L:
                known.append(L.index)
                return grow(depth - 1)
        if kind == "divmod":
            known.extend(f.divmod(affine(draw, known), draw(st.integers(1, 4))))
        elif kind == "product":
            known.append(f.product(affine(draw, known), affine(draw, known)))
        else:
            known.append(getattr(f, kind + "_")(affine(draw, known), affine(draw, known)))
        return grow(depth - 1)

    return f, grow(draw(st.integers(1, 5)))


def value(ix: Ix, env: dict[Sym, int]) -> int:
    return ix.const + sum(env[s] * c for s, c in ix.terms)


def places(body: list, env: dict[Sym, int]) -> Iterator[dict[Sym, int]]:
    """The values of all symbols, each time the innermost place is reached."""
    for s in body:
        if type(s) is Define:
            env = {**env, s.symbol: FOLDS[s.kind](*[value(a, env) for a in s.args])}
        elif type(s) is For:
            for i in range(value(s.lo, env), value(s.hi, env), s.step):
                yield from places(s.body, {**env, s.symbol: i})
            return
    yield env


@given(nests())
@settings(max_examples=400, deadline=None)
def test_bounds_and_divisors_hold(nest):
    f, ix = nest
    found = [(value(ix, env), value(undivided(ix), env)) for env in places(f.body, {})]
    values = [v for v, _ in found]
    assert values == [v for _, v in found]
    if not values:
        return
    assert lower(ix) <= min(values) and max(values) <= upper(ix)
    assert not at_most(ix, max(values) - 1) and not at_least(ix, min(values) + 1)
    assert not grows(ix, upper(ix)) and not grows(-ix, -lower(ix))      # what is proved is not refuted
    divisor = ix.divisor()
    assert all(v % divisor == 0 for v in values) if divisor else set(values) == {0}


@pytest.mark.parametrize(("height", "width"), [(7, 5), (size_name("H"), size_name("W", low=2))])
def test_pixels_that_lie_evenly_need_no_division(height, width):
    f = LoopFunction("pixels")
    with f.loop(0, 1000) as L:
        rest, column = f.divmod(L.index + 3, width)
        image, line = f.divmod(rest, height)
        place = image * (height * width * 16) + line * (width * 16) + column * 16
        assert undivided(place + 5) == L.index * 16 + 53
        apart = place + image
        assert undivided(apart) == apart
