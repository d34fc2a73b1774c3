"""Factorisations of matrices, the last two axes; all others count matrices. One kernel runs a matrix of moderate size
from start to end; a large one of Cholesky's or a triangular system is cut in halves, whose products are matmuls.

A matrix that has no factorisation gives NaN or infinity, which the docstrings tell; nothing fails at run time.
"""
from __future__ import annotations

from math import prod
from typing import ClassVar

import numpy as np

from graphc.errors import InternalError
from graphc.ir.graph import Value
from graphc.ir.op import Arrays, Composite, Cost, Gradients, Op, OpBuilder, Values, only_gradient, require
from graphc.ir.ops.constant import full, number
from graphc.ir.ops.matrix import (
    check_square, check_system, half_of, half_triangle, identity, joined, quarters, rows_in_order, size_of, transposed)
from graphc.ir.ops.shape import slice_axis
from graphc.ir.types import TensorType, i64

MOST_SWEEPS = 24                    # of Jacobi's method; 6 to 10 are the rule


class Cholesky(Composite):
    """The lower triangular l with x = l lᵀ, of a symmetric positive definite x, of which the lower triangle is read. Of
    another matrix NaN, from the column on in which that shows."""
    name: ClassVar[str] = "cholesky"
    has_kernel = True

    def infer(self, x: TensorType) -> TensorType:
        check_square(self.name, x)
        return x

    def reference(self, x: np.ndarray) -> np.ndarray:
        y = np.zeros_like(x)
        with np.errstate(all="ignore"):
            for i in range(x.shape[-1]):
                for j in range(i + 1):
                    rest = x[..., i, j] - (y[..., i, :j] * y[..., j, :j]).sum(-1)
                    y[..., i, j] = np.sqrt(rest) if i == j else rest / y[..., j, j]
        return y

    def decompose(self, b: OpBuilder, x: Value) -> Value:
        """[[a, ·], [c, d]]: l11 = chol(a), l21 = c l11⁻ᵀ, l22 = chol(d - l21 l21ᵀ)."""
        n = size_of(x)
        if n <= 1:
            return b.sqrt(x) if n else x
        h = half_of(n)
        (a, _), (c, d) = quarters(b, x, h)
        l11 = b.cholesky(a)
        l21 = transposed(b, b.triangular_solve(l11, transposed(b, c)))
        l22 = b.cholesky(b.sub(d, b.matmul(l21, transposed(b, l21))))
        above = full(b, 0, l21.type.with_shape((*x.type.shape[:-2], h, n - h)))
        return joined(b, ((l11, above), (l21, l22)))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        """s = l⁻ᵀ phi(lᵀ g) l⁻¹, phi the lower triangle with half its diagonal (I. Murray, arXiv:1602.07527); what is
        read, the lower triangle, stands for both."""
        low = outs[0]
        half = half_triangle(b, b.matmul(transposed(b, low), only_gradient(gs)))
        left = b.triangular_solve(low, half, transpose=True)
        s = b.triangular_solve(low, transposed(b, left), transpose=True)
        return (half_triangle(b, b.add(s, transposed(b, s))),)

    def cost(self, x: TensorType) -> Cost:
        return Cost(x.size * x.shape[-1] // 3, 2 * x.nbytes)


class TriangularSolve(Composite):
    """x with a x = y (transpose: aᵀ x = y) for a [..., n, n], of which one triangle is read, `lower` or the upper one,
    and y [..., n, k]. unit: the diagonal of a counts as ones. A zero on the diagonal gives infinity or NaN."""
    name: ClassVar[str] = "triangular_solve"
    has_kernel = True
    linear_in = ((1,),)
    lower: bool = True
    transpose: bool = False
    unit: bool = False

    def infer(self, a: TensorType, y: TensorType) -> TensorType:
        check_system(self.name, a, y)
        return y

    def reference(self, a: np.ndarray, y: np.ndarray) -> np.ndarray:
        a = np.swapaxes(a, -1, -2) if self.transpose else a
        n, forward, x = a.shape[-1], self.lower != self.transpose, np.zeros_like(y)
        with np.errstate(all="ignore"):
            for i in range(n) if forward else reversed(range(n)):
                known = slice(0, i) if forward else slice(i + 1, n)
                rest = y[..., i, :] - (a[..., i, known, None] * x[..., known, :]).sum(-2)
                x[..., i, :] = rest if self.unit else rest / a[..., i, i, None]
        return x

    def decompose(self, b: OpBuilder, a: Value, y: Value) -> Value:
        n = size_of(a)
        if n <= 1:
            return y if self.unit or not n else b.div(y, a)
        h = half_of(n)
        (a11, a12), (a21, a22) = quarters(b, a, h)
        y1, y2 = (slice_axis(b, y, y.type.rank - 2, *ends) for ends in ((0, h), (h, n)))
        beside = a21 if self.lower else a12
        if self.transpose:
            beside = transposed(b, beside)
        if self.lower != self.transpose:
            x1 = self._of(b, a11, y1)
            x2 = self._of(b, a22, b.sub(y2, b.matmul(beside, x1)))
        else:
            x2 = self._of(b, a22, y2)
            x1 = self._of(b, a11, b.sub(y1, b.matmul(beside, x2)))
        return b.concat(x1, x2, axis=y.type.rank - 2)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        a, x = ins[0], outs[0]
        to_y = b.apply(self.replace(transpose=not self.transpose), (a, only_gradient(gs)))[0]
        left, right = (x, to_y) if self.transpose else (to_y, x)
        to_a = b.neg(b.matmul(left, transposed(b, right)))
        k = 1 if self.unit else 0
        return (b.tril(to_a, k=-k) if self.lower else b.triu(to_a, k=k)), to_y

    def cost(self, a: TensorType, y: TensorType) -> Cost:
        return Cost(y.size * a.shape[-1], a.nbytes + 2 * y.nbytes)

    def _of(self, b: OpBuilder, a: Value, y: Value) -> Value:
        return b.apply(self, (a, y))[0]


class LU(Op):
    """x [..., n, n] with its rows in another order as a product l u: l unit lower, u upper triangular, both in one
    array (l below the diagonal), the row of x that stands in each place, i64 [..., n], and the sign of that
    permutation.

    The pivot is the largest in its column, the first of equals. A singular x gives a zero on the diagonal of u.
    """
    name: ClassVar[str] = "lu"

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        check_square(self.name, x)
        return x, x.with_shape(x.shape[:-1]).with_dtype(i64), x.with_shape(x.shape[:-2])

    def reference(self, x: np.ndarray) -> Arrays:
        n = x.shape[-1]
        packed, sign = x.copy(), np.ones(x.shape[:-2], x.dtype)
        rows = np.broadcast_to(np.arange(n), x.shape[:-1]).copy()
        for m in np.ndindex(x.shape[:-2]):
            sign[m] = _eliminated(packed[m], rows[m])
        return packed, rows, sign

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        """pᵀ l⁻ᵀ [tril(lᵀ dl, -1) + triu(du uᵀ)] u⁻ᵀ: A. Walter et al., "On the LU decomposition" (AD 2012)."""
        if gs[0] is None:
            return (None,)
        packed, order, g = outs[0], outs[1], gs[0]
        low = b.add(b.tril(packed, k=-1), identity(b, packed))
        of_low = b.tril(b.matmul(transposed(b, low), b.tril(g, k=-1)), k=-1)
        of_up = b.triu(b.matmul(b.triu(g), transposed(b, b.triu(packed))))
        left = b.triangular_solve(packed, b.add(of_low, of_up), transpose=True, unit=True)
        both = transposed(b, b.triangular_solve(packed, transposed(b, left), lower=False))
        return (rows_in_order(b, both, b.argsort(order, axis=order.type.rank - 1)),)

    def cost(self, x: TensorType) -> Cost:
        return Cost(2 * x.size * x.shape[-1] // 3, x.nbytes + sum(t.nbytes for t in self.infer(x)))


def _eliminated(y: np.ndarray, order: np.ndarray) -> float:
    """One matrix in place, its rows' numbers likewise; the sign of the permutation."""
    sign = 1.0
    with np.errstate(all="ignore"):
        for k in range(len(y)):
            size = np.abs(y[k:, k])
            p = k + int(np.argmax(np.where(np.isnan(size), -1, size)))
            if p != k:
                y[[k, p]], order[[k, p]], sign = y[[p, k]], order[[p, k]], -sign
            if y[k, k] != 0:
                y[k + 1:, k] /= y[k, k]
            y[k + 1:, k + 1:] -= y[k + 1:, k, None] * y[k, k + 1:]
    return sign


class SymmetricEigen(Op):
    """Eigenvalues w [..., n] of a symmetric x, in no order, and its eigenvectors, the rows of v [..., n, n], by
    Jacobi's rotations (G. Golub and C. Van Loan, "Matrix Computations", 8.5.3). The lower triangle is read.
    NaN or infinity in a matrix make all of its results NaN."""
    name: ClassVar[str] = "symmetric_eigen"

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        check_square(self.name, x)
        return x.with_shape(x.shape[:-1]), x

    def reference(self, x: np.ndarray) -> Arrays:
        w, v = jacobi(x.reshape(prod(x.shape[:-2]), *x.shape[-2:]))
        return w.reshape(x.shape[:-1]), v.reshape(x.shape)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        """vᵀ (diag(dw) + f ∘ (dv vᵀ)ᵀ) v, f_ij = 1 / (w_j - w_i), 0 where these are equal (M. Giles 2008, 3.1)."""
        w, v = outs
        n, shape = w.type.shape[-1], w.type.shape
        inner: Value | None = None
        if gs[1] is not None:
            apart = b.sub(b.reshape(w, shape=(*shape[:-1], 1, n)), b.reshape(w, shape=(*shape, 1)))
            equal = b.eq(apart, 0)
            inverse = b.where(equal, number(b, 0, w), b.div(1, b.where(equal, number(b, 1, w), apart)))
            inner = b.mul(inverse, b.matmul(v, transposed(b, gs[1])))
        if gs[0] is not None:
            diagonal = b.mul(identity(b, v), b.reshape(gs[0], shape=(*shape, 1)))
            inner = diagonal if inner is None else b.add(inner, diagonal)
        if inner is None:
            raise InternalError("the rule of a node without gradient was asked", "backward")
        s = b.matmul(b.matmul(transposed(b, v), inner), v)
        return (half_triangle(b, b.add(s, transposed(b, s))),)

    def cost(self, x: TensorType) -> Cost:
        return Cost(x.size * x.shape[-1] * 40, x.nbytes + sum(t.nbytes for t in self.infer(x)))


class LQ(Op):
    """x [..., m, n], m <= n, as l q: q [..., m, n] with orthonormal rows, l [..., m, m] lower triangular with a
    positive diagonal: Gram and Schmidt's method, each row twice (L. Giraud et al. 2005). Rows that
    depend on others give NaN."""
    name: ClassVar[str] = "lq"

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        require(x.dtype.is_float, f"lq takes float matrices, got {x.dtype}; convert it with .astype(f32)")
        require(x.rank >= 2, f"lq takes matrices [..., m, n], got {x}")
        m, n = x.shape[-2:]
        require(not (isinstance(m, int) and isinstance(n, int)) or m <= n, f"lq takes m <= n, got {x}")
        return x.with_shape((*x.shape[:-1], m)), x

    def reference(self, x: np.ndarray) -> Arrays:
        m = x.shape[-2]
        low, q = np.zeros((*x.shape[:-1], m), x.dtype), x.copy()
        with np.errstate(all="ignore"):
            for j in range(m):
                for i in (*range(j), *range(j)):
                    along = (q[..., i, :] * q[..., j, :]).sum(-1)
                    low[..., j, i] += along
                    q[..., j, :] -= along[..., None] * q[..., i, :]
                low[..., j, j] = np.sqrt((q[..., j, :] ** 2).sum(-1))
                q[..., j, :] /= low[..., j, j, None]
        return low, q

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        """l⁻ᵀ (dq + sym(lᵀ dl - dq qᵀ) q), sym copying the lower triangle to the upper (H.-J. Liao et al. 2019)."""
        low, q = outs
        inner: Value | None = None
        if gs[0] is not None:
            inner = b.matmul(transposed(b, low), gs[0])
        if gs[1] is not None:
            along = b.matmul(gs[1], transposed(b, q))
            inner = b.neg(along) if inner is None else b.sub(inner, along)
        if inner is None:
            raise InternalError("the rule of a node without gradient was asked", "backward")
        mirrored = b.add(b.tril(inner), transposed(b, b.tril(inner, k=-1)))
        total = b.matmul(mirrored, q)
        return (b.triangular_solve(low, total if gs[1] is None else b.add(gs[1], total), transpose=True),)

    def cost(self, x: TensorType) -> Cost:
        return Cost(4 * x.size * x.shape[-2], x.nbytes + sum(t.nbytes for t in self.infer(x)))


def jacobi(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The algorithm of the kernel for each of x [matrices, n, n]: sweeps over all pairs p < q, a rotation where the
    element between is not yet negligible beside the whole matrix."""
    count, n, _ = x.shape
    a, v = np.tril(x) + np.tril(x, -1).mT, np.tile(np.eye(n, dtype=x.dtype), (count, 1, 1))
    with np.errstate(all="ignore"):
        norm = np.sqrt((a * a).reshape(count, n * n).sum(-1))
        least = norm * (np.finfo(x.dtype).eps / 16)
        for _ in range(MOST_SWEEPS):
            turned = [_rotate(a, v, p, q, least) for p in range(n) for q in range(p + 1, n)]
            if not any(turned):
                break
        nothing = norm - norm
    return np.diagonal(a, axis1=1, axis2=2) + nothing[:, None], v + nothing[:, None, None]


def _rotate(a: np.ndarray, v: np.ndarray, p: int, q: int, least: np.ndarray) -> bool:
    """Makes the elements between p and q zero, in place, in those matrices where they are more than the least; whether
    there were any."""
    one, two = a.dtype.type(1), a.dtype.type(2)
    at = np.nonzero(np.abs(a[:, p, q]) > least)[0]
    theta = (a[at, q, q] - a[at, p, p]) / (two * a[at, p, q])
    t = np.copysign(one / (np.abs(theta) + np.sqrt(theta * theta + one)), theta)
    c = one / np.sqrt(t * t + one)
    s, c = (t * c)[:, None], c[:, None]
    for m in (a, a.mT, v):
        m[at, p], m[at, q] = c * m[at, p] - s * m[at, q], s * m[at, p] + c * m[at, q]
    return len(at) > 0


OPS = (Cholesky, TriangularSolve, LU, SymmetricEigen, LQ)
