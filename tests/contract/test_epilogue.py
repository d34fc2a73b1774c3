"""Epilogues: index, lanes and masks are right for every layout, and an output may lie where an extra input lies."""
import re
from math import prod

import numpy as np
import pytest

from graphc.codegen.loops.printer import print_function
from graphc.codegen.lower.contraction.outputs import load_along
from graphc.ir import contraction as C
from graphc.schedule.contraction_schedule import round_up
from tests.contract.harness import compiled


class ScaledResidual:
    """relu(acc + bias) and acc * 2 + residual; the bias has the output's rank with size-1 axes, and `joined` of the last
    ones are taken as one."""

    def __init__(self, joined=1):
        self.joined = joined

    def exact(self, *arguments):
        return self(*arguments)

    def run_together(self, strides):
        return ScaledResidual(len(strides))

    def __call__(self, f, acc, index, lanes, mask, axis):
        views = [f.reinterpret(v, (*v.shape[:-self.joined], prod(v.shape[-self.joined:])), (*v.strides[:-self.joined], v.strides[-1]))
                 if self.joined > 1 else v for v in f.views[2:4]]
        bias, residual = (load_along(f, view, index, axis, lanes, mask) for view in views)
        return [f.max(f.add(acc, bias), 0.0), f.add(f.mul(acc, 2.0), residual)]


def check(c, a, b, out, bias):
    rng = np.random.default_rng(1)
    residual = np.empty_like(out)
    residual[...] = rng.normal(size=out.shape)
    second = np.empty_like(out)
    kernel = compiled(c, [a, b, bias, residual], [out, second], epilogue=ScaledResidual())
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


def test_gradient_of_kernels():
    rng = np.random.default_rng(0)
    windows = [C.Window(8, 3, 2, 1, (1, 1)), C.Window(5, 3, 2, 1, (1, 1))]
    x, y = rng.normal(size=(2, 13, 8, 5)).astype(np.float32), rng.normal(size=(2, 20, 4, 3)).astype(np.float32)
    check(C.conv_weight_gradient(2, 13, 20, windows), y, x, np.empty((20, 13, 3, 3), np.float32),
          rng.normal(size=(20, 1, 1, 1)).astype(np.float32))


@pytest.mark.parametrize("order, joins", [((0, 1, 2, 3), True), ((0, 2, 1, 3), False)])
@pytest.mark.parametrize("features", [20, 3])
def test_runs_over_several_axes(order, joins, features):
    """Where the columns' axes are side by side in all outputs, and in what the epilogue reads, vectors go through them
    all, though not in the operand."""
    rng = np.random.default_rng(0)
    o, i, p, q, k = range(5)
    c = C.Contraction((features, 7, 3, 3, 30), (), (o,), (i, p, q), (k,), (C.axis(k), C.axis(o)),
                      tuple(map(C.axis, (k, i, p, q))), tuple(map(C.axis, (o, i, p, q))))
    a, b = rng.normal(size=(30, features)).astype(np.float32), rng.normal(size=(30, 7, 4, 5)).astype(np.float32)[:, :, :3, :3]
    kernel = check(c, a, b, laid_out(rng, (features, 7, 3, 3), order), rng.normal(size=(features, 1, 1, 1)).astype(np.float32))
    reads = re.findall(r"load in3\[(.*?)\]", print_function(kernel.function))
    assert {at.count(",") + 1 for at in reads} == {2 if joins else 4}


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
