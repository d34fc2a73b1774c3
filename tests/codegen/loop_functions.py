"""Loop functions that several tests of this folder look at."""
from __future__ import annotations

from graphc.codegen.loops.builder import LoopFunction
from graphc.ir.types import f32, i32


def micro_kernel(rows: int = 6, vectors: int = 2, lanes: int = 8, depth: int = 256) -> LoopFunction:
    """c = a^T b on packed panels a[depth, rows], b[depth, vectors * lanes]: the inner loop of matrix products."""
    f = LoopFunction("micro")
    a, b = f.view("a", f32, (depth, rows)), f.view("b", f32, (depth, vectors * lanes))
    c = f.view("c", f32, (rows, vectors * lanes))
    with f.loop(0, depth, carry=[f.const(0.0, f32, lanes)] * (rows * vectors), name="k") as L:
        columns = [f.load(b, [L.index, v * lanes], lanes=lanes) for v in range(vectors)]
        sums = []
        for i in range(rows):
            row = f.splat(f.load(a, [L.index, i]), lanes)
            sums += [f.fma(row, column, L.carried[i * vectors + v]) for v, column in enumerate(columns)]
        L.next(*sums)
    for i in range(rows):
        for v in range(vectors):
            f.store(c, [i, v * lanes], L.results[i * vectors + v])
    return f


def softmax(rows: int = 16, columns: int = 100, lanes: int = 8) -> LoopFunction:
    """Rows in parallel, whole vectors, a masked tail."""
    f = LoopFunction("softmax")
    x, y = f.view("x", f32, (rows, columns)), f.view("y", f32, (rows, columns))
    whole = columns // lanes * lanes
    mask = f.tail_mask(columns - whole, lanes)
    with f.parallel(rows, "rows") as row:
        e = f.scratch("e", f32, (columns,))
        with f.loop(0, whole, step=lanes, carry=[f.const(float("-inf"), f32, lanes)]) as L:
            L.next(f.max(L.carried[0], f.load(x, [row, L.index], lanes=lanes)))
        tail = f.select(mask, f.load(x, [row, whole], lanes=lanes, mask=mask), float("-inf"))
        top = f.reduce(f.max(L.results[0], tail), "max")
        with f.loop(0, whole, step=lanes, carry=[f.const(0.0, f32, lanes)]) as L:
            value = f.exp(f.load(x, [row, L.index], lanes=lanes) - top)
            f.store(e, [L.index], value)
            L.next(L.carried[0] + value)
        last = f.select(mask, f.exp(tail - top), 0.0)
        total = f.reduce(L.results[0] + last, "add")
        with f.loop(0, whole, step=lanes) as L:
            f.store(y, [row, L.index], f.load(e, [L.index], lanes=lanes) / total)
        f.store(y, [row, whole], last / total, mask=mask)
    return f


def gather(n: int = 4) -> LoopFunction:
    """A checked index, a branch, a bounded while loop, a strided load, a call."""
    inner = LoopFunction("double")
    block = inner.view("block", f32, (8,))
    inner.store(block, [0], inner.load(block, [0], lanes=8) * 2.0)
    f = LoopFunction("gather")
    index, x, y = f.view("index", i32, (n,)), f.view("x", f32, (10, 8), (1, 10)), f.view("y", f32, (n, 8))
    count = f.param("count", 0, n)
    with f.loop(0, count) as L:
        row = f.check_index(f.load(index, [L.index]), 10, node_id=5)
        f.store(y, [L.index, 0], f.load(x, [row, 0], lanes=8))
        with f.if_(f.gt(f.load(x, [row, 0]), 0.0)):
            f.call(inner, [y.view_at([L.index, 0], shape=(8,), strides=(1,))])
        with f.else_():
            f.store(y, [L.index, 0], f.const(0.0, f32, 8), hint="nontemporal")
    with f.while_(100, carry=[f.const(1.0, f32)]) as W:
        W.condition(f.lt(W.carried[0], 50.0))
        W.next(W.carried[0] * 2.0)
    f.fail_unless(f.eq(f.value(W.count), 6), 9, f.value(W.count))
    quotient, rest = f.divmod(count + 3, 4)
    f.prefetch(y, [f.min_(quotient, rest), 0])
    return f
