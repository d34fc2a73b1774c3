"""Steps of random programs that put together what one step after another seldom meets: memory that is shared, read
again, or written in place."""
from __future__ import annotations

import graphc as gc
from tests.random import steps_images, steps_move, steps_rows
from tests.random.scope import Scope

VIEWS = (steps_move.broadcast, steps_move.tile, steps_move.repeat, steps_move.transpose, steps_move.slices,
         steps_move.flip, steps_move.concat,
         steps_move.stack, steps_move.reshape, steps_move.split, steps_move.pad, steps_move.roll)
READERS = (steps_rows.reduce, steps_rows.smooth, steps_rows.pair, steps_rows.product, steps_rows.rows,
           steps_rows.cumulative, steps_rows.sort,
           steps_rows.einsum, steps_images.pool, steps_images.conv2d, steps_move.scatter, steps_move.dynamic)


def shared(s: Scope):
    """A computed value, views of it, and what reads the views and the value again; all of them may be returned."""
    part = s.alone([_computed(s)])
    part.follow([s.one(VIEWS) for _ in range(s.whole(1, 3))])
    part.follow([s.one(READERS) for _ in range(s.whole(1, 3))])
    return part.own


def _computed(s: Scope):
    x = s.floats()
    return s.one([lambda x: x * 0.5, gc.tanh, lambda x: x + x, lambda x: gc.cumsum(x) * 0.5,
                  lambda x: gc.sum(x, -1 if x.ndim else None, keepdims=True),
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


def carried(s: Scope):
    """Arrays of one type that a loop carries, each of them updated by numbers, by itself or by the others, exchanged,
    or kept, with readers before and after; perhaps in a branch or in a loop inside."""
    x = s.pick(lambda x: x.dtype.is_float and 1 <= x.ndim <= 3 and x.type.is_static and 0 < s.count(x.shape) <= 200)
    begins = [x * 0.5 if s.chance(0.6) else x] + [s.like(x.shape, x.dtype) for _ in range(s.whole(0, 2))]
    begins[-1] = begins[0] if s.chance(0.15) else begins[-1]
    around, deep = s.whole(0, 3), s.whole(0, 3)

    def update(cs, i, depth):
        """One array after another, of what was before or is new."""
        now = list(cs)
        for n in range(len(now)):
            source = s.one([*cs, *now, s.like(x.shape, x.dtype)])
            sizes = [s.whole(1, size) for size in x.shape]
            part = gc.dynamic_slice(source, [i] * x.ndim, sizes)
            target = s.one([now[n]] * 4 + [*cs, *now])
            way = s.whole(0, 6)
            if way < 3:
                now[n] = gc.dynamic_update_slice(target, part * 0.5 if s.chance(0.7) else part, [s.one([i, i + 1, 0])] * x.ndim)
            elif way == 3:
                now[n] = gc.scatter_add(target, (i + gc.arange(2)) % x.shape[0], source[:1] * gc.ones((2, *x.shape[1:]), x.dtype))
            elif way == 4:
                now[n] = target if s.chance(0.7) else gc.tanh(target)
            elif way == 5 and depth:
                now = list(gc.cond(i % 2 == 0, lambda *a: tuple(update(a, i, depth - 1)), lambda *a: tuple(
                    update(a, i, 0) if s.chance(0.5) else a), *now))
            elif depth:
                now = list(gc.scan(lambda a, j: (tuple(update(a, j, depth - 1)), None), tuple(now), gc.arange(2))[0])
        return now

    def step(carry, i):
        new = update(carry, i, deep)
        emitted = [s.one([*carry, *new])] if s.chance(0.2) else [gc.sum(s.one([*carry, *new]))]
        return tuple(new), tuple(emitted)
    if around == 3:
        _, (*last, _) = gc.while_loop(lambda c: c[-1] < 3, lambda c: (*update(c[:-1], c[-1], deep), c[-1] + 1),
                                      (*begins, 0), s.one([2, 5]))
        return last + begins[:1] if s.chance(0.3) else last
    last, ys = gc.scan(step, tuple(begins), gc.arange(s.whole(1, 4)), reverse=s.chance(0.3))
    return [*last, *ys] + (begins[:1] if s.chance(0.3) else [])


def norms(s: Scope):
    """Image operators one after another, as networks have them: convolution, norm, activation, pool, and the sum with
    what came before."""
    x = steps_images.image(s)
    part = s.alone([x])
    part.follow([s.one([steps_images.conv2d, steps_images.norm, steps_images.pool, steps_rows.smooth,
                        steps_images.border, steps_images.resize])
                 for _ in range(s.whole(2, 4))])
    y = part.arrays[-1]
    if s.chance(0.5) and y.ndim == 4 and y.type == x.type:
        part.add(x + y)
    return part.own


def spelled_attention(s: Scope):
    """Products with a softmax between them, masked in one of the ways in which people write that."""
    x = s.pick(lambda x: x.dtype.is_float and 2 <= x.ndim <= 3 and s.count(x.shape) <= 200)
    t, d = s.concrete(x)[-2:]
    q, k, v = (x @ w if s.chance(0.5) else x * 0.5 for w in (s.like((d, d), x.dtype) for _ in range(3)))
    scores = q @ k.mT * s.one([0.5, 1.0])
    seen = gc.tril(gc.ones((t, t),
                           x.dtype)) if s.chance(0.5) else (gc.iota((t, t), 0) >= gc.iota((t, t), 1)).astype(x.dtype)
    hidden = s.whole(0, 3)
    if hidden == 1:
        scores = gc.where(seen > 0, scores, -1e9)
    elif hidden == 2:
        scores = scores + (1 - seen) * -1e9
    elif hidden == 3:
        scores = scores + s.like((t, t), x.dtype)
    return gc.softmax(scores) @ v


def recurrent(s: Scope):
    """An LSTM or a simple recurrence over the rows of an array: products of what comes in and of the carry, gates cut
    out of them."""
    x = s.pick(lambda x: x.dtype.is_float and x.ndim == 2 and x.type.is_static and x.shape[0] <= 8)
    n, gates = s.whole(1, 4), s.one([1, 3, 4])
    w, u, b = s.like((x.shape[1], gates * n), x.dtype), s.like((n, gates * n), x.dtype), s.like((gates * n,), x.dtype)
    h0 = s.like((n,), x.dtype)

    def step(carry, row):
        h, c = carry
        parts = gc.split(row @ w + h @ u * 0.5 + b, gates)
        if gates == 1:
            return (gc.tanh(parts[0]), c), parts[0]
        c = gc.sigmoid(parts[0]) * c + gc.sigmoid(parts[1]) * gc.tanh(parts[2])
        h = gc.sigmoid(parts[3]) * gc.tanh(c) if gates == 4 else gc.tanh(c)
        return (h, c), h
    (h, c), ys = gc.scan(step, (h0, gc.zeros((n,), x.dtype) if s.chance(0.5) else s.like((n,), x.dtype)), x,
                         reverse=s.chance(0.4))
    return [h, c, ys]


def lookup(s: Scope):
    """Rows of a table by ids, as take or as a product with one_hot; the table may be used otherwise too."""
    table = s.pick(lambda x: x.dtype.is_float and x.ndim == 2 and x.type.is_static and x.shape[0] > 0)
    ids = s.like((s.whole(0, 5),), gc.i64) % table.shape[0]
    rows = gc.one_hot(ids, table.shape[0], table.dtype) @ table if s.chance(0.5) else gc.take(table, ids)
    return [rows, table * 0.5] if s.chance(0.3) else rows


def draw(s: Scope):
    """Random numbers from a key that is given."""
    key = s.like((2,), gc.i64)
    shape = tuple(s.whole(1, 5) for _ in range(s.whole(0, 3)))
    return gc.uniform(shape, -1, 1, dtype=s.dtype, key=key) if s.chance(0.5) else gc.bernoulli(0.5, shape, key=key)


STEPS = {shared: 14, overwritten: 4, carried: 6, norms: 5, spelled_attention: 3, recurrent: 4, lookup: 2, draw: 1}
