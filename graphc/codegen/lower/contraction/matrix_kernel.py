"""The micro-kernel of contractions by matrix registers: sums of any number of rows and of one or two registers of
columns, two registers of rows at a time.

A register of a has 16 rows of 16 steps of the sum, one of b 16 steps of 16 columns, one of sums 16 rows of 16 columns;
the last rows, and the last steps of a sum, have registers of fewer, so that nothing is padded. Shapes are set once for
all rows but the last: that takes as long as ten products. Nothing of it outlives the function.
"""
from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.index import ELEMENTS, Ix, as_ix
from graphc.codegen.loops.loop_ir import View
from graphc.codegen.lower.contraction.micro_kernel import ANY, ProductTypes
from graphc.errors import InternalError
from graphc.records import dataclass
from graphc.schedule.target import MATRIX_LANES as LANES

SUMS = 4                        # the registers 0 … 3: of the upper rows, then of the lower ones
# Of a and b: one of each for whole steps and for the last ones of a sum; where there are no last ones two of each,
# which need not wait until the products of what they held have begun
WHOLE, TAIL, TWICE = ((4,), (5,)), ((6,), (7,)), ((4, 6), (5, 7))
Registers = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class MatrixKernelSpec:
    """Which kernel. a_step, b_step, c_step: elements between rows of a, steps of b and rows of c; across: registers of
    columns; has_tail: the number of steps is no multiple of 16; ahead: lines of b that are prefetched every 16 steps,
    while two registers of rows are computed."""
    types: ProductTypes
    a_step: int
    b_step: int
    c_step: int
    across: int
    has_tail: bool
    ahead: int = 0

    @property
    def name(self) -> str:
        tail = "_tail" * self.has_tail + f"_ahead{self.ahead}" * (self.ahead > 0)
        return f"matrix_{self.types}_{self.across * LANES}_a{self.a_step}_b{self.b_step}_c{self.c_step}{tail}"


@dataclass(frozen=True)
class MatrixOperands:
    """What a kernel is called with: a from its first row on, at `first`; b and c; how many steps and rows there are,
    and whether the sums are added to what c holds (0 or 1). next: what is prefetched, from b on, if anything is."""
    a: View
    first: Ix
    b: View
    c: View
    steps: Ix
    rows: Ix
    accumulate: Ix | int
    next: Ix | None = None


def call_matrix_kernel(f: LoopFunction, types: ProductTypes, steps: tuple[int, int, int], across: int,
                       x: MatrixOperands, ahead: int = 0) -> None:
    """c (+)= a b. steps: those of a, b and c as in the spec. Where it is not known whether the sum has a tail there is
    a branch."""
    whole, rest = f.divmod(x.steps, LANES)
    whole, rest = whole * LANES, x.steps - whole * LANES

    def call(has_tail: bool) -> None:
        counts = [as_ix(n) for n in (whole, x.rows, x.accumulate, x.first, *[rest] * has_tail)]
        counts += [] if x.next is None else [x.next]
        spec = MatrixKernelSpec(types, *steps, across, has_tail, 0 if x.next is None else ahead)
        f.call(matrix_kernel(spec), [x.a, x.b, x.c, *counts])
    if rest.is_const and isinstance(rest.const, int):
        return call(rest.const > 0)
    with f.if_(f.gt(f.value(rest), 0)):
        call(True)
    with f.else_():
        call(False)


@cache
def matrix_kernel(spec: MatrixKernelSpec) -> LoopFunction:
    """Views: a, b, c. Integers: steps, a multiple of 16; rows; whether to add; where a begins; the steps after them (if
    there is a tail)."""
    kernel = _MatrixKernel(spec)
    kernel.write()
    return kernel.f


