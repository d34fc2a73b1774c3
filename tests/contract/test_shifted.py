"""Convolutions of few features: products with runs of the image as it lies, added as windows slide."""
import numpy as np
import pytest

from graphc.ir import contraction as C
from graphc.ir.types import f32
from graphc.schedule.choose_contraction import contraction_schedule
from graphc.schedule.contraction_schedule import ShiftedSchedule
from graphc.schedule.target import AVX2, AVX512
from tests.contract import test_epilogue
from tests.contract.harness import check


def arrays(rng, *shapes):
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def shifted(kernel):
    """Its phases that run so."""
    return [s for s in kernel.schedule.phases if isinstance(s, ShiftedSchedule)]


# batch, channels, features, size, kernel, dilation, padding
CASES = [(2, 40, 3, (9, 11), 3, 1, 1), (1, 24, 1, (13, 30), 3, 2, 0), (2, 30, 2, (20, 9), 4, 2, 3),
         (2, 33, 2, (70,), 9, 1, 4), (1, 50, 2, (5, 7, 9), 3, 1, 1), (3, 17, 5, (1, 40), 1, 1, 0)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_and_towards_the_image(case):
    batch, channels, features, size, width, dilation, padding = case
    rng = np.random.default_rng(0)
    windows = [C.Window(n, width if n > 1 else 1, 1, dilation, (padding, padding) if n > 1 else (0, 0)) for n in size]
    kernel = tuple(w.kernel for w in windows)
    x, w = arrays(rng, (batch, channels, *size), (features, channels, *kernel))
    forward = check(C.conv(batch, channels, features, windows), x, w,
                    np.empty((batch, features, *(v.out for v in windows)), np.float32), (1, 3))
    dy, w = arrays(rng, (batch, channels, *(v.out for v in windows)), (channels, features, *kernel))
    backward = check(C.conv_input_gradient(batch, features, channels, windows), dy, w,
                     np.empty((batch, features, *size), np.float32), (1, 3))
    assert features == 1 or kernel == (1, 1) or shifted(forward) and shifted(backward), (forward, backward)


@pytest.mark.parametrize("groups, stride", ((1, 2), (2, 1), (3, 1)))
def test_strided_gradients_and_groups(groups, stride, channels=48, features=6):
    """Each phase of a strided gradient has windows of its own; each group its own weights."""
    rng, windows = np.random.default_rng(1), [C.Window(n, 4, stride, 1, (1, 2)) for n in (15, 22)]
    dy, w = arrays(rng, (2, channels, *(v.out for v in windows)), (channels, features // groups, 4, 4))
    kernel = check(C.conv_input_gradient(2, features, channels, windows, groups), dy, w,
                   np.empty((2, features, 15, 22), np.float32), (1, 4))
    assert len(shifted(kernel)) == len(kernel.schedule.phases), kernel.schedule


def test_finished_sums_go_through_the_epilogue():
    rng, windows = np.random.default_rng(2), [C.Window(n, 3, 1, 1, (1, 1)) for n in (8, 21)]
    x, w, bias = arrays(rng, (2, 36, 8, 21), (3, 36, 3, 3), (1, 3, 1, 1))
    kernel = test_epilogue.check(C.conv(2, 36, 3, windows), x, w, np.empty((2, 3, 8, 21), np.float32), bias)
    assert shifted(kernel)


@pytest.mark.parametrize("target", (AVX2, AVX512), ids=lambda t: t.name)
def test_rows_that_do_much_with_a_column_pack_it(target):
    """Few features read runs of the image, many pack it, and all are costed."""
    def chosen(features):
        windows = [C.Window(30, 3, 1, 1, (1, 1))] * 2
        c, shape = C.conv(4, 12, features, windows), (4, 12, 30, 30)
        s = contraction_schedule(c, shape, (10800, 900, 30, 1), (features, 12, 3, 3), (108, 9, 3, 1),
                                 (features * 900, 900, 30, 1), f32, target)
        return type(s.phases[0]), [c.name for c in s.phases[0].ranking.candidates]
    assert chosen(2)[0] is ShiftedSchedule and any("taps" in name for name in chosen(2)[1])
