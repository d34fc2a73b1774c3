"""What every schedule can be asked, whatever kernel it is of."""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from graphc.ir.dims import Dim
from graphc.schedule.cost import Ranking
from graphc.schedule.view import ViewType

InplacePairs = tuple[tuple[int, int], ...]      # (output, input)
OPERANDS = 2                                    # of most products; the inputs behind are those of the epilogue


class Schedule(ABC):
    """How a kernel runs: plain data, the same for any number of threads. It is chosen from shapes, strides and target,
    read by the lowering, and printed with the graph.

    prepacked: the operand that is packed before the kernel runs, into `packed_bytes` of memory that the plan provides;
    None: no operand is.
    aliased: the result lies in the memory of the first operand, so that only the elements that differ are written.
    ranking: the candidates among which it was chosen, the cheapest first; None if there was no choice.
    """
    prepacked: int | None = None
    aliased: bool = False
    ranking: Ranking[object] | None = None

    @property
    def shared_bytes(self) -> Dim:
        """Memory that all threads share while the kernel runs. The function that the schedule is lowered to has views
        of it.
        """
        return 0

    @property
    def packed_bytes(self) -> Dim:
        """Memory of the operand that is packed before the kernel runs."""
        return 0

    @property
    def rankings(self) -> tuple[Ranking[object], ...]:
        """All that was chosen among candidates, for a kernel of several parts that of each."""
        return () if self.ranking is None else (self.ranking,)

    def inplace_pairs(self, ins: Sequence[ViewType], outs: Sequence[ViewType]) -> InplacePairs:
        """Pairs (output, input): the output may lie exactly where the input lies, if that dies here."""
        return ()

    def updating(self) -> "Schedule":
        """The schedule for a result that came to lie where the first operand lies."""
        return self

    @abstractmethod
    def __str__(self) -> str:
        """The schedule on one line, without its shapes."""


class ProductSchedule(Schedule):
    """The schedule of sums of products, which go through an epilogue: each element of another input is read where its
    result is stored. operands: the first inputs, which it has itself.
    """
    operands: int = OPERANDS

    def inplace_pairs(self, ins: Sequence[ViewType], outs: Sequence[ViewType]) -> InplacePairs:
        return tuple((o, i) for i, view in enumerate(ins) if i >= self.operands
                     for o, out in enumerate(outs) if view == out)
