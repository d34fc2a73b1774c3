"""Linear algebra on the last two axes; all axes before them count matrices and broadcast, as in numpy.linalg. A matrix
that has no answer (singular, not positive definite) gives infinity or NaN in its place, and no error."""
from __future__ import annotations

from graphc.dsl.array import Array, as_array, as_float, common_dtype, emit, emit_all
from graphc.dsl.elementwise import Operand
from graphc.dsl.form import formed
from graphc.dsl.index import broadcast, take_along_axis
from graphc.dsl.shape import eye
from graphc.errors import GraphError
from graphc.ir.convert import flag, integer
from graphc.ir.types import broadcast_shapes


@formed
def cholesky(x: Operand) -> Array:
    """The lower triangular l with x = l @ l.mT, of symmetric positive definite x [..., n, n], of which the lower
    triangle is read; its gradient lies there too. Of another matrix NaN from some column on (numpy: an error)."""
    return emit("cholesky", as_float(x))


@formed
def solve_triangular(a: Operand, y: Operand, lower: bool = False, transpose: bool = False, unit: bool = False) -> Array:
    """x with a @ x = y (transpose: a.mT @ x = y), where a [..., n, n] counts as upper triangular (`lower`: lower), and
    its diagonal as ones (`unit`); what lies outside the triangle is not read. y as in `solve`. (scipy's; torch's takes
    upper=.)"""
    return _solved("triangular_solve", a, y, lower=flag(lower, "lower"), transpose=flag(transpose, "transpose"),
                   unit=flag(unit, "unit"))


@formed
def solve(a: Operand, y: Operand) -> Array:
    """x with a @ x = y, for square a [..., n, n] and y [..., n, k], or a vector y [n]: by LU factorisation with
    pivots. Of a singular a infinity or NaN."""
    return _solved("solve", a, y)


@formed
def inv(x: Operand) -> Array:
    """The inverse of each matrix of x [..., n, n]; infinity or NaN of a singular one. To solve equations, `solve` is
    faster and more exact."""
    x = as_float(x)
    _check_square("inv", x)
    return emit("solve", x, broadcast(eye(x.shape[-1], dtype=x.dtype), x.shape))


@formed
def det(x: Operand) -> Array:
    """The determinant of each matrix of x [..., n, n]; 0 of a singular one, whose gradient is NaN."""
    return emit("det", as_float(x))


@formed
def slogdet(x: Operand) -> tuple[Array, Array]:
    """Sign and logarithm of the absolute determinant of each matrix of x [..., n, n], without overflow; 0 and -inf of a
    singular one, whose gradient is NaN."""
    sign, logarithm = emit_all("slogdet", as_float(x))
    return sign, logarithm


@formed
def eigh(x: Operand) -> tuple[Array, Array]:
    """Eigenvalues w [..., n], ascending, and eigenvectors, the columns of v [..., n, n], of symmetric x, of which
    the lower triangle is read: x = (v * w) @ v.mT. In each vector the largest component is positive.

    By Jacobi's rotations, for matrices up to a hundred or so. A gradient through v takes vectors of equal values as
    known but for a rotation among them; what depends on that rotation has no derivative there.
    """
    values, rows = emit_all("symmetric_eigen", as_float(x))
    order = emit("argsort", values, axis=values.ndim - 1)
    values = take_along_axis(values, order, -1)
    rows = take_along_axis(rows, order.reshape((*order.shape, 1)), -2)
    largest = emit("abs", rows).argmax(-1, keepdims=True) if rows.shape[-1] != 0 else None
    if largest is not None:
        rows = emit("where", take_along_axis(rows, largest, -1) < 0, -rows, rows)
    return values, rows.mT


@formed
def qr(x: Operand) -> tuple[Array, Array]:
    """x [..., m, n] as q @ r: q [..., m, k] with orthonormal columns, r [..., k, n] upper triangular, k the lesser
    of m and n, with a positive diagonal (numpy's may be negative). Columns that depend on earlier ones give NaN."""
    x = as_float(x)
    if x.ndim < 2:
        raise GraphError(f"qr takes matrices [..., m, n], got {x.type}")
    m, n = x.shape[-2:]
    if isinstance(m, int) and isinstance(n, int) and m < n:
        low, q = emit_all("lq", x[..., :m].mT)
        return q.mT, emit("concat", low.mT, emit("matmul", q, x[..., m:]), axis=x.ndim - 1)
    low, q = emit_all("lq", x.mT)
    return q.mT, low.mT


@formed
def matrix_power(x: Operand, n: int) -> Array:
    """The product of n matrices x [..., m, m]; of none the identity, and for n < 0 of -n inverses."""
    x, count = as_array(x), integer(n, "matrix_power: n")
    _check_square("matrix_power", x)
    x = inv(x) if count < 0 else x
    power, found = x, broadcast(eye(x.shape[-1], dtype=x.dtype), x.shape)
    left, none = abs(count), True
    while left:                 # by its binary digits
        if left & 1:
            found, none = power if none else found @ power, False
        left >>= 1
        power = power @ power if left else power
    return found


def _solved(name: str, a: Operand, y: Operand, **attributes: bool) -> Array:
    """With the axes that count matrices broadcast, and a vector as one column."""
    dtype = common_dtype((a, y))
    a, y = as_float(as_array(a, dtype)), as_float(as_array(y, dtype))
    _check_square(name, a)
    if not y.ndim:
        raise GraphError(f"{name}: the right-hand sides are [..., n, k], or a vector [n], got a scalar")
    columns = y.reshape((*y.shape, 1)) if y.ndim == 1 else y
    batch = broadcast_shapes(a.shape[:-2], columns.shape[:-2])
    a, columns = (broadcast(v, (*batch, *v.shape[-2:])) for v in (a, columns))
    x = emit(name, a, columns, called="", **attributes)
    return x.reshape(x.shape[:-1]) if y.ndim == 1 else x


def _check_square(name: str, x: Array) -> None:
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise GraphError(f"{name} takes square matrices [..., n, n], got {x.type}")
