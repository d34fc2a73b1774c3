"""Systems of equations and determinants, by LU factorisation with gradients of their own."""
from __future__ import annotations

from typing import ClassVar

import numpy as np

from graphc.ir.graph import Value
from graphc.ir.op import Arrays, Composite, Cost, Gradients, OpBuilder, Values, only_gradient
from graphc.ir.ops.factor import LU, TriangularSolve
from graphc.ir.ops.matrix import check_square, check_system, diagonal, identity, rows_in_order, transposed
from graphc.ir.types import TensorType


class Solve(Composite):
    """x with a x = y (transpose: aᵀ x = y) for square a [..., n, n] and y [..., n, k]. Of a singular a infinity or
    NaN."""
    name: ClassVar[str] = "solve"
    linear_in = ((1,),)
    transpose: bool = False

    def infer(self, a: TensorType, y: TensorType) -> TensorType:
        check_system(self.name, a, y)
        return y

    def reference(self, a: np.ndarray, y: np.ndarray) -> np.ndarray:
        packed, order, _ = LU().reference(a)
        low, up = TriangularSolve(True, False, True), TriangularSolve(False)
        if not self.transpose:
            return up.reference(packed, low.reference(packed, np.take_along_axis(y, order[..., None], -2)))
        inner = low.replace(transpose=True).reference(packed, up.replace(transpose=True).reference(packed, y))
        return np.take_along_axis(inner, np.argsort(order, -1)[..., None], -2)

    def decompose(self, b: OpBuilder, a: Value, y: Value) -> Value:
        packed, order, _ = b.apply(LU(), (a,))
        if not self.transpose:
            inner = b.triangular_solve(packed, rows_in_order(b, y, order), unit=True)
            return b.triangular_solve(packed, inner, lower=False)
        inner = b.triangular_solve(packed, y, lower=False, transpose=True)
        inner = b.triangular_solve(packed, inner, transpose=True, unit=True)
        return rows_in_order(b, inner, b.argsort(order, axis=order.type.rank - 1))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        to_y = b.solve(ins[0], only_gradient(gs), transpose=not self.transpose)
        left, right = (outs[0], to_y) if self.transpose else (to_y, outs[0])
        return b.neg(b.matmul(left, transposed(b, right))), to_y

    def cost(self, a: TensorType, y: TensorType) -> Cost:
        n = a.shape[-1]
        return Cost(2 * a.size * n // 3 + 2 * y.size * n, a.nbytes + 2 * y.nbytes)


class Det(Composite):
    """The determinant of each matrix of x [..., n, n]; 0 of a singular one, whose gradient is NaN."""
    name: ClassVar[str] = "det"

    def infer(self, x: TensorType) -> TensorType:
        check_square(self.name, x)
        return x.with_shape(x.shape[:-2])

    def reference(self, x: np.ndarray) -> np.ndarray:
        packed, _, sign = LU().reference(x)
        with np.errstate(all="ignore"):
            return np.asarray(np.diagonal(packed, 0, -2, -1).prod(-1) * sign, x.dtype)

    def decompose(self, b: OpBuilder, x: Value) -> Value:
        packed, _, sign = b.apply(LU(), (x,))
        return b.mul(b.prod(diagonal(b, packed), axes=(x.type.rank - 2,)), sign)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (_scaled(b, b.mul(only_gradient(gs), outs[0]), _inverse_transposed(b, ins[0])),)

    def cost(self, x: TensorType) -> Cost:
        return Cost(2 * x.size * x.shape[-1] // 3 + self.infer(x).size, x.nbytes + self.infer(x).nbytes)


class SlogDet(Composite):
    """Sign and logarithm of the absolute determinant of each matrix of x [..., n, n]: 0 and -inf of a singular one,
    whose gradient is NaN."""
    name: ClassVar[str] = "slogdet"

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        check_square(self.name, x)
        return (x.with_shape(x.shape[:-2]),) * 2

    def reference(self, x: np.ndarray) -> Arrays:
        packed, _, sign = LU().reference(x)
        with np.errstate(all="ignore"):
            d = np.diagonal(packed, 0, -2, -1)
            return (np.asarray(np.sign(d).prod(-1) * sign, x.dtype),
                    np.asarray(np.log(np.abs(d)).sum(-1), x.dtype))

    def decompose(self, b: OpBuilder, x: Value) -> Values:
        packed, _, sign = b.apply(LU(), (x,))
        d, axes = diagonal(b, packed), (x.type.rank - 2,)
        return b.mul(b.prod(b.sign(d), axes=axes), sign), b.sum(b.log(b.abs(d)), axes=axes)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (None if gs[1] is None else _scaled(b, gs[1], _inverse_transposed(b, ins[0])),)

    def cost(self, x: TensorType) -> Cost:
        return Cost(2 * x.size * x.shape[-1] // 3, x.nbytes + 2 * self.infer(x)[0].nbytes)


def _inverse_transposed(b: OpBuilder, x: Value) -> Value:
    return b.solve(x, b.broadcast_to(identity(b, x), shape=x.type.shape), transpose=True)


def _scaled(b: OpBuilder, factor: Value, x: Value) -> Value:
    """Each matrix times its factor."""
    return b.mul(b.reshape(factor, shape=(*factor.type.shape, 1, 1)), x)


OPS = (Solve, Det, SlogDet)
