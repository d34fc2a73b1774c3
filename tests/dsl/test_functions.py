"""Public functions: axes, defaults and options reach the operators as in numpy."""
import numpy as np
import pytest
from dsl_run import close, run

import graphc as gc

RNG = np.random.default_rng(1)
X = RNG.standard_normal((2, 3, 4)).astype(np.float32)
M = RNG.standard_normal((3, 5)).astype(np.float32)
V = RNG.standard_normal(6).astype(np.float32)
I = np.array([2, 0, 1, 2])


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


CASES = {
    # elementwise
    **{name: (getattr(gc, name), getattr(np, name), (X,)) for name in
       "exp expm1 tanh sin cos floor ceil abs sign square isnan isfinite logical_not round".split()},
    **{name: (lambda x, n=name: getattr(gc, n)(gc.abs(x) + 0.5),
              lambda x, n=name: getattr(np, n)(np.abs(x) + np.float32(0.5)), (X,)) for name in
       "log log1p sqrt".split()},
    **{name: (getattr(gc, name), getattr(np, name), (X, X[::-1].copy())) for name in
       "add minimum maximum less less_equal greater greater_equal equal not_equal logical_and logical_or "
       "logical_xor".split()},
    "rsqrt": (lambda x: gc.rsqrt(gc.exp(x)), lambda x: 1 / np.sqrt(np.exp(x)), (X,)),
    "sigmoid": (gc.sigmoid, sigmoid, (X,)),
    "clip": (lambda x: gc.clip(x, -0.5, None), lambda x: np.clip(x, -0.5, None).astype(np.float32), (X,)),
    "clip by arrays": (lambda x, y: gc.clip(x, y, 2), lambda x, y: np.clip(x, y, 2), (X, X * 0)),
    "where": (lambda x: gc.where(x > 0, x, 0), lambda x: np.where(x > 0, x, 0).astype(np.float32), (X,)),
    "where numbers": (lambda x: gc.where(x > 0, 1, 2.5), lambda x: np.where(x > 0, 1, 2.5).astype(np.float32), (X,)),
    "softplus beta": (lambda x: gc.softplus(x, 2), lambda x: np.log1p(np.exp(2 * x)) / 2, (X,)),
    "silu": (gc.silu, lambda x: x * sigmoid(x), (X,)),
    "leaky_relu": (lambda x: gc.leaky_relu(x, 0.2), lambda x: np.where(x > 0, x, x * np.float32(0.2)), (X,)),
    "bitwise": (lambda x: gc.bitwise_xor(gc.left_shift(x, 2), gc.bitwise_not(x)), lambda x: (x << 2) ^ ~x, (I,)),
    # reductions
    **{f"{name} {axis}": (lambda x, n=name, a=axis: getattr(gc, n)(x, axis=a),
                          lambda x, n=name, a=axis: getattr(np, n)(x, axis=a), (X,))
       for name in "sum mean prod max min var std".split() for axis in (None, -2, (0, 2))},
    "logsumexp": (lambda x: gc.logsumexp(x, 1, keepdims=True), lambda x: np.log(np.exp(x).sum(1, keepdims=True)), (X,)),
    "argmax": (lambda x: gc.argmax(x, -1, keepdims=True), lambda x: np.argmax(x, -1, keepdims=True), (X,)),
    "argmin flat": (lambda x: gc.argmin(x, keepdims=True), lambda x: np.argmin(x, keepdims=True), (X,)),
    "cumsum": (lambda x: gc.cumsum(x, -1, reverse=True), lambda x: np.cumsum(x[..., ::-1], -1)[..., ::-1], (X,)),
    "cumsum exclusive": (lambda x: gc.cumsum(x, exclusive=True), lambda x: np.cumsum(x) - x.ravel(), (V,)),
    "cumprod": (lambda x: gc.cumprod(x, 0), lambda x: np.cumprod(x, 0), (X,)),
    "sort": (lambda x: gc.sort(x, 1), lambda x: np.sort(x, 1), (X,)),
    "sort down": (lambda x: gc.sort(x, descending=True), lambda x: -np.sort(-x), (X,)),
    "argsort": (lambda x: gc.argsort(x), lambda x: np.argsort(x, kind="stable"), (X,)),
    "topk": (lambda x: gc.topk(x, 2, 1)[0], lambda x: -np.sort(-x, 1)[:, :2], (X,)),
    # shape
    "moveaxis": (lambda x: gc.moveaxis(x, 0, -1), lambda x: np.moveaxis(x, 0, -1), (X,)),
    "moveaxis two": (lambda x: gc.moveaxis(x, (0, 1), (2, 0)), lambda x: np.moveaxis(x, (0, 1), (2, 0)), (X,)),
    "expand_dims": (lambda x: gc.expand_dims(x, (0, -1)), lambda x: np.expand_dims(x, (0, -1)), (X,)),
    "squeeze": (lambda x: gc.squeeze(x[:1, :1], 0), lambda x: np.squeeze(x[:1, :1], 0), (X,)),
    "transpose": (lambda x: gc.transpose(x, (1, 2, 0)), lambda x: np.transpose(x, (1, 2, 0)), (X,)),
    "swapaxes": (lambda x: gc.swapaxes(x, 0, -1), lambda x: np.swapaxes(x, 0, -1), (X,)),
    "broadcast_to": (lambda x: gc.broadcast_to(x, (7, 2, 3, 4)), lambda x: np.broadcast_to(x, (7, 2, 3, 4)), (X,)),
    "concat": (lambda x, y: gc.concat([x, y, x], -1), lambda x, y: np.concatenate([x, y, x], -1), (X, X + 1)),
    "stack": (lambda x, y: gc.stack((x, y), -1), lambda x, y: np.stack((x, y), -1), (X, X + 1)),
    "split": (lambda x: gc.split(x, 2, -1)[1], lambda x: np.split(x, 2, -1)[1], (X,)),
    "split at": (lambda x: gc.split(x, [1, 2], 2)[1], lambda x: np.split(x, [1, 2], 2)[1], (X,)),
    "split at points": (lambda x: gc.split(x, points=[1, 3], axis=2)[1], lambda x: np.split(x, [1, 3], 2)[1], (X,)),
    "split into sizes": (lambda x: gc.split(x, sizes=[1, 3], axis=2)[1], lambda x: np.split(x, [1], 2)[1], (X,)),
    "pad": (lambda x: gc.pad(x, 1, 2.5), lambda x: np.pad(x, 1, constant_values=2.5), (X,)),
    "pad pairs": (lambda x: gc.pad(x, ((0, 1), (2, 0), (1, 1))), lambda x: np.pad(x, ((0, 1), (2, 0), (1, 1))), (X,)),
    "flip": (lambda x: gc.flip(x, (0, -1)), lambda x: np.flip(x, (0, -1)), (X,)),
    "roll": (lambda x: gc.roll(x, 1, -1), lambda x: np.roll(x, 1, -1), (X,)),
    "roll back": (lambda x: gc.roll(x, -5, 1), lambda x: np.roll(x, -5, 1), (X,)),
    "repeat": (lambda x: gc.repeat(x, 3, 1), lambda x: np.repeat(x, 3, 1), (X,)),
    "tile": (lambda x: gc.tile(x, (2, 1, 3)), lambda x: np.tile(x, (2, 1, 3)), (X,)),
    "tile one": (lambda x: gc.tile(x, 2), lambda x: np.tile(x, 2), (X,)),
    "tril": (lambda x: gc.tril(x, -1), lambda x: np.tril(x, -1), (X,)),
    "triu": (gc.triu, np.triu, (X,)),
    "arange": (lambda x: x + gc.arange(6).astype(gc.f32), lambda x: x + np.arange(6, dtype=np.float32), (V,)),
    "arange steps": (lambda x: gc.arange(7, -2, -2), lambda x: np.arange(7, -2, -2), (V,)),
    "arange floats": (lambda x: gc.arange(0.0, 1.0, 0.3), lambda x: np.arange(0, 1, 0.3, dtype=np.float32), (V,)),
    "full": (lambda x: gc.full((2, 3), 7), lambda x: np.full((2, 3), 7), (V,)),
    "full of an array": (lambda x: gc.full((2,), x[0]), lambda x: np.full((2,), x[0]), (V,)),
    "zeros_like": (gc.zeros_like, np.zeros_like, (X,)),
    "ones of bool": (lambda x: gc.ones((2,), gc.bool_), lambda x: np.ones((2,), bool), (X,)),
    "eye": (lambda x: gc.eye(3), lambda x: np.eye(3, dtype=np.float32), (X,)),
    "dynamic_slice": (lambda x, i: gc.dynamic_slice(x, (0, i[2], 1), (2, 2, 3)), lambda x, i: x[:, 1:3, 1:], (X, I)),
    "dynamic_update_slice": (lambda v, i: gc.dynamic_update_slice(v, [1.0, 2.0], [i[0]]),
                             lambda v, i: np.r_[v[:2], 1, 2, v[4:]].astype(np.float32), (V, I)),
    # index
    "take": (lambda x, i: gc.take(x, i, 1), lambda x, i: np.take(x, i, 1), (X, I)),
    "take_along_axis": (lambda x, i: gc.take_along_axis(x, i[None, :, None], 1),
                        lambda x, i: np.take_along_axis(x, i[None, :, None], 1), (X, I)),
    "embedding": (lambda x, i: gc.embedding(x, i.reshape(2, 2)), lambda x, i: x[i.reshape(2, 2)], (M, I)),
    "scatter_add": (lambda x, i: gc.scatter_add(x, i, 1.0, axis=1),
                    lambda x, i: x + np.array([1, 1, 2], np.float32)[:, None], (X, I)),
    "scatter_add_along_axis": (lambda x, i: gc.scatter_add_along_axis(x, i, 1.0, 0),
                               lambda x, i: x + np.array([1, 1, 2, 0, 0, 0], np.float32), (V, I)),
    "one_hot": (lambda i: gc.one_hot(i, 3), lambda i: np.eye(3, dtype=np.float32)[i], (I,)),
    # products
    "dot": (lambda x, y: gc.dot(x, y), lambda x, y: np.dot(x, y), (X.swapaxes(1, 2).copy(), M)),
    "dot nd": (lambda x, y: gc.dot(x, y), lambda x, y: np.dot(x, y), (X, X.swapaxes(1, 2).copy())),
    "dot vectors": (gc.dot, np.dot, (V, V)),
    "outer": (gc.outer, np.outer, (V, V)),
    "einsum": (lambda x, y: gc.einsum("bij, ik -> bkj", x, y), lambda x, y: np.einsum("bij,ik->bkj", x, y), (X, M)),
    "einsum one": (lambda x: gc.einsum("abc->ca", x), lambda x: np.einsum("abc->ca", x), (X,)),
    # composites
    "softmax": (lambda x: gc.softmax(x, 1), lambda x: softmax(x, 1), (X,)),
    "log_softmax": (gc.log_softmax, lambda x: np.log(softmax(x)), (X,)),
    "layer_norm": (lambda x: gc.layer_norm(x, axes=2),
                   lambda x: (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-5), (X,)),
    "rms_norm": (lambda x, g: gc.rms_norm(x, g), lambda x, g: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * g,
                 (X, V[:4])),
    "mse": (lambda x: gc.mse(x, 1.0), lambda x: ((x - 1) ** 2).mean(), (X,)),
    "mse sum": (lambda x: gc.mse(x, x * 2, reduction="sum"), lambda x: (x ** 2).sum(), (X,)),
    "cross_entropy": (lambda x, i: gc.cross_entropy(x, i, axis=1),
                      lambda x, i: -np.log(softmax(x, 1))[np.arange(2)[:, None], i, np.arange(4)].mean(),
                      (X, np.array([[2] * 4, [0] * 4]))),
    "cross_entropy soft": (lambda x: gc.cross_entropy(x, gc.softmax(x)),
                           lambda x: -(softmax(x) * np.log(softmax(x))).sum(-1).mean(), (X,)),
    "bce": (lambda x: gc.bce_with_logits(x, 1.0, "none"), lambda x: np.log1p(np.exp(-x)), (X,)),
    "attention": (lambda x: gc.attention(x, x, x), lambda x: softmax(x @ x.swapaxes(1, 2) / 2) @ x, (X,)),
    "attention causal": (lambda x: gc.attention(x, x, x, causal=True, scale=1.0),
                         lambda x: softmax(np.where(np.tri(3, dtype=bool), x @ x.swapaxes(1, 2), -np.inf)) @ x, (X,)),
}


