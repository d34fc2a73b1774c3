"""The positions of a pooling window, as loops."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import product
from math import prod

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val
from graphc.ir.dims import Dim
from graphc.ir.ops import window
from graphc.ir.size_proofs import is_nonnegative
from graphc.ir.types import i32

Place = list[Ix]                    # an index along each spatial axis
# where, number of the position, carried -> carried
Visit = Callable[[Place, Val, tuple[Val, ...]], Sequence[Val]]


class PoolWindow:
    """The positions of one pooling window inside the image. `whole`: it is known that all of them are."""

    def __init__(self, f: LoopFunction, op: window.Pooling, size: Sequence[Dim], out: Sequence[Ix],
                 whole: bool = False):
        self.f, self.op, self.whole = f, op, whole
        self.starts = [o * stride - low for o, stride, (low, _) in zip(out, op.stride, op.padding)]
        self.size = size

    def never_whole(self) -> bool:
        """Whether some position is in the padding, wherever the window is."""
        reach = [(k - 1) * step for k, step in zip(self.op.kernel, self.op.dilation)]
        known = [start.const if start.is_const else None for start in self.starts]
        return any(is_nonnegative(r - size) or at is not None and (at < 0 or is_nonnegative(at + r - size))
                   for r, size, at in zip(reach, self.size, known))

    def is_whole(self) -> Val:
        """Whether no position is in the padding."""
        f, last = self.f, [(k - 1) * step for k, step in zip(self.op.kernel, self.op.dilation)]
        inside = [f.and_(f.ge(f.value(start), f.value(Ix())), f.le(f.value(start + reach), f.value(Ix(size - 1))))
                  for start, reach, size in zip(self.starts, last, self.size)]
        return reduce(f.and_, inside)

    def reduce(self, carry: tuple[Val, ...], visit: Visit) -> tuple[Val, ...]:
        """Visits the positions row by row, carrying values."""
        f, steps = self.f, self.op.dilation
        if self.whole:
            for number, at in enumerate(product(*map(range, self.op.kernel))):
                place = [start + k * step for start, k, step in zip(self.starts, at, steps)]
                carry = tuple(visit(place, f.const(number, i32), carry))
            return carry
        return self._walk((), carry, visit)

    def _walk(self, at: tuple[Ix, ...], carry: tuple[Val, ...], visit: Visit) -> tuple[Val, ...]:
        """The positions inside the image that begin with `at`."""
        f, axis = self.f, len(at)
        if axis == len(self.starts):
            place = [self._inside(start + k * step, n)
                     for start, k, step, n in zip(self.starts, at, self.op.dilation, self.size)]
            number = reduce(lambda n, along: n * along[0] + along[1], zip(self.op.kernel, at), Ix())
            return tuple(visit(place, f.cast(f.value(number), i32), carry))
        lo, hi = self._bounds(axis)
        with f.loop(lo, hi, carry=carry) as loop:
            loop.next(*self._walk((*at, loop.index), loop.carried, visit))
        return loop.results

    def count(self, beyond: Sequence[tuple[int, int]]) -> Val:
        """How many positions are inside the image, or in what lies around it by so many elements (before, after)."""
        f = self.f
        if self.whole:
            return f.const(prod(self.op.kernel), i32)
        spans = [hi - lo for lo, hi in (self._bounds(axis, around) for axis, around in enumerate(beyond))]
        return reduce(f.mul, [f.value(span) for span in spans])

    def _bounds(self, axis: int, around: tuple[int, int] = (0, 0)) -> tuple[Ix, Ix]:
        """The positions k with 0 <= start + k * step < size, or with so many elements around the image."""
        f, start, step = self.f, self.starts[axis], self.op.dilation[axis]
        low, high = around
        first = f.divmod(start * -1 + (step - 1 - low), step)[0]
        behind = f.divmod(start * -1 + (self.size[axis] + high - 1), step)[0] + 1
        return f.max_(first, 0), f.min_(behind, self.op.kernel[axis])

    def _inside(self, at: Ix, size: Dim) -> Ix:
        """The index, inside by the loop's bounds, in a form that the verifier believes."""
        return self.f.max_(self.f.min_(at, size - 1), 0)
