"""Small helpers for data: batches of arrays, windows of a time series."""
from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from graphc.dsl.context import user_loc
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.fitting.convert import as_numpy
from graphc.fitting.data import Examples, epoch_order
from graphc.ir.convert import flag, integer, shown
from graphc.ranks import agree_on
from graphc.train import TrainStep


@formed
def batches(*arrays: Any, size: int, seed: int | None = None, epoch: int = 0,
            drop_last: bool = False, step: Any = None) -> Iterator[tuple[np.ndarray, ...]]:
    """Batches of `size` rows of the arrays, which have one row for each example; the last has what is left, unless
    `drop_last`. With `seed` in an order that seed and epoch decide, else as they are. Nothing is converted. `step`: a
    distributed training step, of whose batches each rank reads its own rows.

    Examples:
        >>> [len(x) for x, y in gc.batches(np.zeros((10, 3)), np.zeros(10), size=4)]
        [4, 4, 2]
    """
    size, epoch = integer(size, "batches: size", 1, loc=user_loc()), integer(epoch, "batches: epoch", 0)
    rows = Examples(tuple(as_numpy(a, "an array of batches") for a in arrays))
    lengths = {a.shape[:1] for a in rows.arrays}
    if len(lengths) != 1 or () in lengths:
        raise GraphError("batches takes arrays with one row for each example, got "
                         + ", ".join(str(list(a.shape)) for a in rows.arrays), user_loc())
    order = None if seed is None else epoch_order(rows.count, integer(seed, "batches: seed", 0), epoch)
    cut = flag(drop_last, "batches: drop_last")
    if step is None:
        whole = rows.batches(size, order)
    elif isinstance(step, TrainStep):
        agree_on(step.ranks, {"examples": rows.count, "size=": size, "seed=": -1 if seed is None else seed,
                              "epoch=": epoch, "drop_last=": cut}, "gc.batches")
        whole = rows.batches(size, order, part=step.part)
    else:
        raise GraphError(f"batches: step= takes a training step, got {shown(step)}", user_loc())
    return islice(whole, rows.count // size) if cut else whole


@formed
def windows(series: Any, length: int, *, ahead: int = 0, step: int = 1, target: Any = None) -> Any:
    """Windows of a time series [T, …] as examples: x [n, length, …], one begun every `step` times. A view, not a copy.

    With `ahead` > 0 also what comes next, (x, y): the `ahead` values after each window, y [n, ahead, …], of the series
    `target` (default: of the same one).

    Examples:
        >>> x, y = gc.windows(np.arange(5), 3, ahead=1)
        >>> x, y
        (array([[0, 1, 2],
               [1, 2, 3]]), array([[3],
               [4]]))
    """
    given = as_numpy(series, "windows: series")
    following = given if target is None else as_numpy(target, "windows: target")
    length, step = integer(length, "windows: length", 1, loc=user_loc()), integer(step, "windows: step", 1)
    ahead = integer(ahead, "windows: ahead", 0, loc=user_loc())
    if not given.ndim or given.shape[:1] != following.shape[:1]:
        raise GraphError(f"windows takes a series [time, …] and a target of its length, got {list(given.shape)} and "
                         f"{list(following.shape)}", user_loc())
    if len(given) < length + ahead:
        raise GraphError(f"a series of {len(given)} has no window of {length}"
                         + (f" with {ahead} values after it" if ahead else ""), user_loc())
    x = _windows(given[:len(given) - ahead], length)[::step]
    return (x, _windows(following[length:], ahead)[::step]) if ahead else x


def _windows(series: np.ndarray, length: int) -> np.ndarray:
    """[n, length, …]."""
    return np.moveaxis(sliding_window_view(series, length, axis=0), -1, 1)
