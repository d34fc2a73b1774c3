"""Graphs with loops and branches, and finite differences: shared by the tests of differentiation and hoisting."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphc.autodiff.backward import backward
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Value
from graphc.ir.interp import evaluate
from graphc.ir.types import TensorType, f64

BATCH, IN, HIDDEN, STEPS = 2, 3, 4, 5
LSTM_TYPES = {"h": f64[BATCH, HIDDEN], "c": f64[BATCH, HIDDEN], "x": f64[STEPS, BATCH, IN],
              "W": f64[IN, 4 * HIDDEN], "U": f64[HIDDEN, 4 * HIDDEN], "b": f64[4 * HIDDEN]}


def graph_of(types: dict[str, TensorType], build: Callable[..., object], name: str = "f") -> Graph:
    """The graph of `build(builder, *inputs)`, which gives a value or a tuple of values."""
    b = Builder(name)
    outs = build(b, *(b.input(n, t) for n, t in types.items()))
    outs = outs if isinstance(outs, (tuple, list)) else (outs,)
    return b.finish(outs, ("",) * len(outs))


def lstm_cell() -> Graph:
    def build(b, h, c, x, w, u, bias):
        z = b.add(b.add(b.matmul(x, w), b.matmul(h, u)), bias)
        i, f, g, o = (b.slice(z, start=(0, k * HIDDEN), stop=(BATCH, (k + 1) * HIDDEN), step=(1, 1)) for k in range(4))
        c = b.add(b.mul(b.sigmoid(f), c), b.mul(b.sigmoid(i), b.tanh(g)))
        h = b.mul(b.sigmoid(o), b.tanh(c))
        return h, c, h
    return graph_of(LSTM_TYPES | {"x": f64[BATCH, IN]}, build, "lstm")


def lstm_scan(b: Builder, *ins: Value) -> tuple[Value, ...]:
    """Last h, last c, all h."""
    return b.scan(*ins, body=lstm_cell(), carries=2, xs=1, length=STEPS)


def lstm_unrolled(b: Builder, h, c, x, *weights) -> tuple[Value, ...]:
    cell, ys = lstm_cell(), []
    for t in range(STEPS):
        xt = b.reshape(b.slice(x, start=(t, 0, 0), stop=(t + 1, BATCH, IN), step=(1, 1, 1)), shape=(BATCH, IN))
        h, c, y = b.inline(cell, [h, c, xt, *weights])
        ys.append(b.reshape(y, shape=(1, BATCH, HIDDEN)))
    return h, c, b.concat(*ys, axis=0)


def lstm_loss(lstm) -> Callable[..., Value]:
    def loss(b, *ins):
        h, c, ys = lstm(b, *ins)
        return b.add(square_sum(b, b.mul(ys, ys)), square_sum(b, b.mul(h, c)))
    return loss


def square_sum(b: Builder, x: Value) -> Value:
    return b.sum(b.mul(x, x), axes=tuple(range(x.type.rank)))


def gradients(b: Builder, y: Value, wrt) -> list[Value]:
    """Gradients of the scalar y; zeros where nothing flows."""
    found = backward(b, list(b.nodes), {y: b.constant(1, y.type.dtype)}, wrt)
    return [b.broadcast_to(b.constant(0, v.type.dtype), shape=v.type.shape) if g is None else g
            for g, v in zip(found, wrt)]


def with_gradients(types: dict[str, TensorType], loss: Callable[..., Value], order: int = 1) -> Graph:
    """The loss, its gradients for the float inputs and, for order 2, those of the sum of their squares."""
    def build(b, *ins):
        floats = [v for v in ins if v.type.dtype.is_float]
        outs = [loss(b, *ins)]
        for _ in range(order):
            target = outs[0] if len(outs) == 1 else _total(b, outs[1:])
            outs += gradients(b, target, floats)
        return outs
    return graph_of(types, build)


def _total(b: Builder, values) -> Value:
    total = square_sum(b, values[0])
    for v in values[1:]:
        total = b.add(total, square_sum(b, v))
    return total


def samples(graph: Graph, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(v.type.shape).astype(v.type.dtype.np) for v in graph.inputs]


def assert_same(a: Graph, b: Graph, arguments, tolerance: float = 1e-10) -> None:
    for p, q in zip(evaluate(a, arguments), evaluate(b, arguments), strict=True):
        np.testing.assert_allclose(p, q, rtol=tolerance, atol=tolerance)


def check_gradients(types: dict[str, TensorType], loss: Callable[..., Value], arguments=None, order: int = 2) -> None:
    """First (and second) gradients against central differences, along random directions, of the loss (and of the sum of
    squared gradients).
    """
    graph = with_gradients(types, loss, order)
    arguments = samples(graph) if arguments is None else arguments
    results = evaluate(graph, arguments)
    floats = [i for i, v in enumerate(graph.inputs) if v.type.dtype.is_float]

    def value(level: int, args) -> float:
        r = evaluate(graph, args)
        return float(r[0]) if level == 0 else sum(float(np.sum(g * g)) for g in r[1:1 + len(floats)])
    for level in range(order):
        for position, i in enumerate(floats):
            actual = results[1 + level * len(floats) + position]
            for direction in np.random.default_rng(position).standard_normal((3, *np.shape(arguments[i]))):
                expected = _difference(lambda args: value(level, args), arguments, i, direction)
                np.testing.assert_allclose(np.sum(actual * direction), expected, rtol=2e-5, atol=2e-6,
                                           err_msg=f"order {level + 1}, input {graph.inputs[i].name}")


def _difference(f, arguments, i: int, direction: np.ndarray, step: float = 1e-5) -> float:
    """Central difference of f in argument i along a direction."""
    ahead, behind = ([*arguments[:i], arguments[i] + sign * step * direction, *arguments[i + 1:]] for sign in (1, -1))
    return (f(ahead) - f(behind)) / (2 * step)