@pytest.mark.parametrize("name", CASES)
def test_against_numpy(name):
    f, reference, arrays = CASES[name]
    want = np.asarray(reference(*arrays))
    close(run(f, *arrays), want.astype(np.float32) if want.dtype == np.float64 else want)


IMAGE = RNG.standard_normal((2, 4, 7, 9)).astype(np.float32)


@pytest.mark.parametrize("options, shape", [
    ({}, (5, 7)), ({"padding": "same"}, (7, 9)), ({"padding": "same", "stride": 2}, (4, 5)),
    ({"padding": 1, "stride": (1, 2)}, (7, 5)),
    ({"padding": ((0, 1), (2, 0))}, (6, 9)), ({"dilation": 2, "padding": "valid"}, (3, 5)),
    ({"padding": "same", "dilation": (2, 1)}, (7, 9))])
def test_conv2d_sizes(options, shape):
    w = np.ones((6, 2, 3, 3), np.float32)
    assert run(lambda x: gc.conv2d(x, w, groups=2, **options), IMAGE).shape == (2, 6, *shape)


def test_conv1d_is_correlation():
    x, w = IMAGE[:1, :1, 0], RNG.standard_normal((1, 1, 3)).astype(np.float32)
    close(run(lambda x: gc.conv1d(x, w)[0, 0], x), np.correlate(x[0, 0], w[0, 0], "valid"))
    close(run(lambda x: gc.conv1d(x, w, padding="same")[0, 0], x), np.correlate(x[0, 0], w[0, 0], "same"))
    close(run(lambda x: gc.conv1d(x, w, padding=(2, 0), stride=2)[0, 0], x),
          np.correlate(np.r_[0, 0, x[0, 0]].astype(np.float32), w[0, 0], "valid")[::2])


