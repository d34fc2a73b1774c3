"""Codes of four bits, eight in a word, as numbers in registers."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.index import Ix
from graphc.codegen.loops.loop_ir import Val, View
from graphc.codegen.lower.transpose import blocks_transposed
from graphc.schedule.target import Target
from graphc.ir.types import f32

CODES = 16                          # of four bits
WORD_BYTES = 4
RUN_WORDS = 4                       # that a vector of 16 bytes has


def number_in(f: LoopFunction, words: Val, place: int, zero: int, target: Target) -> Val:
    """The code at this place of each word, i32, from the lowest bits on, less `zero`; f32, exactly. One instruction
    finds a number by the lowest bits of a lane where the target has it, whatever the bits above are."""
    v = f.lshr(words, 4 * place) if place else words
    if target.has_lookup(words.lanes):
        return f.lookup(tuple(float(code - zero) for code in range(CODES)), v)
    code = v if place == 2 * WORD_BYTES - 1 else f.and_(v, CODES - 1)
    return f.cast(f.sub(code, zero) if zero else code, f32)


def words_across(f: LoopFunction, memory: View, starts: Sequence[Ix]) -> list[Val]:
    """Of the rows of 16 bytes that begin at `starts`, a multiple of four: their first words as a vector, and so on."""
    rows = [f.words(f.load(memory, [start], RUN_WORDS * WORD_BYTES)) for start in starts]
    quarters = [_joined(f, rows[i::RUN_WORDS]) for i in range(RUN_WORDS)]
    return blocks_transposed(f, quarters, len(rows), RUN_WORDS)


def _joined(f: LoopFunction, parts: list[Val]) -> Val:
    """The vectors, a power of two of them, one after the other."""
    while len(parts) > 1:
        parts = [f.shuffle(a, b, range(2 * a.lanes)) for a, b in zip(parts[::2], parts[1::2])]
    return parts[0]
