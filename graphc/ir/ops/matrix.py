"""What the operators on matrices share: shape rules, and parts of matrices written with the builder."""
from __future__ import annotations

from graphc.ir.dims import static_dim
from graphc.ir.graph import Value
from graphc.ir.op import OpBuilder, require
from graphc.ir.ops.shape import slice_axis
from graphc.ir.types import TensorType, shape_text

BLOCK = 64                          # the largest matrix that a kernel of `cholesky` and `triangular_solve` takes whole


def check_square(name: str, x: TensorType) -> None:
    require(x.dtype.is_float, f"{name} takes float matrices, got {x.dtype}; convert it with .astype(f32)")
    require(x.rank >= 2 and x.shape[-1] == x.shape[-2], f"{name} takes square matrices [..., n, n], got {x}")


def check_system(name: str, a: TensorType, y: TensorType) -> None:
    """Matrices, and right-hand sides as their columns."""
    check_square(name, a)
    require(a.dtype == y.dtype, f"{name} of {a.dtype} and {y.dtype}: convert one side, for example with "
                                f".astype({a.dtype})")
    require(y.rank == a.rank and y.shape[:-1] == a.shape[:-1],
            f"{name}: the right-hand sides of {a} are {shape_text(a.shape[:-1])} and columns, got {y}")


def size_of(x: Value) -> int:
    return static_dim(x.type.shape[-1])


def half_of(n: int) -> int:
    """Where a matrix is cut: in halves, at a whole number of blocks."""
    return n // 2 if n <= BLOCK else -(-n // (2 * BLOCK)) * BLOCK


def transposed(b: OpBuilder, x: Value) -> Value:
    r = x.type.rank
    return b.transpose(x, perm=(*range(r - 2), r - 1, r - 2))


def quarters(b: OpBuilder, x: Value, h: int) -> tuple[tuple[Value, Value], tuple[Value, Value]]:
    """x cut before row and column h."""
    n, r = size_of(x), x.type.rank
    ends = ((0, h), (h, n))
    upper, lower = (slice_axis(b, x, r - 2, *rows) for rows in ends)
    return ((slice_axis(b, upper, r - 1, *ends[0]), slice_axis(b, upper, r - 1, *ends[1])),
            (slice_axis(b, lower, r - 1, *ends[0]), slice_axis(b, lower, r - 1, *ends[1])))


def joined(b: OpBuilder, parts: tuple[tuple[Value, Value], tuple[Value, Value]]) -> Value:
    """The matrix of four parts."""
    r = parts[0][0].type.rank
    return b.concat(*(b.concat(*row, axis=r - 1) for row in parts), axis=r - 2)


def identity(b: OpBuilder, like: Value) -> Value:
    """Ones on the diagonal of a matrix of the size and dtype of `like`'s; it broadcasts."""
    n, dtype = like.type.shape[-1], like.type.dtype
    return b.cast(b.eq(b.iota(shape=(n, n), axis=0, dtype=dtype), b.iota(shape=(n, n), axis=1, dtype=dtype)),
                  dtype=dtype)


def half_triangle(b: OpBuilder, x: Value) -> Value:
    """The lower triangle with half the diagonal."""
    return b.sub(b.tril(x), b.mul(b.mul(x, identity(b, x)), 0.5))


def diagonal(b: OpBuilder, x: Value) -> Value:
    return b.sum(b.where(b.eq(identity(b, x), 0), b.constant(0, x.type.dtype), x), axes=(x.type.rank - 1,))


def rows_in_order(b: OpBuilder, x: Value, order: Value) -> Value:
    """x[order] of each matrix."""
    at = b.broadcast_to(b.reshape(order, shape=(*order.type.shape, 1)), shape=x.type.shape)
    return b.take_along_axis(x, at, axis=x.type.rank - 2)
