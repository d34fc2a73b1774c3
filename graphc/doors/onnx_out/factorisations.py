"""LU, LQ and symmetric eigenvalues, which ONNX does not have, as loops over columns, rows and rotations: the methods of
`ir/ops/factor.py`. All matrices of an operand go through a loop together, [M, n, n]."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphc.ir.builder import Builder
from graphc.ir.dims import Dim, product_of, static_dim
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Opcode, OpBuilder, Values
from graphc.ir.ops.constant import full, number
from graphc.ir.ops.control import Scan, WhileLoop
from graphc.ir.ops.factor import LQ, LU, MOST_SWEEPS, SymmetricEigen
from graphc.ir.types import TensorType, bool_, i64

Step = Callable[[Builder, tuple[Value, ...]], Sequence[Value]]


def _graph(name: str, types: Sequence[TensorType], step: Step) -> Graph:
    b = Builder(name)
    ins = tuple(b.input(f"x{i}", t) for i, t in enumerate(types))
    return b.finish(list(step(b, ins)), ("",))


def _loop(b: OpBuilder, carries: Sequence[Value], slices: Sequence[Value], step: Step) -> Values:
    """The carries after all steps; `step` takes the carries and a slice of each of `slices`."""
    types = [v.type for v in carries] + [v.type.with_shape(v.type.shape[1:]) for v in slices]
    body = _graph("step", types, step)
    length = slices[0].type.shape[0]
    return b.apply(Scan(body, len(carries), len(slices), length), (*carries, *slices))


def _flat(b: OpBuilder, x: Value) -> Value:
    """[M, rows, columns]."""
    return b.reshape(x, shape=(product_of(x.type.shape[:-2]), *x.type.shape[-2:]))


def _counts(b: OpBuilder, n: Dim) -> Value:
    return b.iota(shape=(n,), axis=0, dtype=i64)


def _taken(b: OpBuilder, x: Value, at: Value, axis: int) -> Value:
    """x[…, at, …] for one position, without the axis."""
    return b.take(x, at, axis=axis)


def _across(b: OpBuilder, x: Value, axis: int) -> Value:
    """x with an axis of 1."""
    return b.reshape(x, shape=x.type.shape[:axis] + (1,) + x.type.shape[axis:])


def lu(b: OpBuilder, node: Node, x: Value) -> Values:
    """Column after column: the row with the largest element comes up, and what is below is eliminated."""
    flat, (n, dtype) = _flat(b, x), (x.type.shape[-1], x.type.dtype)
    m = flat.type.shape[0]
    if n == 0:
        return x, full(b, 0, node.outputs[1].type), full(b, 1, node.outputs[2].type)

    def step(b: Builder, ins: tuple[Value, ...]) -> list[Value]:
        a, order, sign, k = ins
        rows = _counts(b, n)
        size = b.abs(_taken(b, a, k, 2))
        size = b.where(b.bitor(b.isnan(size), b.lt(rows, k)), number(b, -1, size), size)
        p = b.argmax(size, axis=1, keepdims=True)
        source = b.where(b.eq(rows, k), p, b.where(b.eq(rows, p), k, rows))            # [M, n]
        a = b.take_along_axis(a, b.broadcast_to(_across(b, source, 2), shape=a.type.shape), axis=1)
        order = b.take_along_axis(order, source, axis=1)
        sign = b.where(b.eq(b.reshape(p, shape=(m,)), k), sign, b.neg(sign))
        column, row = _taken(b, a, k, 2), _taken(b, a, k, 1)
        pivot = b.reshape(_taken(b, row, k, 1), shape=(m, 1))
        below = b.gt(rows, k)
        factors = b.where(b.ne(pivot, 0), b.div(column, pivot), column)
        inner = b.bitand(_across(b, below, 1), below)                                   # [n, n]
        less = b.sub(a, b.mul(_across(b, factors, 2), _across(b, row, 1)))
        a = b.where(inner, less, a)
        here = b.bitand(_across(b, below, 1), b.eq(rows, k))
        return [b.where(here, _across(b, factors, 2), a), order, sign]
    order = b.broadcast_to(_counts(b, n), shape=(m, n))
    packed, rows, sign = _loop(b, (flat, order, full(b, 1, TensorType(dtype, (m,)))), (_counts(b, n),), step)
    return tuple(b.reshape(v, shape=old.type.shape) for v, old in zip((packed, rows, sign), node.outputs))


def lq(b: OpBuilder, node: Node, x: Value) -> Values:
    """Row after row: what is along the earlier ones is taken away, twice."""
    flat = _flat(b, x)
    count, m, n = flat.type.shape
    low = full(b, 0, flat.type.with_shape((count, m, m)))

    def step(b: Builder, ins: tuple[Value, ...]) -> list[Value]:
        q, low, j = ins
        rows = _counts(b, m)
        before = b.lt(rows, j)
        v, part = _taken(b, q, j, 1), full(b, 0, q.type.with_shape((count, m)))
        for _ in range(2):
            along = b.reshape(b.matmul(q, _across(b, v, 2)), shape=(count, m))
            along = b.where(before, along, number(b, 0, along))
            v = b.sub(v, b.reshape(b.matmul(_across(b, along, 1), q), shape=(count, n)))
            part = b.add(part, along)
        norm = b.sqrt(b.sum(b.mul(v, v), axes=(1,), keepdims=True))
        here = b.eq(rows, j)
        part = b.where(here, norm, part)
        there = _across(b, here, 1)
        return [b.where(there, _across(b, b.div(v, norm), 1), q), b.where(there, _across(b, part, 1), low)]
    q, low = _loop(b, (flat, low), (_counts(b, m),), step)
    return b.reshape(low, shape=node.outputs[0].type.shape), b.reshape(q, shape=node.outputs[1].type.shape)


def symmetric_eigen(b: OpBuilder, node: Node, x: Value) -> Values:
    """Sweeps over all pairs of rows, until no matrix has an element between them that counts."""
    flat, n = _flat(b, x), static_dim(x.type.shape[-1])
    lower = b.tril(flat)
    a = b.add(lower, b.transpose(b.tril(flat, k=-1), perm=(0, 2, 1)))
    norm = b.sqrt(b.sum(b.mul(a, a), axes=(1, 2), keepdims=True))
    least = b.mul(norm, float(np.finfo(x.type.dtype.np).eps) / 16)
    v = b.broadcast_to(b.constant(np.eye(n), x.type.dtype), shape=a.type.shape)
    pairs = np.array([(p, q) for p in range(n) for q in range(p + 1, n)], np.int64).reshape(-1, 2)

    def sweep(b: Builder, ins: tuple[Value, ...]) -> Sequence[Value]:
        a, v, _, least = ins
        begin = (a, v, b.constant(False, bool_))
        places = (b.constant(pairs[:, 0].copy()), b.constant(pairs[:, 1].copy()))
        types = [t.type for t in begin] + [TensorType(i64, ())] * 2 + [least.type]
        body = _graph("rotation", types, _rotated)
        return b.apply(Scan(body, 3, 2, len(pairs)), (*begin, *places, least))
    begin = (a, v, b.constant(n > 1, bool_))
    types = [t.type for t in begin] + [least.type]
    loop = WhileLoop(_graph("turned", types, lambda b, ins: [ins[2]]), _graph("sweep", types, sweep), 3, MOST_SWEEPS)
    _, a, v, _ = b.apply(loop, (*begin, least))
    nothing = b.sub(norm, norm)                     # NaN where the matrix has NaN or infinity
    diagonal = b.sum(b.where(b.constant(np.eye(n, dtype=bool)), a, number(b, 0, a)), axes=(2,))
    w = b.add(diagonal, b.reshape(nothing, shape=(nothing.type.shape[0], 1)))
    return b.reshape(w, shape=node.outputs[0].type.shape), b.reshape(b.add(v, nothing), shape=x.type.shape)


def _rotated(b: Builder, ins: tuple[Value, ...]) -> list[Value]:
    """A rotation of rows and columns p and q, of the matrices in which a[p, q] is not negligible."""
    a, v, turned, p, q, least = ins
    count, n, _ = a.type.shape

    def element(i: Value, j: Value) -> Value:
        return b.reshape(_taken(b, _taken(b, a, i, 1), j, 1), shape=(count, 1, 1))
    between = element(p, q)
    counts = b.gt(b.abs(between), least)
    one, zero = number(b, 1, a), number(b, 0, a)
    theta = b.div(b.sub(element(q, q), element(p, p)), b.mul(b.where(counts, between, one), 2))
    size = b.add(b.abs(theta), b.sqrt(b.add(b.mul(theta, theta), 1)))
    t = b.where(counts, b.div(b.where(b.lt(theta, 0), b.neg(one), one), size), zero)
    c = b.div(1, b.sqrt(b.add(b.mul(t, t), 1)))
    rows = b.reshape(_counts(b, n), shape=(n, 1))

    def turn(m: Value) -> Value:
        first, second = (_across(b, _taken(b, m, i, 1), 1) for i in (p, q))
        s = b.mul(t, c)
        up, down = b.sub(b.mul(c, first), b.mul(s, second)), b.add(b.mul(s, first), b.mul(c, second))
        return b.where(b.eq(rows, p), up, b.where(b.eq(rows, q), down, m))
    a = b.transpose(turn(b.transpose(turn(a), perm=(0, 2, 1))), perm=(0, 2, 1))
    return [a, turn(v), b.bitor(turned, b.max(counts, axes=(0, 1, 2)))]


FACTORISATIONS: dict[Opcode, Callable[..., Values]] = {LU: lu, LQ: lq, SymmetricEigen: symmetric_eigen}
