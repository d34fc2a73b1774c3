"""Losses, kept whole so that their gradients are the stable ones."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphc as gc
from graphc import nn
from graphc.doors.torch.rules.promotion import as_type, promoted, size_array
from graphc.errors import GraphError

Array = gc.Array
Rule = Callable[..., Any]
HOW = ("none", "mean", "sum")


def _reduced(losses: Array, reduction: int) -> Array:
    return (losses, gc.mean(losses), gc.sum(losses))[reduction] if reduction else losses


def _of_pairs(function: Callable[..., Array]) -> Rule:
    def rule(x: Array, target: Array, reduction: int = 1, *more: Any) -> Array:
        x, target = promoted(x, target)
        return _reduced(function(x, target, *more), reduction)
    return rule


def _cross_entropy(logits: Array, target: Array, weight: Array | None = None, reduction: int = 1,
                   ignore_index: Any = -100, label_smoothing: float = 0.0) -> Array:
    axis = 0 if logits.ndim == 1 else 1
    options: dict[str, Any] = {"axis": axis, "label_smoothing": label_smoothing, "reduction": HOW[reduction]}
    if target.dtype.is_int:
        options["ignore_index"] = ignore_index
    elif label_smoothing:                       # of probabilities: a share of each goes to all classes
        target = target * (1 - label_smoothing) + label_smoothing / size_array(logits.shape[axis]).astype(target.dtype)
        options["label_smoothing"] = 0.0
    if logits.ndim == 1:
        logits, target, options["axis"] = logits.reshape(1, -1), gc.expand_dims(target, 0), 1
        loss = nn.cross_entropy(logits, target, weight=weight, **options)
        return loss.reshape(()) if reduction == 0 else loss
    return nn.cross_entropy(logits, target, weight=weight, **options)


def _nll(x: Array, target: Array, weight: Array | None = None, reduction: int = 1,
         ignore_index: Any = -100) -> Array:
    if x.ndim == 1:
        loss = _nll(x.reshape(1, -1), target.reshape(1), weight, reduction, ignore_index)
        return loss.reshape(()) if reduction == 0 else loss
    return nn.nll_loss(x, target, weight, axis=1, ignore_index=ignore_index, reduction=HOW[reduction])


def _nll_forward(x: Array, target: Array, weight: Array | None, reduction: int,
                 ignore_index: int) -> tuple[Array, Array]:
    """The loss, and the sum of the weights that counted."""
    counted = gc.not_equal(target, ignore_index)
    shares = counted.astype(x.dtype)
    if weight is not None:
        shares = gc.where(counted, gc.take(weight, gc.where(counted, target, target * 0), 0), shares)
    return _nll(x, target, weight, reduction, ignore_index), gc.sum(shares)


def _bce(x: Array, target: Array, weight: Array | None = None, reduction: int = 1) -> Array:
    return nn.binary_cross_entropy(x, target, weight, reduction=HOW[reduction])


def _bce_logits(x: Array, target: Array, weight: Array | None = None, pos_weight: Array | None = None,
                reduction: int = 1) -> Array:
    return nn.bce(x, target, weight=weight, pos_weight=pos_weight, reduction=HOW[reduction])


def _huber(x: Array, target: Array, reduction: int = 1, delta: float = 1.0) -> Array:
    x, target = promoted(x, target)
    return nn.huber_loss(x, target, delta=delta, reduction=HOW[reduction])


def _smooth_l1(x: Array, target: Array, reduction: int = 1, beta: float = 1.0) -> Array:
    x, target = promoted(x, target)
    return nn.smooth_l1_loss(x, target, beta=beta, reduction=HOW[reduction])


def _kl(x: Array, target: Array, reduction: int = 1, *, log_target: bool = False) -> Array:
    x, target = promoted(x, target)
    return nn.kl_div(x, target, log_target=log_target, reduction=HOW[reduction])


def _multi_margin(x: Array, target: Array, p: Any = 1, margin: Any = 1, weight: Array | None = None,
                  reduction: int = 1) -> Array:
    if x.ndim < 2:                              # one sample
        loss = _multi_margin(x.reshape(1, -1), target.reshape(1), p, margin, weight, reduction)
        return loss if target.ndim else loss.reshape(())
    return nn.multi_margin_loss(x, target, p=p, margin=margin, weight=weight, reduction=HOW[reduction])


def _ctc(x: Array, targets: Array, steps: Array, lengths: Array, blank: int, reduction: int,
         zero_infinity: bool) -> Array:
    if x.ndim == 2:                             # one sequence
        steps, lengths = (n.reshape(1) for n in (steps, lengths))
        loss = _ctc(gc.expand_dims(x, 1), targets.reshape(1, -1), steps, lengths, blank, reduction, zero_infinity)
        return loss.reshape(())
    if targets.ndim != 2:
        raise GraphError("ctc_loss takes targets [batch, length]; those of all sequences one after another have places "
                         "that depend on values")
    loss = nn.ctc_loss(x, targets, steps, lengths, blank=blank, reduction="none", zero_infinity=zero_infinity)
    # PyTorch's gradient is that towards what log_softmax was given, whether there is one or not: larger by exp(x)
    real = gc.iota(x.shape, 0).astype(steps.dtype) < steps.reshape(1, -1, 1)
    real = real & gc.isfinite(x) & gc.isfinite(loss).reshape(1, -1, 1)
    x = gc.where(real, x, as_type(0, x.dtype))
    more = gc.exp(gc.stop_gradient(x)) * (x - gc.stop_gradient(x))
    loss = loss + gc.sum(gc.where(real, more, as_type(0, x.dtype)), (0, 2))
    return _reduced(loss / gc.maximum(lengths, 1).astype(loss.dtype) if reduction == 1 else loss, reduction)


def _poisson(x: Array, target: Array, log_input: bool, full: bool, eps: float, reduction: int) -> Array:
    x, target = promoted(x, target)
    return nn.poisson_nll_loss(x, target, log_input=log_input, full=full, eps=eps, reduction=HOW[reduction])


RULES: dict[str, Rule] = {
    "cross_entropy_loss.default": _cross_entropy, "nll_loss.default": _nll, "nll_loss_nd.default": _nll,
    "nll_loss2d.default": _nll, "nll_loss_forward.default": _nll_forward, "nll_loss2d_forward.default": _nll_forward,
    "binary_cross_entropy.default": _bce, "binary_cross_entropy_with_logits.default": _bce_logits,
    "mse_loss.default": _of_pairs(lambda x, t: (x - t) * (x - t)), "l1_loss.default": _of_pairs(
        lambda x, t: gc.abs(x - t)), "huber_loss.default": _huber, "smooth_l1_loss.default": _smooth_l1,
    "kl_div.default": _kl, "graphc.ctc_loss.default": _ctc, "poisson_nll_loss.default": _poisson,
    "soft_margin_loss.default": _of_pairs(lambda x, t: gc.softplus(-t * x)),
    "multilabel_margin_loss.default": lambda x, t, reduction=1: nn.multilabel_margin_loss(
        x, t, reduction=HOW[reduction]) if x.ndim else nn.multilabel_margin_loss(
        x.reshape(1), t.reshape(1), reduction=HOW[reduction]).reshape(()),
    "multi_margin_loss.default": _multi_margin,
}
