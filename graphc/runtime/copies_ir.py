"""Copies of what lies apart in memory, together."""
from __future__ import annotations

from graphc.codegen.routines.routine import RoutineBody, routine
from graphc.codegen.routines.values import I64, Field, Ptr, Records, Struct
from graphc.runtime.system import memcpy

OFTEN = (16, 32, 2)             # bytes of runs that are copied by an instruction or two


class Runs(Struct):
    """So many runs of bytes, whose starts are `step` bytes apart, to lie one behind the other at `target`."""
    target = Field(Ptr)
    source = Field(Ptr)
    count = Field(I64)
    nbytes = Field(I64)         # of a run
    step = Field(I64)


@routine
def gc_copy_runs(f: RoutineBody, rows: Records[Runs], count: I64) -> None:
    """One row after the other."""
    with f.for_(count) as i:
        _copy(f, rows[i], OFTEN)


def _copy(f: RoutineBody, row: Runs, known: tuple[int, ...]) -> None:
    if not known:
        return _copy_each(f, row, row.nbytes.value)
    with f.if_(row.nbytes.value == known[0]):
        _copy_each(f, row, known[0])
    with f.else_():
        _copy(f, row, known[1:])


def _copy_each(f: RoutineBody, row: Runs, nbytes: I64 | int) -> None:
    target, source, step = row.target.value, row.source.value, row.step.value
    with f.for_(row.count.value) as k:
        memcpy(f, target.plus(k * nbytes), source.plus(k * step), nbytes, False)
