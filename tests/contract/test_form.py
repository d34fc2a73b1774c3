"""The normal form computes what the contraction says, by direct evaluation of its linear phases."""
from itertools import product

import numpy as np
import pytest

from graphc.ir import contraction as C
from graphc.schedule.contraction_form import Form, PaddedCopy, normal_form
from graphc.schedule.operand_roles import Tensor


def strides_of(x: np.ndarray) -> Tensor:
    return Tensor(x.shape, tuple(s // x.itemsize for s in x.strides))


def padded(x: np.ndarray, copy: PaddedCopy | None) -> np.ndarray:
    """The flat memory that a phase reads."""
    if copy is None:
        return x.ravel()
    flat = np.zeros(copy.size, x.dtype)
    for index in product(*map(range, copy.shape)):
        source = [i + low for i, low in zip(index, copy.low)]
        if all(0 <= s < n for s, n in zip(source, x.shape)):
            flat[sum(i * s for i, s in zip(index, copy.strides))] = x[tuple(source)]
    return flat


def evaluate(form: Form, a: np.ndarray, b: np.ndarray, shape) -> np.ndarray:
    if form.swap:
        a, b = b, a
    a, b = padded(a, form.copies[0]), padded(b, form.copies[1])
    out = np.zeros(shape)
    flat, written = out.reshape(-1), set()
    for p in form.phases:
        for kept in product(*[range(p.sizes[d]) for d in p.batch + p.m + p.n]):
            at = dict(zip(p.batch + p.m + p.n, kept))
            o = p.out.base + sum(p.out.strides[d] * i for d, i in at.items())
            assert o not in written
            written.add(o)
            for summed in product(*[range(p.sizes[d]) for d in p.k]):
                all_ = at | dict(zip(p.k, summed))
                x, y = (t.base + sum(t.strides[d] * i for d, i in all_.items()) for t in (p.a, p.b))
                assert x >= 0 and y >= 0
                flat[o] += a[x] * b[y]
    assert len(written) == out.size
    return out


def check(c: C.Contraction, a_shape, b_shape, out_shape) -> Form:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=a_shape), rng.normal(size=b_shape)
    form = normal_form(c, strides_of(a), strides_of(b), strides_of(np.empty(out_shape)), 8, False)
    np.testing.assert_allclose(evaluate(form, a, b, out_shape), c.reference(a, b, out_shape), atol=1e-12)
    return form


@pytest.mark.parametrize("a, b", [((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 1, 3, 4), (3, 4, 2)), ((1, 4), (4, 1)),
                                  ((3, 1), (1, 2)), ((3, 0), (0, 2))])
def test_matmul(a, b):
    check(C.matmul(a, b), a, b, np.matmul(np.zeros(a), np.zeros(b)).shape)


@pytest.mark.parametrize("stride, dilation, pad, groups, kernel", [
    (1, 1, 0, 1, 3), (1, 1, 1, 1, 3), (2, 1, 1, 1, 3), (3, 1, 2, 1, 2), (2, 2, 2, 1, 3), (1, 2, 1, 2, 2),
    (2, 1, 0, 2, 1), (3, 1, 0, 1, 1)])
def test_convolution_and_its_gradients(stride, dilation, pad, groups, kernel):
    windows = [C.Window(6, kernel, stride, dilation, (pad, pad)), C.Window(5, kernel, stride, dilation, (pad, pad))]
    x, w = (2, 2, 6, 5), (2, 2 // groups, kernel, kernel)
    y = (2, 2, *(v.out for v in windows))
    check(C.conv(2, 2, 2, windows, groups), x, w, y)
    check(C.conv_input_gradient(2, 2, 2, windows, groups), y, w, x)
    check(C.conv_weight_gradient(2, 2, 2, windows, groups), y, x, w)


def test_a_strided_gradient_is_one_phase_for_each_residue():
    c = C.conv_input_gradient(1, 3, 4, [C.Window(8, 3, 2, 1, (1, 1))] * 2)
    form = check(c, (1, 4, 4, 4), (4, 3, 3, 3), (1, 3, 8, 8))
    assert sorted(p.extent(p.k) for p in form.phases) == [4, 8, 8, 16]
    assert sum(p.flops for p in form.phases) == c.flops // 4


def test_unpadded_windows_need_no_copy_and_unit_kernels_merge():
    c = C.conv(2, 3, 4, [C.Window(8, 1)] * 2)
    form = check(c, (2, 3, 8, 8), (4, 3, 1, 1), (2, 4, 8, 8))
    phase, = form.phases
    assert form.copies == (None, None) and form.swap
    assert [phase.sizes[d] for d in phase.n] == [2, 64] and len(phase.k) == 1


def test_an_axis_of_one_element_makes_no_operand_contiguous_along_the_sum():
    """A kernel of one tap has steps of 1 along its window, and so has the image: pixels are the columns all the same."""
    c = C.conv(1, 60, 8, [C.Window(4, 1)] * 3)
    form = check(c, (1, 60, 4, 4, 4), (8, 60, 1, 1, 1), (1, 8, 4, 4, 4))
    phase, = form.phases
    assert form.swap and [phase.sizes[d] for d in phase.n] == [64] and phase.out.strides[phase.n[0]] == 1


def test_padded_copy_keeps_the_memory_order_of_the_source():
    x = np.zeros((2, 9, 9, 3)).transpose(0, 3, 1, 2)
    y = np.zeros((2, 9, 9, 4)).transpose(0, 3, 1, 2)
    c = C.conv(2, 3, 4, [C.Window(9, 3, 1, 1, (1, 1))] * 2)
    form = normal_form(c, strides_of(x), Tensor((4, 3, 3, 3), (27, 9, 3, 1)), strides_of(y), 8, False)
    assert not form.swap and form.copies[0].shape == (2, 3, 11, 11) and form.copies[0].strides[1] == 1
    phase, = form.phases
    assert [phase.sizes[d] for d in phase.k] == [3, 3, 3] and [phase.a.strides[d] for d in phase.k] == [33, 3, 1]


def test_batch_dims_that_the_weights_lack_are_rows():
    c = C.matmul((2, 5, 3), (3, 4))
    phase, = check(c, (2, 5, 3), (3, 4), (2, 5, 4)).phases
    assert phase.batch == () and [phase.sizes[d] for d in phase.m] == [10]


def test_result_without_a_contiguous_axis():
    c = C.conv(1, 1, 1, [C.Window(8, 3, 1, 1, (1, 1))] * 2)
    x, w, y = np.zeros((1, 1, 8, 8)), np.zeros((1, 1, 3, 3)), np.zeros((1, 1, 8, 20))[..., :16:2]
    phase, = normal_form(c, strides_of(x), strides_of(w), strides_of(y), 8, False).phases
    assert [(phase.sizes[d], phase.out.strides[d]) for d in phase.m + phase.n if phase.sizes[d] > 1] == [(8, 20), (8, 2)]
