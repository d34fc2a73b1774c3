"""Sums with a product that is never rounded: one instruction, the same bits as two."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.ir.types import f16, f32, i8, i16, u8

WIDE = np.arange(-128, 128)


def affine(codes, scale, least):
    def f(q: codes[256, 64], s: scale[256, 1], m: f32[1, 64]):
        return q.astype(f32) * s.astype(f32) + m
    return gc.compile(gc.graph(f))


def fused(run) -> bool:
    return " fma " in run.dump("loops")


@pytest.mark.parametrize("codes, scale, exact", [(i8, f16, True), (u8, f16, True), (i8, i16, True), (i16, f16, False),
                                                 (i8, f32, False)], ids=str)
def test_numbers_of_integers_and_scales(codes, scale, exact):
    """All bytes, with scales from the smallest to the largest, infinity and no number among them."""
    rng = np.random.default_rng(0)
    run = affine(codes, scale, f32)
    assert fused(run) is exact
    bits = rng.integers(0, 1 << 16, (200, 256, 1)).astype(np.uint16)
    for s in bits.view(np.float16).astype(scale.np) if scale.is_float else bits.view(np.int16):
        q = rng.permuted(np.repeat(WIDE[:, None], 64, 1), axis=0).astype(codes.np)
        m = (rng.standard_normal((1, 64)) * 10.0 ** rng.integers(-40, 38, (1, 64))).astype(np.float32)
        with np.errstate(all="ignore"):
            expected = q.astype(np.float32) * s.astype(np.float32) + m
        np.testing.assert_array_equal(run(q, s, m), expected)
