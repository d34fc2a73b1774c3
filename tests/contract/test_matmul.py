"""Matrix products of every layout, against float64."""
from itertools import product

import numpy as np
import pytest

from graphc.ir import contraction as C
from graphc.schedule.blocking import PackingMode
from graphc.schedule.contraction_schedule import StreamSchedule
from tests.contract.harness import check, compiled


def array(rng, shape, order, dtype=np.float32):
    """An array that lies in memory in the given order of axes."""
    dense = rng.normal(size=[shape[x] for x in order]) * (1 if np.dtype(dtype).kind == "f" else 9)
    return dense.astype(dtype).transpose(np.argsort(order))


@pytest.mark.parametrize("m, n, k", [(6, 16, 8), (17, 31, 65), (64, 48, 80), (1, 40, 70), (40, 1, 70), (2, 100, 33),
                                     (100, 3, 40), (1, 1, 1), (5, 7, 1),
                                     (130, 129, 131), (12, 300, 600)])
def test_layouts(m, n, k):
    rng = np.random.default_rng(m)
    for left, right, out in product([(0, 1), (1, 0)], repeat=3):
        a, b = array(rng, (m, k), left), array(rng, (k, n), right)
        check(C.matmul(a.shape, b.shape), a, b, array(rng, (m, n), out), threads=(1, 4))


def test_all_small_sizes():
    rng = np.random.default_rng(0)
    for m, n, k in product((1, 2, 3, 5, 8, 13), (1, 2, 7, 8, 9, 17), (1, 2, 9)):
        a, b = array(rng, (m, k), (0, 1)), array(rng, (k, n), (1, 0) if (m + n) % 2 else (0, 1))
        check(C.matmul(a.shape, b.shape), a, b, np.empty((m, n), np.float32))


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.int64])
def test_types(dtype):
    rng = np.random.default_rng(0)
    for left, right in product([(0, 1), (1, 0)], repeat=2):
        a, b = array(rng, (19, 37), left, dtype), array(rng, (37, 21), right, dtype)
        check(C.matmul(a.shape, b.shape), a, b, np.empty((19, 21), dtype))


def test_integers_wrap():
    a = np.full((2, 3), 2 ** 30, np.int32)
    out = np.empty((2, 2), np.int32)
    compiled(C.matmul((2, 3), (3, 2)), [a, a.T.copy()], [out]).run([a, a.T.copy()], [out])
    np.testing.assert_array_equal(out, a @ a.T)


@pytest.mark.parametrize("a, b", [((3, 20, 30), (30, 40)), ((3, 20, 30), (3, 30, 40)), ((20, 30), (3, 30, 40)),
                                  ((2, 1, 9, 8), (5, 8, 7)), ((4, 2, 33, 16), (4, 2, 16, 33)),
                                  ((6, 1, 64), (6, 64, 50)), ((6, 64, 40), (6, 40, 1))])
def test_batches(a, b):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=a).astype(np.float32), rng.normal(size=b).astype(np.float32)
    out = np.empty(np.matmul(x, y).shape, np.float32)
    check(C.matmul(a, b), x, y, out, threads=(1, 4))
    turned = rng.normal(size=(*b[:-2], b[-1], b[-2])).astype(np.float32).swapaxes(-1, -2)
    check(C.matmul(a, b), x, turned, out, threads=(1, 4))


def test_broadcast_operands_have_stride_zero():
    rng = np.random.default_rng(0)
    a = np.broadcast_to(rng.normal(size=(20, 1)).astype(np.float32), (20, 30))
    b = np.broadcast_to(rng.normal(size=(30, 1)).astype(np.float32), (30, 40))
    check(C.matmul(a.shape, b.shape), a, b, np.empty((20, 40), np.float32))
    check(C.matmul((40, 30), (30, 20)), b.T, a.T, np.empty((40, 20), np.float32))


@pytest.mark.parametrize("a, b",
                         [((0, 3), (3, 4)), ((4, 0), (0, 5)), ((3, 4), (4, 0)), ((0, 2, 3), (3, 4)),
                          ((2, 3, 0), (2, 0, 3))])
def test_empty(a, b):
    out = np.empty(np.matmul(np.zeros(a), np.zeros(b)).shape, np.float32)
    check(C.matmul(a, b), np.zeros(a, np.float32), np.zeros(b, np.float32), out)


