"""Products of arrays."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.dsl.array import Array, as_array, common_dtype, emit
from graphc.dsl.form import formed
from graphc.dsl.literal import as_dtype
from graphc.dsl.shape import iota
from graphc.errors import GraphError
from graphc.ir.convert import shown
from graphc.ir.dims import Dim
from graphc.ir.ops.contract import Labels, parse_equation
from graphc.ir.types import DType, includes

LETTERS = "abcdefghijklmnopqrstuvwxyz"
MOST_OPTIMAL = 5                    # operands for which all orders are tried
UNKNOWN = 64                        # what a size that is a name counts as in the choice of an order


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
def einsum(equation: str, x: Array, y: Array | None = None, *more: Array, dtype: DType | None = None) -> Array:
    """Einstein summation of any number of operands, as numpy's: "bik,bkj->bij". "..." stands for axes that broadcast, a
    label that an operand has twice for its diagonal; an axis of size 1 broadcasts. Without "->" the result has the
    labels that occur once, sorted. Three operands and more are multiplied in pairs, in the order of fewest operations
    (numpy.einsum_path): the best of all up to five, beyond it pair by pair. `dtype` as in `matmul`.

    Examples:
        >>> @gc.graph
        ... def products(x: gc.f64["B", 2], w: gc.f64[3, 2]):
        ...     return gc.einsum("bi,oi->bo", x, w)
        >>> products(np.ones((1, 2)), np.arange(6.0).reshape(3, 2))
        array([[1., 5., 9.]])
    """
    if not isinstance(equation, str):
        raise GraphError('einsum takes the equation first: gc.einsum("ij,jk->ik", x, y)')
    equation = equation.replace(" ", "")
    operands = (x,) if y is None and not more else (x, y, *more)
    count, given = equation.split("->")[0].count(",") + 1, len(operands)
    if count != given:
        raise GraphError(f"einsum {shown(equation)} names {count} operands, got {given}")
    arrays = _factors("einsum", operands, dtype)
    *labels, out = parse_equation(equation, *(a.ndim for a in arrays), diagonals=True)
    terms = [_diagonal(equation, a, own) for a, own in zip(arrays, labels)]
    if len(terms) == 1:
        return _single(*terms[0], out)
    if len(terms) > 2:
        return _in_pairs(equation, terms, out)
    terms = [_narrowed(*own, *other) for own, other in (terms, reversed(terms))]
    if [own for _, own in terms] != labels:
        equation = _written([own for _, own in terms], out)
    return emit("einsum", *(a for a, _ in terms), equation=equation)


Term = tuple[Array, Labels]


def _in_pairs(equation: str, terms: list[Term], out: Labels) -> Array:
    """The product of three terms or more, two at a time; what only one of them has is summed first."""
    sizes = _sizes(equation, terms)
    terms = [_agreeing(*term, sizes) for term in terms]
    for pair in _order([own for _, own in terms], out, sizes):
        left, right = (terms.pop(i) for i in sorted(pair, reverse=True))
        wanted = {label for _, own in terms for label in own}.union(out)
        both = dict.fromkeys(left[1] + right[1])
        kept = tuple(label for label in both if label in wanted) if terms else out
        (x, xs), (y, ys) = (_summed(*own, {*other[1], *wanted}) for own, other in ((left, right), (right, left)))
        terms.append((emit("einsum", x, y, equation=_written([xs, ys], kept)), kept))
    return terms[0][0]


def _sizes(equation: str, terms: list[Term]) -> dict[str, Dim]:
    """The size of each label: the one that is not 1. GraphError where two disagree."""
    sizes: dict[str, Dim] = {}
    for x, labels in terms:
        for label, size in zip(labels, x.shape):
            known = sizes.setdefault(label, size)
            if known == 1:
                sizes[label] = size
            elif size not in (1, known):
                name = "..." if label.startswith("...") else label
                raise GraphError(f'einsum {shown(equation)}: "{name}" is {known} in one place and {size} in another')
    return sizes


def _agreeing(x: Array, labels: Labels, sizes: dict[str, Dim]) -> Term:
    """`x` without the axes of size 1 that are longer elsewhere."""
    gone = tuple(i for i, label in enumerate(labels) if x.shape[i] == 1 != sizes[label])
    return (x.squeeze(gone) if gone else x), tuple(label for i, label in enumerate(labels) if i not in gone)


def _summed(x: Array, labels: Labels, wanted: set[str]) -> Term:
    """`x` summed over the axes that nobody wants."""
    gone = tuple(i for i, label in enumerate(labels) if label not in wanted)
    return (x.sum(gone) if gone else x), tuple(label for label in labels if label in wanted)


def _order(labels: list[Labels], out: Labels, sizes: dict[str, Dim]) -> list[tuple[int, ...]]:
    """The pairs to multiply, as numpy.einsum_path counts them: the two leave the list, their product goes to its
    end. A size that is a name counts as some size."""
    equation = _written(labels, out)
    counted = {label: max(d, 1) if isinstance(d, int) else UNKNOWN for label, d in sizes.items()}
    some = [np.broadcast_to(np.float32(0), [counted[label] for label in own]) for own in labels]
    search = ("optimal" if len(labels) <= MOST_OPTIMAL else "greedy", 2 ** 62)       # whatever memory that takes
    path = np.einsum_path(equation, *some, optimize=search)[0][1:]
    if len(path[0]) > 2:                                    # nothing is summed: numpy multiplies all at once
        return [(0, 1)] * (len(labels) - 1)
    return [tuple(pair) for pair in path]


def _narrowed(x: Array, labels: Labels, other: Array, others: Labels) -> Term:
    """`x` without the axes of size 1 that the other operand has longer."""
    sizes = dict(zip(others, other.shape))
    gone = tuple(i for i, label in enumerate(labels) if x.shape[i] == 1 != sizes.get(label, 1)
                 and not label.startswith("..."))
    return (x.squeeze(gone) if gone else x), tuple(label for i, label in enumerate(labels) if i not in gone)


def _diagonal(equation: str, x: Array, labels: Labels) -> Term:
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
    if len({label for own in labels for label in own}) > 2 * len(LETTERS):
        raise GraphError(f"einsum has {2 * len(LETTERS)} letters for all labels together")
    letter = dict(zip(dict.fromkeys(label for own in labels for label in own), LETTERS + LETTERS.upper()))
    left = ",".join("".join(letter[label] for label in own) for own in labels)
    return left + "->" + "".join(letter[label] for label in out)
