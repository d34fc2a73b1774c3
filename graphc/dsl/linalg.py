"""Products of arrays."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.dsl.array import Array, as_array, common_dtype, emit
from graphc.dsl.form import formed
from graphc.dsl.literal import as_dtype
from graphc.dsl.shape import iota
from graphc.errors import GraphError
from graphc.ir.convert import shown
from graphc.ir.ops.contract import Labels, parse_equation
from graphc.ir.types import DType, includes

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@formed
def matmul(x: Array, y: Array, dtype: DType | None = None) -> Array:
    """x @ y: [..., M, K] and [..., K, N] give [..., M, N]; leading axes broadcast, a 1-D operand is a row (left) or
    column (right). Integers wrap around, f16 and bf16 are summed in f32 and rounded.

    `dtype`: the type in which is multiplied and summed, and of the result; the operands, which may have two types then,
    are converted to it. gc.matmul(x, w, dtype=gc.i32) of i8 and u8 is exact (ONNX: MatMulInteger).
    """
    return emit("matmul", *_factors("matmul", (x, y), dtype))


def _factors(name: str, operands: Sequence[object], dtype: DType | None) -> list[Array]:
    """The operands as arrays, of the type `dtype` if it is given. GraphError where one would lose numbers."""
    beside = common_dtype(operands)
    arrays = [as_array(x, beside) for x in operands]
    if dtype is None:
        return arrays
    dtype = as_dtype(dtype)
    for x in arrays:
        if not includes(dtype, x.dtype):
            raise GraphError(f"{name} with dtype={dtype}: not every {x.dtype} is one of {dtype}; convert it with "
                             f".astype({dtype})")
    return [x.astype(dtype) for x in arrays]


@formed
def dot(x: Array, y: Array) -> Array:
    """numpy's dot: the last axis of x with the last but one of y (the only one, if y has one); a scalar multiplies."""
    dtype = common_dtype((x, y))
    x, y = as_array(x, dtype), as_array(y, dtype)
    if not x.ndim or not y.ndim:
        return x * y
    if y.ndim <= 2:
        return emit("matmul", x, y)
    if x.ndim + y.ndim > len(LETTERS):
        raise GraphError(f"dot of arrays with {x.ndim} and {y.ndim} axes: einsum has {len(LETTERS)} letters for them")
    left, right = LETTERS[:x.ndim - 1], LETTERS[x.ndim:x.ndim + y.ndim - 1]
    return einsum(f"{left}z,{right[:-1]}z{right[-1]}->{left}{right}", x, y)


@formed
def outer(x: Array, y: Array) -> Array:
    """x [M] and y [N] give [M, N]."""
    return as_array(x).reshape(-1, 1) * as_array(y).reshape(1, -1)


@formed
def einsum(equation: str, x: Array, y: Array | None = None, dtype: DType | None = None) -> Array:
    """Einstein summation of one or two operands, as numpy's: "bik,bkj->bij". "..." stands for axes that broadcast, a
    label that an operand has twice for its diagonal; an axis of size 1 broadcasts. Without "->" the result has the
    labels that occur once, sorted. `dtype` as in `matmul`."""
    if not isinstance(equation, str):
        raise GraphError('einsum takes the equation first: gc.einsum("ij,jk->ik", x, y)')
    equation = equation.replace(" ", "")
    count = equation.split("->")[0].count(",") + 1
    if count != (1 if y is None else 2):
        raise GraphError(f"einsum {shown(equation)} names {count} operands, got {1 if y is None else 2}; "
                         "einsum takes one or two, chain them for more")
    arrays = _factors("einsum", [a for a in (x, y) if a is not None], dtype)
    *labels, out = parse_equation(equation, *(a.ndim for a in arrays), diagonals=True)
    apart = [_diagonal(equation, a, own) for a, own in zip(arrays, labels)]
    if y is None:
        return _single(*apart[0], out)
    apart = [_narrowed(*own, *other) for own, other in (apart, reversed(apart))]
    if [own for _, own in apart] != labels:
        equation = _written([own for _, own in apart], out)
    return emit("einsum", *(a for a, _ in apart), equation=equation)


def _narrowed(x: Array, labels: Labels, other: Array, others: Labels) -> tuple[Array, Labels]:
    """`x` without the axes of size 1 that the other operand has longer."""
    sizes = dict(zip(others, other.shape))
    gone = tuple(i for i, label in enumerate(labels) if x.shape[i] == 1 != sizes.get(label, 1)
                 and not label.startswith("..."))
    return (x.squeeze(gone) if gone else x), tuple(label for i, label in enumerate(labels) if i not in gone)


def _diagonal(equation: str, x: Array, labels: Labels) -> tuple[Array, Labels]:
    """`x` and its labels, each once: of axes that share one the diagonal, which becomes the last axis."""
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is None:
        return x, labels
    i, j = [at for at, label in enumerate(labels) if label == twice][:2]
    rest, n = [at for at in range(x.ndim) if at not in (i, j)], x.shape[i]
    if x.shape[j] != n:
        raise GraphError(f'einsum "{equation}": the axes "{twice}" of one array must agree, '
                         f"got {x.shape[i]} and {x.shape[j]}")
    around = tuple(x.shape[at] for at in rest)
    x, labels = x.transpose(*rest, i, j), tuple(labels[at] for at in rest)
    if isinstance(n, int):                                  # element i of the diagonal is number i (n + 1) of the rows
        x = x.reshape(*around, n * n)[..., ::n + 1]
    else:
        x = emit("where", iota((n, n), 0) == iota((n, n), 1), x, as_array(0, x.dtype)).sum(-1)
    return _diagonal(equation, x, (*labels, twice))


def _single(x: Array, labels: Labels, out: Labels) -> Array:
    """One operand: axes summed and reordered."""
    gone = tuple(i for i, label in enumerate(labels) if label not in out)
    kept = [label for label in labels if label in out]
    x = x.sum(gone) if gone else x
    return x if kept == list(out) else x.transpose([kept.index(label) for label in out])


def _written(labels: list[Labels], out: Labels) -> str:
    """An equation with a letter for every label."""
    letter = dict(zip(dict.fromkeys(label for own in labels for label in own), LETTERS + LETTERS.upper()))
    left = ",".join("".join(letter[label] for label in own) for own in labels)
    return left + "->" + "".join(letter[label] for label in out)
