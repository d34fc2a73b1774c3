"""Losses. `reduction`: "mean", "sum" or "none"."""
from __future__ import annotations

from typing import Any

from graphc.dsl.array import Array, as_array, common_dtype, emit
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.ir.convert import choice, integer, real
from graphc.ir.types import normalize_axis

REDUCTIONS = ("mean", "sum", "none")


@formed
def cross_entropy(logits: Array, targets: Array, axis: int = -1, reduction: str = "mean", label_smoothing: float = 0.0,
                  ignore_index: int | None = None) -> Array:
    """-log softmax(logits) of the target class along `axis` (torch: always axis 1).

    targets: integer class ids of the shape of logits without `axis`, or float probabilities of the shape of logits.
    `ignore_index`: ids that count neither in the sum nor in the mean.
    """
    logits, targets = as_array(logits), as_array(targets)
    options: dict[str, Any] = {"axis": normalize_axis(axis, logits.ndim),
                               "reduction": _reduction("cross_entropy", reduction)}
    label_smoothing = real(label_smoothing, "cross_entropy: label_smoothing")
    ignore_index = None if ignore_index is None else integer(ignore_index, "cross_entropy: ignore_index")
    if targets.dtype.is_int:
        return emit("cross_entropy", logits, targets, **options, label_smoothing=label_smoothing,
                    ignore_index=ignore_index)
    if targets.shape != logits.shape:
        raise GraphError("cross_entropy: targets are class ids, integers of the shape of the logits without axis "
                         f"{options['axis']}, or "
                         f"probabilities of the shape of the logits; got {targets.type} beside logits {logits.type}"
                         + "; class ids become integers by .astype(gc.i64)" * (targets.ndim == logits.ndim - 1))
    if ignore_index is not None or label_smoothing:
        raise GraphError("cross_entropy of probabilities takes no ignore_index and no label_smoothing: "
                         "put them into the probabilities")
    return emit("cross_entropy_soft", logits, targets, **options)


@formed
def mse(x: Array, y: Array, reduction: str = "mean") -> Array:
    """(x - y)^2 of arrays of one shape; a scalar counts for all elements, nothing else broadcasts (as it does, with a
    warning, in torch)."""
    dtype = common_dtype((x, y))
    x, y = as_array(x, dtype), as_array(y, dtype)
    return emit("mse", _spread(x, y), _spread(y, x), reduction=_reduction("mse", reduction))


@formed
def bce_with_logits(logits: Array, targets: Array, reduction: str = "mean") -> Array:
    """Cross entropy of sigmoid(logits) and targets in [0, 1] of the same shape (or a scalar), without overflow."""
    logits = as_array(logits)
    targets = _spread(as_array(targets, logits.dtype), logits)
    return emit("bce_with_logits", logits, targets, reduction=_reduction("bce_with_logits", reduction))


def _spread(x: Array, like: Array) -> Array:
    return x if x.ndim or not like.ndim else emit("broadcast_to", x, shape=like.shape)


def _reduction(name: str, reduction: str) -> str:
    return choice(reduction, f"{name}: reduction", REDUCTIONS)
