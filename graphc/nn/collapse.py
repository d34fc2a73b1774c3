"""From a sequence of vectors to one."""
from __future__ import annotations

import graphc as gc
from graphc.dsl.array import Array
from graphc.dsl.order import batch_comes_first, said
from graphc.errors import GraphError
from graphc.nn.decode import decoding
from graphc.nn.module import Module
from graphc.nn.padding import checked_lengths, real_steps, shown


class Collapse(Module):
    """One vector for each sequence: x [T, B, C] ([B, T, C] with `batch_first`, and behind layers that have the batch
    first) -> [B, C].

    `how`: "first" step, "last" step, or "average" of all steps. `layer(x, lengths=n)`, n integers [B]: the last real
    step of each sequence, and the average of the real ones; 0 if there is none. (Of a bidirectional layer, "last" and
    "first" have seen the whole sequence in one direction only.)
    `prefixes(x)`: that of the first step, of the first two, … -> as x.
    """

    def __init__(self, how: str = "average", *, batch_first: bool | None = None) -> None:
        super().__init__()
        if how not in RULES:
            raise GraphError(f"Collapse takes {', '.join(RULES)}, got {how!r}")
        self.how, self.batch_first = how, batch_first

    def forward(self, x: Array, lengths: Array | None = None) -> Array:
        if len(x.shape) != 3:
            raise GraphError("Collapse takes [time, batch, features] ([batch, time, features] with batch_first), "
                             f"got {list(x.shape)}")
        x = x.transpose(1, 0, 2) if batch_comes_first("Collapse", x, self.batch_first) else x
        if x.shape[0] == 0:
            raise GraphError(f"Collapse of sequences without a step: {list(x.shape)}")
        now = decoding()
        if now and now.first and lengths is None:
            lengths = now.lengths
        y = RULES[self.how](x, lengths)
        return now.joined(self, y, JOINED[self.how]) if now else y

    def prefixes(self, x: Array) -> Array:
        batch_first = batch_comes_first("Collapse", x, self.batch_first)
        x = x if batch_first else x.transpose(1, 0, 2)
        y, now = PREFIXES[self.how](x), decoding()
        if now:
            last = now.joined(self, now.last(y)[:, 0], JOINED[self.how])
            y = y if now.first else gc.expand_dims(last, 1)
        return said(y if batch_first else y.transpose(1, 0, 2), batch_first)


def _first(x: Array, lengths: Array | None) -> Array:
    return x[0] if lengths is None else _of_real(x[0], checked_lengths("Collapse", lengths, x.shape[1]))


def _last(x: Array, lengths: Array | None) -> Array:
    if lengths is None:
        return x[-1]
    lengths = checked_lengths("Collapse", lengths, x.shape[1])
    at = gc.maximum(lengths - 1, 0)
    return _of_real(gc.take_along_axis(x, at.reshape(1, -1, 1), axis=0)[0], lengths)


def _average(x: Array, lengths: Array | None) -> Array:
    if lengths is None:
        return gc.mean(x, axis=0)
    real = gc.expand_dims(real_steps("Collapse", lengths, x.shape[1], x.shape[0], time_first=True), 2)
    return gc.sum(gc.where(real, x, 0.0), axis=0) / gc.maximum(gc.sum(real.astype(x.dtype), axis=0), 1)


def _of_real(step: Array, lengths: Array) -> Array:
    """A step [B, C] of sequences that have one; 0 for those that are padding alone."""
    return shown(step, lengths > 0)


RULES = {"first": _first, "last": _last, "average": _average}
PREFIXES = {
    "first": lambda x: gc.broadcast_to(x[:, :1], x.shape),
    "last": lambda x: x,
    "average": lambda x: gc.cumsum(x, axis=1) / (gc.expand_dims(gc.iota((x.shape[1],), dtype=x.dtype), 1) + 1)}
JOINED = {                          # of the collapse of some steps, of one step more, and of how many those were
    "first": lambda before, x, count: before,
    "last": lambda before, x, count: x,
    "average": lambda before, x, count: before + (x - before) / (count + 1)}
