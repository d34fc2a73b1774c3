"""One step of a recurrent layer: for loops of one's own, with `gc.scan`. Parameter names, gate order and initial values
as in torch.nn.LSTMCell and its like."""
from __future__ import annotations

from collections.abc import Iterator
from math import sqrt

import graphc as gc
from graphc.dsl.array import Array
from graphc.errors import GraphError
from graphc.nn.module import Module
from graphc.nn.parameter import Uniform
from graphc.nn.recurrent import GRU, LSTM, RNN, Recurrent


class RecurrentCell(Module):
    """What the cells share: x [B, C] and the state, [B, hidden] each, give the new state; zeros when not given. Without
    a batch x is [C] and the state [hidden]."""
    layer: type[Recurrent]

    def __init__(self, hidden: int, *, bias: bool = True) -> None:
        super().__init__()
        if hidden < 1:
            raise GraphError(f"hidden of {type(self).__name__} is a whole number from 1 on, got {hidden}")
        self.hidden, self.bias, self._rule = hidden, bias, self._layer_of(hidden)

    def _layer_of(self, hidden: int) -> Recurrent:
        """The layer whose step this is: it has no parameters of its own."""
        return self.layer(hidden)

    def children(self) -> Iterator[tuple[str, Module]]:
        return iter(())

    def forward(self, x: Array, state: Array | tuple[Array, ...] | None = None) -> Array | tuple[Array, ...]:
        if x.ndim not in (1, 2):
            raise GraphError(f"{type(self).__name__} takes [batch, features] or [features], got {list(x.shape)}")
        shape, carries = (*x.shape[:-1], self.hidden), self._rule.carries
        given: object = (gc.zeros(shape, x.dtype),) * carries if state is None else (state,) if carries == 1 else state
        if not isinstance(given, (tuple, list)) or len(given) != carries or any(
                not isinstance(a, Array) or a.shape != shape for a in given):
            raise GraphError(f"the state of {type(self).__name__} is {carries} array(s) of shape {list(shape)}")
        rows, start = self._rule.gates * self.hidden, Uniform(1 / sqrt(self.hidden))
        w_ih = self.parameter("weight_ih", (rows, x.shape[-1]), start, x.dtype)
        w_hh = self.parameter("weight_hh", (rows, self.hidden), start, x.dtype)
        kinds = ("ih", "hh") if self.bias else ()
        biases = tuple(self.parameter(f"bias_{kind}", (rows,), start, x.dtype) for kind in kinds)
        projected, step = self._rule.cell(x @ w_ih.T, w_hh.T, biases)
        new, _ = step(tuple(given), projected)
        return new if carries > 1 else new[0]


class RNNCell(RecurrentCell):
    """h' = activation(W_ih x + b_ih + W_hh h + b_hh); activation "tanh" or "relu". `cell(x, h)` gives h'."""
    layer = RNN

    def __init__(self, hidden: int, *, bias: bool = True, activation: str = "tanh") -> None:
        self.activation = activation
        super().__init__(hidden, bias=bias)

    def _layer_of(self, hidden: int) -> Recurrent:
        return RNN(hidden, activation=self.activation)


class LSTMCell(RecurrentCell):
    """`cell(x, (h, c))` gives (h', c') as `nn.LSTM`."""
    layer = LSTM


class GRUCell(RecurrentCell):
    """`cell(x, h)` gives h' as `nn.GRU`."""
    layer = GRU
