"""Losses: composites in stable form. `reduction` is "none" (one loss per element or per row), "mean" or "sum"."""
from __future__ import annotations

from math import prod
from typing import ClassVar

import numpy as np

from graphc.errors import GraphError
from graphc.ir.op import Composite, Cost, holds, require
from graphc.ir.ops.constant import count, number
from graphc.ir.types import TensorType, i32, normalize_axis, shape_text

REDUCTIONS = ("none", "mean", "sum")


class ElementLoss(Composite):
    """Base of losses that compare two float arrays of one type element by element."""
    reduction: str = "mean"
    flops: ClassVar[int] = 3

    def infer(self, x: TensorType, target: TensorType) -> TensorType:
        check_reduction(self)
        require(x.dtype.is_float and x == target, f"{self.name} takes two float arrays of one type, got {x} and {target}")
        return x if self.reduction == "none" else x.with_shape(())

    def reference(self, x, target):
        with np.errstate(all="ignore"):
            return _reduced_array(self.formula(x, target), self.reduction)

    def decompose(self, b, x, target):
        return reduced(b, self.elements(b, x, target), self.reduction)

    def vjp(self, b, gs, ins, outs):
        return self.slopes(b, spread(b, gs[0], ins[0].type, self.reduction), *ins)

    def cost(self, x, target):
        return Cost(self.flops * x.size, 2 * x.nbytes + self.infer(x, target).nbytes)


class MSE(ElementLoss):
    """(x - target)^2."""
    name: ClassVar[str] = "mse"

    def formula(self, x, target):
        return np.square(x - target)

    def elements(self, b, x, target):
        d = b.sub(x, target)
        return b.mul(d, d)

    def slopes(self, b, g, x, target):
        dx = b.mul(b.mul(g, 2), b.sub(x, target))
        return dx, b.neg(dx)


class BCEWithLogits(ElementLoss):
    """-target log(sigmoid(x)) - (1 - target) log(1 - sigmoid(x)), computed as max(x, 0) - x target + log1p(exp(-|x|))."""
    name: ClassVar[str] = "bce_with_logits"
    flops: ClassVar[int] = 28

    def formula(self, x, target):
        return np.maximum(x, 0) - x * target + np.log1p(np.exp(-np.abs(x)))

    def elements(self, b, x, target):
        return b.add(b.sub(b.maximum(x, 0), b.mul(x, target)), b.log1p(b.exp(b.neg(b.abs(x)))))

    def slopes(self, b, g, x, target):
        return b.mul(g, b.sub(b.sigmoid(x), target)), b.neg(b.mul(g, x))


