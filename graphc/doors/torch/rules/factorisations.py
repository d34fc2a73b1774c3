"""Factorisations of matrices in the forms of LAPACK: reflections, pivots, singular values. All axes before the last two
count matrices."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import graphc as gc
from graphc.doors.torch.rules.promotion import as_type
from graphc.doors.torch.rules.shapes import cut
from graphc.dsl.array import emit_all
from graphc.errors import GraphError
from graphc.ir.types import DType, i32, i64

Array = gc.Array
Rule = Callable[..., Any]


def information(x: Array) -> Array:
    """What LAPACK says of each matrix: all is well."""
    return gc.zeros(x.shape[:-2], i32)


def _counted(n: Any, least: int, batch: int) -> Array:
    """The numbers 0 … n-1 along the last of `least` axes, with axes of 1 for a batch before them."""
    return gc.iota((n,)).astype(i64).reshape((1,) * (batch + least - 1) + (n,))


def _front(x: Array) -> Array:
    """Its last axis first: what a loop over it takes."""
    return gc.moveaxis(x, x.ndim - 1, 0)


def _back(x: Array) -> Array:
    return gc.moveaxis(x, 0, x.ndim - 1)


# reflections


def geqrf(x: Array) -> tuple[Array, Array]:
    """(reflections, tau) of x [..., m, n]: r above, and below the diagonal the vectors v, which are 1 on it, of the
    reflections 1 - tau v vᵀ whose product is q (LAPACK's larfg)."""
    m, n = x.shape[-2:]
    batch, count = x.ndim - 2, min(m, n)
    rows, columns = _counted(m, 1, batch), _counted(n, 2, batch)

    def step(a: Array, j: Array) -> tuple[Array, Array]:
        column = gc.take(a, j, a.ndim - 1)
        alpha = gc.take(column, j, column.ndim - 1)
        rest = gc.where(rows > j, column, as_type(0, x.dtype))
        square = gc.sum(rest * rest, -1)
        flat = gc.equal(square, 0)
        norm = gc.sqrt(gc.where(flat, as_type(1, x.dtype), alpha * alpha + square))
        beta = gc.where(alpha < 0, norm, -norm)
        tau = gc.where(flat, as_type(0, x.dtype), (beta - alpha) / beta)
        scale = gc.expand_dims(gc.where(flat, as_type(1, x.dtype), alpha - beta), batch)
        v = gc.where(gc.equal(rows, j), as_type(1, x.dtype), rest / scale)
        turned = a - _outer(gc.expand_dims(tau, batch) * v, _down(v, a))
        end = gc.where(gc.equal(rows, j), gc.expand_dims(gc.where(flat, alpha, beta), batch),
                       gc.where(rows > j, v, column))
        a = gc.where(gc.equal(columns, j), gc.expand_dims(end, batch + 1), gc.where(columns > j, turned, a))
        return a, tau
    if count == 0:
        return x, gc.zeros((*x.shape[:-2], 0), x.dtype)
    reflections, taus = gc.scan(step, x, gc.iota((count,)).astype(i64))
    return reflections, _back(taus)


def _outer(a: Array, b: Array) -> Array:
    return gc.expand_dims(a, a.ndim) * gc.expand_dims(b, b.ndim - 1)


def _down(v: Array, x: Array) -> Array:
    """vᵀ x."""
    return gc.sum(gc.expand_dims(v, v.ndim) * x, -2)


def _vectors(x: Array, count: Any) -> Array:
    """The vectors of the reflections, the first axis counts them."""
    low = gc.tril(cut(x, x.ndim - 1, 0, count), -1)
    return _front(low + _ones(x.shape[-2], count, x.dtype))


def _ones(m: Any, n: Any, dtype: DType) -> Array:
    """[m, n], ones on the diagonal."""
    return gc.equal(gc.iota((m, n), 0), gc.iota((m, n), 1)).astype(dtype)


def _reflected(x: Array, tau: Array, y: Array, reverse: bool) -> Array:
    """y after the reflections of x, the last of them first with `reverse`."""
    def step(y: Array, row: tuple[Array, Array]) -> tuple[Array, tuple[()]]:
        v, scale = row
        return y - _outer(gc.expand_dims(scale, scale.ndim) * v, _down(v, y)), ()
    if tau.shape[-1] == 0:
        return y
    return gc.scan(step, y, (_vectors(x, tau.shape[-1]), _front(tau)), reverse=reverse)[0]


def householder_product(x: Array, tau: Array, columns: Any = None) -> Array:
    """The first columns (default: as many as x has) of the product of the reflections."""
    n = x.shape[-1] if columns is None else columns
    identity = gc.broadcast_to(_ones(x.shape[-2], n, x.dtype), (*x.shape[:-1], n))
    return _reflected(x, tau, identity, True)


def _ormqr(x: Array, tau: Array, y: Array, left: bool = True, transpose: bool = False) -> Array:
    if not left:
        return _ormqr(x, tau, y.mT, True, not transpose).mT
    return _reflected(x, tau, y, not transpose)


def _qr(x: Array, mode: str = "reduced") -> tuple[Array, Array]:
    """With LAPACK's signs, which columns that depend on earlier ones have too."""
    m, n = x.shape[-2:]
    reflections, tau = geqrf(x)
    rows = m if mode == "complete" else min(m, n)
    r = gc.triu(cut(reflections, x.ndim - 2, 0, rows))
    return gc.zeros((0,), x.dtype) if mode == "r" else householder_product(reflections, tau, rows), r


# pivots


def _pivots(order: Array) -> Array:
    """The row, counted from 1, that each step of the elimination has changed places with, of the rows in their last
    order."""
    n, batch = order.shape[-1], order.ndim - 1
    places = _counted(n, 1, batch)

    def step(now: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        wanted, k = row
        at = gc.argmax(gc.equal(now, gc.expand_dims(wanted, batch)).astype(i32), -1).astype(i64)
        return _swapped(now, places, k, at), at + 1
    return _back(gc.scan(step, gc.broadcast_to(places, order.shape), (_front(order), gc.iota((n,)).astype(i64)))[1])


def _order(pivots: Array, rows: Any) -> Array:
    """The other way round: which of `rows` rows stands in each place."""
    batch = pivots.ndim - 1
    places = _counted(rows, 1, batch)

    def step(now: Array, row: tuple[Array, Array]) -> tuple[Array, tuple[()]]:
        pivot, k = row
        return _swapped(now, places, k, pivot - 1), ()
    steps = _front(pivots.astype(i64)), gc.iota((pivots.shape[-1],)).astype(i64)
    return gc.scan(step, gc.broadcast_to(places, (*pivots.shape[:-1], rows)), steps)[0]


def _swapped(now: Array, places: Array, k: Array, at: Array) -> Array:
    """The rows at k and `at` in each other's place."""
    last = now.ndim - 1
    there, here = gc.expand_dims(at, last), gc.expand_dims(gc.take(now, k, last), last)
    taken = gc.take_along_axis(now, there, last)
    return gc.where(gc.equal(places, k), taken, gc.where(gc.equal(places, there), here, now))


def _lu(x: Array, pivot: bool = True) -> tuple[Array, Array]:
    if not pivot or x.shape[-1] != x.shape[-2] or x.shape[-1] == 0:
        return _eliminated(x, pivot)
    packed, order, _ = emit_all("lu", x)
    return packed, order


def _eliminated(x: Array, pivot: bool) -> tuple[Array, Array]:
    """Matrices that are not square, or whose rows stay in their order, step by step."""
    m, n = x.shape[-2:]
    batch, count = x.ndim - 2, min(m, n)
    places, columns = _counted(m, 1, batch), _counted(n, 2, batch)
    rows, zero = gc.expand_dims(places, batch + 1), as_type(0, x.dtype)

    def step(carry: tuple[Array, Array], k: Array) -> tuple[tuple[Array, Array], tuple[()]]:
        a, order = carry
        if pivot:
            size = gc.where(places < k, as_type(-1, x.dtype), gc.abs(gc.take(a, k, batch + 1)))
            at = gc.argmax(size, -1).astype(i64)
            order, at = _swapped(order, places, k, at), gc.expand_dims(at, (batch, batch + 1))
            there, here = gc.take_along_axis(a, at, batch), gc.expand_dims(gc.take(a, k, batch), batch)
            a = gc.where(gc.equal(rows, k), there, gc.where(gc.equal(rows, at), here, a))
        row = gc.expand_dims(gc.take(a, k, batch), batch)
        column, divisor = (gc.expand_dims(gc.take(v, k, batch + 1), batch + 1) for v in (a, row))
        flat = gc.equal(divisor, 0)
        factor = gc.where(flat, column, column / gc.where(flat, as_type(1, x.dtype), divisor))
        left = gc.where(columns > k, a - gc.where(flat, zero, factor) * row, gc.where(gc.equal(columns, k), factor, a))
        return (gc.where(rows > k, left, a), order), ()
    order = gc.broadcast_to(places, (*x.shape[:-2], m))
    return gc.scan(step, (x, order), gc.iota((count,)).astype(i64))[0] if count else (x, order)


def _lu_factor(x: Array, *, pivot: bool = True, **_: Any) -> tuple[Array, Array, Array]:
    packed, order = _lu(x, pivot)
    return packed, cut(_pivots(order), x.ndim - 2, 0, min(x.shape[-2:])).astype(i32), information(x)


def _parts(packed: Array, order: Array) -> tuple[Array, Array, Array]:
    """p, l and u with p l u the matrix."""
    m, n = packed.shape[-2:]
    count = min(m, n)
    low = gc.tril(cut(packed, packed.ndim - 1, 0, count), -1) + _ones(m, count, packed.dtype)
    return _ones_at(order, m, packed.dtype).mT, low, gc.triu(cut(packed, packed.ndim - 2, 0, count))


def _ones_at(order: Array, rows: Any, dtype: DType) -> Array:
    """The matrix that puts rows in this order."""
    return gc.one_hot(order, rows, dtype)


def _lu_unpack(packed: Array, pivots: Array, unpack_data: bool = True,
               unpack_pivots: bool = True) -> tuple[Array, Array, Array]:
    p, low, up = _parts(packed, _order(pivots, packed.shape[-2]))
    none = gc.zeros((0,), packed.dtype)
    return p if unpack_pivots else none, low if unpack_data else none, up if unpack_data else none


def _lu_solve(packed: Array, pivots: Array, y: Array, *, left: bool = True, adjoint: bool = False) -> Array:
    """x with a x = y (left=False: x a = y; adjoint: aᵀ in the place of a), of a as `_lu_factor` gives it."""
    if not left:
        return _lu_solve(packed, pivots, y.mT, adjoint=not adjoint).mT
    shape = gc.matmul(gc.stop_gradient(packed), gc.stop_gradient(y)).shape
    p = _ones_at(_order(pivots, packed.shape[-1]), packed.shape[-1], packed.dtype)
    packed, y = gc.broadcast_to(packed, (*shape[:-2], *packed.shape[-2:])), gc.broadcast_to(y, shape)
    if adjoint:
        z = gc.solve_triangular(packed, y, transpose=True)
        return p.mT @ gc.solve_triangular(packed, z, lower=True, transpose=True, unit=True)
    return gc.solve_triangular(packed, gc.solve_triangular(packed, p @ y, lower=True, unit=True))


# eigenvalues


def symmetric(x: Array, upper: bool = False) -> Array:
    """The symmetric matrix of which x has a triangle. Its gradient is shared by both triangles, as PyTorch's is."""
    triangle = gc.triu(x).mT if upper else gc.tril(x)
    evenly = (x + x.mT) / 2
    return evenly + gc.stop_gradient(triangle + gc.tril(triangle, -1).mT - evenly)


def _both_ways(x: Array) -> Array:
    """The symmetric matrix 0 x, xᵀ 0: its eigenvalues are the singular values of x with both signs, and zeros
    (C. Jordan; H. Wielandt)."""
    m, n = x.shape[-2:]
    batch = x.shape[:-2]
    above = gc.concat([gc.zeros((*batch, m, m), x.dtype), x], x.ndim - 1)
    below = gc.concat([x.mT, gc.zeros((*batch, n, n), x.dtype)], x.ndim - 1)
    return gc.concat([above, below], x.ndim - 2)


def _svd(x: Array, full_matrices: bool = False, compute_uv: bool = True, **_: Any) -> tuple[Array, Array, Array]:
    """(u, s, vᵀ), the vectors by the eigenvectors of `_both_ways`: (u, v) of each singular value. What belongs to the
    value 0 is not determined by that, and becomes some orthonormal completion."""
    m, n = _sizes("svd", x)
    count, last = min(m, n), x.ndim - 1
    values, vectors = (gc.flip(part, -1) for part in gc.eigh(_both_ways(x)))
    s = gc.maximum(cut(values, last - 1, 0, count), 0)
    if not compute_uv:
        return gc.zeros((0,), x.dtype), s, gc.zeros((0,), x.dtype)
    first = cut(vectors, last, 0, count)
    u, v = (_orthonormal(cut(first, last - 1, *ends), size if full_matrices else count)
            for ends, size in (((0, m), m), ((m, m + n), n)))
    return u, s, v.mT


def _orthonormal(x: Array, columns: int) -> Array:
    """The columns of x made orthonormal, in their directions, and as many more as `columns` asks for."""
    reflections, tau = geqrf(x)
    q = householder_product(reflections, tau, columns)
    known = x.shape[-1]
    back = gc.sum(cut(reflections, x.ndim - 2, 0, known) * _ones(known, known, x.dtype), -2) < 0
    signs = gc.where(back, as_type(-1, x.dtype), as_type(1, x.dtype))
    more = gc.ones((*x.shape[:-2], columns - known), x.dtype)
    return q * gc.expand_dims(gc.concat([signs, more], signs.ndim - 1), signs.ndim - 1)


def _sizes(name: str, x: Array) -> tuple[int, int]:
    m, n = x.shape[-2:]
    if not isinstance(m, int) or not isinstance(n, int):
        raise GraphError(f"{name} takes matrices of known size, got {x.type}")
    return m, n


def _pinv(x: Array, *, atol: Any = None, rtol: Any = None, hermitian: bool = False) -> Array:
    """The pseudoinverse: of what is at most the larger of `atol` and `rtol` times the largest singular value, none.
    rtol None: the number of rows or columns times the spacing at 1, or 0 with `atol`."""
    m, n = _sizes("pinv", x)
    if min(m, n) == 0:
        return gc.zeros((*x.shape[:-2], n, m), x.dtype)
    spacing = 2.0 ** -x.dtype.mantissa * max(m, n) if atol is None else 0.0
    bounds = [as_type(spacing if rtol is None else rtol, x.dtype), as_type(0.0 if atol is None else atol, x.dtype)]
    return gc.custom_vjp(partial(_inverted, hermitian), _towards_inverted)(x, *bounds)


def _inverted(hermitian: bool, x: Array, relative: Array, absolute: Array) -> Array:
    m, n = x.shape[-2:]
    values, vectors = gc.eigh(symmetric(x) if hermitian else _both_ways(x))     # the lower triangle says what it is
    size = gc.abs(values)
    relative, absolute = (gc.expand_dims(bound, bound.ndim) if bound.ndim else bound for bound in (relative, absolute))
    counts = size > gc.maximum(gc.max(size, -1, True) * relative, absolute)
    inverse = gc.where(counts, 1 / gc.where(counts, values, as_type(1, x.dtype)), as_type(0, x.dtype))
    found = (vectors * gc.expand_dims(inverse, inverse.ndim - 1)) @ vectors.mT
    return found if hermitian else cut(cut(found, x.ndim - 2, m, m + n), x.ndim - 1, 0, m)


def _towards_inverted(inputs: tuple[Array, ...], p: Array, g: Array) -> tuple[Array | None, ...]:
    """Of matrices near x of the same rank (Golub, Pereyra 1973), which the eigenvectors of the value 0, any basis of
    their space, do not say. Of x as it stands, as PyTorch does it, if only a triangle was read."""
    x, (m, n) = inputs[0], inputs[0].shape[-2:]
    around = [_ones(k, k, x.dtype) - inner for k, inner in ((m, x @ p), (n, p @ x))]
    towards = around[0] @ g.mT @ p @ p.mT + p.mT @ p @ g.mT @ around[1] - p.mT @ g @ p.mT
    return towards, None, None


RULES: dict[str, Rule] = {
    "geqrf.default": geqrf, "linalg_householder_product.default": householder_product,
    "orgqr.default": householder_product, "ormqr.default": _ormqr, "linalg_qr.default": _qr,
    "linalg_lu_factor_ex.default": _lu_factor,
    "linalg_lu_factor.default": lambda x, **named: _lu_factor(x, **named)[:2],
    "linalg_lu.default": lambda x, *, pivot=True: _parts(*_lu(x, pivot)), "lu_unpack.default": _lu_unpack,
    "linalg_lu_solve.default": _lu_solve, "lu_solve.default": lambda y, packed, pivots: _lu_solve(packed, pivots, y),
    "_linalg_svd.default": _svd, "linalg_pinv.atol_rtol_tensor": _pinv,
    "linalg_pinv.atol_rtol_float": _pinv,
}
