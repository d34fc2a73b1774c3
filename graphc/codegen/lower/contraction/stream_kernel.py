"""The micro-kernel for few rows of a: whole rows of b are scaled and added to sums in L1, so that memory is read in
long runs.
"""
from __future__ import annotations

from functools import cache

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import ELEMENTS, Ix
from graphc.codegen.lower.contraction.micro_kernel import ANY, ProductTypes, load_as, multiply_add
from graphc.codegen.lower.ranges import vector_run
from graphc.ir.types import bool_
from graphc.records import dataclass
from graphc.schedule.contraction_context import stream_steps


@dataclass(frozen=True)
class StreamKernelSpec:
    """mr rows of a, each with its own offset, times rows of b, read from end to end. `width`: columns at most."""
    types: ProductTypes
    mr: int
    lanes: int
    a_step: int
    b_step: int
    width: int
    fused: bool = True

    @property
    def steps(self) -> int:
        """Rows of b that are added in one pass over the sums."""
        return stream_steps(self.mr)

    @property
    def name(self) -> str:
        unfused = "" if self.fused else "_unfused"
        return f"stream_{self.types}_{self.mr}x{self.width}_rows{self.a_step}_b{self.b_step}_{self.lanes}{unfused}"


@cache
def stream_kernel(spec: StreamKernelSpec) -> LoopFunction:
    """The same sums as `micro_kernel`, for few rows and all columns of a tile.

    Views: a, b, c (rows `width` apart). Integers: k, columns, accumulate, then the row offsets of a.
    """
    f, types = LoopFunction(spec.name, noalias=True), spec.types
    a, b, c = (f.view(name, dtype, (ANY,), (1,)) for name, dtype in types.named)
    k, columns, accumulate = f.param("k", 0, ELEMENTS), f.param("columns", 0, spec.width), f.param("add", 0, 1)
    rows = [f.param(f"row{i}", 0, ELEMENTS) for i in range(spec.mr)]
    part = f.scratch("part", types.c, (spec.mr * spec.width,))
    zero = f.const(0, types.c, spec.lanes)
    with f.loop(0, spec.mr * spec.width, spec.lanes) as loop:
        f.store(part, [loop.index], zero)
    sums = _StreamedSums(f, spec, a, b, part, columns)
    groups, _ = f.divmod(k, spec.steps)
    with f.loop(0, groups * spec.steps, spec.steps) as loop:
        sums.add_rows(rows, loop.index, spec.steps)
    with f.loop(groups * spec.steps, k) as loop:
        sums.add_rows(rows, loop.index, 1)
    keep = f.cast(f.value(accumulate), bool_)
    with f.loop(0, spec.mr * spec.width, spec.lanes) as loop:
        before = f.select(keep, f.load(c, [loop.index], spec.lanes), zero)
        f.store(c, [loop.index], f.add(before, f.load(part, [loop.index], spec.lanes)))
    return f


@dataclass(frozen=True)
class _StreamedSums:
    """Sums of rows of b, in `part`."""
    f: LoopFunction
    spec: StreamKernelSpec
    a: View
    b: View
    part: View
    columns: Ix

    def add_rows(self, rows: list[Ix], k: Ix, steps: int) -> None:
        """part[i, j] += sum over some steps of a[i, k + step] * b[k + step, j]"""
        f, spec, dtype, part = self.f, self.spec, self.part.dtype, self.part
        factors = [[f.splat(load_as(f, dtype, self.a, [row + (k + u) * spec.a_step]), spec.lanes)
                    for u in range(steps)] for row in rows]

        def body(j: Ix, lanes: int, mask: Val | None) -> None:
            values = [load_as(f, dtype, self.b, [(k + u) * spec.b_step + j], lanes, mask) for u in range(steps)]
            for i, row in enumerate(factors):
                total = f.load(part, [j + i * spec.width], lanes)
                for factor, value in zip(row, values):
                    total = multiply_add(f, factor, value, total, spec.fused)
                f.store(part, [j + i * spec.width], total)
        vector_run(f, self.columns, spec.lanes, body)
