"""Loops of `operators.py` in PyTensor."""
from __future__ import annotations

import pytensor
import pytensor.tensor as pt

UNARY = {"exp": pt.exp, "tanh": pt.tanh, "sigmoid": pt.sigmoid,
         "gelu": lambda x: x * 0.5 * (1 + pt.erf(x * 0.5 ** 0.5)), "silu": lambda x: x * pt.sigmoid(x),
         "relu": lambda x: pt.maximum(x, 0), "abs": pt.abs, "square": pt.sqr, "neg": pt.neg}
BINARY = {"add": pt.add, "mul": pt.mul, "maximum": pt.maximum}


def scan(kind, length, batch_rows, width, chain, rows):
    def chained(xs, start):
        def body(x, h):
            y = h
            for step in chain:
                y = UNARY[step](y) if isinstance(step, str) else BINARY[step[0]](y, (x, h)[step[1]])
            return pt.tanh(y) * 0.5
        return _states(body, start, xs)[-1]

    def product(xs, start, w):
        return _states(lambda x, h: pt.tanh(h @ w * width ** -0.5 + x), start, xs)[-1]

    def linear(a, xs):
        return _states(lambda a, x, h: a * h + x, pt.zeros_like(xs[0]), pt.sigmoid(a), xs)

    def update(rows_in, buffer, at):
        return _states(lambda row, i, b: pt.set_subtensor(b[i], row), buffer, rows_in, at)[-1]

    def scatter(rows_in, buffer, at):
        return _states(lambda row, i, b: pt.inc_subtensor(b[i], row), buffer, rows_in, at)[-1]

    def sliced(table, start):
        return _states(lambda h: pt.tanh(h * 0.5 + table[3] + table[rows // 2]), start, steps=length)[-1]

    def solve(a, start):
        few = start.type.shape[0]
        lower = pt.tril(a, -1) * (0.5 / few) + pt.eye(few, dtype="float32")
        return _states(lambda h: pt.linalg.solve_triangular(lower, pt.tanh(h), lower=True), start, steps=length)[-1]
    return {"chain": chained, "product": product, "linear": linear, "update": update, "scatter": scatter,
            "slice": sliced, "solve": solve}[kind]


def _states(body, start, *sequences, steps=None):
    """The state after each step; `body` gets an element of each sequence, then the state."""
    return pytensor.scan(body, list(sequences) or None, start, n_steps=steps, return_updates=False)


OPERATORS = {"op.scan": scan}
