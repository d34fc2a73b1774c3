"""The register-tile kernel of contractions: mr rows × some vectors of columns in registers, one fma each for every step of k.

One function for each (type, tile, layout of the operands); sizes and places are arguments, so that equal kernels are compiled once
for all shapes. Equal specs give the same object.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import Ix, as_ix
from graphc.codegen.lower.ranges import vector_run
from graphc.ir.types import DType, bool_
from graphc.schedule.contraction_schedule import STEPS
from graphc.schedule.target import LINE_BYTES

ANY = 1 << 36                   # extent of a view whose size only the caller knows


@dataclass(frozen=True)
class MicroSpec:
    """Which micro-kernel: types, micro-tile and layout of the operands, in elements.

    mr, vectors, lanes: the micro-tile has mr rows and vectors * lanes columns.
    a_step: distance between two steps of k in a.
    a_rows: each row of a has its own offset; otherwise row i is at i (a is packed).
    b_step: distance between two steps of k in b.
    masked: only some of the columns of b may be read.
    fused:  the target multiplies and adds in one instruction.
    taps:   offsets of the steps of k in a where they are not evenly spaced; the sum has these steps and no others.
    ahead:  cache lines of b that are prefetched every STEPS steps.
    scaled: c is multiplied by a factor for each column before the sums are added.
    keeps:  the rows that are read are also packed, row i of step k at k * keeps + i, for the other micro-tiles that need them; 0: they are not.
    """
    dtype: DType
    mr: int
    vectors: int
    lanes: int
    a_step: int
    a_rows: bool
    b_step: int
    masked: bool = False
    fused: bool = True
    taps: tuple[int, ...] = ()
    ahead: int = 0
    scaled: bool = False
    keeps: int = 0

    @property
    def name(self) -> str:
        a = f"taps{'_'.join(map(str, self.taps))}x" if self.taps else "rows" if self.a_rows else "panel"
        forms = {"masked": self.masked, "unfused": not self.fused, f"ahead{self.ahead}": self.ahead, "scaled": self.scaled, f"keeps{self.keeps}": self.keeps}
        suffix = "".join(f"_{form}" for form, holds in forms.items() if holds)
        return f"tile_{self.dtype}_{self.mr}x{self.vectors * self.lanes}_{a}{self.a_step}_b{self.b_step}{suffix}"


@cache
def micro_kernel(spec: MicroSpec) -> LoopFunction:
    """c[i, j] = (add ? c[i, j] : 0) + sum over k of a[i, k] * b[k, j]; if scaled, c[i, j] * factors[j] + the sum.

    Views: a, b, c, factors (if scaled), where rows are packed (if keeps). Integers: k, row step of c, add (0 or 1; not if scaled), the row offsets
    of a (if a_rows), the columns (if masked), where in b lies what is asked for (if ahead).
    """
    f = LoopFunction(spec.name, noalias=True)
    a, b, c = (f.view(name, spec.dtype, (ANY,), (1,)) for name in "abc")
    steps, row_step = f.param("k", 0, 1 << 32), f.param("row_step", 0, 1 << 20)
    merged = _scaled(f, spec) if spec.scaled else _added(f)
    rows = [f.param(f"row{i}", 0, 1 << 34) for i in range(spec.mr)] if spec.a_rows else [Ix(i) for i in range(spec.mr)]
    masks = _column_masks(f, spec)
    kept = f.view("kept", spec.dtype, (ANY,), (1,)) if spec.keeps else None
    zero = f.const(0, spec.dtype, spec.lanes)
    sums = (zero,) * (spec.mr * spec.vectors)
    if spec.taps:
        for k, tap in enumerate(spec.taps):
            sums = _step(f, spec, a, b, [row + tap for row in rows], masks, kept, Ix(k), sums)
    else:
        whole = Ix()
        if spec.ahead:
            whole = f.divmod(steps, STEPS)[0] * STEPS
            sums = _asking_steps(f, spec, a, b, rows, masks, kept, whole, f.param("ahead", 0, 1 << 34), sums)
        with f.loop(whole, steps, carry=sums, unroll=None if spec.ahead else STEPS) as loop:
            loop.next(*_step(f, spec, a, b, [row + loop.index * spec.a_step for row in rows], masks, kept, loop.index, loop.carried))
        sums = loop.results
    for i in range(spec.mr):                                # what c holds is added at the end, not at the start: sums are blocked
        for v in range(spec.vectors):
            at = [row_step * i + v * spec.lanes]
            f.store(c, at, merged(v, f.load(c, at, spec.lanes), sums[i * spec.vectors + v]))
    return f


def call_micro_kernel(f: LoopFunction, spec: MicroSpec, a: View, b: View, c: View, steps: Ix | int, row_step: Ix | int, add: Ix | int,
                      rows: Sequence[Ix] = (), columns: Sequence[Ix] = (), ahead: Ix | None = None, factors: View | None = None,
                      kept: View | None = None) -> None:
    """`columns`: how many of b may be read, if not all. `ahead`: where in b lies what `spec.ahead` asks for. `factors`: of what is in c, which is then
    added to, whatever `add`. `kept`: where `spec.keeps` packs rows."""
    spec = replace(spec, masked=bool(columns), scaled=factors is not None)
    views, integers = ([a, b, c, factors], []) if spec.scaled else ([a, b, c], [as_ix(add)])
    views += [kept] if spec.keeps else []
    f.call(micro_kernel(spec), [*views, as_ix(steps), as_ix(row_step), *integers, *rows, *columns, *([ahead] if spec.ahead else [])])


def _added(f: LoopFunction) -> Callable[[int, Val, Val], Val]:
    """(vector of the row, what c holds, the sum) -> what c will hold."""
    add = f.cast(f.value(f.param("add", 0, 1)), bool_)
    return lambda v, before, new: f.select(add, f.add(before, new), new)


def _scaled(f: LoopFunction, spec: MicroSpec) -> Callable[[int, Val, Val], Val]:
    """The same with c times a factor for each column."""
    factors = f.view("factors", spec.dtype, (ANY,), (1,))
    return lambda v, before, new: multiply_add(f, before, f.load(factors, [v * spec.lanes], spec.lanes), new, spec.fused)


def _asking_steps(f: LoopFunction, spec: MicroSpec, a: View, b: View, rows: list[Ix], masks: list[Val | None], kept: View | None, steps: Ix,
                  ahead: Ix, sums: Sequence[Val]) -> tuple[Val, ...]:
    """STEPS at a time, and with them, one after the other, the lines of b from `ahead` on: a burst of requests would keep loads waiting."""
    line = LINE_BYTES // spec.dtype.itemsize
    with f.loop(0, steps, STEPS, carry=sums) as loop:
        group, _ = f.divmod(loop.index, STEPS)
        for i in range(spec.ahead):
            f.prefetch(b, [ahead + (group * spec.ahead + i) * line], level=2)
        sums = loop.carried
        for step in range(STEPS):
            k = loop.index + step
            sums = _step(f, spec, a, b, [row + k * spec.a_step for row in rows], masks, kept, k, sums)
        loop.next(*sums)
    return loop.results


def _column_masks(f: LoopFunction, spec: MicroSpec) -> list[Val | None]:
    if not spec.masked:
        return [None] * spec.vectors
    columns = f.param("columns", 0, spec.vectors * spec.lanes)
    return [f.tail_mask(columns - v * spec.lanes, spec.lanes) for v in range(spec.vectors)]


def _step(f: LoopFunction, spec: MicroSpec, a, b, rows: list[Ix], masks: list[Val | None], kept: View | None, k: Ix,
          sums: Sequence[Val]) -> list[Val]:
    """Step k of the sums; `rows`: where it finds the rows of a; `kept`: where it packs them."""
    columns = [f.load(b, [k * spec.b_step + v * spec.lanes], spec.lanes, mask) for v, mask in enumerate(masks)]
    following = []
    for i, row in enumerate(rows):
        value = f.load(a, [row])
        if kept is not None:
            f.store(kept, [k * spec.keeps + i], value)
        factor = f.splat(value, spec.lanes)
        following += [multiply_add(f, factor, column, sums[i * spec.vectors + v], spec.fused) for v, column in enumerate(columns)]
    return following


def multiply_add(f: LoopFunction, a: Val, b: Val, c: Val, fused: bool) -> Val:
    """a * b + c in one rounding where the target can, else in two."""
    return f.fma(a, b, c) if fused else f.add(f.mul(a, b), c)


@dataclass(frozen=True)
class StreamSpec:
    """mr rows of a, each with its own offset, times rows of b that are read from end to end. `width`: columns at most."""
    dtype: DType
    mr: int
    lanes: int
    a_step: int
    b_step: int
    width: int
    fused: bool = True

    @property
    def steps(self) -> int:
        """Rows of b that are added in one pass over the sums."""
        return 8 if self.mr == 1 else 4

    @property
    def name(self) -> str:
        return f"stream_{self.dtype}_{self.mr}x{self.width}_rows{self.a_step}_b{self.b_step}_{self.lanes}{'' if self.fused else '_unfused'}"


@cache
def stream_kernel(spec: StreamSpec) -> LoopFunction:
    """The same sums as `micro_kernel`, for few rows and all columns of a tile.

    Views: a, b, c (rows `width` apart). Integers: k, columns, add, then the row offsets of a.
    """
    f = LoopFunction(spec.name, noalias=True)
    a, b = (f.view(name, spec.dtype, (ANY,), (1,)) for name in "ab")
    c = f.view("c", spec.dtype, (ANY,), (1,))
    k, columns, add = f.param("k", 0, 1 << 32), f.param("columns", 0, spec.width), f.param("add", 0, 1)
    rows = [f.param(f"row{i}", 0, 1 << 34) for i in range(spec.mr)]
    part = f.scratch("part", spec.dtype, (spec.mr * spec.width,))
    zero = f.const(0, spec.dtype, spec.lanes)
    with f.loop(0, spec.mr * spec.width, spec.lanes) as loop:
        f.store(part, [loop.index], zero)
    groups, _ = f.divmod(k, spec.steps)
    with f.loop(0, groups * spec.steps, spec.steps) as loop:
        _add_rows(f, spec, a, b, part, rows, columns, loop.index, spec.steps)
    with f.loop(groups * spec.steps, k) as loop:
        _add_rows(f, spec, a, b, part, rows, columns, loop.index, 1)
    keep = f.cast(f.value(add), bool_)
    with f.loop(0, spec.mr * spec.width, spec.lanes) as loop:
        before = f.select(keep, f.load(c, [loop.index], spec.lanes), zero)
        f.store(c, [loop.index], f.add(before, f.load(part, [loop.index], spec.lanes)))
    return f


def _add_rows(f: LoopFunction, spec: StreamSpec, a, b, part, rows: list[Ix], columns: Ix, k: Ix, steps: int) -> None:
    """part[i, j] += sum over some steps of a[i, k + step] * b[k + step, j]"""
    factors = [[f.splat(f.load(a, [row + (k + u) * spec.a_step]), spec.lanes) for u in range(steps)] for row in rows]

    def body(j: Ix, lanes: int, mask: Val | None) -> None:
        values = [f.load(b, [(k + u) * spec.b_step + j], lanes, mask) for u in range(steps)]
        for i, row in enumerate(factors):
            total = f.load(part, [j + i * spec.width], lanes)
            for factor, value in zip(row, values):
                total = multiply_add(f, factor, value, total, spec.fused)
            f.store(part, [j + i * spec.width], total)
    vector_run(f, columns, spec.lanes, body)
