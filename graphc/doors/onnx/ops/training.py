"""Losses, and the operators of ai.onnx.preview.training: optimizers as functions of arrays, gradients."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import graphc as gc
from graphc.autodiff.backward import backward
from graphc.doors.onnx.call import Call
from graphc.dsl.array import Array, emit
from graphc.dsl.context import current_trace
from graphc.ir.convert import choice

TRAINING = "ai.onnx.preview.training"


def groups(rest: Sequence[Array], each: int) -> list[tuple[Array, ...]]:
    """For each parameter its value, gradient and further arrays, which stand kind by kind."""
    count = len(rest) // each
    return [tuple(rest[kind * count + i] for kind in range(each)) for i in range(count)]


def _turned(results: Sequence[tuple[Array, ...]]) -> tuple[Array, ...]:
    """Kind by kind again."""
    return tuple(value for kind in zip(*results) for value in kind)


def adagrad(r: Array, t: Array, *rest: Array, decay_factor: float = 0.0, epsilon: float = 1e-6,
            norm_coefficient: float = 0.0) -> tuple[Array, ...]:
    rate = r / (1.0 + t.astype(r.dtype) * decay_factor)
    results = []
    for x, g, h in groups(rest, 3):
        g = x * norm_coefficient + g
        h = h + g * g
        results.append((x - rate * g / (gc.sqrt(h) + epsilon), h))
    return _turned(results)


def adam(r: Array, t: Array, *rest: Array, alpha: float = 0.9, beta: float = 0.999, epsilon: float = 1e-6,
         norm_coefficient: float = 0.0, norm_coefficient_post: float = 0.0) -> tuple[Array, ...]:
    steps = t.astype(r.dtype)
    started = t > 0
    rate = gc.where(started, r * gc.sqrt(1.0 - beta ** steps) / gc.where(started, 1.0 - alpha ** steps, 1.0), r)
    results = []
    for x, g, v, h in groups(rest, 4):
        g = x * norm_coefficient + g
        v, h = v * alpha + g * (1.0 - alpha), h * beta + g * g * (1.0 - beta)
        x = x - rate * v / (gc.sqrt(h) + epsilon)
        results.append((x * (1.0 - norm_coefficient_post), v, h))
    return _turned(results)


def momentum(r: Array, t: Array, *rest: Array, alpha: float, beta: float, mode: str,
             norm_coefficient: float) -> tuple[Array, ...]:
    choice(mode, "mode", ("standard", "nesterov"))
    share = gc.where(t > 0, beta, 1.0)
    results = []
    for x, g, v in groups(rest, 3):
        g = x * norm_coefficient + g
        v = v * alpha + g * share
        results.append((x - r * (g + v * alpha if mode == "nesterov" else v), v))
    return _turned(results)


def gradient(*values: Array, xs: Sequence[str], y: str, zs: Sequence[str] = (), call: Call) -> tuple[Array, ...]:
    """The gradient of y, which the graph around computes from xs (and zs), at the values given for them."""
    given = {name: emit("copy", v) for name, v in zip((*xs, *zs), values)}
    result, b = call.array(call.importer.again(y, given, call.around)), current_trace().builder
    wanted = [given[name].value for name in xs]
    grads = backward(b, tuple(b.nodes), {result.value: gc.ones_like(result).value}, wanted)
    return tuple(gc.zeros_like(given[name]) if g is None else Array(g, result.trace) for name, g in zip(xs, grads))


RULES: Mapping[str, Callable[..., Any]] = {
    f"{TRAINING}:Adagrad": adagrad, f"{TRAINING}:Adam": adam, f"{TRAINING}:Momentum": momentum,
    f"{TRAINING}:Gradient": gradient}
