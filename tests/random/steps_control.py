"""Steps of random programs that are loops and branches. Results of regions: values computed there, captured ones,
inputs, constants, one twice."""
from __future__ import annotations

import graphc as gc
from graphc.dsl.array import as_array
from tests.random.scope import Scope, Skip

DEEPEST = 2                         # regions in regions


def cond(s: Scope):
    _enter(s)
    pred = _predicate(s)
    types: list = []

    def then():
        inner = s.inner()
        inner.grow(s.whole(0, 3))
        found = [inner.pick() for _ in range(s.whole(1, 3))]
        if s.chance(0.2):
            found.append(found[0])
        types.extend(x.type for x in found)
        return tuple(found)

    def otherwise():
        inner = s.inner()
        inner.grow(s.whole(0, 3))
        found = [as_array(inner.like(t.shape, t.dtype, reuse=0.9)) for t in types]
        return tuple(_nudged(s, x) for x in found)
    return list(gc.cond(pred, then, otherwise))


def scan(s: Scope):
    _enter(s)
    xs = []
    if s.chance(0.8):
        first = s.pick(lambda x: x.ndim >= 1 and (not isinstance(x.shape[0], int) or x.shape[0] <= 6 or s.chance(0.1)))
        if s.chance(0.25) and isinstance(first.shape[0], int):
            first = first[:s.one([0, 1, 2])]
        length = first.shape[0]
        xs = [first] + [as_array(s.like((length, *shape), s.dtype)) for shape in [_small(s)] * s.whole(0, 1)]
    else:
        length = s.one([0, 1, 2, 2, 3])
    carries = [_carry(s) for _ in range(s.whole(0 if xs else 1, 3))]

    def step(cs, elements):
        inner = s.inner([*cs, *elements])
        inner.grow(s.whole(1, 4))
        new = [_next(inner, c) for c in cs]
        ys = [inner.pick() for _ in range(s.whole(0 if cs else 1, 2))]
        if ys and s.chance(0.15):
            ys.append(s.one(ys))
        return tuple(new), tuple(ys)
    last, ys = gc.scan(step, tuple(carries), tuple(xs), length=None if xs else length, reverse=s.chance(0.4))
    return [*last, *ys]


def while_loop(s: Scope):
    _enter(s)
    carries = [_carry(s) for _ in range(s.whole(1, 2))]
    limit = s.one([0, 1, 2, 3])
    counted = s.chance(0.7)

    def go(state):
        cs, i = state
        if counted:
            return i < limit
        floats = [c for c in cs if c.dtype.is_float]
        return (gc.sum(gc.abs(floats[0])) < 3.0) if floats else i < limit

    def body(state):
        cs, i = state
        inner = s.inner(cs)
        inner.grow(s.whole(1, 3))
        return tuple(_next(inner, c) for c in cs), i + 1
    count, (last, _) = gc.while_loop(go, body, (tuple(carries), 0), max_trips=s.one([0, 1, 2, 3, 4]))
    return [*last, count]


def _enter(s: Scope) -> None:
    """Skip where regions are nested deeply enough."""
    if s.depth >= DEEPEST or s.depth and s.chance(0.4):
        raise Skip


def _predicate(s: Scope):
    way = s.rng.random()
    if way < 0.4:
        return as_array(s.like((), gc.bool_))
    x = s.floats()
    return gc.sum(x) > 0.1 if way < 0.7 else gc.mean(gc.tanh(x)) < 0.05


def _small(s: Scope) -> tuple[int, ...]:
    return tuple(s.whole(1, 3) for _ in range(s.whole(0, 2)))


def _carry(s: Scope):
    if s.chance(0.7):
        return s.pick()
    return as_array(s.like(_small(s), s.dtype if s.chance(0.8) else gc.i64))


def _next(s: Scope, c):
    """The new value of a carry: often of what was made in the body, sometimes the old one, another, a captured one or
    a constant."""
    made = [x for x in s.own if x.type == c.type and x is not c]
    x = as_array(s.one(made) if made and s.chance(0.6) else s.like(c.shape, c.dtype, reuse=0.5))
    return _nudged(s, x)


def _nudged(s: Scope, x):
    """x, or something that is computed from it alone and stays small."""
    if not x.dtype.is_float or s.chance(0.5):
        return x
    return s.one([gc.tanh, gc.sin, lambda x: x * 0.5, lambda x: -x])(x)


STEPS = {cond: 7, scan: 9, while_loop: 5}
