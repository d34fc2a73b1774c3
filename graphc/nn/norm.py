"""Normalisation layers and dropout."""
from __future__ import annotations

from math import prod

import graphc as gc
from graphc.dsl.array import Array
from graphc.errors import GraphError
from graphc.nn.module import Module
from graphc.nn.parameter import ONES, ZEROS


class BatchNorm(Module):
    """Normalises each channel (axis 1) over batch and space; in inference with the running mean and variance.

    A layer that `trainable=` of a training step leaves out stays as it is: it normalises as in inference.
    Training: running = (1 - momentum) * running + momentum * batch, the variance unbiased, as in torch.
    State: weight, bias, running_mean, running_var [C].
    """

    def __init__(self, *, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True):
        super().__init__()
        self.eps, self.momentum, self.affine = eps, momentum, affine

    def forward(self, x: Array):
        if len(x.shape) < 2:
            raise GraphError(f"{type(self).__name__} takes [batch, channels, …], got {list(x.shape)}")
        shape = (x.shape[1],)
        gamma, beta = self._scale(x, shape)
        mean, var = self.buffer("running_mean", shape, ZEROS, x.dtype), self.buffer("running_var", shape, ONES, x.dtype)
        if not self.training or self.frozen:
            return gc.batch_norm_inference(x, gamma, beta, mean=mean, var=var, eps=self.eps)
        y, batch_mean, batch_var = gc.batch_norm(x, gamma, beta, eps=self.eps)
        self._track("running_mean", mean, batch_mean)
        self._track("running_var", var, batch_var * _unbiased(x))
        return y

    def _scale(self, x: Array, shape: tuple[int, ...]):
        if not self.affine:
            return gc.ones(shape, x.dtype), gc.zeros(shape, x.dtype)
        return self.parameter("weight", shape, ONES, x.dtype), self.parameter("bias", shape, ZEROS, x.dtype)

    def _track(self, name: str, running: Array, batch) -> None:
        self.update(name, running * (1 - self.momentum) + gc.stop_gradient(batch) * self.momentum)


class BatchNorm1d(BatchNorm):
    """BatchNorm of [B, C] or [B, C, L]."""


class BatchNorm2d(BatchNorm):
    """BatchNorm of [B, C, H, W]."""


class LayerNorm(Module):
    """Normalises over the last `axes` axes; weight and bias have their shape. As torch.nn.LayerNorm."""

    def __init__(self, *, axes: int = 1, eps: float = 1e-5, affine: bool = True):
        super().__init__()
        self.axes, self.eps, self.affine = axes, eps, affine

    def forward(self, x: Array):
        shape = x.shape[len(x.shape) - self.axes:]
        if not self.affine:
            return gc.layer_norm(x, axes=self.axes, eps=self.eps)
        gamma, beta = self.parameter("weight", shape, ONES, x.dtype), self.parameter("bias", shape, ZEROS, x.dtype)
        return gc.layer_norm(x, gamma, beta, axes=self.axes, eps=self.eps)


class RMSNorm(Module):
    """x / sqrt(mean(x²) + eps) * weight over the last axis (Zhang and Sennrich 2019)."""

    def __init__(self, *, eps: float = 1e-6):
        super().__init__()
        self.eps = eps

    def forward(self, x: Array):
        return gc.rms_norm(x, self.parameter("weight", x.shape[-1:], ONES, x.dtype), eps=self.eps)


class GroupNorm(Module):
    """Normalises each of `groups` groups of channels over their channels and space: x [B, C, …]."""

    def __init__(self, groups: int, *, eps: float = 1e-5):
        super().__init__()
        self.groups, self.eps = groups, eps

    def forward(self, x: Array):
        if x.ndim < 2:
            raise GraphError(f"GroupNorm takes [batch, channels, …], got {list(x.shape)}")
        shape = (x.shape[1],)
        gamma, beta = self.parameter("weight", shape, ONES, x.dtype), self.parameter("bias", shape, ZEROS, x.dtype)
        return gc.group_norm(x, gamma, beta, groups=self.groups, eps=self.eps)


class Dropout(Module):
    """In training, zeroes elements with probability `rate` and scales the rest by 1 / (1 - rate); nothing in
    inference."""

    def __init__(self, rate: float = 0.5):
        super().__init__()
        if not 0 <= rate < 1:
            raise GraphError(f"the dropout rate must be in [0, 1), got {rate}")
        self.rate = rate

    def forward(self, x: Array):
        return gc.dropout(x, self.rate) if self.training and self.rate else x


def _unbiased(x: Array):
    """n / (n - 1) for the n elements of a channel; an array when n is not known yet."""
    n = x.shape[0] * prod(x.shape[2:])
    if isinstance(n, int):
        return n / (n - 1) if n > 1 else 1.0
    n = gc.sum(gc.ones((n,), x.dtype))
    return n / gc.maximum(n - 1, 1)
