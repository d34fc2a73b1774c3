"""Random words as graphc's, bit for bit: Philox in i64, whose products wrap around, ten rounds in a row."""
from __future__ import annotations

from graphc.doors.onnx_out.counterpart import counterpart
from graphc.ir.dims import Dim
from graphc.ir.graph import Node, Value
from graphc.ir.op import OpBuilder
from graphc.ir.ops.random import MASK32, MULTIPLIERS, ROUNDS, WEYL, RandomBits
from graphc.ir.types import i32, i64, u64


def random_bits(b: OpBuilder, node: Node, key: Value) -> Value | None:
    """As `ir/ops/random.py` says at its top."""
    op = node.op
    if not isinstance(op, RandomBits):
        return None
    size = node.outputs[0].type.size
    blocks = (size + 3) // 4
    seed, step = (b.reshape(b.slice(key, start=(i,), stop=(i + 1,), step=(1,)), shape=()) for i in (0, 1))
    counter = [b.iota(shape=(blocks,), axis=0, dtype=i64), b.constant(op.lane, i64), b.constant(op.stream, i64),
               _low(b, step)]
    words = philox(b, counter, [_low(b, seed), _high(b, seed)])
    rows = [b.reshape(b.broadcast_to(w, shape=(blocks,)), shape=(blocks, 1)) for w in words]
    flat = b.reshape(b.concat(*rows, axis=1), shape=(blocks * 4,))
    return b.reshape(b.cast(_first(b, flat, size), dtype=i32), shape=op.shape)


def _first(b: OpBuilder, flat: Value, size: Dim) -> Value:
    return flat if flat.type.shape[0] == size else b.slice(flat, start=(0,), stop=(size,), step=(1,))


def philox(b: OpBuilder, counter: list[Value], key: list[Value]) -> list[Value]:
    """Four words of a counter of four and a key of two, each in 64 bits."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(ROUNDS):
        first, second = b.mul(c0, MULTIPLIERS[0]), b.mul(c2, MULTIPLIERS[1])
        c0, c1 = b.bitxor(b.bitxor(_high(b, second), c1), k0), _low(b, second)
        c2, c3 = b.bitxor(b.bitxor(_high(b, first), c3), k1), _low(b, first)
        k0, k1 = _low(b, b.add(k0, WEYL[0])), _low(b, b.add(k1, WEYL[1]))
    return [c0, c1, c2, c3]


def _high(b: OpBuilder, x: Value) -> Value:
    by = b.constant(32, u64)
    return b.cast(counterpart(b, "BitShift", b.cast(x, dtype=u64), by, direction="RIGHT"), dtype=i64)


def _low(b: OpBuilder, x: Value) -> Value:
    return b.bitand(x, MASK32)
