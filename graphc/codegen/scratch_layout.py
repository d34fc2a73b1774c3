"""The offset of every function's scratch in its thread's region, fixed at compile time (as sizes, where
these are not numbers), like a stack of the call graph."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.loops.loop_ir import Call, FunctionIR, Parallel, Root, control
from graphc.ir.dims import Dim, largest, round_up
from graphc.schedule.target import ALIGNMENT


def scratch_layout(functions: Sequence[FunctionIR]) -> tuple[dict[Root, Dim], Dim]:
    """Byte offset of each scratch in the thread's region, and the bytes that a thread needs.

    A function's scratch is above that of all its callers, so live ones never overlap; the scratch of a tile is above
    its function's own, because the calling thread runs tiles too. `functions` is ordered callers first.
    """
    base: dict[FunctionIR, Dim] = {f: 0 for f in functions}
    offsets: dict[Root, Dim] = {}
    total: Dim = 0
    for f in functions:
        end = _place(f, base[f], offsets)
        total = largest(total, end)
        for callee in callees(f):
            base[callee] = largest(base[callee], end)
    return offsets, total


def callers_first(functions: Sequence[FunctionIR]) -> list[FunctionIR]:
    """`functions` and all that they call, each before what it calls."""
    done: dict[FunctionIR, None] = {}

    def visit(f: FunctionIR) -> None:
        if f not in done:
            for callee in callees(f):
                visit(callee)
            done[f] = None

    for f in functions:
        visit(f)
    return list(reversed(done))


def callees(f: FunctionIR) -> list[FunctionIR]:
    """The functions that `f` calls, each once, in order of first call."""
    return list(dict.fromkeys(s.callee for s in control(f.body) if type(s) is Call))


def _place(f: FunctionIR, base: Dim, offsets: dict[Root, Dim]) -> Dim:
    """Places the scratches of `f` from `base` on; returns the end. Different parallel loops of a function share
    space."""
    own = base
    for root in [r for r in f.scratches if r.owner is None]:
        offsets[root], own = own, own + _rounded(root)
    ends: dict[Parallel | None, Dim] = {}
    for root in [r for r in f.scratches if r.owner is not None]:
        start = ends.get(root.owner, own)
        offsets[root], ends[root.owner] = start, start + _rounded(root)
    return largest(own, *ends.values())


def _rounded(root: Root) -> Dim:
    return round_up(root.size * root.dtype.itemsize, ALIGNMENT)
