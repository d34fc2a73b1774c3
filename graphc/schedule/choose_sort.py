"""Chooses how rows are sorted, or the first of their elements in order selected."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import ceil, log2

from graphc.ir.dims import typical
from graphc.ir.ops import sort
from graphc.ir.types import i64
from graphc.schedule.choose_plain import tiled
from graphc.schedule.cost import Candidate, ranked
from graphc.schedule.kernel_problem import KernelProblem
from graphc.schedule.parallel_rows import Rows, without
from graphc.schedule.sort_schedule import COLUMNS, LISTS, PAIRS, ROWS, SEEN_KEYS, SELECTION, SortSchedule, sides_of

LONGEST_COLUMN = 64             # of rows side by side: the code of their network is written out
KEY_OPS = 7                     # vector operations that make a vector of keys
COMPARATOR_OPS = 2, 4           # of the lesser and the greater, where that is an instruction each, and where not
CALL_CYCLES = 40                # of the sort of a row, beside its blocks
LOOK_OPS = 5                    # of a vector of elements that are compared with one, and of a branch not taken
FOUND_CYCLES = 40               # of a branch that is not foreseen, and of adding what was found to a list
LIST_REGISTERS = 8              # beside lists in registers, for the keys that are made
LIST_CYCLES = 3                 # until a list of one has a key
RESULT_CYCLES = 2               # of an element that is stored: the position, a check, the element
PAIR_CYCLES = 5                 # of a merge, for each pair


def sort_schedule(p: KernelProblem[sort.Sorting | sort.TopK]) -> SortSchedule:
    """A pure function of shapes, strides and target."""
    ranking = ranked(_candidates(p))
    return replace(ranking.best.schedule, ranking=ranking)


def _candidates(p: KernelProblem[sort.Sorting | sort.TopK]) -> Iterator[Candidate[SortSchedule]]:
    x, axis = p.ins[0], p.core.op.axis % len(p.ins[0].shape)
    n, count, machine = typical(x.shape[axis]), typical(p.outs[0].shape[axis]), p.target.machine
    lanes, extents = max(2, p.target.lanes(i64.itemsize)), without(x.shape, axis)
    result = RESULT_CYCLES * count
    if x.dtype.itemsize > 4:
        merges = PAIR_CYCLES * n * max(n.bit_length(), 1)
        yield from tiled(PAIRS, SortSchedule(order=PAIRS), Rows(extents), merges, machine)
        return
    op = machine.vector_op_cycles
    keys = n / lanes * KEY_OPS * op if axis == len(x.shape) - 1 else n * (1 + KEY_OPS * op / lanes)
    comparator = COMPARATOR_OPS[not p.target.has_wide_minimum] * op
    whole = keys + sorted_cycles(n, lanes, op, comparator) + result
    yield from tiled(ROWS, SortSchedule(order=ROWS), Rows(extents), whole, machine)
    if count < n:
        yield from tiled(SELECTION, SortSchedule(order=SELECTION), Rows(extents),
                         _selection_cycles(p, n, count, keys / n, comparator) + result, machine)
        if isinstance(p.outs[0].shape[axis], int) and count + LIST_REGISTERS <= p.target.vector_registers:
            inserted = n / lanes * max(comparator * count, LIST_CYCLES)
            ordered = sorted_cycles(count * lanes, lanes, op, comparator) if count > 1 else comparator * log2(lanes)
            yield from tiled(LISTS, SortSchedule(order=LISTS), Rows(extents), keys + inserted + ordered + result,
                             machine)
    sides = sides_of(axis, p.ins, p.outs)
    if sides and n <= LONGEST_COLUMN:
        dense = x.strides[sides.groups[-1][-1]] == 1
        loads = n * ((1 if dense else lanes) + KEY_OPS * op)
        network = comparator * compared(n)
        yield from tiled(COLUMNS, SortSchedule(order=COLUMNS, lanes=lanes),
                         Rows((*sides.outer, sides.vectors(lanes))), loads + network + lanes * result, machine)


def _selection_cycles(p: KernelProblem[sort.Sorting | sort.TopK], n: int, count: int, key: float,
                      comparator: float) -> float:
    """Of a row of n elements in random order, whose keys take `key` cycles each: all are looked at; a list is filled
    and sorted again each time that twice as many have been seen."""
    lanes, op = max(2, p.target.lanes(i64.itemsize)), p.target.machine.vector_op_cycles
    listed = 2 * count + lanes
    again = 1 + log2(max(n / listed, 1))
    dense = p.core.op.axis % len(p.ins[0].shape) == len(p.ins[0].shape) - 1
    looked = n * (LOOK_OPS * op / (2 * lanes) if dense else 1)
    found = min(count * (again - 1), n) * (FOUND_CYCLES + SEEN_KEYS * lanes * key)
    return looked + listed * key + found + sorted_cycles(listed, lanes, op, comparator) * again


def sorted_cycles(n: int, lanes: int, op: float, comparator: float) -> float:
    """Of a vector sort of so many keys: blocks in registers, then merges of runs."""
    block = lanes * lanes
    blocks = max(1, ceil(n / block))
    in_block = comparator * compared(lanes) + lanes * log2(lanes) * (op + comparator * log2(block))
    merge = log2(2 * lanes) * 4 * comparator
    return CALL_CYCLES + blocks * (in_block + lanes * ceil(log2(blocks)) * merge)


def compared(n: int) -> int:
    """About as many comparators as a network of n lines has."""
    depth = log2(max(n, 2))
    return ceil(n * depth * (depth + 1) / 4)
