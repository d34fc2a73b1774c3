"""The factors of contractions without micro-tiles: vectors of an operand, loaded once and used for several sums."""
from __future__ import annotations

from dataclasses import field
from typing import Protocol

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import Ix
from graphc.codegen.lower.contraction.micro_kernel import as_factor
from graphc.codegen.lower.ranges import load_spaced
from graphc.ir.dims import Dim, typical
from graphc.ir.types import DType
from graphc.records import dataclass
from graphc.schedule.contraction_form import LinearMap
from graphc.schedule.contraction_schedule import MixedChannels


@dataclass(frozen=True)
class StridedOperand:
    memory: View
    linear: LinearMap[Dim]


class Factors(Protocol):
    """The factors of the terms of a sum."""

    def term(self, index: dict[int, int]) -> Val:
        """The vector at an index relative to the first."""

    def prefetch_next(self, dim: int, steps: int = 1) -> None:
        """Prefetches what will be needed so many positions of a dim later."""


@dataclass(frozen=True)
class Terms:
    """Vectors of an operand, each loaded once, and converted to the type of the sums."""
    f: LoopFunction
    dtype: DType
    operand: StridedOperand
    start: Ix
    step: Dim
    lanes: int
    mask: Val | None
    loaded: dict[Dim, Val] = field(default_factory=dict)

    def term(self, index: dict[int, int]) -> Val:
        """The vector at an index relative to the first."""
        return self.at(sum(self.operand.linear.strides[d] * i for d, i in index.items()))

    def at(self, distance: Dim) -> Val:
        if distance not in self.loaded:
            memory, start = self.operand.memory, self.start + distance
            value = load_spaced(self.f, memory, start, self.step, self.lanes, self.mask)
            self.loaded[distance] = as_factor(self.f, value, self.dtype)
        return self.loaded[distance]

    def prefetch_next(self, dim: int, steps: int = 1) -> None:
        """Prefetches what was not loaded here but will be so many positions of a dim later, lines of memory further on,
        say: vectors of many positions are read side by side, which the CPU does not take for streams.
        """
        ahead = {distance + steps * self.operand.linear.strides[dim] for distance in self.loaded}
        for distance in sorted(ahead - self.loaded.keys() if self.step == 1 else (), key=self._place):
            self.f.prefetch(self.operand.memory, [self.start + distance])

    def _place(self, distance: Dim) -> tuple[int, str]:
        """For an order: that in memory, for typical sizes."""
        return typical(distance), str(distance)


@dataclass(frozen=True)
class MixedTerms:
    """Vectors of the channels of several groups, shuffled: of each group one channel, for all lanes of the group."""
    vectors: Terms
    mixed: MixedChannels
    shuffled: dict[tuple[Dim, int], Val] = field(default_factory=dict)

    def term(self, index: dict[int, int]) -> Val:
        vectors, dim, width = self.vectors, self.mixed.channel, self.mixed.width
        channel = index[dim]
        distance = sum(vectors.operand.linear.strides[d] * i for d, i in index.items() if d != dim)
        if (distance, channel) not in self.shuffled:
            lanes = [lane // width * width + channel for lane in range(vectors.lanes)]
            self.shuffled[distance, channel] = vectors.f.shuffle(vectors.at(distance), None, lanes)
        return self.shuffled[distance, channel]

    def prefetch_next(self, dim: int, steps: int = 1) -> None:
        self.vectors.prefetch_next(dim, steps)
