"""Attention and its gradient, each one kernel for all batches and lengths: against numpy, and the bits of a sample
whatever stands beside and behind it."""
from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from codegen.loop_run import RUNS
from open_kernels import Case, OpenKernel

import graphc as gc
from graphc.ir.ops.attention import Attention, AttentionGrad
from graphc.ir.types import TensorType, bool_, f32, f64
from graphc.schedule.attention_schedule import AttentionSchedule
from graphc.schedule.target import Target

SQUARE = (f32["B", 3, "T", 33],) * 3
OBLONG = (f32["B", 2, "T", 16], f32["B", 2, "S", 16], f32["B", 2, "S", 24])
BATCHES = ((1, 1), (2, 5), (1, 64), (3, 72), (2, 73), (1, 131), (1, 300))
LENGTHS = ((1, 1, 1), (2, 5, 9), (1, 64, 200), (3, 72, 71), (2, 130, 1), (1, 20, 300))
MASKS = (bool_["B", 1, 1, "S"], bool_["B", 1, "T", "S"], bool_["B", 1, "T", 1], f32["T", "S"])


@cache
def forward(types: tuple[TensorType, ...], causal: bool, target: Target) -> OpenKernel:
    case = Case("attention", lambda b, *ins: b.attention(*ins, causal=causal), types)
    return whole(OpenKernel(case, target))


@cache
def gradient(types: tuple[TensorType, ...], causal: bool, target: Target) -> OpenKernel:
    out, lse = Attention(causal=causal).infer(*types)
    case = Case("attention_grad", lambda b, *ins: b.apply(AttentionGrad(causal=causal), ins), (*types, out, lse, out))
    return whole(OpenKernel(case, target))


def whole(kernel: OpenKernel) -> OpenKernel:
    assert isinstance(kernel.schedule, AttentionSchedule)
    return kernel


def with_results(kernel: OpenKernel, arrays: list[np.ndarray], causal: bool) -> list[np.ndarray]:
    """The operands of the gradient: those of attention, its results, and a gradient of these."""
    *ins, _, _, dout = arrays
    out, lse = expected(Attention(causal=causal), ins)
    return [*ins, out.astype(dout.dtype), lse.astype(dout.dtype), dout]


def expected(op, arrays):
    return op.reference(*(a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays))


def assert_close(kernel: OpenKernel, sizes: dict[str, int], arrays, wanted, limit: float = 3e-5) -> None:
    for got, want in zip(kernel.run(sizes, arrays), wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=limit, atol=limit, err_msg=str(sizes))


@pytest.mark.parametrize("target", RUNS)
@pytest.mark.parametrize("causal", (False, True))
def test_all_batches_and_lengths(causal, target):
    for b, t in BATCHES:
        sizes = dict(B=b, T=t)
        kernel = forward(SQUARE, causal, target)
        arrays = kernel.case.arrays(sizes)
        assert_close(kernel, sizes, arrays, expected(Attention(causal=causal), arrays))
        kernel = gradient(SQUARE, causal, target)
        arrays = with_results(kernel, kernel.case.arrays(sizes), causal)
        assert_close(kernel, sizes, arrays, expected(AttentionGrad(causal=causal), arrays))


@pytest.mark.parametrize("target", RUNS)
@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_masks(mask, target):
    for b, t, s in LENGTHS:
        sizes, types = dict(B=b, T=t, S=s), (*OBLONG, mask)
        kernel = forward(types, False, target)
        arrays = kernel.case.arrays(sizes)
        assert_close(kernel, sizes, arrays, expected(Attention(), arrays))
        if mask.dtype is bool_:
            kernel = gradient(types, False, target)
            arrays = with_results(kernel, kernel.case.arrays(sizes), False)
            assert_close(kernel, sizes, arrays, expected(AttentionGrad(), arrays))


@pytest.mark.parametrize("target", RUNS)
def test_doubles_and_heads_beside_each_other_in_memory(target):
    """[B, T, H, D] in memory, as projections give it."""
    types = (f64["B", 3, "T", 20],) * 3
    case = Case("attention", lambda b, *ins: b.attention(*ins), types, orders=dict.fromkeys(range(3), (0, 2, 1, 3)))
    kernel = whole(OpenKernel(case, target))
    for b, t in BATCHES:
        sizes = dict(B=b, T=t)
        arrays = case.arrays(sizes)
        assert_close(kernel, sizes, arrays, expected(Attention(), arrays), 1e-13)


def padded(array: np.ndarray, axes: tuple[int, ...], length: int, fill) -> np.ndarray:
    return np.pad(array, [(0, length - n if axis in axes else 0) for axis, n in enumerate(array.shape)],
                  constant_values=fill)


@pytest.mark.parametrize("target", RUNS)
@pytest.mark.parametrize("length, longer", [(1, 2), (50, 90), (70, 72), (73, 300), (5, 6)])
@pytest.mark.parametrize("causal", (False, True))
def test_bits_of_a_sample_do_not_depend_on_what_is_beside_and_behind_it(length, longer, causal, target):
    """Alone, and as the second of a batch that is padded to a greater length."""
    types = (f32["B", 2, "T", 16],) * 3 + (bool_["B", 1, 1, "T"],)
    rng = np.random.default_rng(1)
    near, far = dict(B=1, T=length), dict(B=2, T=longer)
    q, k, v, dout = (rng.standard_normal((1, 2, length, 16)).astype(np.float32) for _ in range(4))
    seen = np.ones((1, 1, 1, length), bool)

    def batch(array: np.ndarray, axis: int, fill) -> np.ndarray:
        sample = padded(array, (axis,), longer, fill)
        return np.concatenate([np.ones_like(sample), sample])
    kernel = forward(types, causal, target)
    out, lse = kernel.run(near, [q, k, v, seen])
    others = kernel.run(far, [*(batch(x, 2, 0.7) for x in (q, k, v)), batch(seen, 3, False)])
    for alone, among in zip((out, lse), others):
        assert alone.tobytes() == np.ascontiguousarray(among[1:, :, :length]).tobytes()
    kernel = gradient(types, causal, target)
    grads = kernel.run(near, [q, k, v, seen, out, lse, dout])
    behind = [batch(x, 2, 0) for x in (out, lse, dout)]
    others = kernel.run(far, [*(batch(x, 2, 0.7) for x in (q, k, v)), batch(seen, 3, False), *behind])
    for alone, among in zip(grads, others):
        assert alone.tobytes() == np.ascontiguousarray(among[1:, :, :length]).tobytes()


def test_what_calls_before_have_left_is_not_read():
    run = gc.compile(lambda q: gc.attention(q, q, q), q=gc.f32["B", 1, "T", 40], threads=1)
    assert run.sized, run.why_not
    for length in (3, 20, 40):
        x = np.random.default_rng(0).standard_normal((2, 1, length, 40)).astype(np.float32)
        for _ in range(3):
            wanted = run(x)
            assert np.isnan(run(np.full_like(x, np.nan))).all()
            np.testing.assert_array_equal(run(x), wanted)
            assert np.isfinite(wanted).all()