class CrossEntropy(Composite):
    """logsumexp(logits) - logits[id] along `axis`, the classes; ids (i32 or i64) have the shape of the logits without that axis.

    With label_smoothing s: (1 - s) of that plus s (logsumexp(logits) - mean(logits)). Rows whose id is `ignore_index` count nothing,
    neither in the sum nor in the mean's divisor. Any other id outside 0..classes-1 is an error at run time. As
    torch.nn.functional.cross_entropy, whose ignore_index is -100 unless told otherwise.
    """
    name: ClassVar[str] = "cross_entropy"
    checks_indices = True
    axis: int = -1
    reduction: str = "mean"
    label_smoothing: float = 0.0
    ignore_index: int | None = None

    def infer(self, x: TensorType, ids: TensorType) -> TensorType:
        axis = normalize_axis(self.axis, x.rank)
        rows = x.shape[:axis] + x.shape[axis + 1:]
        check_reduction(self)
        require(x.dtype.is_float, f"cross_entropy takes float logits, got {x.dtype}")
        require(ids.dtype.is_int, f"cross_entropy takes class ids in i32 or i64, got {ids.dtype}; for probabilities use cross_entropy_soft")
        require(ids.shape == rows, f"cross_entropy of logits {shape_text(x.shape)} with classes on axis {axis} needs ids {shape_text(rows)}, got {shape_text(ids.shape)}")
        require(x.shape[axis] != 0 or ids.size == 0, f"cross_entropy of {x} with no classes has no value")
        require(self.ignore_index is None or holds(ids.dtype, self.ignore_index), f"cross_entropy: ignore_index {self.ignore_index} is not an {ids.dtype}")
        require(0 <= self.label_smoothing <= 1, f"cross_entropy: label_smoothing must be in 0..1, got {self.label_smoothing}")
        return x.with_shape(rows if self.reduction == "none" else ())

    def reference(self, x, ids):
        x, kept = np.moveaxis(x, self.axis, -1), self._kept_array(ids)
        _check_ids(ids[kept], x.shape[-1])
        with np.errstate(all="ignore"):
            z = x - np.max(x, -1, keepdims=True, initial=-np.inf)
            logp = z - np.log(np.sum(np.exp(z), -1, keepdims=True))
            picked = np.take_along_axis(logp, np.where(kept, ids, 0)[..., None], -1)[..., 0]
            smooth = x.dtype.type(self.label_smoothing)
            loss = -(1 - smooth) * picked - (smooth * np.mean(logp, -1) if self.label_smoothing else 0)
            loss = np.where(kept, loss, x.dtype.type(0))
            return np.asarray(loss.sum() / np.sum(kept) if self.reduction == "mean" else _reduced_array(loss, self.reduction), x.dtype)

    def decompose(self, b, x, ids):
        kept = self._kept(b, ids)
        lse, picked = self._lse_and_picked(b, x, ids, kept)
        loss = b.reshape(b.sub(lse, picked), shape=ids.type.shape)
        if self.label_smoothing:
            level = b.sub(b.reshape(lse, shape=ids.type.shape), b.mean(x, axes=self._axes(x)))
            loss = b.add(b.mul(loss, 1 - self.label_smoothing), b.mul(level, self.label_smoothing))
        return reduced(b, self._masked(b, loss, kept), self.reduction, self._divisor(b, kept, x))

    def vjp(self, b, gs, ins, outs):
        """(softmax - target) g. At the id, p - 1 is expm1(log p) with the logit read through the id: so a gradient alone still checks ids."""
        x, ids = ins
        kept = self._kept(b, ids)
        g = spread(b, gs[0], x.type.with_shape(ids.type.shape), self.reduction, self._divisor(b, kept, x))
        lse, picked = self._lse_and_picked(b, x, ids, kept)
        at_id = b.expm1(b.sub(picked, lse))
        if self.label_smoothing:
            at_id = b.add(at_id, self.label_smoothing)
        off = b.where(self._hit(b, x, self._safe(b, ids, kept)), at_id, b.exp(b.sub(x, lse)))
        if self.label_smoothing:
            off = b.sub(off, b.div(number(b, self.label_smoothing, x), count(b, x.type.shape[self._axes(x)[0]], x.type.dtype)))
        dx = b.mul(self._expanded(b, g, x), off)
        return dx if kept is None else b.where(self._expanded(b, kept, x), dx, number(b, 0, dx)), None

    def cost(self, x, ids):
        return Cost(12 * x.size, x.nbytes + ids.nbytes + self.infer(x, ids).nbytes)

    def _axes(self, x) -> tuple[int, ...]:
        return (normalize_axis(self.axis, x.type.rank),)

    def _expanded(self, b, rows, x):
        """One element per row of `x`, with the axis of classes back as 1."""
        axis = self._axes(x)[0]
        return b.reshape(rows, shape=x.type.shape[:axis] + (1,) + x.type.shape[axis + 1:])

    def _lse_and_picked(self, b, x, ids, kept):
        """logsumexp of each row and its logit of the id, with the axis of classes as 1."""
        safe = self._expanded(b, self._safe(b, ids, kept), x)
        return b.logsumexp(x, axes=self._axes(x), keepdims=True), b.take_along_axis(x, safe, axis=self._axes(x)[0])

    def _safe(self, b, ids, kept):
        return ids if kept is None else b.where(kept, ids, number(b, 0, ids))

    def _hit(self, b, x, ids):
        """Where the class is the id: a comparison in i32, so that it fuses and fills the lanes of an f32 kernel."""
        axis, = self._axes(x)
        classes = b.iota(shape=tuple(d if i == axis else 1 for i, d in enumerate(x.type.shape)), axis=axis, dtype=i32)
        return b.eq(classes, self._expanded(b, b.cast(ids, dtype=i32), x))

    def _kept(self, b, ids):
        return None if self.ignore_index is None else b.ne(ids, self.ignore_index)

    def _kept_array(self, ids: np.ndarray) -> np.ndarray:
        return np.ones(ids.shape, bool) if self.ignore_index is None else ids != self.ignore_index

    def _masked(self, b, rows, kept):
        return rows if kept is None else b.where(kept, rows, number(b, 0, rows))

    def _divisor(self, b, kept, x):
        """How many rows count, where that depends on the ids."""
        if kept is None or self.reduction != "mean":
            return None
        return b.sum(b.cast(kept, dtype=x.type.dtype), axes=tuple(range(kept.type.rank)))


