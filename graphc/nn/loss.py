"""Losses and metrics: functions of a prediction and a target."""
from __future__ import annotations

from collections.abc import Callable

import graphc as gc
from graphc.dsl.array import as_array
from graphc.errors import GraphError
from graphc.ir.convert import callable_, choice, flag
from graphc.nn.padding import real_steps


def cross_entropy(logits, target, axis: int = -1, label_smoothing: float = 0.0, ignore_index: int | None = None, reduction: str = "mean"):
    """-log softmax(logits)[target], the mean over all targets that are not `ignore_index`.

    logits [..., classes, ...] with the classes on `axis` (torch: always axis 1); target: class ids of the shape without that axis,
    or probabilities of the shape of logits. reduction: "mean", "sum" or "none".
    """
    return gc.cross_entropy(logits, target, axis=axis, label_smoothing=label_smoothing, ignore_index=ignore_index, reduction=reduction)


def mse(y, target, reduction: str = "mean"):
    """(y - target)², the mean over all elements."""
    return gc.mse(y, target, reduction=reduction)


def bce(logits, target, reduction: str = "mean"):
    """Binary cross entropy from logits (torch's binary_cross_entropy_with_logits), the mean over all elements."""
    return gc.bce_with_logits(logits, target, reduction=reduction)


def sequence_loss(y, target, loss: Callable = cross_entropy, lengths=None, mask=None, ignore_index: int | None = None,
                  batch_first: bool = False, reduction: str = "mean", **options):
    """The loss of every step, summed over the steps of each sequence: sum over t of loss(y[t], target[t]).

    y [T, B, …] and target [T, B] (ids) or [T, B, …] ([B, T, …] with `batch_first`). `loss` is a function like those of this file, called with
    reduction="none" and `options`. Steps do not count from `lengths` (integers [B]) on, where `mask` (bool, [T, B] or [B, T] as y) is
    false, and where the target is `ignore_index`; ids there may be anything.
    reduction: "mean" over the sequences, "sum" of them, "none" (-> [B]), or "step": the mean over all steps that count.
    """
    y, target = as_array(y), as_array(target)
    callable_(loss, "sequence_loss: loss"), choice(reduction, "sequence_loss: reduction", tuple(REDUCTIONS))
    batch_first = flag(batch_first, "sequence_loss: batch_first")
    if len(y.shape) < 2 or target.shape[:2] != y.shape[:2]:
        raise GraphError(f"sequence_loss takes a prediction and a target that agree in time and batch, got {list(y.shape)} and {list(target.shape)}")
    counted = _counted(target, lengths, mask, ignore_index, batch_first)
    if counted is not None and target.dtype.is_int:
        target = gc.where(counted, target, 0)
    steps = loss(y, target, reduction="none", **options)
    steps = gc.sum(steps, axis=tuple(range(2, len(steps.shape)))) if len(steps.shape) > 2 else steps
    steps = steps if counted is None else gc.where(counted, steps, 0.0)
    if reduction == "step":
        return gc.mean(steps) if counted is None else gc.sum(steps) / gc.maximum(gc.sum(counted.astype(steps.dtype)), 1)
    return REDUCTIONS[reduction](gc.sum(steps, axis=1 if batch_first else 0))


def log_likelihood(logits, target, lengths=None, mask=None, ignore_index: int | None = None, batch_first: bool = False):
    """log p(target) of each sequence, [B]: the sum over its steps t of log softmax(logits[t])[target[t]]. Options as in `sequence_loss`."""
    return -sequence_loss(logits, target, cross_entropy, lengths, mask, ignore_index, batch_first, "none")


REDUCTIONS = {"mean": gc.mean, "sum": gc.sum, "none": lambda losses: losses, "step": None}


def _counted(target, lengths, mask, ignore_index: int | None, batch_first: bool):
    """bool [T, B] or [B, T]: which steps count; None when all do."""
    parts = [] if mask is None else [as_array(mask)]
    if lengths is not None and target.ndim < 2:
        raise GraphError(f"lengths are those of sequences, [time, batch, …] or [batch, time, …], the targets are {target.type}")
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


def accuracy(logits, target, lengths=None, mask=None, ignore_index: int | None = None, batch_first: bool = False):
    """The share of targets whose logit is the largest on the last axis; an f32 scalar. The options leave steps of sequences out, as in
    `sequence_loss`."""
    logits, target = as_array(logits), as_array(target)
    hits = gc.equal(gc.argmax(logits, axis=-1), target.astype(gc.i64)).astype(gc.f32)
    if lengths is None and mask is None and ignore_index is None:
        return gc.mean(hits)
    counted = _counted(target, lengths, mask, ignore_index, batch_first).astype(gc.f32)
    return gc.sum(hits * counted) / gc.maximum(gc.sum(counted), 1)
