"""Native convolutions in Winograd's form: within the error bound that docs/numerics.md states, against float64."""
from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.compiled import CompiledGraph
from graphc.ir.builder import Builder
from graphc.ir.ops.conv import Conv, ConvInputGrad, ConvWeightGrad
from graphc.ir.ops.winograd import WinogradConv2d, WinogradWeightGrad, WinogradWeights
from graphc.ir.types import dtype_of, f32
from graphc.ir.winograd import POINTS, error_bound, gradient_error_bound, growth, transforms
from graphc.schedule import choose_winograd
from graphc.shard_tree import additions

EPS = 2.0**-24
NONE, SAME, ODD = ((0, 0), (0, 0)), ((1, 1), (1, 1)), ((0, 2), (1, 0))

# batch, channels, features, height, width, padding
SHAPES = [(1, 1, 1, 5, 5, SAME), (2, 3, 67, 6, 9, ODD), (1, 8, 16, 7, 7, SAME), (1, 17, 33, 8, 13, NONE),
          (3, 67, 5, 10, 11, SAME), (1, 32, 64, 14, 14, SAME),
          (1, 31, 17, 15, 33, ODD), (2, 16, 48, 16, 16, SAME), (1, 5, 24, 19, 23, ((2, 2), (2, 2))),
          (1, 40, 40, 28, 28, SAME), (1, 7, 65, 33, 31, SAME),
          (5, 64, 32, 5, 6, NONE), (1, 600, 16, 6, 6, SAME), (16, 32, 32, 32, 32, SAME)]


def arrays(n, c, f, h, w, spread=0.0, seed=0, dtype=np.float32):
    """Normal numbers; with a spread, of very different sizes."""
    rng = np.random.default_rng([seed, n, c, f, h, w])
    return [(rng.normal(size=s) * np.exp(spread * rng.normal(size=s))).astype(dtype)
            for s in ((n, c, h, w), (f, c, 3, 3))]


def convolution(x, w, m, padding, turned=False):
    """By native code; x in storage order NCHW and NHWC must give the same bits."""
    features, dtype = w.shape[1] if turned else w.shape[0], dtype_of(x)
    results = []
    for order in ((0, 1, 2, 3), (0, 2, 3, 1)):
        b = Builder()
        image = b.input("x", dtype[tuple(x.shape[i] for i in order)])
        back = b.transpose(image, perm=tuple(int(i) for i in np.argsort(order)))
        u = b.apply(WinogradWeights(m, 16, turned), (b.input("w", dtype[w.shape]),))[0]
        run = CompiledGraph(b.finish([b.apply(WinogradConv2d(m, features, padding), (back, u))[0]]))
        results.append(run(np.ascontiguousarray(x.transpose(order)), w))
    assert results[0].tobytes() == results[1].tobytes()
    return results[0]


@pytest.mark.parametrize("m", sorted(POINTS))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_within_the_bound(shape, m):
    *sizes, padding = shape
    for spread in (0.0, 3.0):
        x, w = arrays(*sizes, spread)
        exact = Conv.at(2)(padding=padding).reference(x.astype(np.float64), w.astype(np.float64))
        error = np.abs(convolution(x, w, m, padding) - exact)
        assert (error <= error_bound(m, x, w, exact.shape, padding)).all()


@pytest.mark.parametrize("m", sorted(POINTS))
@pytest.mark.parametrize("shape", SHAPES[:10:3], ids=str)
def test_in_f64(shape, m):
    """The kernels take the type of their operands; the pass keeps to f32."""
    *sizes, padding = shape
    x, w = arrays(*sizes, dtype=np.float64)
    exact = Conv.at(2)(padding=padding).reference(x.astype(np.longdouble), w.astype(np.longdouble))
    error = np.abs(convolution(x, w, m, padding) - exact)
    assert (error <= error_bound(m, x, w, exact.shape, padding)).all()
    dy = result_gradient(*shape).astype(np.float64)
    exact = ConvWeightGrad.at(2)(padding=padding,
                             w_shape=w.shape).reference(x.astype(np.longdouble), dy.astype(np.longdouble))
    assert (np.abs(kernel_gradient(x, dy, m, padding) - exact) <= gradient_error_bound(m, x, dy, padding)).all()


