"""Contractions in integers of 8 and 16 bits, and sums of nothing: plain loops."""
from __future__ import annotations

from graphc.codegen.loops.builder import Val
from graphc.codegen.loops.index import Ix
from graphc.codegen.lower.contraction.micro_kernel import load_as, multiply_add
from graphc.codegen.lower.contraction.phase import PhaseLowering
from graphc.codegen.lower.ranges import Index, Range, offset, unflatten, walk
from graphc.ir.dims import ceil_div, product_of
from graphc.schedule.blocking import at_most
from graphc.schedule.contraction_schedule import LoopSchedule


class PlainContraction(PhaseLowering[LoopSchedule]):
    def run(self) -> None:
        """One output after the other."""
        f, p = self.f, self.phase
        dims = p.batch + p.m + p.n
        count = p.extent(dims)
        per_tile = at_most(self.schedule.tile, count)
        with f.parallel(ceil_div(count, per_tile), "outputs") as t:
            with f.loop(0, per_tile if count % per_tile == 0 else f.min_(per_tile, count - t * per_tile)) as loop:
                index = unflatten(f, t * per_tile + loop.index, dims, p.sizes)
                self.outputs.store(index, p.n[-1], self._sum(index), 1, None)

    def _sum(self, index: Index) -> Val:
        """Integers wrap like numpy's."""
        f, p = self.f, self.phase
        zero = f.const(0, self.dtype)
        if self.k == 0:
            return zero
        total = f.scratch("total", self.dtype, (1,))
        f.store(total, [0], zero)
        everything = Range(p.k, self.k_sizes, 0, {}, Ix(), Ix(self.k_sizes[0]), Ix(), product_of(self.k_sizes[1:]))
        with walk(f, everything) as (k, _):
            a = load_as(f, self.dtype, self.a, [offset(p.a, index | k)])
            b = load_as(f, self.dtype, self.b, [offset(p.b, index | k)])
            f.store(total, [0], multiply_add(f, a, b, f.load(total, [0]), fused=False))
        return f.load(total, [0])