def test_conv_transpose_is_the_gradient_of_conv():
    w = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)

    def ours(x):
        return gc.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1)

    got = run(ours, IMAGE)
    assert got.shape == (2, 3, 14, 18)

    @gc.graph
    def f(y: gc.f32[2, 3, 14, 18], g: gc.f32[2, 4, 7, 9]):
        return (gc.conv2d(y, w, stride=2, padding=1) * g).sum()
    from dsl_run import run_graph
    close(run_graph(gc.grad(f, "y"), got, IMAGE), got)
    assert run(lambda x: gc.conv_transpose1d(x, w[:, :, 0], stride=2), IMAGE[:, :, 0]).shape == (2, 3, 19)


@pytest.mark.parametrize("axes", (1, 2, 3))
def test_bias_and_activation_are_the_epilogue_of_a_convolution(axes):
    """Of any rank, with no view between them."""
    shape = gc.f32[2, 8, *(6,) * axes]
    run = gc.compile(lambda x, w, b: gc.relu(getattr(gc, f"conv{axes}d")(x, w, padding=1) + b.reshape(16, *(1,) * axes)),
                     x=shape, w=gc.f32[16, 8, *(3,) * axes], b=gc.f32[16])
    text = run.dump("fused")
    assert 'kind="contraction"' in text and text.count("= fused(") == 1 and text.count("reshape(") == 1


