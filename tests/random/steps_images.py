"""Steps of random programs on images [N, C, H, W] and signals [N, C, L]."""
from __future__ import annotations

import numpy as np

import graphc as gc
from tests.random.scope import Scope, Skip


def image(s: Scope):
    """An image that is there, or views of another array as one."""
    if s.chance(0.75):
        try:
            return s.pick(lambda x: x.dtype.is_float and x.ndim == 4 and x.type.is_static)
        except Skip:
            pass
    shape = (s.whole(1, 2), s.one([1, 2, 3, 4]), s.whole(1, 5), s.whole(1, 5))
    return gc.Array.__pos__(_array(s, shape))


def _array(s: Scope, shape):
    x = s.like(shape, s.dtype)
    return x if isinstance(x, gc.Array) else s.input(shape, s.dtype)


def conv2d(s: Scope):
    x = image(s)
    c = x.shape[1]
    groups = s.one([g for g in (1, 1, 1, 2, 3, 4, c) if g and c % g == 0] or [1])
    w = s.like((groups * s.whole(1, 3), c // groups, *((3, 3) if s.chance(0.3) else (s.whole(1, 3), s.whole(1, 3)))),
               x.dtype, 0.5)
    padding = s.one([0, 1, 1, "same", ((1, 0), (0, 2))]) if s.chance(0.8) else 2
    y = gc.conv2d(x, w, stride=_size(s, 2), padding=padding, dilation=_size(s, 2), groups=groups)
    if s.chance(0.3):
        return y * 0.5
    if s.chance(0.3):
        return gc.relu(y)
    return y + s.like((y.shape[1], 1, 1), y.dtype) if s.chance(0.3) else y


def conv1d(s: Scope):
    x = s.pick(lambda x: x.dtype.is_float and x.ndim == 3 and x.type.is_static) if s.chance(0.6) else image(s)[0]
    c = x.shape[1]
    w = s.like((s.whole(1, 3), c, s.whole(1, 3)), x.dtype, 0.5)
    return gc.conv1d(x, w, stride=s.whole(1, 2), padding=s.whole(0, 1), dilation=s.whole(1, 2)) * 0.5


def volume(s: Scope):
    """Of three spatial axes, convolved and pooled."""
    x = s.like((s.whole(1, 2), s.whole(1, 3), *(s.whole(1, 4) for _ in range(3))), s.dtype)
    x = x if isinstance(x, gc.Array) else s.input(x.shape, s.dtype)
    w = s.like((s.whole(1, 3), x.shape[1], *(s.whole(1, 2) for _ in range(3))), x.dtype, 0.5)
    y = gc.conv3d(x, w, stride=s.whole(1, 2), padding=s.one([0, 1, "same"]) if min(x.shape[2:]) > 1 else 1) * 0.5
    pooled = s.one([gc.max_pool3d, gc.avg_pool3d])
    return pooled(y, 2, s.whole(1, 2), 1, ceil_mode=s.chance(0.5)) if s.chance(0.5) else y


def signal_pool(s: Scope):
    x = s.pick(lambda x: x.dtype.is_float and x.ndim == 3 and x.type.is_static and x.size) if s.chance(0.6) else image(s)[0]
    if s.chance(0.3):
        return s.one([gc.adaptive_avg_pool1d, gc.adaptive_max_pool1d])(x, s.whole(1, 4))
    kernel = s.whole(1, 3)
    pooled = s.one([gc.max_pool1d, gc.avg_pool1d])
    return pooled(x, kernel, s.whole(1, 3), (s.whole(0, kernel - 1), s.whole(0, kernel - 1)), ceil_mode=s.chance(0.5))


def conv_transpose(s: Scope):
    x = image(s)
    stride = s.whole(1, 2)
    w = s.like((x.shape[1], s.whole(1, 2), s.whole(1, 3), s.whole(1, 3)), x.dtype, 0.5)
    return gc.conv_transpose2d(x, w, stride=stride, padding=s.whole(0, 1), output_padding=s.whole(0, stride - 1)) * 0.5


def pool(s: Scope):
    x = image(s)
    kernel = _size(s, 3)
    stride = None if s.chance(0.5) else _size(s, 2)
    padding = s.one([0, 0, 1]) if np.min(kernel) >= 2 else 0
    if s.chance(0.5):
        return gc.max_pool2d(x, kernel, stride, padding, dilation=s.one([1, 1, 1, 2]))
    return gc.avg_pool2d(x, kernel, stride, padding, count_include_pad=s.chance(0.5))


def global_pool(s: Scope):
    return s.one([gc.global_avg_pool, gc.global_max_pool])(image(s))


def norm(s: Scope):
    x = image(s)
    c = x.shape[1]
    per_channel = [s.like((c,), x.dtype) for _ in range(4)]
    way = s.whole(0, 2)
    if way == 0:
        return gc.batch_norm(x, *per_channel[:2], eps=0.1)[:s.one([1, 3])]
    if way == 1:
        return gc.group_norm(x, *per_channel[:s.one([0, 2])],
                             groups=s.one([g for g in (1, 2, 3, c) if g and c % g == 0] or [1]), eps=0.1)
    mean, var = per_channel[2:]
    return gc.batch_norm_inference(x, *per_channel[:2], mean, gc.Array.__pos__(_square(var)), eps=0.1)


def _square(x):
    return x * x if isinstance(x, gc.Array) else gc.zeros(x.shape, gc.f32 if x.dtype == np.float32 else gc.f64) + x * x


def resize(s: Scope):
    x = image(s)
    way = s.whole(0, 2)
    if way == 0:
        return gc.repeat(gc.repeat(x, 2, 2), 2, 3)
    return gc.resize(x, (s.whole(1, 5), s.whole(1, 5)), s.one(["nearest", "bilinear"]))


def border(s: Scope):
    x = image(s)
    return gc.pad(x, [(0, 0), (0, 0), (s.whole(0, 1), s.whole(0, 2)), (s.whole(0, 2), s.whole(0, 1))], s.one([0, 0, 1]))


def _size(s: Scope, most: int):
    return s.whole(1, most) if s.chance(0.6) else (s.whole(1, most), s.whole(1, most))


STEPS = {conv2d: 6, conv1d: 2, conv_transpose: 1, volume: 2, signal_pool: 2, pool: 5, global_pool: 1, norm: 4, resize: 3, border: 2}
