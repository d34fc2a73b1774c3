"""Losses of classes."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import graphc as gc
from graphc.doors.onnx.call import Call
from graphc.dsl.array import Array
from graphc.errors import GraphError


def negative_log_likelihood(x: Array, target: Array, weight: Array | None = None, *, ignore_index: int | None = None,
                            reduction: str = "mean") -> Array:
    """-weight[target] x[target] of classes on axis 1; the mean is the sum divided by the sum of the weights."""
    counted = None if ignore_index is None else target != ignore_index
    at = target if counted is None else gc.where(counted, target, 0)
    losses = -gc.squeeze(gc.take_along_axis(x, gc.expand_dims(at, 1), 1), 1)
    scale = None if weight is None else gc.take(weight, at)
    if counted is not None:
        scale = gc.where(counted, 1.0 if scale is None else scale, 0.0).astype(x.dtype)
        losses = gc.where(counted, losses, 0.0)
    losses = losses if scale is None else losses * scale
    if reduction == "none":
        return losses
    if reduction not in ("sum", "mean"):
        raise GraphError(f"reduction is {reduction!r}")
    if reduction == "mean" and scale is None:
        return gc.mean(losses)
    return gc.sum(losses) if scale is None or reduction == "sum" else gc.sum(losses) / gc.sum(scale)


def softmax_cross_entropy(x: Array, target: Array, weight: Array | None = None, *, ignore_index: int | None = None,
                          reduction: str = "mean", call: Call) -> Any:
    """Also log(softmax(x)), where it is read."""
    log_prob = gc.log_softmax(x, 1)
    loss = negative_log_likelihood(log_prob, target, weight, ignore_index=ignore_index, reduction=reduction)
    return (loss, log_prob)[:call.wanted]


RULES: Mapping[str, Callable[..., Any]] = {
    "NegativeLogLikelihoodLoss": negative_log_likelihood, "SoftmaxCrossEntropyLoss": softmax_cross_entropy}
