"""The factors of contractions without micro-tiles: vectors of an operand, loaded once and used for several sums."""
from __future__ import annotations

from dataclasses import dataclass, field

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import Ix
from graphc.codegen.lower.ranges import load_spaced
from graphc.schedule.contraction_form import LinearMap


@dataclass(frozen=True)
class StridedOperand:
    memory: View
    linear: LinearMap


@dataclass(frozen=True)
class Terms:
    """Vectors of an operand, each loaded once."""
    f: LoopFunction
    operand: StridedOperand
    start: Ix
    step: int
    lanes: int
    mask: Val | None
    loaded: dict[int, Val] = field(default_factory=dict)

    def term(self, index: dict[int, int]) -> Val:
        """The vector at an index relative to the first."""
        return self.at(sum(self.operand.linear.strides[d] * i for d, i in index.items()))

    def at(self, distance: int) -> Val:
        if distance not in self.loaded:
            memory, start = self.operand.memory, self.start + distance
            self.loaded[distance] = load_spaced(self.f, memory, start, self.step, self.lanes, self.mask)
        return self.loaded[distance]

    def prefetch_next(self, dim: int) -> None:
        """Prefetches what was not loaded here but will be at the next position of a dim, a line of memory further on,
        say: vectors of many positions are read side by side, which the CPU does not take for streams.
        """
        ahead = {distance + self.operand.linear.strides[dim] for distance in self.loaded}
        for distance in sorted(ahead - self.loaded.keys() if self.step == 1 else ()):
            self.f.prefetch(self.operand.memory, [self.start + distance])
