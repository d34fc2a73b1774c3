"""Products of two tensors summed over shared axes: matmul and einsum. Both are a `Contraction`."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache, reduce
from typing import ClassVar

import numpy as np

from graphc.errors import GraphError, InternalError
from graphc.ir import contraction
from graphc.ir.contraction import Contraction, axis
from graphc.ir.dims import Dim, Dims
from graphc.ir.graph import Value
from graphc.ir.op import Cost, Gradients, Op, OpBuilder, Values, only_gradient, require
from graphc.ir.ops.packed import SUMS, unpacked
from graphc.ir.types import DType, TensorType, bf16x2, broadcast_shapes, common, includes, shape_text


Labels = tuple[str, ...]


class LabelledProduct(Op):
    """Base of sums of products in which each axis of an operand is one axis of the iteration space, or broadcasts along
    it.
    """
    is_contraction = takes_epilogue = True
    linear_in = ((0,), (1,))

    def labels(self, x_rank: int, y_rank: int) -> tuple[Labels, Labels, Labels]:
        """A label for each axis of the operands, of these ranks, and of the result."""
        raise InternalError(f"{self.name} has no labels")


class Matmul(LabelledProduct):
    """numpy's matmul: [..., M, K] @ [..., K, N], leading axes broadcast; a 1-D operand is a row (left) or a column
    (right) whose axis then goes. `dtype`: of the sums and the result, where it is not that of the operands, which then
    may have two types."""
    name: ClassVar[str] = "matmul"
    dtype: DType | None = None

    def infer(self, x: TensorType, y: TensorType) -> TensorType:
        dtype = sum_dtype(self.name, self.dtype, x, y)
        require(x.rank > 0 and y.rank > 0, "matmul of a scalar: use * instead")
        left, right = _as_matrices(x.shape, y.shape)
        require(left[-1] == right[-2], f"matmul of {shape_text(x.shape)} and {shape_text(y.shape)}: "
                                       f"the last axis of the left ({left[-1]}) must equal "
                                       f"{'the axis' if y.rank == 1 else 'the last but one axis'} of the right "
                                       f"({right[-2]})")
        lead = broadcast_shapes(left[:-2], right[:-2])
        return TensorType(dtype, lead + left[-2:-1] * (x.rank > 1) + right[-1:] * (y.rank > 1))

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.asarray(product_of(np.matmul, self.dtype, x, y))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        x, y = widened(b, self.dtype, ins)
        left, right = _as_matrices(x.type.shape, y.type.shape)
        lead = broadcast_shapes(left[:-2], right[:-2])
        g = _reshaped(b, only_gradient(gs), (*lead, left[-2], right[-1]))
        x2, y2 = _reshaped(b, x, left), _reshaped(b, y, right)
        return as_types(b, ins, _left_gradient(b, g, x2, y2, x.type), _right_gradient(b, g, x2, y2, y.type))

    def cost(self, x: TensorType, y: TensorType) -> Cost:
        out = self.infer(x, y)
        return Cost(2 * out.size * x.shape[-1] * x.dtype.numbers, x.nbytes + y.nbytes + out.nbytes)

    def labels(self, x_rank: int, y_rank: int) -> tuple[Labels, Labels, Labels]:
        lead = tuple(f"...{i}" for i in range(max(x_rank, y_rank) - 2, 0, -1))
        left, right = (lead[len(lead) - max(rank - 2, 0):] for rank in (x_rank, y_rank))
        row, column = ("m",) * (x_rank > 1), ("n",) * (y_rank > 1)
        return (*left, *row, "k"), (*right, "k", *column), (*lead, *row, *column)

    def contraction(self, x: TensorType, y: TensorType) -> Contraction:
        """Leading axes that only one operand has count as rows or columns, not as batch."""
        c = contraction.matmul(*_as_matrices(x.shape, y.shape))
        a = c.a if x.rank > 1 else c.a[1:]
        b = c.b if y.rank > 1 else c.b[:-1]
        out = c.out[:-2] + c.out[-2:-1] * (x.rank > 1) + c.out[-1:] * (y.rank > 1)
        return _without_false_batch(replace(c, a=a, b=b, out=out))


def _left_gradient(b: OpBuilder, g: Value, x: Value, y: Value, type: TensorType) -> Value:
    """g @ y^T; where the left operand is one matrix for all of a batch, one sum over batch and columns."""
    if x.type.rank == 2 and g.type.rank > 2 and y.type.shape[:-2] == g.type.shape[:-2]:
        return b.reshape(b.einsum(g, y, equation="...mn,...kn->mk"), shape=type.shape)
    return _dropped(b, b.matmul(g, _transposed(b, y)), -2, type)


def _right_gradient(b: OpBuilder, g: Value, x: Value, y: Value, type: TensorType) -> Value:
    """x^T @ g; where the right operand is one matrix for all of a batch (a weight), batch and rows are merged: one
    product, no sum after it."""
    if y.type.rank == 2 and g.type.rank > 2 and x.type.shape[:-2] == g.type.shape[:-2]:
        rows = _product(range(g.type.rank - 1), g)
        x2 = b.reshape(x, shape=(rows, x.type.shape[-1]))
        g2 = b.reshape(g, shape=(rows, g.type.shape[-1]))
        return b.reshape(b.matmul(_transposed(b, x2), g2), shape=type.shape)
    return _dropped(b, b.matmul(_transposed(b, x), g), -1, type)


def _dropped(b: OpBuilder, g: Value, at: int, type: TensorType) -> Value:
    """`g` without its axis `at` when the operand was 1-D; leading axes stay, backward sums over them."""
    if type.rank > 1:
        return g
    at %= g.type.rank
    return b.reshape(g, shape=g.type.shape[:at] + g.type.shape[at + 1:])


class Einsum(LabelledProduct):
    """Einstein summation of two operands, as numpy's: "bik,bkj->bij". Without "->" the output has the labels that occur
    once, sorted.

    "..." stands for axes that broadcast. A label may not occur twice in one operand (the DSL takes diagonals and drops
    axes of size 1 before). `dtype` as in `Matmul`.
    """
    name: ClassVar[str] = "einsum"
    equation: str
    dtype: DType | None = None

    def infer(self, x: TensorType, y: TensorType) -> TensorType:
        dtype = sum_dtype(self.name, self.dtype, x, y)
        a, b, out = parse_equation(self.equation, x.rank, y.rank)
        sizes = self._sizes(a, x.shape, b, y.shape)
        return TensorType(dtype, tuple(sizes[label] for label in out))

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return product_of(self._einsum, self.dtype, x, y)

    def _einsum(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        a, b, out = parse_equation(self.equation, x.ndim, y.ndim)
        number = {label: i for i, label in enumerate(dict.fromkeys(a + b))}
        x, a = _squeezed(x, a, y, b)
        y, b = _squeezed(y, b, x, a)
        return np.asarray(np.einsum(x, [number[i] for i in a], y, [number[i] for i in b], [number[i] for i in out],
                                    optimize=True), x.dtype)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        (x, y), g = widened(b, self.dtype, ins), only_gradient(gs)
        left, right, out = parse_equation(self.equation, x.type.rank, y.type.rank)
        return as_types(b, ins, _einsum_gradient(b, g, out, x, left, y, right),
                         _einsum_gradient(b, g, out, y, right, x, left))

    def cost(self, x: TensorType, y: TensorType) -> Cost:
        a, b, _ = parse_equation(self.equation, x.rank, y.rank)
        points: Dim = 1
        for size in self._sizes(a, x.shape, b, y.shape).values():
            points = points * size
        return Cost(2 * points * x.dtype.numbers, x.nbytes + y.nbytes + self.infer(x, y).nbytes)

    def labels(self, x_rank: int, y_rank: int) -> tuple[Labels, ...]:
        return parse_equation(self.equation, x_rank, y_rank)

    def contraction(self, x: TensorType, y: TensorType) -> Contraction:
        a, b, out = parse_equation(self.equation, x.rank, y.rank)
        sizes = self._sizes(a, x.shape, b, y.shape)
        number = {label: i for i, label in enumerate(sizes)}

        def maps(labels: Labels, shape: Dims) -> contraction.Maps:
            return tuple(axis() if shape[i] == 1 != sizes[label] else axis(number[label])
                         for i, label in enumerate(labels))

        def dims(wanted: Callable[[str], bool]) -> tuple[int, ...]:
            return tuple(number[label] for label in sizes if wanted(label))
        return _without_false_batch(Contraction(
            tuple(sizes.values()), dims(lambda i: i in out and i in a and i in b),
            dims(lambda i: i in out and i not in b),
            dims(lambda i: i in out and i not in a), dims(lambda i: i not in out),
            maps(a, x.shape), maps(b, y.shape), tuple(axis(number[label]) for label in out)))

    def _sizes(self, a: Labels, x_shape: Dims, b: Labels, y_shape: Dims) -> dict[str, Dim]:
        """Extent of every label; GraphError where the operands disagree."""
        sizes: dict[str, Dim] = {}
        for label, size in zip(a + b, x_shape + y_shape, strict=True):
            known = sizes.setdefault(label, size)
            if known != size and _is_ellipsis(label) and 1 in (known, size):
                sizes[label] = size if known == 1 else known
            else:
                name = '"..."' if _is_ellipsis(label) else f'label "{label}"'
                require(known == size, f'einsum "{self.equation}" of {shape_text(x_shape)} and {shape_text(y_shape)}: '
                                       f"{name} is {known} in one place and {size} in another")
        return sizes


@lru_cache(maxsize=1024)
def parse_equation(equation: str, *ranks: int, diagonals: bool = False) -> tuple[Labels, ...]:
    """One label per axis for each operand, then for the output; axes under "..." become "...1" (the last), "...2", …

    diagonals: an operand may name a label twice.
    """
    terms, arrow, out = equation.replace(" ", "").partition("->")
    operands = terms.split(",")
    require(len(operands) == len(ranks), f'einsum "{equation}" names {len(operands)} operands, got {len(ranks)}')
    labels = tuple(_operand_labels(equation, term, rank, diagonals) for term, rank in zip(operands, ranks))
    together = [i for term in labels for i in term]
    hidden = sorted({i for i in together if _is_ellipsis(i)}, key=lambda i: -int(i[3:]))
    if not arrow:
        return *labels, tuple(hidden) + tuple(sorted(i for i in set(together) if together.count(i) == 1
                                                     and not _is_ellipsis(i)))
    head, dots, tail = out.partition("...")
    result = tuple(head) + tuple(hidden) * bool(dots) + tuple(tail)
    unknown = [i for i in result if i not in together]
    require(not unknown, f'einsum "{equation}": output label "{"".join(unknown)}" is in no operand')
    require(len(set(result)) == len(result), f'einsum "{equation}": the output names a label twice')
    return *labels, result


def _operand_labels(equation: str, term: str, rank: int, diagonals: bool) -> Labels:
    head, dots, tail = term.partition("...")
    letters = head + tail
    require(all(c.isalpha() for c in letters), f'einsum "{equation}": labels are letters, got "{term}"')
    require(diagonals or len(set(letters)) == len(letters),
            f'einsum "{equation}": "{term}" names a label twice; a diagonal must be taken before')
    hidden = rank - len(letters)
    require(hidden == 0 or (dots != "" and hidden > 0),
            f'einsum "{equation}": "{term}" names {len(letters)} axes, the operand has {rank}')
    return tuple(head) + tuple(f"...{i}" for i in range(hidden, 0, -1)) + tuple(tail)


def _is_ellipsis(label: str) -> bool:
    return label.startswith("...")


def _squeezed(x: np.ndarray, labels: Labels, other: np.ndarray, other_labels: Labels) -> tuple[np.ndarray, Labels]:
    """`x` without the axes of size 1 that the other operand broadcasts."""
    gone = [i for i, label in enumerate(labels) if x.shape[i] == 1 and label in other_labels
            and other.shape[other_labels.index(label)] != 1]
    return x.squeeze(tuple(gone)), tuple(label for i, label in enumerate(labels) if i not in gone)


def _einsum_gradient(b: OpBuilder, g: Value, out: Labels, x: Value, own: Labels, other: Value, others: Labels) -> Value:
    """einsum of g and the other operand, kept to the axes of x that they have; the axes that x alone has, or broadcast,
    come back by broadcast_to."""
    sizes = dict(zip(out, g.type.shape)) | {i: d for i, d in zip(others, other.type.shape) if d != 1}
    kept = tuple(i for i, d in zip(own, x.type.shape) if sizes.get(i, 1) == d and i in out + others)
    letter = {label: chr(ord("a") + n) for n, label in enumerate(dict.fromkeys(out + others))}
    text = ["".join(letter[i] for i in labels) for labels in (out, others, kept)]
    g = b.einsum(*_agreeing(b, g, out, other, others), equation=f"{text[0]},{text[1]}->{text[2]}")
    g = _reshaped(b, g, tuple(d if i in kept else 1 for i, d in zip(own, x.type.shape)))
    return g if g.type.shape == x.type.shape else b.broadcast_to(g, shape=x.type.shape)


def _agreeing(b: OpBuilder, g: Value, out: Labels, other: Value, others: Labels) -> tuple[Value, Value]:
    """g and `other`, the latter broadcast where "..." made one of its axes larger."""
    full = tuple(g.type.shape[out.index(i)] if i in out else d for i, d in zip(others, other.type.shape))
    return g, other if full == other.type.shape else b.broadcast_to(other, shape=full)


def _as_matrices(x: Dims, y: Dims) -> tuple[Dims, Dims]:
    return (x if len(x) > 1 else (1, *x)), (y if len(y) > 1 else (*y, 1))


def _reshaped(b: OpBuilder, x: Value, shape: Dims) -> Value:
    return x if x.type.shape == shape else b.reshape(x, shape=shape)


def _transposed(b: OpBuilder, x: Value) -> Value:
    r = x.type.rank
    return b.transpose(x, perm=(*range(r - 2), r - 1, r - 2))


def _product(axes: Iterable[int], x: Value) -> Dim:
    size: Dim = 1
    for i in axes:
        size = size * x.type.shape[i]
    return size


def sum_dtype(name: str, dtype: DType | None, x: TensorType, y: TensorType) -> DType:
    """The type of a product's sums; GraphError for operands that have no product, or none in that type."""
    if dtype is None and x.dtype != y.dtype:
        small = x.dtype.is_int and y.dtype.is_int and max(x.dtype.bits, y.dtype.bits) < 32
        raise GraphError(f"{name} of {x.dtype} and {y.dtype}: convert one side, for example "
                         f"x.astype({common((x.dtype, y.dtype))})" + ", or multiply in 32 bits: dtype=gc.i32" * small)
    dtype = dtype or x.dtype
    require(dtype.kind != "bool" and "bool" not in (x.dtype.kind, y.dtype.kind),
            f"{name} takes numbers, not bool; convert with astype")
    require(not dtype.is_packed and x.dtype.is_packed == y.dtype.is_packed
            and (not x.dtype.is_packed or SUMS.get((x.dtype, y.dtype)) is dtype),
            f"{name} of {x.dtype} and {y.dtype} in {dtype}: both factors are packed alike, and sums are not")
    for t in (x, y):
        require(includes(dtype, t.dtype.element),
                f"{name} with dtype={dtype}: not every {t.dtype} is one of {dtype}; convert it with .astype({dtype})")
    return dtype


