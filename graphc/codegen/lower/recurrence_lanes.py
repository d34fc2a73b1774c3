"""Linear recurrences whose steps are the lanes of a vector: y[i] = a[i] y[i-1] + x[i] of neighbours at once.

Two steps, one after the other, are one step of the same kind: (a, x) and then (b, z) is (a b, b x + z). So lanes are
combined with those 1, 2, 4, … before them, until each has all of the vector before it (W. D. Hillis, G. L. Steele,
"Data parallel algorithms", 1986; G. E. Blelloch, "Prefix sums and their applications", 1990).
"""
from __future__ import annotations

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val
from graphc.codegen.lower.contraction.micro_kernel import multiply_add
from graphc.ir.types import i32
from graphc.records import dataclass


@dataclass(frozen=True)
class Lanes:
    """Of an axis of `size` steps, from its end if `backward`: then the first step of a vector is its last lane."""
    f: LoopFunction
    backward: bool
    size: int
    fused: bool

    def step(self, a: Val, x: Val, carried: Val, first: Ix, mask: Val | None) -> tuple[Val, Val, Val]:
        """What each lane begins with, what follows, and what follows the last, in all lanes. `carried`: what the
        vector begins with, in all lanes; `first`: the place of lane 0 on the axis. Lanes that `mask` leaves out change
        nothing."""
        f = self.f
        if mask is not None and self.backward:
            a, x = f.select(mask, a, 1.0), f.select(mask, x, -0.0)
        factor, total, distance = a, x, 1
        while distance < a.lanes:
            total, factor = (self._joined(multiply_add(f, factor, self._moved(total, distance), total, self.fused),
                                          total, distance),
                             self._joined(f.mul(factor, self._moved(factor, distance)), factor, distance))
            distance *= 2
        after = self._checked(multiply_add(f, factor, carried, total, self.fused), a, x, carried, first)
        last = 0 if self.backward else a.lanes - 1
        before = f.shuffle(after, carried, [self._before(k, 1, a.lanes) for k in range(a.lanes)])
        return before, after, f.shuffle(after, None, [last] * a.lanes)

    def is_first(self, first: Ix, lanes: int) -> Val:
        """Where a lane is the first step of all."""
        f, number = self.f, self.size - 1 if self.backward else 0
        return f.eq(f.iota(lanes, i32), f.cast(f.value(first * -1 + number), i32))

    def _before(self, lane: int, distance: int, lanes: int) -> int:
        """The lane so many steps before; of those that have none, the same lane of a second vector."""
        other = lane + distance if self.backward else lane - distance
        return other if 0 <= other < lanes else lanes + lane

    def _moved(self, v: Val, distance: int) -> Val:
        return self.f.shuffle(v, None, [self._before(k, distance, v.lanes) % v.lanes for k in range(v.lanes)])

    def _joined(self, new: Val, old: Val, distance: int) -> Val:
        """The new one, but where no lane is so many steps before."""
        kept = [self._before(k, distance, new.lanes) >= new.lanes for k in range(new.lanes)]
        return self.f.shuffle(new, old, [k + new.lanes * keep for k, keep in enumerate(kept)])

    def _checked(self, after: Val, a: Val, x: Val, carried: Val, first: Ix) -> Val:
        """The results, made one after the other if not all of them are finite: a product of factors may overflow where
        what they are multiplied with is small. Where all are, nothing else has overflowed."""
        f = self.f
        with f.while_(1, carry=(after,), name="careful") as loop:
            loop.condition(f.not_(f.reduce(f.isfinite(loop.carried[0]), "and")))
            found, old = loop.carried[0], f.extract(carried, 0)
            for k in reversed(range(a.lanes)) if self.backward else range(a.lanes):
                factor, added = f.extract(a, k), f.extract(x, k)
                begins = f.eq(f.value(first + k), self.size - 1 if self.backward else 0)
                old = f.select(begins, added, multiply_add(f, factor, old, added, self.fused))
                found = f.insert(found, k, old)
            loop.next(found)
        return loop.results[0]
