"""Convolutions and their gradients, channels first and last, against float64."""
from itertools import product

import numpy as np
import pytest

from graphc.ir import contraction as C
from graphc.ir.types import f32
from graphc.schedule.blocking import PackingMode
from graphc.schedule.choose_contraction import contraction_schedule
from graphc.schedule.contraction_schedule import LaneSchedule, NarrowSchedule
from graphc.schedule.target import AVX512
from graphc.schedule.view import contiguous_strides
from tests.contract.harness import check

CASES = [  # batch, channels, features, height, width, kernel, stride, pad, dilation, groups
    (2, 3, 5, 8, 9, 3, 1, 1, 1, 1),
    (2, 16, 24, 8, 9, 3, 1, 1, 1, 1),
    (2, 16, 24, 8, 9, 3, 2, 1, 1, 1),
    (1, 4, 6, 11, 7, 3, 2, 2, 2, 2),
    (3, 8, 8, 10, 10, 1, 1, 0, 1, 1),
    (3, 8, 8, 10, 10, 1, 2, 0, 1, 8),
    (2, 19, 17, 20, 13, 2, 3, 1, 1, 1),
    (1, 1, 1, 5, 5, 5, 1, 0, 1, 1),
    (2, 12, 12, 9, 9, 3, 1, 1, 1, 12),
    (3, 8, 8, 12, 11, 3, 2, 1, 1, 8),
    (2, 5, 10, 9, 9, 3, 1, 1, 1, 5),
    (16, 16, 16, 24, 24, 3, 1, 1, 1, 16),
    (2, 128, 128, 9, 10, 3, 1, 1, 1, 128),
    (1, 261, 261, 7, 15, 3, 2, 1, 1, 261),
    (2, 12, 24, 6, 23, 3, 1, 2, 2, 12),
    (1, 37, 37, 12, 13, 7, 1, 3, 1, 37),
    (2, 24, 24, 17, 19, 9, 1, 4, 1, 24),
    (1, 18, 18, 17, 9, 13, 1, 6, 1, 18),
    (1, 18, 18, 21, 30, 8, 2, 3, 2, 18),
    (1, 32, 64, 6, 6, 6, 1, 3, 1, 1),
]


def image(rng, shape, last):
    """channels last: the memory order is N, H, W, C."""
    if not last:
        return rng.normal(size=shape).astype(np.float32)
    return rng.normal(size=[shape[x] for x in (0, 2, 3, 1)]).astype(np.float32).transpose(0, 3, 1, 2)


