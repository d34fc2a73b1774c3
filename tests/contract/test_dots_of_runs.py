"""Products of few rows whose sums lie in memory in several runs: windows of an image with its channels last."""
import numpy as np
import pytest

from graphc.ir import contraction as C
from graphc.ir.dims import size_name
from graphc.ir.types import f32
from graphc.schedule.choose_contraction import contraction_schedule
from graphc.schedule.contraction_schedule import DotSchedule
from graphc.schedule.target import AVX2, AVX512
from tests.contract import test_epilogue
from tests.contract.harness import check


def channels_last(x):
    """The same numbers, with the second axis innermost in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


def arrays(rng, *shapes):
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


# batch, channels, features, size, kernel, stride, dilation, padding
CASES = [(2, 32, 1, (21, 30), (7, 3), 1, 1, 1), (1, 33, 1, (19, 23), (3, 3), 1, 1, 1), (1, 8, 1, (16, 29), (5, 5), 1, 1, 2),
         (2, 40, 1, (18, 17), (3, 3), 2, 1, 1), (1, 35, 1, (20, 22), (3, 3), 1, 2, 0), (2, 48, 2, (90,), (9,), 1, 1, 4),
         (1, 16, 1, (7, 9, 11), (3, 3, 3), 1, 1, 1), (1, 64, 3, (24, 25), (5, 5), 1, 1, 2)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_few_features_of_an_image_with_its_channels_last(case):
    batch, channels, features, size, kernel, stride, dilation, padding = case
    windows = [C.Window(n, k, stride, dilation, (padding, padding)) for n, k in zip(size, kernel)]
    x, w = arrays(np.random.default_rng(0), (batch, channels, *size), (features, channels, *kernel))
    out = np.empty((batch, features, *(v.out for v in windows)), np.float32)
    found = check(C.conv(batch, channels, features, windows), channels_last(x), w, out, (1, 3))
    assert all(isinstance(s, DotSchedule) for s in found.schedule.phases), found.schedule


def test_finished_sums_go_through_the_epilogue():
    rng, windows = np.random.default_rng(2), [C.Window(n, 3, 1, 1, (1, 1)) for n in (8, 21)]
    x, w, bias = arrays(rng, (2, 36, 8, 21), (1, 36, 3, 3), (1, 1, 1, 1))
    found = test_epilogue.check(C.conv(2, 36, 1, windows), channels_last(x), w,
                                np.empty((2, 1, 8, 21), np.float32), bias)
    assert isinstance(found.schedule.phases[0], DotSchedule), found.schedule


def test_rows_that_lie_across_are_copied():
    """[K, 2] transposed, times the rows of a matrix: both are read along the sum."""
    a, b = arrays(np.random.default_rng(3), (700, 2), (300, 700))
    found = check(C.matmul((2, 700), (700, 300)), a.T, b.T, np.empty((2, 300), np.float32), (1, 3))
    assert isinstance(found.schedule.phases[0], DotSchedule), found.schedule


@pytest.mark.parametrize("target", (AVX2, AVX512), ids=lambda t: t.name)
def test_the_number_of_images_may_be_open(target):
    """What is chosen for any batch is what is chosen for one, and other sums stay as they are."""
    def chosen(batch, channels, features):
        window = C.Window(40, 3, 1, 1, (1, 1))
        return contraction_schedule(
            C.conv(batch, channels, features, [window, window]), (batch, channels, 40, 40),
            (1600 * channels, 1, 40 * channels, channels), (features, channels, 3, 3), (9 * channels, 9, 3, 1),
            (1600 * features, 1, 40 * features, features), f32, target)
    for batch in (1, size_name("B")):
        assert isinstance(chosen(batch, 64, 1).phases[0], DotSchedule)
        assert not isinstance(chosen(batch, 64, 64).phases[0], DotSchedule)
        assert not isinstance(chosen(batch, 4, 1).phases[0], DotSchedule)
