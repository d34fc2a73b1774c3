"""RNN, GRU and LSTM."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import graphc as gc
from graphc.doors.onnx.call import Call, as_known
from graphc.doors.onnx.rule import Known, Operand
from graphc.dsl.array import Array
from graphc.errors import GraphError
from graphc.records import dataclass

Activation = Callable[[Array], Array]
State = tuple[Array, ...]
Cell = Callable[["Direction", State, Array], State]         # new state, whose first array is the output

# activation: the function of x, alpha and beta, and their defaults (none: it has none)
ACTIVATIONS: Mapping[str, tuple[Callable[..., Array], tuple[float, ...]]] = {
    "relu": (gc.relu, ()), "tanh": (gc.tanh, ()), "sigmoid": (gc.sigmoid, ()), "softsign": (gc.softsign, ()),
    "softplus": (gc.softplus, ()), "leakyrelu": (gc.leaky_relu, (0.01,)), "elu": (gc.elu, (1.0,)),
    "thresholdedrelu": (lambda x, alpha: gc.where(x > alpha, x, 0.0), (1.0,)),
    "affine": (lambda x, alpha, beta: x * alpha + beta, (1.0, 0.0)),
    "scaledtanh": (lambda x, alpha, beta: gc.tanh(x * beta) * alpha, (1.0, 1.0)),
    "hardsigmoid": (lambda x, alpha, beta: gc.clip(x * alpha + beta, 0.0, 1.0), (0.2, 0.5))}
CELL = 2            # number of LSTM's activation of its cell, to which `clip` does not apply: as runtimes have it
DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}


@dataclass(frozen=True)
class Direction:
    """One direction of a layer: recurrent weights [gates * hidden, hidden] and what the cells need besides."""
    weights: Array
    activations: Sequence[Activation]
    hidden: int
    inner: Array | None = None          # GRU's bias of the candidate's recurrent product
    peepholes: Sequence[Array] = ()     # of i, o and f
    coupled: bool = False               # LSTM: the forget gate is 1 - i
    product: Callable[[Array], Array] | None = None     # h times the recurrent weights, where that is something else
    late: bool = True                   # GRU: the reset gate acts on the product

    def recurrent(self, h: Array) -> Array:
        return h @ self.weights.T if self.product is None else self.product(h)

    def gates(self, x: Array, count: int) -> list[Array]:
        """Its parts side by side along the last axis."""
        return [x[..., i * self.hidden:(i + 1) * self.hidden] for i in range(count)]


def _rnn(d: Direction, state: State, x: Array) -> State:
    return (d.activations[0](x + d.recurrent(state[0])),)


def _lstm(d: Direction, state: State, x: Array) -> State:
    """Gates i, o, f, c."""
    (h, c), (f, g, last) = state, d.activations
    i, o, forget, new = d.gates(x + d.recurrent(h), 4)
    if d.peepholes:
        i, forget = i + d.peepholes[0] * c, forget + d.peepholes[2] * c
    i = f(i)
    c = (1.0 - i if d.coupled else f(forget)) * c + i * g(new)
    o = o + d.peepholes[1] * c if d.peepholes else o
    return f(o) * last(c), c


def _gru(d: Direction, state: State, x: Array) -> State:
    """Gates z, r, h."""
    (h,), (f, g) = state, d.activations
    xz, xr, xh = d.gates(x, 3)
    if d.late:
        hz, hr, hh = d.gates(d.recurrent(h), 3)
        z, r = f(xz + hz), f(xr + hr)
        new = g(xh + r * (hh if d.inner is None else hh + d.inner))
    else:
        pair = 2 * d.hidden
        hz, hr = d.gates(h @ d.weights[:pair].T, 2)
        z, r = f(xz + hz), f(xr + hr)
        new = g(xh + (r * h) @ d.weights[pair:].T)
    return (new + z * (h - new),)


@dataclass(frozen=True)
class RecurrentKind:
    """A layer: its cell, how many gates and state arrays it has, and its usual activations."""
    cell: Cell
    gates: int
    carries: int
    usual: tuple[str, ...]


RNN, GRU, LSTM = RecurrentKind(_rnn, 1, 1, ("tanh",)), RecurrentKind(_gru, 3, 1, ("sigmoid", "tanh")), RecurrentKind(
    _lstm, 4, 2, ("sigmoid", "tanh", "tanh"))


@dataclass(frozen=True)
class Options:
    """The attributes that the layers have in common."""
    activation_alpha: Sequence[float] = ()
    activation_beta: Sequence[float] = ()
    activations: Sequence[str] = ()
    clip: float | None = None
    direction: str = "forward"
    layout: int = 0

    def directions(self, kind: RecurrentKind, names: Sequence[str]) -> Iterator[tuple[bool, list[Activation]]]:
        """For each direction whether it is reversed, and its activations. Alphas and betas are those of the activations
        that have some, in their order."""
        alphas, betas = iter(self.activation_alpha), iter(self.activation_beta)
        if self.direction not in DIRECTIONS:
            raise GraphError(f"direction is one of {', '.join(DIRECTIONS)}, got {self.direction!r}")
        ways = DIRECTIONS[self.direction]
        given = [n.lower() for n in names] or list(kind.usual) * len(ways)
        count = len(kind.usual)
        if len(given) != count * len(ways):
            raise GraphError(f"{len(given)} activations for {len(ways)} directions with {count} each")
        for i, reverse in enumerate(ways):
            own = given[i * count:(i + 1) * count]
            yield reverse, [self._activation(n, alphas, betas, None if at == CELL else self.clip)
                            for at, n in enumerate(own)]

    @staticmethod
    def _activation(name: str, alphas: Iterator[float], betas: Iterator[float], limit: float | None) -> Activation:
        if name not in ACTIVATIONS:
            raise GraphError(f"there is no activation {name!r}")
        function, defaults = ACTIVATIONS[name]
        numbers = [next(given, usual) for given, usual in zip((alphas, betas), defaults)]

        def activate(x: Array) -> Array:
            return function(x if limit is None else gc.clip(x, -limit, limit), *numbers)
        return activate


def _real(lengths: Operand, x: Array) -> Array | None:
    """bool [T, B, 1]: which steps of x [T, B, I] belong to a sequence; None where all do."""
    if lengths is None:
        return None
    if isinstance(lengths, Known) and not lengths.has_names and np.all(lengths.numbers == x.shape[0]):
        return None
    array = lengths if isinstance(lengths, Array) else as_known(lengths).array()
    steps = gc.arange(x.shape[0]).astype(array.dtype)
    return gc.expand_dims(gc.expand_dims(steps, 1) < gc.expand_dims(array, 0), 2)


def _run(kind: RecurrentKind, d: Direction, projected: Array, start: State, real: Array | None,
         reverse: bool) -> tuple[State, Array]:
    """Last state and outputs [T, B, H]; past the end of a sequence the state stays, and the output is 0."""
    def step(state: State, x: Array) -> tuple[State, Array]:
        new = kind.cell(d, state, x)
        return new, new[0]

    def held(state: State, slices: tuple[Array, Array]) -> tuple[State, Array]:
        x, inside = slices
        new = kind.cell(d, state, x)
        return tuple(gc.where(inside, a, b) for a, b in zip(new, state)), gc.where(inside, new[0], 0.0)
    last, y = gc.scan(step, start, projected, reverse=reverse) if real is None else gc.scan(
        held, start, (projected, real), reverse=reverse)
    return last, y


@dataclass(frozen=True)
class Layer:
    """The operands of a layer, each with the directions as its first axis."""
    x: Array
    w: Array
    r: Array
    bias: Array | None
    starts: tuple[Array | None, ...]
    peepholes: Array | None = None
    products: Sequence[tuple[Callable[[Array], Array], Callable[[Array], Array]]] = ()  # with the input, with the state

    def parts(self, kind: RecurrentKind, i: int, d: Direction) -> tuple[Direction, Array]:
        """Direction number i, and the products with the input of all steps."""
        rows = kind.gates * d.hidden
        given, product = self.products[i] if self.products else (lambda x: x @ self.w[i].T, None)
        projected = given(self.x)
        peepholes = () if self.peepholes is None else tuple(
            self.peepholes[i][j * d.hidden:(j + 1) * d.hidden] for j in range(3))
        d = replace(d, weights=self.r[i], peepholes=peepholes, product=product)
        if self.bias is None:
            return d, projected
        outside, inside = self.bias[i][:rows], self.bias[i][rows:]
        if kind is not GRU or not d.late:
            return d, projected + (outside + inside)
        pair = 2 * d.hidden                 # the candidate's own bias stays inside
        both = gc.concat([outside[:pair] + inside[:pair], outside[pair:]])
        return replace(d, inner=inside[pair:]), projected + both

    def start(self, kind: RecurrentKind, i: int, hidden: int) -> State:
        zeros = gc.zeros((self.x.shape[1], hidden), self.x.dtype)
        return tuple(zeros if s is None else s[i] for s in self.starts[:kind.carries])


def run_layer(kind: RecurrentKind, layer: Layer, lengths: Operand, d: Direction, options: Options) -> tuple[Array, ...]:
    """Y [T, D, B, H] and the last states [D, B, H]; with layout 1 the batch comes first."""
    if options.layout:
        turned = tuple(None if s is None else s.transpose(1, 0, 2) for s in layer.starts)
        layer = replace(layer, x=layer.x.transpose(1, 0, 2), starts=turned)
    real, ends, ys = _real(lengths, layer.x), [], []
    for i, (reverse, activations) in enumerate(options.directions(kind, options.activations)):
        own, projected = layer.parts(kind, i, replace(d, activations=activations))
        last, y = _run(kind, own, projected, layer.start(kind, i, d.hidden), real, reverse)
        ends.append(last)
        ys.append(y)
    y, states = gc.stack(ys, axis=1), [gc.stack(parts, axis=0) for parts in zip(*ends)]
    if options.layout:
        return y.transpose(2, 0, 1, 3), *(s.transpose(1, 0, 2) for s in states)
    return y, *states


def _direction(r: Array, hidden_size: int | None) -> Direction:
    hidden = r.shape[-1]
    if not isinstance(hidden, int) or hidden_size not in (None, hidden):
        raise GraphError(f"hidden_size is {hidden_size}, the recurrent weights {r.type}")
    return Direction(r, (), hidden)


def rnn(x: Array, w: Array, r: Array, b: Array | None = None, lengths: Operand = None, h: Array | None = None, *,
        activation_alpha: Sequence[float] = (), activation_beta: Sequence[float] = (),
        activations: Sequence[str] = (), clip: float | None = None, direction: str = "forward",
        hidden_size: int | None = None, layout: int = 0, output_sequence: int = 0, call: Call) -> tuple[Array, ...]:
    options = Options(activation_alpha, activation_beta, activations, clip, direction, layout)
    return run_layer(RNN, Layer(x, w, r, b, (h,)), lengths, _direction(r, hidden_size), options)[:max(call.wanted, 1)]


def gru(x: Array, w: Array, r: Array, b: Array | None = None, lengths: Operand = None, h: Array | None = None, *,
        activation_alpha: Sequence[float] = (), activation_beta: Sequence[float] = (),
        activations: Sequence[str] = (), clip: float | None = None, direction: str = "forward",
        hidden_size: int | None = None, layout: int = 0, linear_before_reset: int = 0, output_sequence: int = 0,
        call: Call) -> tuple[Array, ...]:
    options = Options(activation_alpha, activation_beta, activations, clip, direction, layout)
    d = replace(_direction(r, hidden_size), late=bool(linear_before_reset))
    return run_layer(GRU, Layer(x, w, r, b, (h,)), lengths, d, options)[:max(call.wanted, 1)]


def lstm(x: Array, w: Array, r: Array, b: Array | None = None, lengths: Operand = None, h: Array | None = None,
         c: Array | None = None, p: Array | None = None, *, activation_alpha: Sequence[float] = (),
         activation_beta: Sequence[float] = (), activations: Sequence[str] = (), clip: float | None = None,
         direction: str = "forward", hidden_size: int | None = None, input_forget: int = 0, layout: int = 0,
         output_sequence: int = 0, call: Call) -> tuple[Array, ...]:
    options = Options(activation_alpha, activation_beta, activations, clip, direction, layout)
    d = replace(_direction(r, hidden_size), coupled=bool(input_forget))
    return run_layer(LSTM, Layer(x, w, r, b, (h, c), p), lengths, d, options)[:max(call.wanted, 1)]


RULES: Mapping[str, Callable[..., Any]] = {"RNN": rnn, "GRU": gru, "LSTM": lstm}
