"""Normalisation layers and dropout."""
from __future__ import annotations

from math import prod

import graphc as gc
from graphc.dsl.array import Array
from graphc.dsl.context import current_trace
from graphc.errors import GraphError
from graphc.ir.dims import Dims
from graphc.nn.module import Module
from graphc.nn.parameter import ONES, ZEROS


class BatchNorm(Module):
    """Normalises each channel (axis 1) over batch and space; in inference with the running mean and variance (without
    track_running_stats: with those of the batch, there too).

    A layer that `trainable=` of a training step leaves out stays as it is: it normalises as in inference.
    Training: running = (1 - momentum) * running + momentum * batch, the variance unbiased, as in torch; momentum None:
    the mean over all batches. State: weight, bias, running_mean, running_var [C]; with momentum None
    num_batches_tracked [].

    sync: in a training step with shards the statistics are those of the whole batch, as torch.nn.SyncBatchNorm's;
    without it those of each shard, whose means the running ones take.
    """

    def __init__(self, *, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True, sync: bool = False) -> None:
        super().__init__()
        self.sync = sync
        self.eps, self.momentum, self.affine = eps, momentum, affine
        self.track_running_stats = track_running_stats

    def forward(self, x: Array) -> Array:
        if len(x.shape) < 2:
            raise GraphError(f"{type(self).__name__} takes [batch, channels, …], got {list(x.shape)}")
        shape = (x.shape[1],)
        gamma, beta = self._scale(x, shape)
        if not self.track_running_stats:
            return self._normalised(x, gamma, beta)[0]
        mean, var = self.buffer("running_mean", shape, ZEROS, x.dtype), self.buffer("running_var", shape, ONES, x.dtype)
        if not self.training or self.frozen:
            return gc.batch_norm_inference(x, gamma, beta, mean=mean, var=var, eps=self.eps)
        y, batch_mean, batch_var, unbiased = self._normalised(x, gamma, beta)
        share = self._share(x)
        for name, running, batch in (("running_mean", mean, batch_mean),
                                     ("running_var", var, batch_var * unbiased)):
            self.update(name, running * (1 - share) + gc.stop_gradient(batch) * share)
        return y

    def _normalised(self, x: Array, gamma: Array, beta: Array) -> tuple[Array, Array, Array, Array | float]:
        """(y, mean, variance, what makes the variance unbiased) of the batch, or of the shard."""
        if not self.sync or current_trace().root.shard is None:
            return *gc.batch_norm(x, gamma, beta, eps=self.eps), _unbiased(x)
        axes, channels = (0, *range(2, x.ndim)), (x.shape[1], *(1,) * (x.ndim - 2))
        count = gc.shard_sum(gc.sum(gc.ones((x.shape[0] * prod(x.shape[2:]),), x.dtype)))
        mean = gc.shard_sum(gc.sum(x, axis=axes)) / count
        centred = x - mean.reshape(*channels)
        var = gc.shard_sum(gc.sum(centred * centred, axis=axes)) / count
        y = centred * gc.rsqrt(var + self.eps).reshape(*channels)
        return (y * gamma.reshape(*channels) + beta.reshape(*channels), mean, var,
                count / gc.maximum(count - 1, 1))

    def _scale(self, x: Array, shape: Dims) -> tuple[Array, Array]:
        if not self.affine:
            return gc.ones(shape, x.dtype), gc.zeros(shape, x.dtype)
        return self.parameter("weight", shape, ONES, x.dtype), self.parameter("bias", shape, ZEROS, x.dtype)

    def _share(self, x: Array) -> Array | float:
        """Of the running mean that this batch is."""
        if self.momentum is not None:
            return self.momentum
        count = self.buffer("num_batches_tracked", (), ZEROS, x.dtype)
        self.update("num_batches_tracked", count + 1)
        return 1 / (count + 1)


class BatchNorm1d(BatchNorm):
    """BatchNorm of [B, C] or [B, C, L]."""


class BatchNorm2d(BatchNorm):
    """BatchNorm of [B, C, H, W]."""


class BatchNorm3d(BatchNorm):
    """BatchNorm of [B, C, D, H, W]."""


