"""Losses and metrics: functions of a prediction and a target."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import graphc as gc
from graphc.dsl.array import Array, as_array
from graphc.dsl.form import formed
from graphc.dsl.order import batch_comes_first
from graphc.errors import GraphError
from graphc.ir.convert import callable_, choice, flag, real
from graphc.ir.ops.elementwise import SIGMOID
from graphc.nn.classes import class_axis, weighted_cross_entropy
from graphc.nn.padding import real_steps
from graphc.nn.reduction import alike, reduced, weighed


@formed
def cross_entropy(logits: Array, target: Array, *, weight: Array | None = None, axis: int | None = None,
                  label_smoothing: float = 0.0, ignore_index: int | None = None, reduction: str = "mean") -> Array:
    """-log softmax(logits)[target], the mean over all targets that are not `ignore_index`.

    logits [..., classes, ...] with the classes on `axis`, the last unless given (torch: always axis 1; where both
    would fit, it must be given); target: class ids of the shape without that axis, or probabilities of the shape of
    logits. `weight` [classes]: of each class; the mean is then the sum divided by the weights of the targets (of
    probabilities by their number), as in torch. reduction: "mean", "sum" or "none".
    """
    logits, target = as_array(logits), as_array(target)
    axis = class_axis("cross_entropy", logits, target, axis) if logits.ndim else -1
    if weight is not None:
        return weighted_cross_entropy(logits, target, weight, axis, real(label_smoothing, "label_smoothing"),
                                      ignore_index, reduction)
    return gc.cross_entropy(logits, target, axis=axis, label_smoothing=label_smoothing, ignore_index=ignore_index,
                            reduction=reduction)


@formed
def mse(y: Array, target: Array, *, reduction: str = "mean") -> Array:
    """(y - target)², the mean over all elements."""
    return gc.mse(y, target, reduction=reduction)


@formed
def bce(logits: Array, target: Array, *, weight: Array | None = None, pos_weight: Array | None = None,
        reduction: str = "mean") -> Array:
    """Binary cross entropy from logits (torch's binary_cross_entropy_with_logits), the mean over all elements.
    `weight` of elements and `pos_weight` of targets that are 1 broadcast to the logits. GraphError for a sigmoid's
    result."""
    logits = _no_probabilities("bce", logits)
    if weight is None and pos_weight is None:
        return gc.bce_with_logits(logits, target, reduction=reduction)
    x, y = alike("bce", logits, target)
    if pos_weight is None:
        losses = gc.bce_with_logits(x, y, reduction="none")
    else:               # (1 - y) x + (1 + (pos_weight - 1) y) log(1 + exp(-x)), as in torch: no overflow
        losses = weighed("bce", gc.softplus(-x), (as_array(pos_weight, x.dtype) - 1) * y + 1) + (1 - y) * x
    return reduced("bce", weighed("bce", losses, weight), reduction)


@formed
def sequence_loss(y: Array, target: Array, loss: Callable[..., Any] = cross_entropy, *, lengths: Array | None = None,
                  mask: Array | None = None,
                  ignore_index: int | None = None,
                  batch_first: bool | None = None, reduction: str = "mean", **options: Any) -> Array:
    """The loss of every step, summed over the steps of each sequence: sum over t of loss(y[t], target[t]).

    y [T, B, …] and target [T, B] (ids) or [T, B, …] ([B, T, …] with `batch_first`, and of layers that have the batch
    first). `loss` is a function like those of this file, called with reduction="none" and `options`. Steps do not
    count from `lengths` (integers [B]) on, where
    `mask` (bool, [T, B] or [B, T] as y) is false, and where the target is `ignore_index`; ids there may be anything.
    reduction: "mean" over the sequences, "sum" of them, "none" (-> [B]), or "step": the mean over all steps that count.
    """
    y, target = as_array(y), as_array(target)
    callable_(loss, "sequence_loss: loss"), choice(reduction, "sequence_loss: reduction", (*REDUCTIONS, "step"))
    batch_first = None if batch_first is None else flag(batch_first, "sequence_loss: batch_first")
    if len(y.shape) < 2 or target.shape[:2] != y.shape[:2]:
        raise GraphError("sequence_loss takes a prediction and a target that agree in time and batch, "
                         f"got {list(y.shape)} and {list(target.shape)}")
    batch_first = batch_comes_first("sequence_loss", y, batch_first)
    counted = _counted(target, lengths, mask, ignore_index, batch_first)
    if counted is not None and target.dtype.is_int:
        target = gc.where(counted, target, 0)
    options = {"axis": -1, **options} if loss is cross_entropy else options
    steps = loss(y, target, reduction="none", **options)
    steps = gc.sum(steps, axis=tuple(range(2, len(steps.shape)))) if len(steps.shape) > 2 else steps
    steps = steps if counted is None else gc.where(counted, steps, 0.0)
    if reduction == "step":
        return gc.mean(steps) if counted is None else gc.sum(steps) / gc.maximum(gc.sum(counted.astype(steps.dtype)), 1)
    return REDUCTIONS[reduction](gc.sum(steps, axis=1 if batch_first else 0))


@formed
def log_likelihood(logits: Array, target: Array, *, lengths: Array | None = None, mask: Array | None = None,
                   ignore_index: int | None = None,
                   batch_first: bool | None = None) -> Array:
    """log p(target) of each sequence, [B]: the sum over its steps t of log softmax(logits[t])[target[t]]. Options as
    in `sequence_loss`."""
    return -sequence_loss(logits, target, lengths=lengths, mask=mask, ignore_index=ignore_index,
                          batch_first=batch_first, reduction="none")


REDUCTIONS: dict[str, Callable[..., Array]] = {"mean": gc.mean, "sum": gc.sum, "none": lambda losses: losses}


def _counted(target: Array, lengths: Array | None, mask: Array | None, ignore_index: int | None,
             batch_first: bool) -> Array | None:
    """bool [T, B] or [B, T]: which steps count; None when all do."""
    parts = [] if mask is None else [as_array(mask)]
    if lengths is not None and target.ndim < 2:
        raise GraphError("lengths are those of sequences, [time, batch, …] or [batch, time, …], the targets are "
                         f"{target.type}")
    if lengths is not None:
        batch, time = target.shape[:2] if batch_first else target.shape[1::-1]
        parts.append(real_steps("lengths of targets", lengths, batch, time, time_first=not batch_first))
    if ignore_index is not None:
        parts.append(target != ignore_index)
    if not parts:
        return None
    counted = parts[0]
    for part in parts[1:]:
        counted = counted & part
    return counted


@formed
def accuracy(logits: Array, target: Array, *, lengths: Array | None = None, mask: Array | None = None,
             ignore_index: int | None = None,
             batch_first: bool | None = None) -> Array:
    """The share of targets that are predicted; an f32 scalar.

    logits [..., classes], target class ids of the shape without that axis: the largest logit predicts. Of one logit,
    [B, 1] or [B] as for `bce`, target [B] or of the shape of logits: a logit above 0 predicts a target above 0.5. The
    options leave steps of sequences out, as in
    `sequence_loss`.
    """
    logits, target = as_array(logits), as_array(target)
    hits, target = _hits(logits, target)
    hits = hits.astype(gc.f32)
    if lengths is None and mask is None and ignore_index is None:
        return gc.mean(hits)
    steps = _counted(target, lengths, mask, ignore_index, batch_comes_first("accuracy", logits, batch_first))
    counted = cast(Array, steps).astype(gc.f32)
    return gc.sum(hits * counted) / gc.maximum(gc.sum(counted), 1)


def _hits(logits: Array, target: Array) -> tuple[Array, Array]:
    """Which targets are predicted, and the targets in the same shape."""
    single = logits.shape[-1:] == (1,)
    if target.shape == logits.shape and (single or logits.ndim < 2):
        shape = logits.shape[:-1] if single and logits.ndim > 1 else logits.shape
    elif target.shape == logits.shape[:-1] and logits.ndim:
        shape = target.shape
        if not single:
            return gc.equal(gc.argmax(logits, axis=-1), target.astype(gc.i64)), target
    else:
        raise GraphError("accuracy takes logits [..., classes] and class ids without that axis, or one logit, [B, "
                         "1] or [B], and targets of 0 and "
                         f"1; got {logits.type} and {target.type}. Of one-hot targets or probabilities give "
                         "gc.argmax(target, axis=-1); of several "
                         "questions of yes and no take gc.mean(gc.equal(logits > 0, target > 0.5).astype(gc.f32))")
    logits, target = _no_probabilities("accuracy of one logit", logits).reshape(*shape), target.reshape(*shape)
    return gc.equal(logits > 0, target if target.dtype == gc.bool_ else target.astype(gc.f32) > 0.5), target


def _no_probabilities(what: str, logits: Array) -> Array:
    """logits; GraphError for what a sigmoid made, which is positive whatever it says."""
    node = as_array(logits).value.node
    if node is not None and node.op is SIGMOID:
        raise GraphError(f"{what} takes logits, and gets the result of a sigmoid: leave the sigmoid out")
    return logits
