"""Recurrent layers over `gc.scan`. Parameter names and gate order as in torch: weight_ih_l0, weight_hh_l0,
bias_ih_l0, bias_hh_l0 (+ _reverse)."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any

import graphc as gc
from graphc.dsl.array import Array
from graphc.dsl.order import batch_comes_first, said
from graphc.errors import GraphError
from graphc.nn.decode import Kept, check_recurrent, decoding
from graphc.nn.module import Module
from graphc.nn.padding import real_steps, shown
from graphc.nn.parameter import Uniform

MOST_LAYERS = 1000


Carry = tuple[Array, ...]           # the arrays that one direction of a layer hands on from step to step
Step = Callable[[Carry, Array], tuple[Carry, Array]]


class Recurrent(Module):
    """What RNN, LSTM and GRU share: layers, directions, batch order, state.

    x [T, B, C] ([B, T, C] with `batch_first`) -> y [T, B, hidden * directions]. Behind a layer that was told, or that
    always has the batch first,
    `batch_first` is as there. All but `hidden` is given by name: torch's `LSTM(10, 20)`, inputs and hidden, is
    `LSTM(20)`.
    `layer(x)` gives y; `layer(x, state)` and `layer(x, return_state=True)` give (y, new state). A state array is
    [layers * directions, B, hidden]; zeros when not given. `dropout` acts between layers.
    `lengths`, integers [B]: y is zero after the end of each sequence, its new state is that of its last real step,
    and the reverse direction starts there (torch's packed sequences, of any order). torch always returns the state;
    here it must be asked for, so that the layer can stand in `>>`: `layer(x, start=state)` starts with a state and
    gives y alone.
    """
    gates = 1
    carries = 1

    def __init__(self, hidden: int, *, layers: int = 1, bidirectional: bool = False, batch_first: bool | None = None,
                 dropout: float = 0.0, bias: bool = True) -> None:
        super().__init__()
        for name, size in (("hidden", hidden), ("layers", layers)):
            if size < 1 or layers > MOST_LAYERS:
                raise GraphError(f"{name} of {type(self).__name__} is a whole number from 1 on, got {size!r}; layers, "
                                 f"of which each is traced, at most {MOST_LAYERS}")
        self.hidden, self.layers, self.bidirectional = hidden, layers, bidirectional
        self.batch_first, self.dropout, self.bias = batch_first, dropout, bias

    def forward(self, x: Array, state: Array | tuple[Array, ...] | None = None, return_state: bool = False,
                lengths: Array | None = None,
                start: Array | tuple[Array, ...] | None = None) -> Any:
        if len(x.shape) != 3:
            raise GraphError(f"{type(self).__name__} takes [time, batch, features] ([batch, time, features] with "
                             "batch_first), "
                             f"got {len(x.shape)} axes: {list(x.shape)}")
        batch_first = batch_comes_first(type(self).__name__, x, self.batch_first)
        y = x.transpose(1, 0, 2) if batch_first else x
        now = decoding()
        if now:
            check_recurrent(self, y.shape[1])
            lengths = now.lengths if now.first and lengths is None else lengths
        real = self._real(y, lengths)
        y = y if real is None else shown(y, real)
        before = self._state(y, start if state is None else state)
        kept: list[Kept] = []
        if now:
            kept, before = now.carried(self, "state", before)
        after: list[Carry] = []
        for layer in range(self.layers):
            if layer and self.dropout and self.training:
                y = gc.dropout(y, self.dropout)
            y = self._layer(y, layer, before, after, real)
        if now:
            now.keep(kept, after)
        y = said(y.transpose(1, 0, 2) if batch_first else y, batch_first)
        return (y, self._join(after)) if return_state or state is not None else y

    def _real(self, x: Array, lengths: Array | None) -> Array | None:
        """bool [T, B, 1]: which steps of x [T, B, C] are no padding; None when all are."""
        if lengths is None:
            return None
        return gc.expand_dims(real_steps(type(self).__name__, lengths, x.shape[1], x.shape[0], time_first=True), 2)

    def _layer(self, x: Array, layer: int, before: list[Carry], after: list[Carry], real: Array | None) -> Array:
        """Both directions of one layer; appends the final carries to `after`."""
        directions = 2 if self.bidirectional else 1
        outputs = []
        for direction in range(directions):
            carry, y = self._run(x, f"l{layer}" + "_reverse" * direction, before[layer * directions + direction],
                                 bool(direction), real)
            outputs.append(y)
            after.append(carry)
        return outputs[0] if directions == 1 else gc.concat(outputs, axis=-1)

    def _run(self, x: Array, suffix: str, carry: Carry, reverse: bool, real: Array | None) -> tuple[Carry, Array]:
        """One direction: the products with the input for all steps at once, then the loop over time."""
        rows, start = self.gates * self.hidden, Uniform(1 / sqrt(self.hidden))
        w_ih = self.parameter(f"weight_ih_{suffix}", (rows, x.shape[-1]), start, x.dtype)
        w_hh = self.parameter(f"weight_hh_{suffix}", (rows, self.hidden), start, x.dtype)
        biases: tuple[Array, ...] = ()
        if self.bias:
            biases = tuple(self.parameter(f"bias_{kind}_{suffix}", (rows,), start, x.dtype) for kind in ("ih", "hh"))
        projected, step = self.cell(x @ w_ih.T, w_hh.T, biases)
        if real is None and x.shape[0] == 1:
            carry, y = step(carry, projected[0])
            return carry, gc.expand_dims(y, 0)
        if real is None:
            return gc.scan(step, carry, projected, reverse=reverse)
        return gc.scan(_held(step), carry, (projected, real), reverse=reverse)

    def cell(self, projected: Array, w_hh: Array, biases: Sequence[Array]) -> tuple[Array, Step]:
        """(inputs of all steps, step(carry, input) -> (carry, output)) of one direction."""
        raise GraphError(f"{type(self).__name__} defines no cell")

    def _split(self, gates: Array) -> list[Array]:
        """The gates, which lie side by side on the last axis."""
        return [gates[..., i * self.hidden:(i + 1) * self.hidden] for i in range(self.gates)]

    def _state(self, x: Array, state: Array | tuple[Array, ...] | None) -> list[Carry]:
        """The first carries of every layer and direction."""
        count = self.layers * (2 if self.bidirectional else 1)
        if state is None:
            zeros = gc.zeros((x.shape[1], self.hidden), x.dtype)
            return [(zeros,) * self.carries] * count
        arrays = state if isinstance(state, (tuple, list)) else (state,)
        wanted = (count, x.shape[1], self.hidden)
        if len(arrays) != self.carries or any(tuple(a.shape) != wanted for a in arrays):
            raise GraphError(f"the state of {type(self).__name__} is {self.carries} array(s) of shape {list(wanted)}, "
                             "got "
                             + " and ".join(str(list(a.shape)) for a in arrays))
        return [tuple(a[i] for a in arrays) for i in range(count)]

    def _join(self, carries: list[Carry]) -> Array | tuple[Array, ...]:
        arrays = tuple(gc.stack(parts, axis=0) for parts in zip(*carries))
        return arrays if self.carries > 1 else arrays[0]


class RNN(Recurrent):
    """Elman: h' = activation(W_ih x + b_ih + W_hh h + b_hh); activation "tanh" or "relu"."""

    def __init__(self, hidden: int, *, activation: str = "tanh", **options: Any) -> None:
        super().__init__(hidden, **options)
        if activation not in ("tanh", "relu"):
            raise GraphError(f'the activation of RNN is "tanh" or "relu", got {activation!r}')
        self.activation = activation

    def cell(self, projected: Array, w_hh: Array, biases: Sequence[Array]) -> tuple[Array, Step]:
        activate = getattr(gc, self.activation)

        def step(carry: Carry, x: Array) -> tuple[Carry, Array]:
            h = activate(x + carry[0] @ w_hh)
            return (h,), h
        return _added(projected, biases), step


class LSTM(Recurrent):
    """Gates i, f, g, o (Hochreiter and Schmidhuber 1997, with a forget gate): c' = f c + i g, h' = o tanh(c'). State
    (h, c)."""
    gates = 4
    carries = 2

    def cell(self, projected: Array, w_hh: Array, biases: Sequence[Array]) -> tuple[Array, Step]:
        def step(carry: Carry, x: Array) -> tuple[Carry, Array]:
            h, c = carry
            i, f, g, o = self._split(x + h @ w_hh)
            c = gc.sigmoid(f) * c + gc.sigmoid(i) * gc.tanh(g)
            h = gc.sigmoid(o) * gc.tanh(c)
            return (h, c), h
        return _added(projected, biases), step


class GRU(Recurrent):
    """Gates r, z, n (Cho et al. 2014, torch's form): n = tanh(W x + b + r (W_hn h + b_hn)), h' = (1 - z) n + z h."""
    gates = 3

    def cell(self, projected: Array, w_hh: Array, biases: Sequence[Array]) -> tuple[Array, Step]:
        inside = biases[1] if biases else None

        def step(carry: Carry, x: Array) -> tuple[Carry, Array]:
            h, = carry
            recurrent = h @ w_hh
            xr, xz, xn = self._split(x)
            hr, hz, hn = self._split(recurrent if inside is None else recurrent + inside)
            r, z = gc.sigmoid(xr + hr), gc.sigmoid(xz + hz)
            n = gc.tanh(xn + r * hn)
            h = n + z * (h - n)
            return (h,), h
        return _added(projected, biases[:1]), step


def _held(step: Step) -> Callable[[Carry, tuple[Array, Array]], tuple[Carry, Array]]:
    """`step` that keeps its carry, and gives zero, where the sequence has ended."""
    def held(carry: Carry, inputs: tuple[Array, Array]) -> tuple[Carry, Array]:
        x, real = inputs
        new, y = step(carry, x)
        return tuple(gc.where(real, a, b) for a, b in zip(new, carry)), gc.where(real, y, 0.0)
    return held


def _added(projected: Array, biases: Sequence[Array]) -> Array:
    for bias in biases:
        projected = projected + bias
    return projected
