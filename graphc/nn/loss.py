"""Losses and metrics: functions of a prediction and a target."""
from __future__ import annotations

import graphc as gc


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


def accuracy(logits, target):
    """The share of targets whose logit is the largest on the last axis; an f32 scalar."""
    return gc.mean(gc.equal(gc.argmax(logits, axis=-1), target.astype(gc.i64)).astype(gc.f32))
