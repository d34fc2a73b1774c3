"""Products whose number of rows or columns is known when they run: the loops of each regime, one of which is taken."""
from __future__ import annotations

from dataclasses import replace

from graphc.codegen.lower.contraction.matrix import MatrixContraction
from graphc.codegen.lower.contraction.phase import PhaseLowering
from graphc.codegen.lower.contraction.tiled import TiledContraction
from graphc.schedule.contraction_schedule import MatrixSchedule, RowsSchedule, TileSchedule


class RowsContraction(PhaseLowering[RowsSchedule]):
    def run(self) -> None:
        self._run_from(0)

    def _run_from(self, number: int) -> None:
        """The loops of regime `number` if it takes as many, else those of a later one."""
        f, s = self.f, self.schedule
        loops = self._loops(s.regimes[number])
        if number == len(s.most):
            return loops.run()
        with f.if_(f.le(f.value(self.n if s.of_columns else self.m), s.most[number])):
            loops.run()
        with f.else_():
            self._run_from(number + 1)

    def prepack(self) -> None:
        """All regimes read the same panels."""
        self._loops(self.schedule.regimes[-1]).prepack()

    def _loops(self, regime: TileSchedule) -> TiledContraction:
        phases = tuple(regime if i == self.number else s for i, s in enumerate(self.contraction.phases))
        loops = MatrixContraction if isinstance(regime, MatrixSchedule) else TiledContraction
        return loops(self.f, replace(self.contraction, phases=phases), self.number, self.views, self.fused,
                     self.epilogue)
