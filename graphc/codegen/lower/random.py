"""Philox-4x32-10 inside a nest: the words of the elements at a point (the definition is in `ir.ops.random`)."""
from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.loop_ir import Val
from graphc.ir.graph import Node
from graphc.ir.ops.random import MULTIPLIERS, ROUNDS, WEYL, RandomBits
from graphc.ir.types import i32, i64

if TYPE_CHECKING:
    from graphc.codegen.lower.body import Env, NestBody

WORDS = 4                       # of one Philox block, for four neighbouring elements


def random_value(body: "NestBody", node: Node, op: RandomBits, env: "Env") -> Val:
    """The i32 word of each element. Where lanes are neighbours and start at a block, each block is computed once."""
    f, at, strides = body.f, env.at, body.nest.counters[node]
    vector = body.s.vector
    key = body.inputs[node.inputs[0]]
    seed, step = f.load(key, [0]), f.load(key, [1])
    rest = (f.const(op.lane, i32), f.const(_signed(op.stream), i32), f.cast(step, i32))
    keys = f.cast(seed, i32), f.cast(f.lshr(seed, 32), i32)
    whole_words = all(s % WORDS == 0 for d, s in enumerate(strides) if d != vector)
    if at.lanes % WORDS == 0 and strides[vector] == 1 and whole_words:
        first = body.number(tuple(0 if d == vector else s for d, s in enumerate(strides)), at, i64)
        first = f.lshr(f.add(first, f.value(at.index[vector])), 2)
        blocks = at.lanes // WORDS
        block = f.cast(first, i32)
        block = f.add(block, f.iota(blocks, i32)) if blocks > 1 else block
        return _interleaved(f, _philox(f, (block, *rest), keys))
    number = body.number(strides, at, i64)
    words = _philox(f, (f.cast(f.lshr(number, 2), i32), *rest), keys)
    which = f.cast(f.and_(number, 3), i32)
    low = f.select(f.eq(which, 0), words[0], words[1])
    return f.select(f.lt(which, 2), low, f.select(f.eq(which, 2), words[2], words[3]))


def _philox(f: LoopFunction, counter: tuple[Val, ...], keys: tuple[Val, Val]) -> tuple[Val, ...]:
    """Four words; the counter's first word may be a vector."""
    lanes = counter[0].lanes
    c0, c1, c2, c3 = [f.splat(c, lanes) for c in counter]
    k0, k1 = keys
    m0, m1 = [f.const(_signed(m), i32, lanes) for m in MULTIPLIERS]
    for _ in range(ROUNDS):
        c0, c1, c2, c3 = (f.xor(f.xor(f.mulhi_u(c2, m1), c1), k0), f.mul(c2, m1),
                          f.xor(f.xor(f.mulhi_u(c0, m0), c3), k1), f.mul(c0, m0))
        k0, k1 = f.add(k0, _signed(WEYL[0])), f.add(k1, _signed(WEYL[1]))
    return c0, c1, c2, c3


def _interleaved(f: LoopFunction, words: tuple[Val, ...]) -> Val:
    """Word 0 of all blocks, word 1, … brought into the order of elements."""
    n = words[0].lanes
    if n == 1:
        vector = f.splat(words[0], WORDS)
        for k in range(1, WORDS):
            vector = f.insert(vector, k, words[k])
        return vector
    pairs = [i // 2 + n * (i % 2) for i in range(2 * n)]
    low, high = f.shuffle(words[0], words[1], pairs), f.shuffle(words[2], words[3], pairs)
    return f.shuffle(low, high, [2 * (i // 4) + i % 4 % 2 + (2 * n if i % 4 > 1 else 0) for i in range(4 * n)])


def _signed(word: int) -> int:
    return word - (1 << 32) if word >= 1 << 31 else word
