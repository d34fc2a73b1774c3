"""Losses of numbers and of probabilities. Names, options and formulas as in torch.nn.functional; `reduction` is
"mean", "sum" or "none". A gradient at a kink is 0 there, as in torch."""
from __future__ import annotations

from math import log, pi

import graphc as gc
from graphc.dsl.array import Array, as_array
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.ir.convert import flag, real
from graphc.nn.reduction import alike, reduced, weighed

LEAST_LOG = -100.0                  # of a probability of 0, as in torch: the loss stays finite


@formed
def l1_loss(input: Array, target: Array, *, reduction: str = "mean") -> Array:
    """|input - target|."""
    x, y = alike("l1_loss", input, target)
    return reduced("l1_loss", gc.abs(x - y), reduction)


@formed
def huber_loss(input: Array, target: Array, *, reduction: str = "mean", delta: float = 1.0) -> Array:
    """d² / 2 for d = |input - target| up to delta, beyond delta (d - delta / 2) (Huber 1964)."""
    x, y = alike("huber_loss", input, target)
    delta = _above_zero(delta, "huber_loss: delta")
    d = gc.abs(x - y)
    return reduced("huber_loss", gc.where(d <= delta, d * d * 0.5, (d - 0.5 * delta) * delta), reduction)


@formed
def smooth_l1_loss(input: Array, target: Array, *, reduction: str = "mean", beta: float = 1.0) -> Array:
    """d² / (2 beta) for d = |input - target| below beta, else d - beta / 2; with beta 0 `l1_loss` (Girshick 2015)."""
    x, y = alike("smooth_l1_loss", input, target)
    beta = real(beta, "smooth_l1_loss: beta")
    if beta < 0:
        raise GraphError(f"smooth_l1_loss: beta is a number >= 0, got {beta}")
    d = gc.abs(x - y)
    return reduced("smooth_l1_loss", gc.where(d < beta, d * d * (0.5 / beta), d - 0.5 * beta) if beta else d, reduction)


@formed
def log_cosh_loss(input: Array, target: Array, *, reduction: str = "mean") -> Array:
    """log(cosh(input - target)), without overflow: |d| + log(1 + exp(-2 |d|)) - log 2 (Keras' LogCosh)."""
    x, y = alike("log_cosh_loss", input, target)
    d = x - y
    return reduced("log_cosh_loss", d + gc.softplus(d * -2.0) - log(2.0), reduction)


@formed
def kl_div(input: Array, target: Array, *, reduction: str = "mean", log_target: bool = False) -> Array:
    """target (log target - input) for log-probabilities `input` and probabilities `target`, or, with log_target,
    their logarithms; 0 where the target is 0. reduction "batchmean", the sum divided by the size of axis 0, is the
    Kullback-Leibler divergence; "mean" divides by the number of elements (torch warns of it)."""
    x, y = alike("kl_div", input, target)
    if flag(log_target, "kl_div: log_target"):
        losses = gc.exp(y) * (y - x)
    else:
        losses = gc.where(y > 0, y * (gc.log(y) - x), -y * x)
    if isinstance(reduction, str) and reduction == "batchmean":
        return gc.mean(gc.sum(losses, axis=tuple(range(1, losses.ndim)))) if losses.ndim > 1 else gc.mean(losses)
    return reduced("kl_div", losses, reduction)


@formed
def poisson_nll_loss(input: Array, target: Array, *, log_input: bool = True, full: bool = False, eps: float = 1e-8,
                     reduction: str = "mean") -> Array:
    """-log of the Poisson probability of `target` at the mean exp(input), or, without log_input, at the mean `input`:
    mean - target log(mean). full: with Stirling's approximation of log(target!), where the target is above 1."""
    x, y = alike("poisson_nll_loss", input, target)
    eps = real(eps, "poisson_nll_loss: eps")
    losses = gc.exp(x) - y * x if flag(log_input, "poisson_nll_loss: log_input") else x - y * gc.log(x + eps)
    if flag(full, "poisson_nll_loss: full"):
        losses = losses + gc.where(y > 1, y * gc.log(y) - y + 0.5 * gc.log(y * (2 * pi)), 0.0)
    return reduced("poisson_nll_loss", losses, reduction)


