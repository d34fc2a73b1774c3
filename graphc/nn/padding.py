"""Padded batches: which steps of which sequence are real. `lengths`: integers [B], the number of real steps at the
front of each sequence."""
from __future__ import annotations

import graphc as gc
from graphc.dsl.array import Array, as_array
from graphc.errors import GraphError
from graphc.ir.dims import Dim


def real_steps(layer: str, lengths: Array | None, batch: Dim, time: Dim, time_first: bool = False) -> Array:
    """bool [B, T] ([T, B] with `time_first`): true for steps before the end of their sequence. GraphError unless
    lengths is integers [B]."""
    lengths = checked_lengths(layer, lengths, batch)
    steps = gc.iota((time,), dtype=lengths.dtype)
    return gc.expand_dims(steps, 1) < lengths if time_first else steps < gc.expand_dims(lengths, 1)


def shown(x: Array, real: Array) -> Array:
    """x with 0 for what is padding: what stands there, NaN too, must reach no product, forward or backward. `real`:
    bool, the first axes of x."""
    return gc.where(real.reshape(*real.shape, *(1,) * (len(x.shape) - len(real.shape))), x, 0.0)


def shown_steps(layer: str, x: Array, lengths: Array | None) -> Array:
    """x [B, …, T, E] with 0 for padding; x itself where there are no lengths."""
    return x if lengths is None else gc.where(gc.expand_dims(real_keys(layer, lengths, x), -1), x, 0.0)


def real_keys(layer: str, lengths: Array | None, x: Array) -> Array:
    """bool [B, …, T] of x [B, …, T, E], 1 for axes between: which steps are real."""
    if len(x.shape) < 3:
        raise GraphError(f"{layer}: lengths belong to a batch of sequences [batch, time, features], "
                         f"got keys {list(x.shape)}")
    batch, time = x.shape[0], x.shape[-2]
    return real_steps(layer, lengths, batch, time).reshape(batch, *(1,) * (len(x.shape) - 3), time)


def checked_lengths(layer: str, lengths: Array | None, batch: Dim) -> Array:
    """lengths as an integer array [batch]."""
    lengths = as_array(lengths)
    if not lengths.dtype.is_int or lengths.shape != (batch,):
        raise GraphError(f"{layer}: lengths are integers [{batch}], the number of steps of each sequence of the "
                         f"batch, got {lengths.type}")
    return lengths