class _MatrixKernel:
    """The function while it is written."""

    def __init__(self, spec: MatrixKernelSpec):
        self.f = f = LoopFunction(spec.name, noalias=True)
        self.spec, self.types = spec, (spec.types.a, spec.types.b)
        self.a, self.b, self.c = (f.view(name, dtype, (ANY,), (1,)) for name, dtype in spec.types.named)
        self.steps, self.rows = f.param("k", 0, ELEMENTS, LANES), f.param("rows", 0, ELEMENTS)
        self.accumulate, self.first = f.param("add", 0, 1), f.param("first", 0, ELEMENTS)
        self.rest = f.param("rest", 1, LANES - 1) if spec.has_tail else Ix()
        self.ahead = f.param("ahead", 0, ELEMENTS) if spec.ahead else Ix()

    def write(self) -> None:
        f, rows = self.f, self.rows
        pairs, singles = (f.divmod(rows, n)[0] * n for n in (2 * LANES, LANES))
        with f.if_(f.ge(f.value(rows), LANES)):
            self._shapes(Ix(LANES))
            with f.loop(0, pairs, 2 * LANES) as loop:
                self._block(loop.index, 2)
            with f.if_(f.ge(f.value(rows - pairs), LANES)):
                self._block(pairs, 1)
            f.matrix_shapes()
        with f.if_(f.gt(f.value(rows - singles), 0)):
            self._shapes(rows - singles)
            self._block(singles, 1)
            f.matrix_shapes()

    def _shapes(self, rows: Ix) -> None:
        """For so many rows in each register of a and c."""
        sums, whole = (rows, Ix(LANES)), [(rows, Ix(LANES)), (Ix(LANES), Ix(LANES))]
        others = [(rows, self.rest), (self.rest, Ix(LANES))] if self.spec.has_tail else whole
        self.f.matrix_shapes(*[sums] * SUMS, *whole, *others)

    def _block(self, row: Ix, down: int) -> None:
        """The rows of so many registers below each other, from `row` on."""
        f, spec = self.f, self.spec
        places = [(number, row * spec.c_step + (i * LANES * spec.c_step + j * LANES))
                  for i in range(down) for j, number in enumerate(self._sums(i))]
        with f.if_(f.gt(f.value(self.accumulate), 0)):
            for number, place in places:
                f.matrix_load(number, self.c, place, spec.c_step)
        with f.else_():
            for number, _ in places:
                f.matrix_zero(number)
        share = f.product(f.divmod(row, 2 * LANES)[0], self.steps) * spec.ahead if down > 1 and spec.ahead else Ix()
        with f.loop(0, self.steps, LANES) as loop:
            for line in range(spec.ahead if down > 1 else 0):
                f.prefetch(self.b, [self.ahead + share + (loop.index * spec.ahead + line * LANES)], level=2)
            self._products(row, down, loop.index, WHOLE if spec.has_tail else TWICE)
        if spec.has_tail:
            self._products(row, down, self.steps, TAIL)
        for number, place in places:
            f.matrix_store(number, self.c, place, spec.c_step)

    def _sums(self, i: int) -> Sequence[int]:
        """The registers of the sums of the upper (0) or lower (1) rows."""
        if self.spec.across > SUMS // 2:
            raise InternalError(f"{self.spec.across} registers of sums beside each other", "loops")
        return range(2 * i, 2 * i + self.spec.across)

    def _products(self, row: Ix, down: int, k: Ix, registers: Registers) -> None:
        """Steps from k on. Rows are loaded once. So are columns where each has a register; else each second row of
        products goes through them backwards, so that one of these need not be loaded again."""
        f, (rows, columns), held = self.f, registers, dict[int, int]()
        for i in range(down):
            a = rows[i % len(rows)]
            f.matrix_load(a, self.a, self.first + row * self.spec.a_step + (k + i * LANES * self.spec.a_step),
                          self.spec.a_step)
            for j in range(self.spec.across)[::1 if len(columns) > 1 else 1 - 2 * i]:
                b = columns[j % len(columns)]
                if held.get(b) != j:
                    f.matrix_load(b, self.b, k * self.spec.b_step + j * LANES, self.spec.b_step)
                f.matrix_dot(self._sums(i)[j], a, b, self.types)
                held[b] = j
