"""What losses of classes share: on which axis the classes are, and weights of classes."""
from __future__ import annotations

import graphc as gc
from graphc.dsl.array import Array, as_array, as_float
from graphc.dsl.form import formed
from graphc.dsl.order import known_order
from graphc.errors import GraphError
from graphc.ir.types import normalize_axis
from graphc.nn.reduction import ids_of, reduced


@formed
def nll_loss(input: Array, target: Array, weight: Array | None = None, *, axis: int | None = None,
             ignore_index: int = -100, reduction: str = "mean") -> Array:
    """-input[target] of log-probabilities `input`, times weight[target]; the mean is the sum divided by the sum of
    these weights. Arguments as in `nn.cross_entropy`."""
    x, ids = as_float(input), ids_of("nll_loss", target)
    axis = class_axis("nll_loss", x, ids, axis)
    if ids.shape != (*x.shape[:axis], *x.shape[axis + 1:]):
        raise GraphError(f"nll_loss of {x.type} with classes on axis {axis} takes ids of that shape without it, got "
                         f"{ids.type}")
    counted = ids != ignore_index
    at = gc.where(counted, ids, 0)
    losses = -gc.squeeze(gc.take_along_axis(x, gc.expand_dims(at, axis), axis=axis), axis)
    scale = gc.where(counted, weights_of(at, weight, x), 0.0)
    return reduced("nll_loss", gc.where(counted, losses, 0.0) * scale, reduction, scale)


def weighted_cross_entropy(logits: Array, target: Array, weight: Array, axis: int, label_smoothing: float,
                           ignore_index: int | None, reduction: str) -> Array:
    """`nn.cross_entropy` with a weight for each class, as in torch: of class ids the mean is that of so much weight;
    what label smoothing spreads over all classes is weighted by theirs."""
    axis, x = normalize_axis(axis, logits.ndim), as_float(logits)
    across = (-1, *(1,) * (x.ndim - 1 - axis))              # the shape of weights beside the logits
    if not target.dtype.is_int:
        losses = gc.cross_entropy(x, target * _checked(weight, x, axis).reshape(across), axis, "none")
        return reduced("cross_entropy", losses, reduction)
    counted = None if ignore_index is None else target != ignore_index
    at = target if counted is None else gc.where(counted, target, 0)
    scale = gc.take(_checked(weight, x, axis), at)
    scale = scale if counted is None else gc.where(counted, scale, 0.0)
    losses = gc.cross_entropy(x, target, axis, "none", ignore_index=ignore_index) * scale
    if label_smoothing:
        every = -gc.mean(gc.log_softmax(x, axis) * _checked(weight, x, axis).reshape(across), axis=axis)
        every = every if counted is None else gc.where(counted, every, 0.0)
        losses = losses * (1 - label_smoothing) + every * label_smoothing
    return reduced("cross_entropy", losses, reduction, scale)


def class_axis(what: str, logits: Array, target: Array, axis: int | None) -> int:
    """The axis of the classes: the last, unless told otherwise. GraphError for logits [B, n, …, n] of class ids, which
    may have them on either of two axes (torch: always on axis 1); those of sequences have them last."""
    if axis is not None:
        return normalize_axis(axis, logits.ndim)
    shape = logits.shape
    either = len(shape) > 2 and target.dtype.is_int and (shape[0], *shape[2:]) == shape[:-1] == target.shape
    if either and known_order(logits) is None:
        raise GraphError(f"{what} of {logits.type} and {target.type}: the classes may be on axis 1, "
                         "as always in torch, or on the last; "
                         "give axis=1 or axis=-1")
    return normalize_axis(-1, logits.ndim)


def weights_of(ids: Array, weight: Array | None, like: Array) -> Array:
    """The weight of each class id; 1 without weights."""
    if weight is None:
        return gc.ones(ids.shape, like.dtype)
    return gc.take(as_array(weight, like.dtype), ids)


def _checked(weight: Array, logits: Array, axis: int) -> Array:
    """One weight for each class."""
    weight = as_array(weight, logits.dtype)
    if weight.shape != (logits.shape[axis],):
        raise GraphError(f"cross_entropy: weight has one number for each class, {logits.dtype}[{logits.shape[axis]}], "
                         f"got {weight.type}")
    return weight
