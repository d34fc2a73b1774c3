"""Calls of compiled code with IEEE arithmetic.

Some libraries leave "flush subnormals to zero" switched on in the thread that loads them. Pool threads are started from
inside gc_run and inherit its setting.
"""
from __future__ import annotations

from graphc.codegen.abi import Context
from graphc.codegen.routines.architecture import AARCH64, X86_64
from graphc.codegen.routines.routine import RoutineBody, routine
from graphc.codegen.routines.values import I32, I64, Cell, Extern, Int, Ptr
from graphc.runtime.entry_layout import ProgramFunction

stmxcsr = Extern("llvm.x86.sse.stmxcsr", None, Ptr)
ldmxcsr = Extern("llvm.x86.sse.ldmxcsr", None, Ptr)
get_fpcr = Extern("llvm.aarch64.get.fpcr", I64)
set_fpcr = Extern("llvm.aarch64.set.fpcr", None, I64)

STANDARD = {X86_64.name: 0x1F80, AARCH64.name: 0}           # round to nearest, keep subnormals, no traps
CONTROL_BITS = {X86_64.name: 0xFFC0, AARCH64.name: -1}      # the others say what has happened


@routine
def gc_run(f: RoutineBody, program: ProgramFunction, ctx: Context) -> I32:
    """Its return code."""
    if f.architecture.name not in STANDARD:         # nobody changes it there, or nobody can
        return program(f, ctx)
    standard, bits = STANDARD[f.architecture.name], CONTROL_BITS[f.architecture.name]
    before = _control(f)
    with f.if_(before.value & bits == standard):
        f.return_(program(f, ctx))
    _set_control(f, f.variable(before.kind, standard))
    code = program(f, ctx)
    _set_control(f, before)
    return code


def _control(f: RoutineBody) -> Cell[Int]:
    """A copy of the register that controls floating-point arithmetic."""
    if f.architecture is AARCH64:
        return f.variable(I64, get_fpcr(f))
    word = f.array(I32, 1)[0]
    stmxcsr(f, word)
    return word


def _set_control(f: RoutineBody, word: Cell[Int]) -> None:
    if f.architecture is AARCH64:
        set_fpcr(f, word.value)
    else:
        ldmxcsr(f, word)
