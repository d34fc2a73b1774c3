"""Scaled dot-product attention as one operator, so that a back end may stream over keys without ever storing the
scores."""
from __future__ import annotations

from math import log, prod, sqrt
from typing import ClassVar

import numpy as np

from graphc.errors import GraphError
from graphc.ir.dims import Dim, Dims
from graphc.ir.graph import Value
from graphc.ir.op import Arrays, Composite, Cost, Gradients, OpBuilder, Values, only_gradient, require
from graphc.ir.ops.constant import full
from graphc.ir.types import DType, TensorType, bf16, bool_, broadcast_shapes, i32, shape_text

# what a bool mask hides: a score that softmax turns into exactly 0, yet finite, so that rows that are hidden whole are
# free of NaN
MASKED = -1e30
LN2 = log(2)


class AttentionOp(Composite):
    """Attributes shared by attention and its gradient. `scale` None: 1 / sqrt(D). `causal`: query i sees keys j <= i
    (as torch, also for Tq != Tk). `factors`: the type to which the factors of all products are rounded, where
    it is not their own; sums and softmax keep that of the operands. In the scores queries are rounded as they are read
    by powers of 2, times `scale` / ln 2. `hides_values`: what a bool mask that is the same for all queries,
    [..., 1, Tk], hides has no part in the results, whatever keys and values are, and its gradients are 0."""
    has_kernel: ClassVar[bool] = True
    scale: float | None = None
    causal: bool = False
    factors: DType | None = None
    hides_values: bool = False

    def factor(self, q_shape: Dims) -> float:
        if self.scale is not None:
            return self.scale
        size = q_shape[-1]
        if not isinstance(size, int):
            raise GraphError(f"attention: give `scale`, since the head size {size} is not known")
        return 1.0 / sqrt(max(size, 1))

    def check(self, q: TensorType, k: TensorType, v: TensorType, *mask: TensorType) -> Dims:
        """The shape [..., Tq, Tk] of the scores; GraphError where the operands do not fit."""
        require(len(mask) <= 1, f"{self.name} takes q, k, v and one mask")
        require(self.factors in (None, bf16), f"{self.name}: factors are rounded to {bf16}, or not, got {self.factors}")
        require(q.dtype == k.dtype == v.dtype and q.dtype.is_float,
                f"attention of {q.dtype}, {k.dtype} and {v.dtype}: all must be of one float type")
        for label, t in zip("qkv", (q, k, v)):
            require(t.rank >= 2, f"attention: {label} must be [..., T, D], it is {shape_text(t.shape)}")
        require(q.shape[-1] == k.shape[-1],
                f"attention: q {shape_text(q.shape)} and k {shape_text(k.shape)} must agree in the last axis")
        require(k.shape[-2] == v.shape[-2],
                f"attention: k {shape_text(k.shape)} and v {shape_text(v.shape)} must have equally many keys (axis -2)")
        scores = (*broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2]), q.shape[-2], k.shape[-2])
        for m in mask:
            require(m.dtype in (bool_, q.dtype),
                    f"the mask of attention is bool (true: attend) or {q.dtype} (added to the scores), got {m.dtype}")
            require(broadcast_shapes(m.shape, scores) == scores,
                    f"the mask of attention {shape_text(m.shape)} does not broadcast to {shape_text(scores)}")
        require(not self.hides_values or bool(mask) and mask[0].dtype == bool_ and mask[0].shape[-2:-1] == (1,),
                "attention hides values under a bool mask that is the same for all queries")
        return scores

    def shown(self, b: OpBuilder, x: Value, mask: Value | None = None) -> Value:
        """Keys, values or their gradients, 0 where they are hidden."""
        if not self.hides_values or mask is None:
            return x
        *lead, _, keys = mask.type.shape
        return b.where(b.reshape(mask, shape=(*lead, keys, 1)), x, b.constant(0, x.type.dtype))

    def shown_array(self, x: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """The same of an array."""
        hides = self.hides_values and mask is not None
        return np.where(np.swapaxes(mask, -1, -2), x, x.dtype.type(0)) if hides and mask is not None else x

    def seen(self, b: OpBuilder, q: Value, k: Value, mask: Value | None) -> Value | None:
        """Where a query may look, bool, broadcasting to [..., Tq, Tk]; None: everywhere."""
        parts = [_causal(b, q.type.shape[-2], k.type.shape[-2])] if self.causal else []
        if mask is not None and _is_bool(mask):
            parts.append(mask)
        return b.bitand(*parts) if len(parts) == 2 else parts[0] if parts else None

    def rounded(self, b: OpBuilder, x: Value) -> Value:
        """x as a factor of a product."""
        return x if self.factors is None else b.cast(b.cast(x, dtype=self.factors), dtype=x.type.dtype)

    def rounded_array(self, x: np.ndarray) -> np.ndarray:
        """The same of an array."""
        return x if self.factors is None else x.astype(self.factors.np).astype(x.dtype)

    def scores(self, b: OpBuilder, q: Value, k: Value, mask: Value | None, seen: Value | None) -> Value:
        """Masked scores [..., Tq, Tk]."""
        factor = self.factor(q.type.shape)
        if self.factors is None:
            s = b.mul(b.matmul(q, _swapped(b, k)), factor)
        else:
            s = b.mul(b.matmul(self.rounded(b, b.mul(q, factor / LN2)), _swapped(b, self.rounded(b, k))), LN2)
        if seen is not None:
            s = b.where(seen, s, b.constant(MASKED if _is_bool(mask) else -np.inf, s.type.dtype))
        return s if mask is None or _is_bool(mask) else b.add(s, mask)


class Attention(AttentionOp):
    """(q [..., Tq, D], k [..., Tk, D], v [..., Tk, E], mask?) -> (softmax(q k^T * scale + mask) v, logsumexp of the
    scores [..., Tq]).

    A bool mask is true where a query may look, a float mask is added. What a query may not look at has no part in its
    result, whatever the scores are. Beside a bool mask a query that may look nowhere gives 0, and so does one all of
    whose scores are -1e30 or lower (-inf, say). Without one, a query all of whose scores are -inf gives NaN, as softmax
    does. The second result is what the gradient needs to rebuild the probabilities.
    """
    name: ClassVar[str] = "attention"

    def infer(self, q: TensorType, k: TensorType, v: TensorType, *mask: TensorType) -> tuple[TensorType, ...]:
        scores = self.check(q, k, v, *mask)
        return q.with_shape((*scores[:-1], v.shape[-1])), q.with_shape(scores[:-1])

    def reference(self, q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray | None = None) -> Arrays:
        v = self.shown_array(v, mask)
        s, seen = self._scores(q, k, mask)
        with np.errstate(all="ignore"):
            top = np.maximum(np.max(s, axis=-1, keepdims=True, initial=-np.inf), np.finfo(s.dtype).min)
            e = np.exp(s - top)
            total = np.sum(e, axis=-1, keepdims=True)
            p = np.where(seen, e / total, 0)
            lse = (top + np.log(total))[..., 0]
            out = np.matmul(self.rounded_array(p), self.rounded_array(v))
        lead = np.broadcast_shapes(s.shape[:-2], v.shape[:-2])
        return out.astype(q.dtype), np.broadcast_to(lse, (*lead, lse.shape[-1])).astype(q.dtype)

    def _scores(self, q: np.ndarray, k: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """The scores, and where a query may look."""
        factor = self.factor(q.shape)
        if self.factors is None:
            s = np.matmul(q, np.swapaxes(k, -1, -2)) * q.dtype.type(factor)
        else:
            scaled = (q * np.float32(factor / LN2)).astype(q.dtype)
            s = np.matmul(self.rounded_array(scaled), np.swapaxes(self.rounded_array(k), -1, -2)) * q.dtype.type(LN2)
        seen: np.ndarray = np.ones(s.shape[-2:], bool)
        if self.causal:
            seen = np.tril(seen)
        if mask is not None and mask.dtype == bool:
            seen = seen & mask
        s, seen = np.broadcast_arrays(s, seen)
        s = np.where(seen, s, q.dtype.type(MASKED if mask is not None and mask.dtype == bool else -np.inf))
        if mask is not None and mask.dtype != bool:
            s = s + mask
        return s, seen

    def decompose(self, b: OpBuilder, q: Value, k: Value, v: Value, mask: Value | None = None) -> Values:
        if k.type.shape[-2] == 0:           # who may look at nothing sees 0
            return tuple(full(b, value, t)
                         for value, t in zip((0, -np.inf),
                                             self.infer(*(x.type for x in (q, k, v, mask) if x is not None))))
        v = self.shown(b, v, mask)
        seen = self.seen(b, q, k, mask)
        s = self.scores(b, q, k, mask, seen)
        last = (s.type.rank - 1,)
        top = b.max(s, axes=last, keepdims=True)
        e = b.exp(b.sub(s, top))
        total = b.sum(e, axes=last, keepdims=True)
        p = _where_seen(b, mask, seen, b.div(e, total))
        out, lse = self.infer(*(x.type for x in (q, k, v, mask) if x is not None))
        folded = b.add(top, b.log(total))
        flat = b.reshape(folded, shape=folded.type.shape[:-1])
        y = b.matmul(self.rounded(b, p), self.rounded(b, v))
        return y, flat if flat.type == lse else b.broadcast_to(flat, shape=lse.shape)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        """Flash-attention's rule (Dao 2022): probabilities again from q, k and the logsumexp. A float mask, or a
        gradient of the logsumexp itself, takes the decomposition's gradient."""
        if gs[1] is not None or (len(ins) == 4 and ins[3].type.dtype != bool_):
            return NotImplemented
        grad = AttentionGrad(self.scale, self.causal, self.factors, self.hides_values)
        return (*b.apply(grad, (*ins, *outs, only_gradient(gs[:1]))), None)[:len(ins)]

    def cost(self, q: TensorType, k: TensorType, v: TensorType, *mask: TensorType) -> Cost:
        scores = self.check(q, k, v, *mask)
        outs = self.infer(q, k, v, *mask)
        share = 2 if self.causal else 1
        return Cost(prod(scores) * (2 * q.shape[-1] + 2 * v.shape[-1] + 10) // share,
                    sum(t.nbytes for t in (q, k, v, *mask, *outs)))


class AttentionGrad(AttentionOp):
    """(q, k, v, bool mask?, out, logsumexp, dout) -> (dq, dk, dv) of attention."""
    name: ClassVar[str] = "attention_grad"

    def infer(self, *ins: TensorType) -> tuple[TensorType, ...]:
        require(len(ins) in (6, 7),
                f"attention_grad takes q, k, v, a mask or none, out, logsumexp, dout; got {len(ins)} operands")
        q, k, v = ins[:3]
        out, lse = Attention(self.scale, self.causal, self.factors, self.hides_values).infer(*ins[:-3])
        require(ins[-3:] == (out, lse, out), f"attention_grad: out, logsumexp and dout must be {out}, {lse} and {out}")
        return q, k, v

    def reference(self, *arrays: np.ndarray) -> Arrays:
        (q, k, v), (out, lse, g) = arrays[:3], arrays[-3:]
        mask = arrays[3] if len(arrays) == 7 else None
        s, seen = Attention(self.scale, self.causal, self.factors)._scores(q, k, mask)
        with np.errstate(over="ignore"):
            p = np.where(seen, np.exp(s - lse[..., None]), 0)
        k, v = (self.shown_array(x, mask) for x in (k, v))
        delta, (q, k, v, rows) = np.sum(g * out, axis=-1, keepdims=True), map(self.rounded_array, (q, k, v, g))
        ds = self.rounded_array(p * (np.matmul(rows, np.swapaxes(v, -1, -2)) - delta))
        factor, p = self.factor(q.shape), self.rounded_array(p)
        grads = (np.matmul(ds, k) * factor, np.matmul(np.swapaxes(ds, -1, -2), q) * factor,
                 np.matmul(np.swapaxes(p, -1, -2), rows))
        dq, *others = (_summed_to(x.shape, d).astype(x.dtype) for x, d in zip((q, k, v), grads))
        return (dq, *[self.shown_array(x, mask) for x in others])

    def decompose(self, b: OpBuilder, q: Value, k: Value, v: Value, *rest: Value) -> Values:
        mask = rest[0] if len(rest) == 4 else None
        out, lse, g = rest[-3:]
        seen = self.seen(b, q, k, mask)
        s = self.scores(b, q, k, mask, seen)
        column = b.reshape(lse, shape=(*lse.type.shape, 1))
        p = _where_seen(b, mask, seen, b.exp(b.sub(s, column)))
        k, v = (self.shown(b, x, mask) for x in (k, v))
        factors = [self.rounded(b, x) for x in (q, k, v, g)]
        dp = b.matmul(factors[3], _swapped(b, factors[2]))
        delta = b.sum(b.mul(g, out), axes=(g.type.rank - 1,), keepdims=True)
        ds = self.rounded(b, b.mul(b.mul(p, b.sub(dp, delta)), self.factor(q.type.shape)))
        grads = (b.matmul(ds, factors[1]), b.matmul(_swapped(b, ds), factors[0]),
                 b.matmul(_swapped(b, self.rounded(b, p)), factors[3]))
        dq, *others = (_summed(b, x.type.shape, d) for x, d in zip((q, k, v), grads))
        return (dq, *[self.shown(b, x, mask) for x in others])

    def cost(self, *ins: TensorType) -> Cost:
        q, k, v = ins[:3]
        scores = self.check(*ins[:-3])
        share = 2 if self.causal else 1
        return Cost(prod(scores) * (6 * q.shape[-1] + 4 * v.shape[-1] + 10) // share,
                    sum(t.nbytes for t in (*ins, q, k, v)))


def _causal(b: OpBuilder, tq: Dim, tk: Dim) -> Value:
    return b.ge(b.iota(shape=(tq, tk), axis=0, dtype=i32), b.iota(shape=(tq, tk), axis=1, dtype=i32))


def _where_seen(b: OpBuilder, mask: Value | None, seen: Value | None, p: Value) -> Value:
    """0 where a bool mask hides a key: softmax has 0 there already, except in rows that are hidden whole (which
    `causal` alone has none of)."""
    return b.where(seen, p, b.constant(0, p.type.dtype)) if _is_bool(mask) else p


def _is_bool(mask: Value | None) -> bool:
    return mask is not None and mask.type.dtype == bool_


def _swapped(b: OpBuilder, x: Value) -> Value:
    r = x.type.rank
    return b.transpose(x, perm=(*range(r - 2), r - 1, r - 2))


def _repeated_axes(shape: Dims, full: Dims) -> tuple[int, ...]:
    extra = len(full) - len(shape)
    return tuple(i for i, d in enumerate(full) if i < extra or (shape[i - extra] == 1 and d != 1))


def _summed(b: OpBuilder, shape: Dims, g: Value) -> Value:
    """`g` summed over the leading axes along which an operand of `shape` was broadcast."""
    axes = _repeated_axes(shape, g.type.shape)
    g = b.sum(g, axes=axes, keepdims=True) if axes else g
    return g if g.type.shape == shape else b.reshape(g, shape=shape)


def _summed_to(shape: Dims, g: np.ndarray) -> np.ndarray:
    return np.sum(g, axis=_repeated_axes(shape, g.shape), keepdims=True).reshape(shape)


OPS = (Attention, AttentionGrad)
