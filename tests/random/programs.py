"""Random programs over the public functions: a list of steps, each a function of arrays made so far, with bounded
values."""
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

import graphc as gc

SHAPES = [(4, 3), (3,), (2, 4, 3), (1, 3), (5,), (2, 1, 3), (17,), (8, 9), ()]


@dataclass(frozen=True)
class Program:
    """`shapes` of the inputs, and steps (name, function); a step takes the list of arrays so far and returns one
    more."""
    shapes: tuple[tuple[int, ...], ...]
    steps: tuple[tuple[str, Callable], ...]

    def __call__(self, *inputs):
        arrays = list(inputs)
        for _, step in self.steps:
            arrays.append(step(arrays))
        used = arrays[len(inputs):] or arrays
        return sum(gc.mean(gc.tanh(a)) * (i + 1.0) for i, a in enumerate(used))

    def __repr__(self) -> str:
        return f"Program({self.shapes}, {[name for name, _ in self.steps]})"


KERNEL = np.array([[[0.3, -0.5, 0.2]]])
UNARY: dict[str, Callable] = {
    "tanh": gc.tanh, "sigmoid": gc.sigmoid, "sin": gc.sin, "exp": lambda x: gc.exp(-gc.abs(x)),
    "log": lambda x: gc.log1p(x * x), "sqrt": lambda x: gc.sqrt(x * x + 1),
    "gelu": gc.gelu, "silu": gc.silu, "softplus": gc.softplus, "neg": lambda x: -x, "scale": lambda x: x * 0.5 + 1,
    "square": lambda x: x * x * 0.25,
    "div": lambda x: x / (1 + gc.abs(x)), "rsqrt": lambda x: gc.rsqrt(x * x + 0.5), "erf": gc.erf,
    "stop": lambda x: gc.stop_gradient(x) * 0.5 + x,
    "transpose": lambda x: x.T, "flip": lambda x: gc.flip(x), "flat": lambda x: x.reshape(-1),
    "pad": lambda x: gc.pad(x, 1, 0.5) if x.ndim else x,
    "new axis": lambda x: x[None], "every second": lambda x: x[::2] if x.ndim else x,
    "tile": lambda x: gc.tile(x, 2) if x.size < 200 else x,
    "cumsum": lambda x: gc.cumsum(x, -1) * 0.25 if x.ndim else x, "softmax": lambda x: gc.softmax(x) if x.ndim else x,
    "log_softmax": lambda x: gc.log_softmax(x, 0) if x.ndim else x,
    "layer_norm": lambda x: gc.layer_norm(x, eps=0.1) if x.ndim else x,
    "logsumexp": lambda x: gc.logsumexp(x, -1) if x.ndim else x, "roll": lambda x: gc.roll(x, 1, 0) if x.ndim else x,
    "rows": lambda x: gc.take(x, np.array([0, x.shape[0] - 1, 0]), 0) if x.ndim else x,
    "scan": lambda x: gc.scan(lambda c, row: (gc.tanh(c + row), c * 0.5), x[0] * 0, x)[1] if x.ndim else x,
    "while": lambda x: gc.while_loop(lambda c: c[1] < 2, lambda c: (gc.tanh(c[0] + x), c[1] + 1), (x, 0),
                                     max_trips=5)[1][0],
    "conv": lambda x: gc.conv1d(x.reshape(1, 1, -1), KERNEL.astype(x.dtype.np), padding="same", dilation=2)[0],
    "pool": lambda x: gc.avg_pool1d(x.reshape(1, 1, -1), 3, stride=2, padding=1)[0, 0],
    "attention": lambda x: gc.attention(x, x, x * 0.5, causal=True) if x.ndim > 1 else x,
    "rms_norm": lambda x: gc.rms_norm(x, eps=0.1) if x.ndim else x,
    "cumprod": lambda x: gc.cumprod(gc.tanh(x), 0) if x.ndim else x, "elu": gc.elu,
    "cond": lambda x: gc.cond(x.sum() > 0.1, lambda: gc.sin(x), lambda: x * 0.5),
}
BINARY: dict[str, Callable] = {
    "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: gc.tanh(x) * y,
    "where": lambda x, y: gc.where(gc.sin(x) > 0.05, x, y),
    "stack": lambda x, y: gc.stack([x, x + y], 0).sum(0) if (x + y).shape == x.shape else x + y,
}
REDUCTIONS: dict[str, Callable] = {
    "sum": lambda x, a, k: gc.sum(x, a, k) * 0.5, "mean": gc.mean, "var": lambda x, a, k: gc.var(x, a, keepdims=k)}


@st.composite
def programs(draw, max_steps: int = 8) -> Program:
    shapes = tuple(draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3)))
    steps = draw(st.lists(st.one_of(_unary(), _binary(), _reduction(), _matmul()), min_size=1, max_size=max_steps))
    return Program(shapes, tuple(steps))


def _unary():
    return st.tuples(st.sampled_from(sorted(UNARY)), st.integers(0, 30)).map(
        lambda p: (p[0], lambda arrays: UNARY[p[0]](arrays[p[1] % len(arrays)])))


def _binary():
    return st.tuples(st.sampled_from(sorted(BINARY)), st.integers(0, 30), st.integers(0, 30)).map(
        lambda p: (p[0], lambda arrays: _broadcasting(BINARY[p[0]], arrays[p[1] % len(arrays)],
                                                      arrays[p[2] % len(arrays)])))


def _reduction():
    return st.tuples(st.sampled_from(sorted(REDUCTIONS)), st.integers(0, 30), st.integers(0, 3), st.booleans()).map(
        lambda p: (p[0], lambda arrays: _reduced(REDUCTIONS[p[0]], arrays[p[1] % len(arrays)], p[2], p[3])))


def _matmul():
    return st.tuples(st.integers(0, 30), st.integers(0, 30)).map(
        lambda p: ("matmul", lambda arrays: _product(arrays[p[0] % len(arrays)], arrays[p[1] % len(arrays)])))


def _broadcasting(f, x, y):
    """f of x and y, or of x and the mean of y when their shapes do not fit."""
    try:
        np.broadcast_shapes(x.shape, y.shape)
    except ValueError:
        y = gc.mean(y)
    return f(x, y)


def _reduced(f, x, axis, keepdims):
    return f(x, axis if axis < x.ndim else None, keepdims)


def _product(x, y):
    """x^T y of the two as matrices with equally many rows, scaled so that values stay small."""
    x, y = (gc.tanh(a).reshape(a.shape[0] if a.ndim else 1, -1) for a in (x, y))
    rows = min(x.shape[0], y.shape[0])
    return x[:rows].T @ y[:rows] * 0.5 if x.shape[1] * y.shape[1] <= 400 else gc.mean(x) + y