@pytest.mark.parametrize("m", sorted(POINTS))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_error_of_normal_numbers(shape, m):
    """Far below the bound: signs differ, and so do roundings. The direct algorithm has the first row's error at best.
    """
    *sizes, padding = shape
    x, w = arrays(*sizes)
    exact = Conv.at(2)(padding=padding).reference(x.astype(np.float64), w.astype(np.float64))
    error = convolution(x, w, m, padding) - exact
    assert np.sqrt(np.mean(error**2)) <= {2: 4, 4: 12}[m] * EPS * np.sqrt(9 * sizes[1]) * max(1, np.log2(sizes[1]) / 2)


@pytest.mark.parametrize("m", sorted(POINTS))
def test_infinity_stays_in_its_tiles(m):
    x, w = arrays(1, 8, 16, 20, 20)
    finite = convolution(x, w, m, SAME)
    x[0, 3, 9, 10] = np.inf
    got = convolution(x, w, m, SAME)
    touched = [{i // m for i in range(20) if i // m * m - 1 <= at < i // m * m + m + 1} for at in (9, 10)]
    clear = np.array([[i // m not in touched[0] or j // m not in touched[1] for j in range(20)] for i in range(20)])
    assert (got[..., clear] == finite[..., clear]).all() and not np.isfinite(got[..., 9, 10]).any()


@pytest.mark.parametrize("m", sorted(POINTS))
def test_gradient_towards_the_image(m):
    for n, c, f, h, w, padding in SHAPES[:10]:
        (dy, kernel), back = arrays(n, f, f, h, w), tuple((2 - a, 2 - b) for a, b in padding)
        kernel = arrays(n, c, f, h, w)[1]
        shape = (n, c, h + 2 - sum(padding[0]), w + 2 - sum(padding[1]))
        if min(shape) < 1:
            continue
        exact = ConvInputGrad.at(2)(padding=padding,
                                x_shape=shape).reference(kernel.astype(np.float64), dy.astype(np.float64))
        turned = np.flip(kernel.swapaxes(0, 1), (2, 3))
        assert (np.abs(convolution(dy, kernel, m, back, turned=True) - exact)
                <= error_bound(m, dy, turned, shape, back)).all()


def kernel_gradient(x, dy, m, padding, extra=None, shards=1):
    """By native code, x stored channels last; `extra` is added in the epilogue."""
    b, dtype = Builder(), dtype_of(x)
    ins = [b.transpose(b.input("x", dtype[tuple(x.shape[i] for i in (0, 2, 3, 1))]), perm=(0, 3, 1, 2)),
           b.input("dy", dtype[dy.shape])]
    y = b.apply(WinogradWeightGrad(m, padding, additions(0, shards)), ins)[0]
    values = [np.ascontiguousarray(x.transpose(0, 2, 3, 1)), dy]
    if extra is not None:
        y = b.add(y, b.input("extra", f32[extra.shape]))
        values.append(extra)
    return CompiledGraph(b.finish([y]))(*values)


def result_gradient(n, c, f, h, w, padding):
    return np.random.default_rng(1).normal(size=(n, f, h - 2 + sum(padding[0]),
                                                 w - 2 + sum(padding[1]))).astype(np.float32)


@pytest.mark.parametrize("m", sorted(POINTS))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradient_towards_kernels(shape, m):
    *sizes, padding = shape
    x, w = arrays(*sizes)
    dy = result_gradient(*shape)
    exact = ConvWeightGrad.at(2)(padding=padding, w_shape=w.shape).reference(x.astype(np.float64), dy.astype(np.float64))
    assert (np.abs(kernel_gradient(x, dy, m, padding) - exact) <= gradient_error_bound(m, x, dy, padding)).all()


@pytest.mark.parametrize("c, f, extra", [
    (31, 17, (17, 31, 3, 3)), (31, 17, (1, 31, 3, 3)), (31, 17, (31, 1, 1)), (31, 17, (17, 1, 1, 1)), (31, 17, (3,)),
    (32, 48, (48, 32, 3, 3)), (32, 48, (48, 1, 1, 1))], ids=str)
def test_epilogue_of_the_gradient_towards_kernels(c, f, extra):
    """Where operands lie like the kernels, vectors run on from one kernel to the next; whole ones of whole channels and
    features are stored as they are turned."""
    shape = 1, c, f, 15, 33, ODD
    x, dy = arrays(*shape[:-1])[0], result_gradient(*shape)
    added = np.random.default_rng(2).normal(size=extra).astype(np.float32)
    assert (kernel_gradient(x, dy, 4, ODD, added) == kernel_gradient(x, dy, 4, ODD) + added).all()


@pytest.mark.parametrize("shards, c, f, size", [(2, 31, 17, 5), (3, 32, 48, 30), (5, 64, 16, 14)])
def test_gradients_of_several_shards_are_added_in_the_order_of_their_tree(shards, c, f, size):
    """Each is what it is alone, in one part or in several."""
    x, dy = arrays(2 * shards, c, f, size, size)[0], result_gradient(2 * shards, c, f, size, size, SAME)
    sums = {(i, i + 1): kernel_gradient(*part, 4, SAME)
            for i, part in enumerate(zip(np.split(x, shards), np.split(dy, shards)))}
    for low, middle, high in additions(0, shards):
        sums[low, high] = sums[low, middle] + sums[middle, high]
    assert kernel_gradient(x, dy, 4, SAME, shards=shards).tobytes() == sums[0, shards].tobytes()


def test_prefetched_weights(monkeypatch):
    """Weights that are not in L2 when their turn comes: fetched before, to the same bits."""
    x, w = arrays(6, 200, 130, 12, 12)
    graph = Builder()
    u = graph.apply(WinogradWeights(4, 16), (graph.state_input("w", f32[w.shape]),))[0]
    graph = graph.finish([graph.apply(WinogradConv2d(4, 130, SAME), (graph.input("x", f32[x.shape]), u))[0]])
    found = {}
    for lines in (8, 0):
        monkeypatch.setattr(choose_winograd, "_prefetch_lines", lambda row, tiles, lines=lines: lines)
        run = CompiledGraph(graph, state=[w])
        assert ("prefetch" in run.dump("planned")) == (lines > 0)
        found[lines] = run(x).tobytes()
    assert found[8] == found[0]


def test_kernels_past_the_caches():
    """Results that the caches do not hold, at addresses of whole vectors and at others."""
    x, w = arrays(1, 512, 512, 3, 3)
    dy = result_gradient(1, 512, 512, 3, 3, SAME)
    b = Builder()
    ins = [b.input(name, f32[a.shape]) for name, a in (("x", x), ("dy", dy))]
    run = CompiledGraph(b.finish([b.apply(WinogradWeightGrad(4, SAME), ins)[0]]))
    memory = np.empty(w.size + 17, np.float32)
    first = -memory.ctypes.data % 64 // 4
    found = [memory[first + skipped:][:w.size].reshape(w.shape) for skipped in (0, 1)]
    exact = ConvWeightGrad.at(2)(padding=SAME, w_shape=w.shape).reference(x.astype(np.float64), dy.astype(np.float64))
    bytes_of = []
    for out in found:
        memory[:] = np.nan
        run(x, dy, out=out)
        assert (np.abs(out - exact) <= gradient_error_bound(4, x, dy, SAME)).all()
        bytes_of.append(out.tobytes())
    assert bytes_of[0] == bytes_of[1]


@pytest.mark.parametrize("m, least, most", [(2, 1.3, 2), (4, 3.5, 5.5)])
def test_rounded_tiles(m, least, most):
    """Transformed tiles rounded to bf16: how many times the error of rounded factors, as the documents say."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(60, 64, m + 2, m + 2)), rng.normal(size=(16, 64, 3, 3))
    bt, g, at = (np.array(getattr(transforms(m), name)) for name in ("bt", "g", "at"))

    def rounded(a):
        return a.astype(ml_dtypes.bfloat16).astype(np.float64)

    def direct(x, w):
        return sum(np.einsum("ncij,fc->nfij", x[:, :, i:i + m, j:j + m], w[:, :, i, j], optimize=True)
                   for i in range(3) for j in range(3))
    tiles, kernels = (rounded(np.einsum("ai,ncij,bj->ncab", t, a, t)) for t, a in ((bt, x), (g, w)))
    products = np.einsum("ncab,fcab->nfab", tiles, kernels, optimize=True)
    errors = [np.sqrt(np.mean((y - direct(x, w))**2))
              for y in (direct(rounded(x), rounded(w)), np.einsum("ia,nfab,jb->nfij", at, products, at))]
    assert least < errors[1] / errors[0] < most


def test_the_stated_numbers():
    """docs/numerics.md: growth of the error; products of the transforms are the filter."""
    assert {m: round(growth(m)) for m in POINTS} == {2: 64, 4: 564}
    for m in POINTS:
        t = transforms(m)
        g, d = np.random.default_rng(0).normal(size=3), np.random.default_rng(1).normal(size=m + 2)
        y = np.array(t.at) @ ((np.array(t.g) @ g) * (np.array(t.bt) @ d))
        np.testing.assert_allclose(y, [d[i:i + 3] @ g for i in range(m)], rtol=1e-12, atol=1e-12)
        assert all(np.float32(v) == v for matrix in (t.at, t.bt) for row in matrix for v in row)


def _net():
    first, middle = nn.Conv2d(32, 3, padding=1) >> nn.relu, nn.Conv2d(40, 3, padding=1) >> nn.BatchNorm2d() >> nn.relu
    return first >> middle >> nn.Conv2d(48, 3) >> nn.Flatten() >> nn.Linear(10)


def _gradients(step) -> bool:
    """Whether both gradients are in Winograd's form."""
    return all(word in step.dump("planned") for word in ("turned=true", "winograd_weight_grad"))


def test_networks_agree_with_the_direct_algorithm(monkeypatch):
    """Inference, with folded batch norm, and training: fused epilogues, weights made once or in every step."""
    x = np.random.default_rng(0).normal(size=(4, 3, 20, 18)).astype(np.float32)
    y = np.arange(4, dtype=np.int32)
    outputs, losses = {}, {}
    for knob in ("1", "0"):
        monkeypatch.setenv("GRAPHC_WINOGRAD", knob)
        run = gc.compile(_net(), x=gc.f32[4, 3, 20, 18], seed=1)
        step = gc.train_step(_net(), loss=nn.cross_entropy, optimizer=optim.SGD(0.1), x=gc.f32[4, 3, 20, 18],
                             y=gc.i32[4], seed=1)
        assert ("winograd_conv2d" in run.dump("planned")) == (knob == "1") and _gradients(step) == (knob == "1")
        outputs[knob] = run(x)
        losses[knob] = [float(step(x, y)) for _ in range(3)]
    np.testing.assert_allclose(outputs["1"], outputs["0"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(losses["1"], losses["0"], rtol=1e-4)


def test_predictions_follow_training():
    """Transformed weights are made anew when the state has changed."""
    x = np.random.default_rng(0).normal(size=(4, 3, 20, 18)).astype(np.float32)
    step = gc.train_step(_net(), loss=nn.cross_entropy, optimizer=optim.SGD(0.1), x=gc.f32[4, 3, 20, 18], y=gc.i32[4],
                         seed=1)
    predict = gc.compile(step.model, x=gc.f32[4, 3, 20, 18])
    before = predict(x)
    name = next(n for n in step.state if n.endswith("weight") and step.state[n].shape == (40, 32, 3, 3))
    step.state[name] = step.state[name] * 2
    after = predict(x)
    step.state[name] = step.state[name] / 2
    assert not np.allclose(before, after, rtol=1e-2) and (predict(x) == before).all()