Product = Callable[[np.ndarray, np.ndarray], np.ndarray]


def product_of(multiply: Product, dtype: DType | None, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The product of the operands in the type of the sums. Packed ones: the sum of those of their parts."""
    if x.dtype.names or dtype is not None and dtype.is_float and x.dtype == bf16x2.np:
        return reduce(np.add, (multiply(*parts) for parts in zip(unpacked(x), unpacked(y), strict=True)))
    return multiply(x.astype(dtype.np), y.astype(dtype.np)) if dtype else multiply(x, y)


def widened(b: OpBuilder, dtype: DType | None, ins: Values) -> Values:
    """The operands in the type of the sums, as the gradient reads them."""
    return tuple(b.cast(v, dtype=dtype) if dtype not in (None, v.type.dtype) else v for v in ins)


def as_types(b: OpBuilder, ins: Values, *gradients: Value) -> Gradients:
    """Each gradient in the type of its operand; none of integers."""
    return [None if v.type.dtype.is_int else g if g.type.dtype == v.type.dtype else b.cast(g, dtype=v.type.dtype)
            for v, g in zip(ins, gradients, strict=True)]


def _without_false_batch(c: Contraction) -> Contraction:
    """Batch dims that one operand does not have are rows or columns."""
    in_a, in_b = ({d for m in maps for d in m.dims} for maps in (c.a, c.b))
    rows = tuple(d for d in c.batch if d not in in_b and c.sizes[d] != 1)
    columns = tuple(d for d in c.batch if d not in in_a and c.sizes[d] != 1)
    return replace(c, batch=tuple(d for d in c.batch if d not in rows + columns), m=rows + c.m, n=columns + c.n)


OPS = (Matmul, Einsum)