@pytest.mark.parametrize("axes", (1, 2, 3))
def test_images_of_named_sizes(axes):
    """Windows side by side, and pools to one element; where the number of windows is no formula, the message names the
    size."""
    names = ("H", "W", "D")[:axes]

    def net(x):
        pool, mean = getattr(gc, f"max_pool{axes}d"), getattr(gc, f"adaptive_avg_pool{axes}d")
        return mean(pool(x, 3, 1, "same"), 1), mean(x, None)
    x = IMAGE.reshape(2, 4, *{1: (63,), 2: (9, 7), 3: (7, 3, 3)}[axes])
    for a, b in zip(gc.compile(net, x=gc.f32["B", 4, *names])(x), gc.compile(net, x=gc.f32[x.shape])(x)):
        np.testing.assert_allclose(a, b, rtol=1e-6)         # sums of two programs
    for refused in (lambda x: getattr(gc, f"avg_pool{axes}d")(x, 2, 3, ceil_mode=True),
                    lambda x: getattr(gc, f"adaptive_max_pool{axes}d")(x, 3)):
        with pytest.raises(gc.GraphError, match=names[0]):
            gc.compile(refused, x=gc.f32["B", 4, *names])


@pytest.mark.parametrize("shape, size", [((1, 1), 3), ((3, 1), (6, 2)), ((2, 5), (4, 10)), ((2, 3), (4, 2))], ids=str)
def test_adaptive_pools_to_more_elements_than_there_are(shape, size):
    x = IMAGE.reshape(-1)[:2 * shape[0] * shape[1]].reshape(1, 2, *shape)
    sizes = size if isinstance(size, tuple) else (size, size)
    bounds = [[(i * n // k, -(-(i + 1) * n // k)) for i in range(k)] for n, k in zip(shape, sizes)]
    for pool, of in (("avg", np.mean), ("max", np.max)):
        found = run(lambda x, pool=pool: getattr(gc, f"adaptive_{pool}_pool2d")(x, size), x)
        wanted = [[of(x[:, :, a:b, c:d], axis=(2, 3)) for c, d in bounds[1]] for a, b in bounds[0]]
        np.testing.assert_allclose(found, np.transpose(wanted, (2, 3, 0, 1)), rtol=1e-6)


def test_padding_by_name():
    x, w = IMAGE[:, :, :, 0], IMAGE[:1, :, :4, 0]
    upper, lower = (run(lambda x, w, p=p: gc.conv1d(x, w, 2, p), x, w) for p in ("same", "same_lower"))
    close(upper, run(lambda x, w: gc.conv1d(x, w, 2, (1, 2)), x, w))
    close(lower, run(lambda x, w: gc.conv1d(x, w, 2, (2, 1)), x, w))
    for kernel, stride in ((4, 2), (3, 3), (2, 3), (5, 1)):
        w = np.ones((4, 3, kernel), np.float32)
        y = run(lambda x, w, s=stride: gc.conv_transpose1d(x, w, s, "same"), x, w)
        assert y.shape == (2, 3, x.shape[2] * stride)


def test_pools():
    x = IMAGE[:, :, :6, :8]
    blocks = x.reshape(2, 4, 3, 2, 4, 2)
    close(run(lambda x: gc.max_pool2d(x, 2), x), blocks.max((3, 5)))
    close(run(lambda x: gc.avg_pool2d(x, (2, 2)), x), blocks.mean((3, 5)))
    close(run(lambda x: gc.max_pool1d(x, 2), x[:, :, 0]), x[:, :, 0].reshape(2, 4, 4, 2).max(-1))
    close(run(lambda x: gc.avg_pool1d(x, 2), x[:, :, 0]), x[:, :, 0].reshape(2, 4, 4, 2).mean(-1))
    close(run(gc.global_avg_pool, x), x.mean((2, 3)))
    close(run(gc.global_max_pool, x), x.max((2, 3)))
    assert run(lambda x: gc.max_pool2d(x, 3, stride=1, padding="same"), x).shape == x.shape


def test_batch_norm_gives_statistics():
    def f(x):
        return gc.batch_norm(x, gc.ones(4), gc.zeros(4))
    y, mean, var = run(f, IMAGE)
    close(mean, IMAGE.mean((0, 2, 3)))
    close(var, IMAGE.var((0, 2, 3)))
    close(y, (IMAGE - mean[:, None, None]) / np.sqrt(var[:, None, None] + 1e-5))
    close(run(lambda x: gc.batch_norm_inference(x, gc.ones(4), gc.zeros(4), mean=mean, var=var), IMAGE), y)


def test_resize():
    close(run(lambda x: gc.resize(x, (14, 18)), IMAGE), IMAGE.repeat(2, 2).repeat(2, 3))


def test_group_norm():
    g = IMAGE.reshape(2, 2, 2, 7, 9)
    want = ((g - g.mean((2, 3, 4), keepdims=True))
            / np.sqrt(g.var((2, 3, 4), keepdims=True) + 1e-5)).reshape(IMAGE.shape)
    close(run(lambda x: gc.group_norm(x, gc.ones(4), gc.zeros(4), groups=2), IMAGE), want)


def test_names_reach_the_text():
    @gc.graph
    def f(x: gc.f32[3]):
        h = gc.name(gc.exp(x), "h1")
        return h * 2
    assert "%h1 = exp(x)" in str(f)