@formed
def gaussian_nll_loss(input: Array, target: Array, var: Array | float, *, full: bool = False, eps: float = 1e-6,
                      reduction: str = "mean") -> Array:
    """-log of the normal density of `target` at mean `input` and variance `var`, which counts as at least eps: (log
    var + (input - target)² / var) / 2; full: plus log(2 pi) / 2. var broadcasts to input."""
    x, y = alike("gaussian_nll_loss", input, target)
    var = gc.maximum(as_array(var, x.dtype), _above_zero(eps, "gaussian_nll_loss: eps"))
    losses = (gc.log(var) + gc.square(x - y) / var) * 0.5
    if losses.shape != x.shape:
        raise GraphError(f"gaussian_nll_loss: var broadcasts to input, {x.type}; got {var.type}")
    return reduced("gaussian_nll_loss", losses + 0.5 * log(2 * pi) if flag(full, "gaussian_nll_loss: full") else losses,
                   reduction)


@formed
def binary_cross_entropy(input: Array, target: Array, weight: Array | None = None, *, reduction: str = "mean") -> Array:
    """-(target log p + (1 - target) log(1 - p)) of probabilities p = `input` in [0, 1]; a logarithm counts as at least
    -100. Of logits `nn.bce` is more exact, and keeps its gradient where p is 0 or 1 in f32."""
    p, y = alike("binary_cross_entropy", input, target)
    losses = -(y * _log(p) + (1 - y) * _log(1 - p))
    return reduced("binary_cross_entropy", weighed("binary_cross_entropy", losses, weight), reduction)


@formed
def sigmoid_focal_loss(input: Array, target: Array, *, alpha: float = 0.25, gamma: float = 2.0,
                       reduction: str = "mean") -> Array:
    """`bce` of logits times (1 - p)^gamma for the probability p that they give the target, and times alpha where the
    target is 1, 1 - alpha where it is 0 (no factor with a negative alpha) (Lin et al. 2017)."""
    x, y = alike("sigmoid_focal_loss", input, target)
    alpha, gamma = real(alpha, "sigmoid_focal_loss: alpha"), real(gamma, "sigmoid_focal_loss: gamma")
    p = gc.sigmoid(x)
    losses = gc.bce_with_logits(x, y, reduction="none") * (1 - (p * y + (1 - p) * (1 - y))) ** gamma
    losses = losses * (alpha * y + (1 - alpha) * (1 - y)) if alpha >= 0 else losses
    return reduced("sigmoid_focal_loss", losses, reduction)


@formed
def dice_loss(input: Array, target: Array, *, smooth: float = 1.0, reduction: str = "mean") -> Array:
    """1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth) of probabilities p and targets t in [0, 1], both [B, …],
    summed over all axes but the first (Milletari et al. 2016); "none" gives [B]."""
    p, y = alike("dice_loss", input, target)
    if p.shape != y.shape or not p.ndim:
        raise GraphError(f"dice_loss takes a prediction and a target [batch, …], got {p.type} and {y.type}")
    axes, smooth = tuple(range(1, p.ndim)), real(smooth, "dice_loss: smooth")
    both, either = gc.sum(p * y, axis=axes), gc.sum(p + y, axis=axes)
    return reduced("dice_loss", 1 - (both * 2 + smooth) / (either + smooth), reduction)


def _log(p: Array) -> Array:
    return gc.maximum(gc.log(p), LEAST_LOG)


def _above_zero(value: float, what: str) -> float:
    number = real(value, what)
    if not number > 0:
        raise GraphError(f"{what} is a number > 0, got {number}")
    return number
