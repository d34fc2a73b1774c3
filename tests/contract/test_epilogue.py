"""Epilogues: index, lanes and masks are right for every layout, and an output may lie where an extra input lies."""
import numpy as np
import pytest

from graphc.codegen.loops.printer import print_function
from graphc.codegen.lower.contraction.outputs import load_along
from graphc.ir import contraction as C
from graphc.schedule.contraction_schedule import round_up
from tests.contract.harness import compiled


def scaled_residual(f, acc, index, lanes, mask, axis):
    """relu(acc + bias) and acc * 2 + residual; the bias has the output's rank with size-1 axes."""
    bias, residual = (load_along(f, view, index, axis, lanes, mask) for view in f.views[2:4])
    return [f.max(f.add(acc, bias), 0.0), f.add(f.mul(acc, 2.0), residual)]


def check(c, a, b, out, bias):
    rng = np.random.default_rng(1)
    residual = np.empty_like(out)
    residual[...] = rng.normal(size=out.shape)
    second = np.empty_like(out)
    kernel = compiled(c, [a, b, bias, residual], [out, second], epilogue=scaled_residual)
    sums = c.reference(a.astype(np.float64), b.astype(np.float64), out.shape)
    limit = 2e-6 * c.reference(np.abs(a), np.abs(b), out.shape) + 1e-5
    for threads in (1, 4):
        out[...], second[...] = 7, 7
        kernel.run([a, b, bias, residual], [out, second], threads)
        assert np.all(np.abs(out - np.maximum(sums + bias, 0)) <= limit)
        assert np.all(np.abs(second - (sums * 2 + residual)) <= 2 * limit)
    kernel.run_once([a, b, bias, residual], [out, residual])
    np.testing.assert_array_equal(residual, second)
    return kernel


def laid_out(rng, shape, order):
    return rng.normal(size=[shape[x] for x in order]).astype(np.float32).transpose(np.argsort(order))


@pytest.mark.parametrize("m, n, k", [(7, 19, 33), (64, 64, 64), (1, 200, 50), (1, 70, 2), (300, 1, 40), (2, 30, 100), (150, 170, 90)])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_matmul(m, n, k, order):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(m, k)).astype(np.float32), rng.normal(size=(k, n)).astype(np.float32)
    check(C.matmul(a.shape, b.shape), a, b, laid_out(rng, (m, n), order), rng.normal(size=(1, n)).astype(np.float32))
    check(C.matmul(a.shape, b.shape), a, b.T.copy().T, laid_out(rng, (m, n), order), rng.normal(size=(m, 1)).astype(np.float32))


@pytest.mark.parametrize("m, n, k, blocks, parts", [(200, 300, 200, 1, 1), (530, 600, 2500, 2, 1), (130, 500, 9000, 40, 14)])
def test_sums_of_blocks_and_parts(m, n, k, blocks, parts):
    """All of a sum in one register tile, which is swept at once; blocks of it, the last of which is swept; parts of several blocks."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(m, k)).astype(np.float32), rng.normal(size=(k, n)).astype(np.float32)
    kernel = check(C.matmul(a.shape, b.shape), a, b, np.empty((m, n), np.float32), rng.normal(size=(1, n)).astype(np.float32))
    tiles, = kernel.schedule.phases
    assert (tiles.blocking.kc.count((k,)), tiles.splits) == (blocks, parts) and tiles.blocking.nc.count((n,)) > 1, str(kernel.schedule)
    held = tiles.blocking.mr * tiles.blocking.nr if blocks == 1 else round_up(min(tiles.blocking.mc, m), tiles.blocking.mr) * tiles.width(kernel.schedule.form.phases[0])
    assert f"scratch sums: {held} f32" in print_function(kernel.function)


def test_batched():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 4, 10, 20)).astype(np.float32), rng.normal(size=(20, 30)).astype(np.float32)
    check(C.matmul(a.shape, b.shape), a, b, np.empty((3, 4, 10, 30), np.float32), rng.normal(size=(1, 1, 1, 30)).astype(np.float32))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1)], ids=["first", "last"])
@pytest.mark.parametrize("kernel, stride, pad, groups", [(3, 1, 1, 1), (1, 1, 0, 1), (3, 2, 1, 1), (3, 1, 1, 2)])
def test_convolution(order, kernel, stride, pad, groups):
    rng = np.random.default_rng(0)
    windows = [C.Window(9, kernel, stride, 1, (pad, pad)), C.Window(12, kernel, stride, 1, (pad, pad))]
    x, w = laid_out(rng, (2, 6, 9, 12), order), rng.normal(size=(10, 6 // groups, kernel, kernel)).astype(np.float32)
    y = laid_out(rng, (2, 10, *(v.out for v in windows)), order)
    bias = rng.normal(size=(1, 10, 1, 1)).astype(np.float32)
    check(C.conv(2, 6, 10, windows, groups), x, w, y, bias)
    check(C.conv_input_gradient(2, 6, 10, windows, groups), y, w, x, rng.normal(size=(1, 6, 1, 1)).astype(np.float32))


def test_long_sum():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5000, 30)).astype(np.float32).T, rng.normal(size=(5000, 20)).astype(np.float32)
    check(C.matmul(a.shape, b.shape), a, b, np.empty((30, 20), np.float32), rng.normal(size=(1, 20)).astype(np.float32))


def test_einsum_rows_of_several_axes():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 30)).astype(np.float32), rng.normal(size=(30, 3, 10)).astype(np.float32)
    c = C.Contraction((5, 3, 10, 30), (), (0,), (1, 2), (3,), (C.axis(0), C.axis(3)), (C.axis(3), C.axis(1), C.axis(2)), (C.axis(0), C.axis(1), C.axis(2)))
    check(c, a, b, np.empty((5, 3, 10), np.float32), rng.normal(size=(1, 3, 1)).astype(np.float32))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1)], ids=["first", "last"])
def test_depthwise(order):
    rng = np.random.default_rng(0)
    windows = [C.Window(9, 3, 1, 1, (1, 1)), C.Window(12, 3, 1, 1, (1, 1))]
    x, w = laid_out(rng, (2, 20, 9, 12), order), rng.normal(size=(20, 1, 3, 3)).astype(np.float32)
    y = laid_out(rng, (2, 20, 9, 12), order)
    check(C.conv(2, 20, 20, windows, 20), x, w, y, rng.normal(size=(1, 20, 1, 1)).astype(np.float32))
    check(C.conv(2, 20, 20, windows, 5), x, rng.normal(size=(20, 4, 3, 3)).astype(np.float32), y,     # groups in one vector
          rng.normal(size=(1, 20, 1, 1)).astype(np.float32))
    check(C.conv_weight_gradient(2, 20, 20, windows, 20), y, x, np.empty_like(w), rng.normal(size=(20, 1, 1, 1)).astype(np.float32))


def test_batch_axes_that_could_merge():
    rng = np.random.default_rng(0)                      # vectors along two batch axes of 3 and 5
    b, h, k = 0, 1, 2
    c = C.Contraction((3, 5, 6), (b, h), (), (), (k,), (C.axis(k), C.axis(b), C.axis(h)), (C.axis(k), C.axis(b), C.axis(h)), (C.axis(b), C.axis(h)))
    x, y = (rng.normal(size=(6, 3, 5)).astype(np.float32) for _ in range(2))
    check(c, x, y, np.empty((3, 5), np.float32), rng.normal(size=(1, 5)).astype(np.float32))
