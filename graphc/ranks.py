"""Who computes the shards of a training step."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar

import numpy as np

from graphc.dsl.context import user_loc
from graphc.errors import GraphError
from graphc.shard_tree import Span, Sums

T = TypeVar("T")


class Ranks(Protocol):
    """Those who share the shards of a step: `rank` of `count`, each of which has a block of the shards."""
    rank: int
    count: int
    origin: int                     # the version that the state had when they came together

    def together(self) -> AbstractContextManager[None]:
        """What stands within is done by all ranks; one that is interrupted in it cannot go on with the others."""

    def gathered(self, numbers: Sequence[float], what: str, error: Exception | None = None) -> np.ndarray:
        """f64 [count, n]: the numbers of all ranks, which all do `what`. Raises on all of them what went wrong on any
        of them."""

    def summed(self, parts: Mapping[Span, Sums], shards: int) -> Sums:
        """The sum over all shards, added as the tree does, of the sums of the subtrees that each rank has; it stands
        in one of these."""

    def part(self, rows: int, shards: int) -> slice:
        """The rows of a batch of so many that this rank has."""

    def joined(self, array: np.ndarray) -> np.ndarray:
        """The arrays of all ranks, one behind the other along the first axis."""

    def from_first(self, make: Callable[[], T], what: str) -> T:
        """What `make` gives on rank 0, on all ranks."""

    def dealt(self, arrays: Sequence[Any], shards: int) -> Sequence[Any]:
        """Rank 0 has a batch; each rank gets the rows of its shards."""


class Alone:
    """One rank that has all shards."""
    rank, count, origin = 0, 1, 0

    def together(self) -> AbstractContextManager[None]:
        return nullcontext()

    def gathered(self, numbers: Sequence[float], what: str, error: Exception | None = None) -> np.ndarray:
        if error is not None:
            raise error
        return np.array([numbers], np.float64)

    def summed(self, parts: Mapping[Span, Sums], shards: int) -> Sums:
        return parts[0, shards]

    def part(self, rows: int, shards: int) -> slice:
        return slice(0, rows)

    def joined(self, array: np.ndarray) -> np.ndarray:
        return array

    def from_first(self, make: Callable[[], T], what: str) -> T:
        return make()

    def dealt(self, arrays: Sequence[Any], shards: int) -> Sequence[Any]:
        return arrays


ALONE = Alone()


def agree_on(ranks: Ranks, facts: Mapping[str, float], what: str) -> None:
    """GraphError, on all ranks, where these numbers are not the same on all of them, who do `what`."""
    rows = ranks.gathered(list(facts.values()), what)
    for rank, row in enumerate(rows):
        for name, number, first in zip(facts, row, rows[0]):
            if number != first:
                raise GraphError(f"{what}: rank {rank} of {ranks.count} has {name} {number:.0f}, and rank 0 "
                                 f"{first:.0f}: all ranks give the same, and each reads its own rows", user_loc())
