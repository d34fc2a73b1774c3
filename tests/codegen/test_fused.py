"""a · b + c of f32 for a target without an instruction for it: rounded once, to the last bit."""
from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from loop_run import assembly, run

from graphc.codegen.llvm.host import can_run
from graphc.codegen.loops.builder import LoopFunction
from graphc.ir.types import f32
from graphc.schedule.platforms import PLATFORMS
from graphc.schedule.target import AVX2, SSE2

N = 1 << 12
TINY = np.finfo(np.float32).smallest_subnormal


def products(lanes: int, n: int = N) -> LoopFunction:
    f = LoopFunction("products")
    a, b, c, y = (f.view(name, f32, (n,)) for name in "abcy")
    with f.loop(0, n, step=lanes) as L:
        f.store(y, [L.index], f.fma(*(f.load(x, [L.index], lanes) for x in (a, b, c))))
    return f


def found(a, b, c, target, lanes=4) -> np.ndarray:
    y = np.empty(len(a), np.float32)
    run(products(lanes, len(a)), [a, b, c], y, target=target)
    return y


def nearest(exact: Fraction) -> np.float32:
    """The f32 that is nearest, the even one of two."""
    start = np.float32(float(exact))
    around = [start, np.nextafter(start, np.float32(np.inf)), np.nextafter(start, np.float32(-np.inf))]
    return min(around, key=lambda x: (abs(Fraction(float(x)) - exact), int(x.view(np.uint32)) & 1))


def half_way() -> tuple[np.ndarray, ...]:
    """Products in the middle between two f32, moved by addends far below them."""
    r = np.random.default_rng(0)
    a = (1 + r.integers(0, 1 << 11, 256) * 2.0 ** -12 + 2.0 ** -12).astype(np.float32)
    c = np.concatenate([r.choice([-1.0, 1.0], 224) * 2.0 ** r.integers(-126, -30, 224).astype(np.float64),
                        np.full(16, TINY), np.full(16, -TINY)]).astype(np.float32)
    return a, (1 + np.float32(2.0 ** -12) * (2 * r.integers(0, 1 << 11, 256) + 1)).astype(np.float32), c


@pytest.mark.skipif(not can_run(SSE2), reason="this CPU is no x86-64")
@pytest.mark.parametrize("lanes", [1, 4, 8])
def test_half_way_cases_are_rounded_once(lanes):
    a, b, c = half_way()
    exact = [Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)) for x, y, z in zip(a, b, c)]
    np.testing.assert_array_equal(found(a, b, c, SSE2, lanes), np.array([nearest(e) for e in exact]))
    twice = (a.astype(np.float64) * b + c).astype(np.float32)
    assert (found(a, b, c, SSE2, lanes) != twice).any(), "no case tells it from two roundings"


@pytest.mark.skipif(not can_run(AVX2), reason="this CPU has no AVX2")
@pytest.mark.parametrize("near", [False, True])
def test_all_numbers_as_the_instruction(near):
    """Any bits; and sums that nearly cancel, with subnormals among them."""
    r = np.random.default_rng(1)
    a, b, c = (r.integers(0, 1 << 32, N, np.uint32).view(np.float32) for _ in range(3))
    if near:
        a, b = (x * np.float32(2.0) ** r.integers(-70, 5, N).astype(np.float32)
                for x in (r.standard_normal(N).astype(np.float32), r.standard_normal(N).astype(np.float32)))
        with np.errstate(all="ignore"):
            c = (-(a * b) * r.choice([1, 1 + 2.0 ** -23, 0.5, 2.0 ** -20, 2.0 ** -30], N)).astype(np.float32)
    mine, theirs = found(a, b, c, SSE2), found(a, b, c, AVX2)
    nan = np.isnan(theirs)
    np.testing.assert_array_equal(np.isnan(mine), nan)
    np.testing.assert_array_equal(mine.view(np.uint32)[~nan], theirs.view(np.uint32)[~nan])


def test_no_function_of_c_is_called():
    for target in (SSE2, PLATFORMS["wasm32"].baseline):
        assert "fmaf" not in assembly([products(4)], target), target.name
