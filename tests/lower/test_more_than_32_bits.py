"""Arrays of more elements, and lengths, than 32 bits count: kernels for them are made and proved; more than any memory
has is refused."""
from __future__ import annotations

import pytest

import graphc as gc
from graphc.errors import GraphError

f32 = gc.f32


def _product(a, b):
    return a @ b


def _whole_product(a, b):
    return gc.matmul(gc.cast(a, gc.i32), gc.cast(b, gc.i32))


def _filtered(x, w):
    return gc.conv2d(x, w, padding=1)


def programs(n):
    """Functions with an axis of n elements each, and the types of their arguments."""
    for a, b in (((n, 8), (8, 4)), ((n, 64), (64, 64)), ((4, n), (n, 4)), ((64, n), (n, 64)), ((n,), (n,)), ((4, 8), (8, n)),
                 ((64, 64), (64, n)), ((1, 64), (64, n)), ((n, 2, 8), (n, 8, 2)), ((n, 64, 64), (n, 64, 64)), ((n, 2, 8), (8, 2))):
        yield _product, {"a": f32[a], "b": f32[b]}
    for a, b in (((n, 64), (64, 64)), ((64, n), (n, 64))):
        yield _product, {"a": gc.bf16[a], "b": gc.bf16[b]}
        yield _whole_product, {"a": gc.i8[a], "b": gc.i8[b]}
    for x, w in (((n, 8, 8, 8), (8, 8, 3, 3)), ((1, n, 8, 8), (8, n, 3, 3)), ((1, 8, 8, 8), (n, 8, 3, 3))):
        yield _filtered, {"x": f32[x], "w": f32[w]}
    yield lambda x, w: gc.conv2d(x, w, padding=1, groups=n), {"x": f32[1, n, 8, 8], "w": f32[n, 1, 3, 3]}
    yield lambda x, w: gc.conv1d(x, w, padding=1), {"x": f32[1, 8, n], "w": f32[8, 8, 3]}
    for batch, queries, keys in ((1, n, 64), (1, 64, n), (n, 64, 64)):
        yield gc.attention, {"q": f32[batch, 1, queries, 64], "k": f32[batch, 1, keys, 64], "v": f32[batch, 1, keys, 64]}
    for shape in ((8, n), (n, 8)):
        for f in (gc.sum, gc.softmax, gc.layer_norm, gc.sort, lambda x: gc.topk(x, 4)[0], lambda x: gc.sum(x, axis=0),
                  lambda x: gc.cumsum(x, axis=1), lambda x: gc.cumsum(x, axis=0), lambda x: gc.argmax(x, axis=1),
                  lambda x: x.T + 1.0, lambda x: gc.concat([x, x], axis=0)):
            yield f, {"x": f32[shape]}
    for shape in ((n, 8, 8, 8), (1, n, 8, 8)):
        yield lambda x: gc.max_pool2d(x, 2), {"x": f32[shape]}
    for rows, count in ((n, 4), (8, n)):
        yield lambda x, i: gc.take(x, i, axis=0), {"x": f32[rows, 8], "i": gc.i64[count]}


@pytest.mark.parametrize("target", ["sse2", "avx2", "avx512", "avx512_amx", "neon"])
def test_kernels_of_long_axes(target, monkeypatch):
    monkeypatch.setenv("GRAPHC_TARGET", target)
    for f, types in programs((1 << 33) - 3):
        gc.plan(f, **types)


def test_more_than_any_memory():
    for f, types in programs(1 << 60):
        with pytest.raises(GraphError, match="larger than any memory|than there is"):
            gc.plan(f, **types)
