"""Padded batches: which steps of which sequence are real. `lengths`: integers [B], the number of real steps at the front of each sequence."""
from __future__ import annotations

import graphc as gc
from graphc.dsl.array import as_array
from graphc.errors import GraphError


def real_steps(layer: str, lengths, batch, time, time_first: bool = False):
    """bool [B, T] ([T, B] with `time_first`): true for steps before the end of their sequence. GraphError unless lengths is integers [B]."""
    lengths = checked_lengths(layer, lengths, batch)
    steps = gc.iota((time,), dtype=lengths.dtype)
    return gc.expand_dims(steps, 1) < lengths if time_first else steps < gc.expand_dims(lengths, 1)


def checked_lengths(layer: str, lengths, batch):
    """lengths as an integer array [batch]."""
    lengths = as_array(lengths)
    if not lengths.dtype.is_int or lengths.shape != (batch,):
        raise GraphError(f"{layer}: lengths are integers [{batch}], the number of steps of each sequence of the batch, got {lengths.type}")
    return lengths
