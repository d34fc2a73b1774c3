"""Products of rows whose number comes with the call: one function for the last rows of a tile. It calls the
micro-kernel of just as many rows, so that the loops around it need no branches of their own.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache, partial

from graphc.codegen.loops.builder import LoopFunction, Val
from graphc.codegen.loops.index import ELEMENTS, Ix
from graphc.codegen.loops.index_proofs import upper
from graphc.codegen.lower.contraction.micro_kernel import (
    ANY, ColumnPanel, MicroKernelSpec, MicroTileShape, MicroTileSums, RowPanel, arguments_of, call_micro_kernel,
    micro_kernel, spec_of)


def call_for_rows(f: LoopFunction, shape: MicroTileShape, left: Ix, a: RowPanel, b: ColumnPanel, c: MicroTileSums,
                  steps: Ix | int) -> None:
    """c (+)= a b over `steps` steps of k: of a whole micro-tile where so many rows are left, else of all that are, at
    least one. For these nothing is prefetched: where rows are few the next panel has no others to wait for, and where
    they are many the last ones would fetch little of it."""
    if shape.mr == 1:
        return call_micro_kernel(f, shape, a, b, c, steps)
    last = replace(b, layout=replace(b.layout, prefetch_lines=0), next=None)
    call_last = partial(f.call, any_rows_kernel(spec_of(shape, a, last, c)), [*arguments_of(a, last, c, steps), left])
    if upper(left) < shape.mr:
        return call_last()
    with f.if_(f.ge(f.value(left), shape.mr)):
        call_micro_kernel(f, shape, a, b, c, steps)
    with f.else_():
        call_last()


@cache
def any_rows_kernel(spec: MicroKernelSpec) -> LoopFunction:
    """Arguments as of `micro_kernel`, then the number of rows, fewer than its micro-tile has."""
    most = spec.shape.mr - 1
    f = LoopFunction(f"any_{most}_of_{spec.name}", noalias=True)
    operands = _Operands(f, spec, most)
    for number in _by_number(f, f.value(operands.count), range(1, most + 1)):
        operands.multiply(number)
    return f


class _Operands:
    """What the function is called with, as it passes it on."""

    def __init__(self, f: LoopFunction, spec: MicroKernelSpec, most: int):
        types, layout, masked = spec.types, spec.a, spec.b.masked
        self.f, self.spec = f, spec
        a, b, c = (f.view(name, dtype, (ANY,), (1,)) for name, dtype in types.named)
        factors = f.view("factors", types.c, (ANY,), (1,)) if spec.scaled else None
        kept = f.view("kept", types.a, (ANY,), (1,)) if layout.packs else None
        self.steps, row_step = f.param("k", 0, 1 << 32), f.param("row_step", 0, ELEMENTS)
        accumulate = 0 if spec.scaled else f.param("add", 0, 1)
        rows = range(spec.shape.mr)
        names = ("first", "distance") if layout.even else [f"row{i}" for i in rows] if layout.scattered else ()
        self.a = RowPanel(a, layout, tuple([f.param(name, 0, ELEMENTS) for name in names]), kept)
        count = f.param("columns", 0, spec.shape.vectors * spec.shape.lanes) if masked else None
        self.b = ColumnPanel(b, spec.b, count)
        self.c = MicroTileSums(c, row_step, accumulate, factors)
        self.count = f.param("count", 1, most)

    def multiply(self, rows: int) -> None:
        """The first so many rows."""
        a, layout = self.a, self.a.layout
        if layout.scattered and not layout.even:
            a = replace(a, offsets=a.offsets[:rows])
        kernel = micro_kernel(replace(self.spec, shape=replace(self.spec.shape, mr=rows)).in_brief)
        self.f.call(kernel, arguments_of(a, self.b, self.c, self.steps))


def _by_number(f: LoopFunction, value: Val, numbers: Sequence[int]) -> Iterator[int]:
    """Opens a branch for each of the numbers, of which the value is one."""
    middle = len(numbers) // 2
    if not middle:
        yield numbers[0]
        return
    with f.if_(f.lt(value, numbers[middle])):
        yield from _by_number(f, value, numbers[:middle])
    with f.else_():
        yield from _by_number(f, value, numbers[middle:])