class InstanceNorm(BatchNorm):
    """Normalises each channel of each example over space (Ulyanov et al. 2016): x [B, C, …]. With track_running_stats
    inference takes the running mean and variance, which are means over the examples of each batch."""

    def __init__(self, *, eps: float = 1e-5, momentum: float = 0.1, affine: bool = False,
                 track_running_stats: bool = False) -> None:
        super().__init__(eps=eps, momentum=momentum, affine=affine, track_running_stats=track_running_stats)

    def forward(self, x: Array) -> Array:
        if x.ndim < 3:
            raise GraphError(f"{type(self).__name__} takes [batch, channels, …], got {list(x.shape)}")
        shape, axes, channels = (x.shape[1],), tuple(range(2, x.ndim)), (x.shape[1], *(1,) * (x.ndim - 2))
        gamma, beta = self._scale(x, shape)
        if self.track_running_stats:
            mean = self.buffer("running_mean", shape, ZEROS, x.dtype)
            var = self.buffer("running_var", shape, ONES, x.dtype)
            if not self.training or self.frozen:
                return gc.batch_norm_inference(x, gamma, beta, mean=mean, var=var, eps=self.eps)
            share = self._share(x)
            for name, running, own in (("running_mean", mean, gc.mean(x, axis=axes)),
                                       ("running_var", var, gc.var(x, axis=axes, ddof=1))):
                self.update(name, running * (1 - share) + gc.stop_gradient(gc.mean(own, axis=0)) * share)
        y = (x - gc.mean(x, axis=axes, keepdims=True)) * gc.rsqrt(gc.var(x, axis=axes, keepdims=True) + self.eps)
        return y * gamma.reshape(*channels) + beta.reshape(*channels) if self.affine else y


class InstanceNorm1d(InstanceNorm):
    """InstanceNorm of [B, C, L]."""


class InstanceNorm2d(InstanceNorm):
    """InstanceNorm of [B, C, H, W]."""


class InstanceNorm3d(InstanceNorm):
    """InstanceNorm of [B, C, D, H, W]."""


class LocalResponseNorm(Module):
    """x / (k + alpha mean(x²) over `size` neighbouring channels)^beta (Krizhevsky et al. 2012): x [B, C, …]; zeros
    stand before the first and behind the last channel."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        if size < 1:
            raise GraphError(f"LocalResponseNorm: size is a number of channels >= 1, got {size}")
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: Array) -> Array:
        if x.ndim < 3:
            raise GraphError(f"LocalResponseNorm takes [batch, channels, …], got {list(x.shape)}")
        widths, count = [(0, 0)] * x.ndim, x.shape[1]
        if not isinstance(count, int):
            raise GraphError(f"LocalResponseNorm: the number of channels must be an int, got the name {count}")
        before, after = (min(n, max(count - 1, 0)) for n in (self.size // 2, (self.size - 1) // 2))
        widths[1] = (before, after)
        square = gc.pad(x * x, widths)
        total = sum(square[:, i:i + count] for i in range(before + after + 1))
        return x / (total * (self.alpha / self.size) + self.k) ** self.beta


class LayerNorm(Module):
    """Normalises over the last `axes` axes; weight and bias have their shape. As torch.nn.LayerNorm."""

    def __init__(self, *, axes: int = 1, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.axes, self.eps, self.affine = axes, eps, affine

    def forward(self, x: Array) -> Array:
        shape = x.shape[len(x.shape) - self.axes:]
        if not self.affine:
            return gc.layer_norm(x, axes=self.axes, eps=self.eps)
        gamma, beta = self.parameter("weight", shape, ONES, x.dtype), self.parameter("bias", shape, ZEROS, x.dtype)
        return gc.layer_norm(x, gamma, beta, axes=self.axes, eps=self.eps)


class RMSNorm(Module):
    """x / sqrt(mean(x²) + eps) * weight over the last axis (Zhang and Sennrich 2019)."""

    def __init__(self, *, eps: float = 1e-6, affine: bool = True) -> None:
        super().__init__()
        self.eps, self.affine = eps, affine

    def forward(self, x: Array) -> Array:
        if not self.affine:
            return gc.rms_norm(x, eps=self.eps)
        return gc.rms_norm(x, self.parameter("weight", x.shape[-1:], ONES, x.dtype), eps=self.eps)


class GroupNorm(Module):
    """Normalises each of `groups` groups of channels over their channels and space: x [B, C, …]."""

    def __init__(self, groups: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.groups, self.eps, self.affine = groups, eps, affine

    def forward(self, x: Array) -> Array:
        if x.ndim < 2:
            raise GraphError(f"GroupNorm takes [batch, channels, …], got {list(x.shape)}")
        if not self.affine:
            return gc.group_norm(x, groups=self.groups, eps=self.eps)
        shape = (x.shape[1],)
        gamma, beta = self.parameter("weight", shape, ONES, x.dtype), self.parameter("bias", shape, ZEROS, x.dtype)
        return gc.group_norm(x, gamma, beta, groups=self.groups, eps=self.eps)


class Dropout(Module):
    """In training, zeroes elements with probability `rate` and scales the rest by 1 / (1 - rate); nothing in
    inference."""

    def __init__(self, rate: float = 0.5) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise GraphError(f"the dropout rate must be in [0, 1), got {rate}")
        self.rate = rate

    def forward(self, x: Array) -> Array:
        return gc.dropout(x, self.rate) if self.training and self.rate else x


def _unbiased(x: Array) -> Array | float:
    """n / (n - 1) for the n elements of a channel; an array when n is not known yet."""
    n = x.shape[0] * prod(x.shape[2:])
    if isinstance(n, int):
        return n / (n - 1) if n > 1 else 1.0
    count = gc.sum(gc.ones((n,), x.dtype))
    return count / gc.maximum(count - 1, 1)