def test_einsum_with_several_row_column_and_sum_dims():
    rng = np.random.default_rng(0)                                      # btcd, cdhe -> bthe
    sizes = (3, 5, 6, 7, 4, 9)
    b, t, c, d, h, e = range(6)
    x, y = rng.normal(size=(3, 5, 6, 7)).astype(np.float32), rng.normal(size=(6, 7, 4, 9)).astype(np.float32)
    contraction = C.Contraction(sizes, (), (b, t), (h, e), (c, d), tuple(map(C.axis, (b, t, c, d))),
                                tuple(map(C.axis, (c, d, h, e))), tuple(map(C.axis, (b, t, h, e))))
    check(contraction, x, y, np.empty((3, 5, 4, 9), np.float32))
    scattered = array(rng, (3, 5, 4, 9), (2, 0, 3, 1))
    check(contraction, array(rng, x.shape, (3, 1, 0, 2)), array(rng, y.shape, (1, 2, 0, 3)), scattered)


def test_outer_product_and_dot():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=300).astype(np.float32), rng.normal(size=300).astype(np.float32)
    check(C.Contraction((300, 300), (), (0,), (1,), (), (C.axis(0),), (C.axis(1),), (C.axis(0), C.axis(1))), x, y,
          np.empty((300, 300), np.float32))
    check(C.Contraction((300,), (), (), (), (0,), (C.axis(0),), (C.axis(0),), ()), x, y, np.empty((), np.float32))


def test_long_sums_are_split_and_keep_their_bits():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(20000, 40)).astype(np.float32).T, rng.normal(size=(20000, 70)).astype(np.float32)
    kernel = check(C.matmul(a.shape, b.shape), a, b, np.empty((40, 70), np.float32), threads=(1, 3, 4))
    assert kernel.schedule.phases[0].splits > 1


@pytest.mark.parametrize("m, n, k",
                         [(701, 597, 2100), (1, 1100, 2049), (997, 320, 2051), (600, 513, 2048), (12, 2000, 4097)])
def test_transposed_rows_that_are_packed_on_the_way(m, n, k):
    """By the register tiles of each tile's first columns; the last ones have fewer rows or columns."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((k, m), np.float32).T, rng.standard_normal((k, n), np.float32)
    kernel = check(C.matmul((m, k), (k, n)), a, b, np.empty((m, n), np.float32), threads=(1, 3))
    assert m < 12 or kernel.schedule.phases[0].a is PackingMode.BY_FIRST_USE, str(kernel.schedule)


def test_transposed_rows_that_a_tile_packs():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((3, 350, 160),
                               np.float32).transpose(0, 2, 1), rng.standard_normal((3, 350, 97), np.float32)
    kernel = check(C.matmul(a.shape, b.shape), a, b, np.empty((3, 160, 97), np.float32), threads=(1, 3))
    assert kernel.schedule.phases[0].a is PackingMode.PER_TILE


@pytest.mark.parametrize("m, n, k", [(331, 300, 261), (60, 900, 1900)])
def test_transposed_rows_of_many_panels_that_are_packed_before_all_tiles(m, n, k):
    """Some panels at a time, the last ones fewer, and parts of the sum where there are few panels."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((k, m), np.float32).T, rng.standard_normal((k, n), np.float32)
    kernel = check(C.matmul((m, k), (k, n)), a, b, np.empty((m, n), np.float32), threads=(1, 2))
    assert kernel.schedule.phases[0].a is PackingMode.ONCE, str(kernel.schedule)


def test_few_rows_and_short_sums():
    """As dot products under a mask, and with a tile for each core."""
    rng = np.random.default_rng(0)
    for m, n, k in ((1, 6001, 13), (2, 3001, 9), (1, 40001, 3)):
        a, b = rng.standard_normal((m, k), np.float32), rng.standard_normal((n, k), np.float32).T
        check(C.matmul((m, k), (k, n)), a, b, np.empty((m, n), np.float32), threads=(1, 2))


def test_rows_by_several_narrow_matrices():
    """As the values of attention of one query: each matrix is read once, row after row."""
    rng = np.random.default_rng(0)
    for batch, m, n, k in ((5, 1, 41, 300), (1, 3, 512, 784), (4, 1, 63, 260)):
        a, b = rng.standard_normal((batch, m, k), np.float32), rng.standard_normal((batch, k, n), np.float32)
        kernel = check(C.matmul(a.shape, b.shape), a, b, np.empty((batch, m, n), np.float32), threads=(1, 2))
        assert isinstance(kernel.schedule.phases[0], StreamSchedule), str(kernel.schedule)


def test_scaling_by_a_scalar_across_merged_dims():
    rng = np.random.default_rng(0)
    c = C.Contraction((9, 4, 9), (), (), (0, 1, 2), (), (), (C.axis(1), C.axis(2), C.axis(0)),
                      (C.axis(0), C.axis(1), C.axis(2)))
    check(c, rng.normal(size=()).astype(np.float32), rng.normal(size=(4, 9, 9)).astype(np.float32),
          np.empty((9, 4, 9), np.float32))