class CrossEntropySoft(Composite):
    """-sum(target * log_softmax(logits)) along `axis`, the target being a distribution over classes (or any weights) of the logits' type."""
    name: ClassVar[str] = "cross_entropy_soft"
    axis: int = -1
    reduction: str = "mean"

    def infer(self, x: TensorType, target: TensorType) -> TensorType:
        axis = normalize_axis(self.axis, x.rank)
        check_reduction(self)
        require(x.dtype.is_float and x == target, f"cross_entropy_soft takes logits and probabilities of one float type, got {x} and {target}")
        return x.with_shape(x.shape[:axis] + x.shape[axis + 1:] if self.reduction == "none" else ())

    def reference(self, x, target):
        with np.errstate(all="ignore"):
            z = x - np.max(x, self.axis, keepdims=True, initial=-np.inf)
            logp = z - np.log(np.sum(np.exp(z), self.axis, keepdims=True))
            return _reduced_array(-np.sum(target * logp, self.axis), self.reduction)

    def decompose(self, b, x, target):
        axis = normalize_axis(self.axis, x.type.rank)
        rows = b.neg(b.sum(b.mul(target, b.log_softmax(x, axis=axis)), axes=(axis,)))
        return reduced(b, rows, self.reduction)

    def vjp(self, b, gs, ins, outs):
        x, target = ins
        axis, shape = normalize_axis(self.axis, x.type.rank), x.type.shape
        rows = x.type.with_shape(shape[:axis] + shape[axis + 1:])
        g = b.reshape(spread(b, gs[0], rows, self.reduction), shape=shape[:axis] + (1,) + shape[axis + 1:])
        logp = b.log_softmax(x, axis=axis)
        mass = b.sum(target, axes=(axis,), keepdims=True)
        return b.mul(g, b.sub(b.mul(b.exp(logp), mass), target)), b.neg(b.mul(g, logp))

    def cost(self, x, target):
        return Cost(14 * x.size, 2 * x.nbytes + self.infer(x, target).nbytes)


def check_reduction(op) -> None:
    require(op.reduction in REDUCTIONS, f'{op.name}: reduction is "none", "mean" or "sum", got {op.reduction!r}')


def reduced(b, losses, reduction: str, divisor=None):
    """The losses as they are, their sum, or their mean: over all of them, or over `divisor`."""
    axes = tuple(range(losses.type.rank))
    if reduction == "none":
        return losses
    if reduction == "mean" and divisor is None:
        return b.mean(losses, axes=axes)
    total = b.sum(losses, axes=axes)
    return total if reduction == "sum" else b.div(total, divisor)


def spread(b, g, type: TensorType, reduction: str, divisor=None):
    """The gradient of each loss, of `type`, from that of what `reduced` made of them."""
    if reduction == "none":
        return g
    if reduction == "mean":
        g = b.div(g, count(b, prod(type.shape), type.dtype) if divisor is None else divisor)
    return b.broadcast_to(g, shape=type.shape)


def _reduced_array(losses: np.ndarray, reduction: str) -> np.ndarray:
    total = losses if reduction == "none" else np.sum(losses)
    return np.asarray(total / losses.size if reduction == "mean" else total, losses.dtype)


def _check_ids(ids: np.ndarray, classes: int) -> None:
    bad = ids[(ids < 0) | (ids >= classes)]
    if bad.size:
        raise GraphError(f"cross_entropy: class id {bad.flat[0]} is outside 0..{classes - 1}")


OPS = (MSE, BCEWithLogits, CrossEntropy, CrossEntropySoft)
