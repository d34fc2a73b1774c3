"""The schedule of attention taken whole, and when it is. Its gradient is decomposed."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from graphc.ir.op import Op
from graphc.ir.ops.attention import Attention
from graphc.ir.types import TensorType

LARGEST_HEAD = 512                  # features of a head: a block of queries and its sums stay in L2


@dataclass(frozen=True)
class AttentionSchedule:
    """Blocks of `queries` × `keys`; scores are kept transposed, mr keys × vectors of queries in a register tile.

    serial: all on the caller.
    """
    queries: int
    keys: int
    mr: int
    vectors: int
    lanes: int
    serial: bool

    @property
    def nr(self) -> int:
        return self.vectors * self.lanes

    def __str__(self) -> str:
        return f"attention({self.queries} queries × {self.keys} keys, tile {self.mr}×{self.nr}{', serial' if self.serial else ''})"


def is_whole(op: Op, types: Sequence[TensorType]) -> bool:
    """Whether the operator on operands of these types has a lowering of its own; if not, it is decomposed."""
    rule = RULES.get(type(op))
    return rule is not None and rule(types)


def _attention(types: Sequence[TensorType]) -> bool:
    """No mask; heads that fit the caches."""
    q, k, v, *mask = types
    fits = max(q.shape[-1], v.shape[-1]) <= LARGEST_HEAD
    return not mask and fits and all(prod(t.shape) > 0 for t in (q, k, v))


RULES: dict[type, Callable[[Sequence[TensorType]], bool]] = {Attention: _attention}
