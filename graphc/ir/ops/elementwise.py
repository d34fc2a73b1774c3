"""Elementwise operators, as rows of a table. Operands broadcast as in numpy; dtypes must agree (`cast` converts)."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.ir.op import Cost, Op, require
from graphc.ir.types import DType, TensorType, bool_, broadcast_shapes

FLOAT, NUMBER, INTEGER, BITS, ANY = {"float"}, {"float", "int"}, {"int"}, {"int", "bool"}, {"float", "int", "bool"}


@dataclass(frozen=True)
class Row:
    """One elementwise function. `vjp(b, g, y, *xs)` returns one gradient per operand (None: zero)."""
    name: str
    arity: int
    kinds: set[str]
    reference: Callable
    vjp: Callable | None = None     # None: gradient zero everywhere (the explicit list of piecewise constant functions)
    result: DType | None = None     # None: the dtype of the operands
    flops: int = 1


@dataclass(frozen=True)
class Elementwise(Op):
    """y[i] = fn(x1[i], x2[i], …) with numpy broadcasting."""
    fn: str

    @property
    def name(self) -> str:          # type: ignore[override]
        return self.fn

    @property
    def row(self) -> Row:
        return ROWS[self.fn]

    @property
    def attributes(self) -> dict[str, object]:
        return {}                   # the name says it all

    def infer(self, *ins: TensorType) -> TensorType:
        row = self.row
        require(len(ins) == row.arity, f"{self.fn} takes {row.arity} operand{'s' * (row.arity > 1)}, got {len(ins)}")
        data = ins[1:] if self.fn == "where" else ins
        dtypes = {t.dtype for t in data}
        require(len(dtypes) == 1, f"{self.fn} of {' and '.join(str(t.dtype) for t in data)}: "
                                  f"convert one side, for example x.astype({data[0].dtype})")
        dtype = data[0].dtype
        require(dtype.kind in row.kinds, f"{self.fn} takes {' or '.join(sorted(row.kinds))} arrays, got {dtype}")
        require(self.fn != "where" or ins[0].dtype == bool_, f"the condition of where must be bool, got {ins[0].dtype}")
        return TensorType(row.result or dtype, broadcast_shapes(*(t.shape for t in ins)))

    def reference(self, *arrays):
        with np.errstate(all="ignore"):
            return np.asarray(self.row.reference(*arrays), self.row.result.np if self.row.result else arrays[-1].dtype)

    def vjp(self, b, gs, ins, outs):
        if self.row.vjp is None:
            return (None,) * len(ins)
        return self.row.vjp(b, gs[0], outs[0], *ins)

    def cost(self, *ins):
        out = self.infer(*ins)
        return Cost(out.size * self.row.flops, out.nbytes + sum(t.nbytes for t in ins))


@dataclass(frozen=True)
class Cast(Op):
    """The array with another dtype: float to int truncates and saturates (NaN gives 0), anything to bool is `!= 0`."""
    name: ClassVar[str] = "cast"
    dtype: DType

    def infer(self, x):
        return x.with_dtype(self.dtype)

    def reference(self, x):
        if x.dtype.kind == "f" and self.dtype.is_int:
            return _saturating(x, self.dtype)
        return x.astype(self.dtype.np)

    def vjp(self, b, gs, ins, outs):
        source = ins[0].type.dtype
        return (b.cast(gs[0], dtype=source) if source.is_float and self.dtype.is_float else None,)


@dataclass(frozen=True)
class StopGradient(Op):
    """The array itself; no gradient flows through."""
    name: ClassVar[str] = "stop_gradient"

    def infer(self, x):
        return x

    def reference(self, x):
        return x

    def vjp(self, b, gs, ins, outs):
        return (None,)


def _saturating(x: np.ndarray, dtype: DType) -> np.ndarray:
    info = np.iinfo(dtype.np)
    with np.errstate(all="ignore"):
        inside = np.where(np.isnan(x), 0, np.clip(x, info.min, info.max)).astype(dtype.np)
    return np.where(x >= info.max, info.max, np.where(x <= info.min, info.min, inside)).astype(dtype.np)


ROWS: dict[str, Row] = {row.name: row for row in (
    Row("add", 2, NUMBER, np.add, lambda b, g, y, x1, x2: (g, g)),
    Row("sub", 2, NUMBER, np.subtract, lambda b, g, y, x1, x2: (g, b.neg(g))),
    Row("mul", 2, NUMBER, np.multiply, lambda b, g, y, x1, x2: (b.mul(g, x2), b.mul(g, x1))),
    Row("div", 2, FLOAT, np.divide, lambda b, g, y, x1, x2: (b.div(g, x2), b.neg(b.div(b.mul(g, y), x2)))),
    Row("neg", 1, NUMBER, np.negative, lambda b, g, y, x: (b.neg(g),)),
    Row("exp", 1, FLOAT, np.exp, lambda b, g, y, x: (b.mul(g, y),), flops=8),
)}

OPS = {name: (lambda fn=name: Elementwise(fn)) for name in ROWS} | {"cast": Cast, "stop_gradient": StopGradient}