def run(case, last, threads=(1,)):
    n, c, f, h, w, kernel, stride, pad, dilation, groups = case
    rng = np.random.default_rng(h)
    windows = [C.Window(size, kernel, stride, dilation, (pad, pad)) for size in (h, w)]
    x, y = image(rng, (n, c, h, w), last), image(rng, (n, f, *(v.out for v in windows)), last)
    weights = rng.normal(size=(f, c // groups, kernel, kernel)).astype(np.float32)
    check(C.conv(n, c, f, windows, groups), x, weights, image(rng, y.shape, last), threads)
    check(C.conv_input_gradient(n, c, f, windows, groups), y, weights, image(rng, x.shape, last), threads)
    check(C.conv_weight_gradient(n, c, f, windows, groups), y, x, np.empty(weights.shape, np.float32), threads)


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_cases(case, last):
    run(case, last, (1, 4))


def test_random_shapes():
    rng = np.random.default_rng(7)
    for trial in range(12):
        groups = int(rng.choice([1, 1, 2, 3]))
        size = rng.integers(5, 21, 2)
        case = (int(rng.integers(1, 4)), groups * int(rng.integers(1, 20 // groups)),
                groups * int(rng.integers(1, 20 // groups)), *map(int, size),
                int(rng.integers(1, 4)), int(rng.integers(1, 4)), int(rng.integers(0, 3)), int(rng.integers(1, 3)),
                groups)
        run(case, bool(trial % 2))


def test_uneven_padding_and_one_dim():
    rng = np.random.default_rng(0)
    window = C.Window(17, 4, 2, 1, (2, 1))
    x, w = rng.normal(size=(3, 5, 17)).astype(np.float32), rng.normal(size=(6, 5, 4)).astype(np.float32)
    y = np.empty((3, 6, window.out), np.float32)
    check(C.conv(3, 5, 6, [window]), x, w, y)
    check(C.conv_input_gradient(3, 5, 6, [window]), rng.normal(size=y.shape).astype(np.float32), w, np.empty_like(x))


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("axes, kernel", ((1, 65), (1, 9), (3, 4)))
def test_depthwise_convolutions_of_any_rank(axes, kernel, last, channels=20):
    rng, windows = np.random.default_rng(axes), [C.Window(70 if axes == 1 else 7, kernel, 1, 1, (1, 2))] * axes
    x, y = (_channels_last(rng.normal(size=(2, channels, *size)).astype(np.float32), last)
            for size in ([w.size for w in windows], [w.out for w in windows]))
    w = rng.normal(size=(channels, 1, *(kernel,) * axes)).astype(np.float32)
    check(C.conv(2, channels, channels, windows, channels), x, w, np.empty_like(y), (1, 3))
    check(C.conv_input_gradient(2, channels, channels, windows, channels), y, w, np.empty_like(x), (1, 3))
    check(C.conv_weight_gradient(2, channels, channels, windows, channels), y, x, np.empty_like(w), (1, 3))


def _channels_last(x: np.ndarray, last: bool) -> np.ndarray:
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1) if last else x


@pytest.mark.parametrize("weights_last", (False, True))
@pytest.mark.parametrize("channels, width, stride, dilation", ((24, 4, 1, 1), (38, 2, 1, 2), (20, 4, 2, 1), (8, 2, 1, 1)))
def test_groups_of_few_channels_share_vectors(channels, width, stride, dilation, weights_last):
    """Also where the last vector is not full; and the gradient towards the image, whose weights lie otherwise."""
    rng, groups = np.random.default_rng(width), channels // width
    windows = [C.Window(size, 3, stride, dilation, (1, 1)) for size in (9, 13)]
    x, y = image(rng, (2, channels, 9, 13), True), image(rng, (2, channels, *(w.out for w in windows)), True)
    w = image(rng, (channels, width, 3, 3), weights_last)
    for c, a, out in ((C.conv, x, y), (C.conv_input_gradient, y, x)):
        kernel = check(c(2, channels, channels, windows, groups), a, w, np.empty_like(out), (1, 3))
        assert all(s.mixed and s.mixed.width == width for s in kernel.schedule.phases if isinstance(s, LaneSchedule))
        assert any(isinstance(s, LaneSchedule) for s in kernel.schedule.phases)


@pytest.mark.parametrize("channels, width, kernel, stride", ((24, 4, 3, 1), (38, 2, 3, 2), (64, 2, 3, 1), (20, 4, 5, 1)))
@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
def test_groups_of_few_channels_share_vectors_of_their_weights_gradient(channels, width, kernel, stride, last):
    """Also where the last vector is not full, and where registers hold a part of the positions' sums; of images that
    lie channels first, in copies that do not."""
    rng, groups = np.random.default_rng(width), channels // width
    windows = [C.Window(size, kernel, stride, 1, (kernel // 2,) * 2) for size in (21, 13)]
    x, y = (image(rng, (3, channels, *size), last) for size in ((21, 13), [w.out for w in windows]))
    gradient = C.conv_weight_gradient(3, channels, channels, windows, groups)
    kernel = check(gradient, y, x, np.empty((channels, width, kernel, kernel), np.float32), (1, 3))
    assert [type(s) for s in kernel.schedule.phases] == [NarrowSchedule]
    assert kernel.schedule.phases[0].mixed.width == width
    assert {copy.channels for copy in kernel.schedule.form.copies if copy} == {None if last else 1}


@pytest.mark.parametrize("size, kernel, channels", ((6, 6, None), (28, 3, 1)))
def test_the_order_of_a_copied_image_is_what_costs_less(size, kernel, channels):
    """Where weights are many beside pixels, they are read along their kernel positions, and channels stay apart."""
    windows = [C.Window(size, kernel, 1, 1, (kernel // 2,) * 2)] * 2
    gradient = C.conv_input_gradient(1, 32, 64, windows, 1)
    y, w, x = (1, 64, *[v.out for v in windows]), (64, 32, kernel, kernel), (1, 32, size, size)
    strides = [contiguous_strides(shape) for shape in (y, w, x)]
    s = contraction_schedule(gradient, y, strides[0], w, strides[1], strides[2], f32, AVX512)
    assert [copy.channels for copy in s.form.copies if copy] == [channels]


@pytest.mark.parametrize("stride, turned", ((1, False), (2, True)))
def test_the_gradient_of_depthwise_weights_reads_vectors(stride, turned, channels=36):
    """Of images that lie channels first: along their lines, or, where strides tear these apart, along the channels of
    copies."""
    rng = np.random.default_rng(stride)
    windows = [C.Window(size, 3, stride, 1, (1, 1)) for size in (65, 61)]
    x, y = (image(rng, (8, channels, *size), False) for size in ((65, 61), [w.out for w in windows]))
    gradient = C.conv_weight_gradient(8, channels, channels, windows, channels)
    kernel = check(gradient, y, x, np.empty((channels, 1, 3, 3), np.float32), (1, 3))
    schedule, = kernel.schedule.phases
    assert isinstance(schedule, NarrowSchedule) and schedule.along_k is not turned
    operands = kernel.schedule.form.phases[0]
    lane = operands.k[-1] if schedule.along_k else schedule.dim
    assert operands.a.strides[lane] == operands.b.strides[lane] == 1


def test_weights_stored_for_the_kernel():
    """Weights in the order [kernel][in][out], as a layout pass may store them: columns are contiguous."""
    rng = np.random.default_rng(0)
    windows = [C.Window(8, 3, 1, 1, (1, 1))] * 2
    x = image(rng, (2, 16, 8, 8), True)
    w = rng.normal(size=(3, 3, 16, 24)).astype(np.float32).transpose(3, 2, 0, 1)
    check(C.conv(2, 16, 24, windows), x, w, image(rng, (2, 24, 8, 8), True))


def test_combinations_of_layouts():
    rng = np.random.default_rng(0)
    windows = [C.Window(9, 3, 2, 1, (1, 1))] * 2
    for first, second in product((False, True), repeat=2):
        check(C.conv(2, 6, 10, windows), image(rng, (2, 6, 9, 9), first),
              rng.normal(size=(10, 6, 3, 3)).astype(np.float32),
              image(rng, (2, 10, 5, 5), second))


@pytest.mark.parametrize("channels, kernel", [(3, 3), (1, 5), (3, 7), (16, 3)])
def test_rows_of_short_sums_stay_where_they_are(channels, kernel):
    """A first layer: the micro-kernel knows where the few terms of a sum lie, or rounds of few."""
    windows = [C.Window(size, kernel, 2, 1, (1, 1)) for size in (21, 30)]
    rng = np.random.default_rng(0)
    out = image(rng, (2, 32, *(w.out for w in windows)), True)
    x, weights = image(rng, (2, channels, 21, 30),
                       False), rng.normal(size=(32, channels, kernel, kernel)).astype(np.float32)
    kernel = check(C.conv(2, channels, 32, windows), x, weights, out, (1, 3))
    assert [phase.a for phase in kernel.schedule.phases] == [PackingMode.TAPS]
