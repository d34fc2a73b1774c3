"""Products of arrays."""
from __future__ import annotations

from graphc.dsl.array import Array, as_array, common_dtype, emit
from graphc.errors import GraphError

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def matmul(x: Array, y: Array) -> Array:
    """x @ y: [..., M, K] and [..., K, N] give [..., M, N]; leading axes broadcast, a 1-D operand is a row (left) or column (right)."""
    return emit("matmul", x, y)


def dot(x: Array, y: Array) -> Array:
    """numpy's dot: the last axis of x with the last but one of y (the only one, if y has one); a scalar multiplies."""
    dtype = common_dtype((x, y))
    x, y = as_array(x, dtype), as_array(y, dtype)
    if not x.ndim or not y.ndim:
        return x * y
    if y.ndim <= 2:
        return emit("matmul", x, y)
    left, right = LETTERS[:x.ndim - 1], LETTERS[x.ndim:x.ndim + y.ndim - 1]
    return einsum(f"{left}z,{right[:-1]}z{right[-1]}->{left}{right}", x, y)


def outer(x: Array, y: Array) -> Array:
    """x [M] and y [N] give [M, N]."""
    return as_array(x).reshape(-1, 1) * as_array(y).reshape(1, -1)


def einsum(equation: str, x: Array, y: Array | None = None) -> Array:
    """Einstein summation of two operands: "bik,bkj->bij"; "..." stands for axes that broadcast. One operand: axes reordered and summed."""
    if not isinstance(equation, str):
        raise GraphError('einsum takes the equation first: gc.einsum("ij,jk->ik", x, y)')
    equation = equation.replace(" ", "")
    count = equation.split("->")[0].count(",") + 1
    if count != (1 if y is None else 2):
        raise GraphError(f"einsum {equation!r} names {count} operands, got {1 if y is None else 2}; einsum takes one or two, chain them for more")
    return _single(equation, as_array(x)) if y is None else emit("einsum", x, y, equation=equation)


def _single(equation: str, x: Array) -> Array:
    """Transpose and sum: what an equation with one operand can ask for, without a diagonal."""
    labels, _, out = equation.partition("->")
    out = out if "->" in equation else "".join(sorted(c for c in labels if labels.count(c) == 1))
    if len(set(labels)) != len(labels) or len(labels) != x.ndim or "." in labels or not set(out) <= set(labels) or len(set(out)) != len(out):
        raise GraphError(f"einsum {equation!r} of one array with {x.ndim} axes: name each axis once, and in the result each at most once")
    gone = tuple(i for i, c in enumerate(labels) if c not in out)
    kept = [c for c in labels if c in out]
    x = x.sum(gone) if gone else x
    return x if kept == list(out) else x.transpose([kept.index(c) for c in out])
