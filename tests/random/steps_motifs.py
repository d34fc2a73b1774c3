"""Steps of random programs that put together what one step after another seldom meets: memory that is shared, read again, or written in place."""
from __future__ import annotations

import graphc as gc
from tests.random import steps_images, steps_move, steps_rows
from tests.random.scope import Scope

VIEWS = (steps_move.broadcast, steps_move.tile, steps_move.repeat, steps_move.transpose, steps_move.slices, steps_move.flip, steps_move.concat,
         steps_move.stack, steps_move.reshape, steps_move.split, steps_move.pad, steps_move.roll)
READERS = (steps_rows.reduce, steps_rows.smooth, steps_rows.pair, steps_rows.product, steps_rows.rows, steps_rows.cumulative, steps_rows.sort,
           steps_rows.einsum, steps_images.pool, steps_images.conv2d, steps_move.scatter, steps_move.dynamic)


def shared(s: Scope):
    """A computed value, views of it, and what reads the views and the value again; all of them may be returned."""
    part = s.alone([_computed(s)])
    part.follow([s.one(VIEWS) for _ in range(s.whole(1, 3))])
    part.follow([s.one(READERS) for _ in range(s.whole(1, 3))])
    return part.own


def _computed(s: Scope):
    x = s.floats()
    return s.one([lambda x: x * 0.5, gc.tanh, lambda x: x + x, lambda x: gc.cumsum(x) * 0.5, lambda x: gc.sum(x, -1 if x.ndim else None, keepdims=True),
                  lambda x: gc.einsum("a,b->ab", x.reshape(-1)[:4], x.reshape(-1)[:3])])(x)


def overwritten(s: Scope):
    """An array that is updated in a part, again in another, and read before, between or after."""
    x = _computed(s)
    made = [x]
    for _ in range(s.whole(1, 3)):
        part = s.alone([made[-1]])
        part.follow([s.one([steps_move.dynamic, steps_move.scatter, steps_rows.smooth])])
        made += part.own[-1:] if part.own else []
    return made + [made[0] * 2.0] if s.chance(0.5) else made


def norms(s: Scope):
    """Image operators one after another, as networks have them: convolution, norm, activation, pool, and the sum with what came before."""
    x = steps_images.image(s)
    part = s.alone([x])
    part.follow([s.one([steps_images.conv2d, steps_images.norm, steps_images.pool, steps_rows.smooth, steps_images.border, steps_images.resize])
                 for _ in range(s.whole(2, 4))])
    y = part.arrays[-1]
    if s.chance(0.5) and y.ndim == 4 and y.type == x.type:
        part.add(x + y)
    return part.own


STEPS = {shared: 14, overwritten: 4, norms: 5}
