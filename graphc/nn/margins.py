"""Losses that want one score, or one distance, above another by a margin. Names, options and formulas as in
torch.nn.functional; `reduction` is "mean", "sum" or "none"."""
from __future__ import annotations

from collections.abc import Callable
from typing import cast

import graphc as gc
from graphc.dsl.array import Array, as_array, as_float
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.ir.convert import callable_, flag, integer, real
from graphc.nn.reduction import alike, ids_of, reduced, weighed

LENGTH_EPS = 1e-12                  # added to squared lengths, as in torch's cosine_embedding_loss


@formed
def soft_margin_loss(input: Array, target: Array, *, reduction: str = "mean") -> Array:
    """log(1 + exp(-target input)) of targets 1 and -1, without overflow."""
    x, y = alike("soft_margin_loss", input, target)
    return reduced("soft_margin_loss", gc.softplus(-y * x), reduction)


@formed
def hinge_embedding_loss(input: Array, target: Array, *, margin: float = 1.0, reduction: str = "mean") -> Array:
    """input where the target is 1, max(0, margin - input) where it is -1."""
    x, y = alike("hinge_embedding_loss", input, target)
    far = gc.relu(real(margin, "hinge_embedding_loss: margin") - x)
    return reduced("hinge_embedding_loss", gc.where(y == 1, x, far), reduction)


@formed
def margin_ranking_loss(input1: Array, input2: Array, target: Array, *, margin: float = 0.0,
                        reduction: str = "mean") -> Array:
    """max(0, -target (input1 - input2) + margin): target 1 wants input1 above, -1 input2."""
    first, second = alike("margin_ranking_loss", input1, input2)
    difference, y = alike("margin_ranking_loss", first - second, target)
    margin = real(margin, "margin_ranking_loss: margin")
    return reduced("margin_ranking_loss", gc.relu(-y * difference + margin), reduction)


@formed
def cosine_embedding_loss(input1: Array, input2: Array, target: Array, *, margin: float = 0.0,
                          reduction: str = "mean") -> Array:
    """1 - cos of the angle between input1 and input2, [B, D] or [D], where the target [B] is 1, max(0, cos - margin)
    where it is -1."""
    x, y = alike("cosine_embedding_loss", input1, input2)
    wanted = as_array(target)
    if x.ndim not in (1, 2) or wanted.shape != x.shape[:-1]:
        raise GraphError("cosine_embedding_loss takes two arrays [batch, features] and a target [batch] of 1 and -1, "
                         f"got {x.type} and {wanted.type}")
    lengths = (gc.sum(x * x, axis=-1) + LENGTH_EPS) * (gc.sum(y * y, axis=-1) + LENGTH_EPS)
    cos = gc.sum(x * y, axis=-1) / gc.sqrt(lengths)
    apart = gc.relu(cos - real(margin, "cosine_embedding_loss: margin"))
    return reduced("cosine_embedding_loss", gc.where(wanted == 1, 1 - cos, apart), reduction)


@formed
def triplet_margin_loss(anchor: Array, positive: Array, negative: Array, *, margin: float = 1.0, p: float = 2.0,
                        eps: float = 1e-6, swap: bool = False, reduction: str = "mean") -> Array:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin) of `gc.pairwise_distance` with p and eps, arrays [B,
    D] or [D]; swap: the nearer of d(anchor, negative) and d(positive, negative) counts (Balntas et al. 2016)."""
    return triplet_margin_with_distance_loss(
        anchor, positive, negative, distance_function=lambda x, y: gc.pairwise_distance(x, y, p, eps), margin=margin,
        swap=swap, reduction=reduction)


@formed
def triplet_margin_with_distance_loss(anchor: Array, positive: Array, negative: Array, *,
                                      distance_function: Callable[[Array, Array], Array] | None = None,
                                      margin: float = 1.0, swap: bool = False, reduction: str = "mean") -> Array:
    """As `triplet_margin_loss`, with a distance of two arrays of one's own."""
    what = "triplet_margin_loss"
    distance = gc.pairwise_distance if distance_function is None else callable_(distance_function, f"{what}: distance")
    near, far = distance(anchor, positive), distance(anchor, negative)
    if flag(swap, f"{what}: swap"):
        far = gc.minimum(far, distance(positive, negative))
    return reduced(what, gc.relu(near - far + real(margin, f"{what}: margin")), reduction)


@formed
def multi_margin_loss(input: Array, target: Array, *, p: int = 1, margin: float = 1.0, weight: Array | None = None,
                      reduction: str = "mean") -> Array:
    """The mean over classes i of max(0, margin - input[target] + input[i])^p without that of the target itself, times
    weight[target]: input [B, C] or [C], class ids [B] or []; p is 1 or 2, weight [C]."""
    x, ids = as_float(input), ids_of("multi_margin_loss", target)
    p = integer(p, "multi_margin_loss: p", 1, 2)
    if not x.ndim or ids.shape != x.shape[:-1]:
        raise GraphError(f"multi_margin_loss takes scores [batch, classes] and class ids [batch], got {x.type} and "
                         f"{ids.type}")
    own = gc.take_along_axis(x, gc.expand_dims(ids, -1), axis=-1)
    short = gc.relu(real(margin, "multi_margin_loss: margin") - own + x)
    short = gc.where(gc.one_hot(ids, cast(int, x.shape[-1])) > 0, 0.0, short if p == 1 else short * short)
    losses = gc.mean(short, axis=-1)
    return reduced("multi_margin_loss", losses if weight is None else losses * gc.take(as_array(weight, x.dtype), ids),
                   reduction)


@formed
def multilabel_margin_loss(input: Array, target: Array, *, reduction: str = "mean") -> Array:
    """The sum over classes j of the target and classes i outside of it of max(0, 1 - input[j] + input[i]), divided by
    the number of classes: input [B, C] or [C], target of the same shape, class ids up to the first -1 of each row."""
    x, ids = as_float(input), ids_of("multilabel_margin_loss", target)
    if not 1 <= x.ndim <= 2 or ids.shape != x.shape:
        raise GraphError("multilabel_margin_loss takes scores [batch, classes] and class ids of that shape, -1 behind "
                         f"them, got {x.type} and {ids.type}")
    counted = gc.cumsum((ids < 0).astype(ids.dtype), axis=-1) == 0
    at = gc.where(counted, ids, 0)
    chosen = gc.one_hot(at, cast(int, x.shape[-1]), dtype=x.dtype)
    hot = gc.where(gc.expand_dims(counted, -1), chosen, 0.0)                                        # [B, target, C]
    inside = gc.max(hot, axis=-2, keepdims=True)
    short = gc.relu(1 - gc.expand_dims(gc.take_along_axis(x, at, axis=-1), -1) + gc.expand_dims(x, -2))
    short = gc.where(gc.expand_dims(counted, -1) & (inside == 0), short, 0.0)
    return reduced("multilabel_margin_loss", gc.sum(gc.mean(short, axis=-1), axis=-1), reduction)


@formed
def multilabel_soft_margin_loss(input: Array, target: Array, weight: Array | None = None, *,
                                reduction: str = "mean") -> Array:
    """The mean over classes of binary cross entropy of logits [B, C] and targets of 0 and 1, times weight [C]."""
    x, y = alike("multilabel_soft_margin_loss", input, target)
    if not x.ndim:
        raise GraphError(f"multilabel_soft_margin_loss takes scores [batch, classes], got {x.type}")
    losses = weighed("multilabel_soft_margin_loss", gc.bce_with_logits(x, y, reduction="none"), weight)
    return reduced("multilabel_soft_margin_loss", gc.mean(losses, axis=-1), reduction)
