"""Which elements a load or store may touch."""
from __future__ import annotations

from collections.abc import Iterator

from graphc.codegen.loops.index import Ix
from graphc.codegen.loops.loop_ir import Compute, Load, MatrixMove, Store, Val, View
from graphc.errors import Unsized
from graphc.ir.size_proofs import sign_of
from graphc.records import dataclass


@dataclass(frozen=True)
class Access:
    """`index` into `view`; along the last axis it reaches further by at most the least of `reach`."""
    view: View
    index: tuple[Ix, ...]
    reach: tuple[Ix, ...]

    def offset(self) -> Ix:
        return self.view.at(self.index)

    def lows(self) -> list[Ix]:
        """Each is not greater than any element offset touched."""
        return self._ends(negative=True)

    def highs(self) -> list[Ix]:
        """Each is not less than any element offset touched."""
        return self._ends(negative=False)

    def _ends(self, negative: bool) -> list[Ix]:
        stride = self.view.strides[-1] if self.index else 0
        sign = stride if isinstance(stride, int) else sign_of(stride)
        if sign is None:
            raise Unsized(f"the sign of the stride {stride} is not known")
        if (sign < 0) is not negative or stride == 0:
            return [self.offset()]
        return [self.offset() + r * stride for r in self.reach]

    def __str__(self) -> str:
        start = "" if self.view.start == 0 else f" from {self.view.start}"
        return f"{self.view.name}[{', '.join(map(str, self.index))}]{start}"


def accesses_of(s: Load | Store | MatrixMove, definitions: dict[int, Compute]) -> Access:
    """What a load or store touches; a mask made by tail_mask, also conjoined with others, limits the reach."""
    if isinstance(s, MatrixMove):
        return Access(s.view, s.index, ((s.rows - 1) * s.step + (s.columns - 1),))
    lanes = s.dst.lanes if isinstance(s, Load) else s.value.lanes
    reach = [Ix(lanes - 1)]
    if s.mask is not None:
        reach += [count - 1 for count in _counts(s.mask, definitions)]
    return Access(s.view, s.index, tuple(reach))


def _counts(mask: Val, definitions: dict[int, Compute]) -> Iterator[Ix]:
    s = definitions.get(mask.id)
    if s is None:
        return
    if s.op == "tail_mask":
        yield s.attr
    if s.op == "and":
        for part in s.args:
            yield from _counts(part, definitions)
