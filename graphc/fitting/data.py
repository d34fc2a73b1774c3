"""What `fit` trains on: arrays that are cut into batches in an order that a seed decides, or an iterable of batches."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from graphc.dsl.context import user_loc
from graphc.errors import GraphError
from graphc.fitting.convert import fitted, fitted_batch, is_array
from graphc.ir.types import TensorType, f32
from graphc.records import dataclass

Batch = tuple[np.ndarray, ...]
Types = Mapping[str, TensorType]


@dataclass(frozen=True)
class Examples:
    """Arrays with one example in each row."""
    arrays: Batch

    @property
    def count(self) -> int:
        return len(self.arrays[0])

    def batches(self, size: int, order: np.ndarray | None = None, skip: int = 0,
                part: Callable[[int], slice] = lambda rows: slice(0, rows)) -> Iterator[Batch]:
        """Batches of `size` rows, the last with what is left, from batch number `skip` on. `part`: which rows of a
        batch of so many are wanted."""
        for start in range(skip * size, self.count, size):
            wanted = part(min(size, self.count - start))
            own = slice(start + wanted.start, start + wanted.stop)
            rows = own if order is None else order[own]
            yield tuple(a[rows] for a in self.arrays)

    def rows(self, chosen: np.ndarray) -> "Examples":
        """Some of them."""
        return Examples(tuple(a[chosen] for a in self.arrays))


@dataclass(frozen=True)
class Stream:
    """Batches that somebody else makes, once for every epoch."""
    again: Callable[[], Iterable[Any]]
    types: Types
    length: int | None = None

    def batches(self, what: str, skip: int = 0) -> Iterator[Batch]:
        """Those of one epoch, from number `skip` on."""
        found = 0
        for found, batch in enumerate(self.again(), 1):
            if found > skip:
                yield fitted_batch(batch, self.types, what)
        if not found:
            raise GraphError(f"{what} got no batch: a generator is used up after one epoch; give the function that "
                             "makes it, or a list", user_loc())


def source(types: Types, data: tuple[Any, ...], what: str) -> Examples | Stream:
    """The data of a call: `(x, y)`, `((x, y),)`, `({"x": x, "y": y},)`, an iterable of batches, or a function that
    gives one."""
    names = ", ".join(types)
    if not data:
        raise GraphError(f"{what} takes arrays ({names}) or an iterable of batches", user_loc())
    first = data[0]
    if len(data) == 1 and not isinstance(first, Mapping) and not is_array(first):
        if isinstance(first, (tuple, list)) and len(first) == len(types) and all(map(is_array, first)):
            data = tuple(first)
        elif isinstance(first, Iterable):
            return Stream(lambda: first, types, _length(first))
        elif callable(first):
            return Stream(first, types)
    return examples(types, data[0] if len(data) == 1 else data, what)


def examples(types: Types, data: Any, what: str) -> Examples:
    """Arrays, which are converted, and checked to have one length."""
    made = Examples(fitted_batch(data, types, what))
    lengths = {name: len(a) for name, a in zip(types, made.arrays)}
    if len(set(lengths.values())) > 1:
        raise GraphError(f"{what}: arrays have one row for each example, got "
                         f"{', '.join(f'{n} of {name}' for name, n in lengths.items())}", user_loc())
    if not made.count:
        raise GraphError(f"{what} got no example", user_loc())
    return made


def weights_of(given: Any, count: int, name: str = "sample_weight") -> np.ndarray:
    """One weight, a finite number >= 0, for each of so many examples."""
    weights = fitted(given, TensorType(f32, (count,)), name)
    if weights.shape != (count,) or not np.isfinite(weights).all() or (weights < 0).any():
        raise GraphError(f"{name} is a finite number >= 0 for each of the {count} examples, got an array of shape "
                         f"{list(weights.shape)}", user_loc())
    return weights


def class_weights(given: Mapping[Any, float] | str, targets: np.ndarray) -> np.ndarray:
    """The weight of each example by its class id; a class that is not named weighs 1. "balanced": examples over
    (classes × examples of the class), as in scikit-learn."""
    if targets.size != len(targets):
        raise GraphError(f"class_weight takes targets that are one class id for each example, got "
                         f"{targets.dtype}{list(targets.shape)}; give sample_weight=", user_loc())
    ids = targets.reshape(-1)
    if isinstance(given, Mapping):
        weights = np.ones(len(ids), np.float32)
        for label, weight in given.items():
            weights[ids == label] = weight
        return weights
    if given != "balanced":
        raise GraphError(f"class_weight is {{class id: weight}} or \"balanced\", got {given!r}", user_loc())
    _, place, counts = np.unique(ids, return_inverse=True, return_counts=True)
    return (len(ids) / (len(counts) * counts[place])).astype(np.float32)


def epoch_order(count: int, *numbers: int) -> np.ndarray:
    """An order of so many examples, which the numbers decide."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(list(numbers)))).permutation(count)


def check_first_axes(types: Types, what: str) -> None:
    """GraphError unless all inputs have the same first axis, as declared."""
    firsts = {type.shape[:1] for type in types.values()}
    if len(firsts) > 1 or not all(firsts):
        shown = ", ".join(f"{name}: {type}" for name, type in types.items())
        raise GraphError(f"{what} cuts arrays along their first axis, which must be the batch in all of them: {shown}; "
                         "give an iterable of batches", user_loc())


def _length(batches: Any) -> int | None:
    try:
        return len(batches)
    except TypeError:
        return None
