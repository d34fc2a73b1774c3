"""Products of rows whose number comes with the call: one function for all last rows of a tile. It calls the
micro-kernel of just as many rows, so that the loops around it need no branches of their own.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

from graphc.codegen.loops.builder import LoopFunction, Val
from graphc.codegen.loops.index import ELEMENTS, Ix
from graphc.codegen.lower.contraction.micro_kernel import (
    ANY, ColumnPanel, MicroKernelSpec, MicroTileShape, MicroTileSums, RowPanel, arguments_of, micro_kernel, spec_of)
from graphc.ir.dims import Dim


@dataclass(frozen=True)
class AnyRows:
    """`count` rows of a, 1 to `most`; of more than a micro-tile has, two micro-tiles are made.

    rows: as of a micro-tile of `most` rows. panel_step: of packed rows, the elements from one panel to the next.
    """
    count: Ix
    most: int
    rows: RowPanel
    panel_step: Dim = 0


def call_for_any_rows(f: LoopFunction, shape: MicroTileShape, a: AnyRows, b: ColumnPanel, c: MicroTileSums,
                      steps: Ix | int) -> None:
    """c (+)= a b over `steps` steps of k. Nothing is prefetched: where rows are few the next panel has no others to
    wait for, and where they are many the last ones would fetch little of it."""
    b = replace(b, layout=replace(b.layout, prefetch_lines=0), next=None)
    kernel = any_rows_kernel(spec_of(shape, a.rows, b, c), a.most)
    f.call(kernel, [*arguments_of(a.rows, b, c, steps), a.panel_step, a.count])


@cache
def any_rows_kernel(spec: MicroKernelSpec, most: int) -> LoopFunction:
    """Arguments as of `micro_kernel` with `most` rows, then the elements from a panel of packed rows to the next, and
    the number of rows."""
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
        self.steps, self.row_step = f.param("k", 0, 1 << 32), f.param("row_step", 0, ELEMENTS)
        accumulate = 0 if spec.scaled else f.param("add", 0, 1)
        names = ("first", "distance") if layout.even else [f"row{i}" for i in range(most)] if layout.scattered else ()
        self.a = RowPanel(a, layout, tuple([f.param(name, 0, ELEMENTS) for name in names]), kept)
        count = f.param("columns", 0, spec.shape.vectors * spec.shape.lanes) if masked else None
        self.b = ColumnPanel(b, spec.b, count)
        self.c = MicroTileSums(c, self.row_step, accumulate, factors)
        self.panel_step, self.count = f.param("panel_step", 0, ELEMENTS), f.param("count", 1, most)

    def multiply(self, number: int) -> None:
        """For so many rows. Packed rows are divided where a panel ends, others in the middle."""
        mr = self.spec.shape.mr
        if number <= mr:
            return self._multiply(0, number)
        first = number - number // 2 if self.a.layout.scattered and not self.a.layout.packs else mr
        self._multiply(0, first)
        self._multiply(first, number - first)

    def _multiply(self, above: int, rows: int) -> None:
        """`rows` rows below the first `above`."""
        memory = self.c.memory.view_at([self.row_step * above], (1,))
        a, c = self._rows(above, rows), replace(self.c, memory=memory)
        kernel = micro_kernel(replace(self.spec, shape=replace(self.spec.shape, mr=rows)).in_brief)
        self.f.call(kernel, arguments_of(a, self.b, c, self.steps))

    def _rows(self, above: int, rows: int) -> RowPanel:
        a, layout = self.a, self.a.layout
        next_panel = self.panel_step if above else Ix()
        if layout.even:
            first, distance = a.offsets
            a = replace(a, offsets=(first + distance * above, distance))
        elif layout.scattered:
            a = replace(a, offsets=a.offsets[above:above + rows])
        else:
            a = replace(a, memory=a.memory.view_at([next_panel], (1,)))
        return a if a.packed is None else replace(a, packed=a.packed.view_at([next_panel], (1,)))


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
