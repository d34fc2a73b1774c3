"""Bits read as another type, in native code and in constants: whichever NaN they are."""
import numpy as np
import pytest

import graphc as gc
from graphc.ir.types import DTYPES, DType, bool_


def drawn(dtype: DType) -> np.ndarray:
    raw = np.random.default_rng(dtype.bits).integers(0, 2 if dtype is bool_ else 256, 33 * dtype.itemsize, np.uint8)
    return raw.view(dtype.np)


def expected(x: np.ndarray, target: DType) -> bytes:
    return (x != 0 if target is bool_ else x.view(target.np)).tobytes()


@pytest.mark.parametrize("source", DTYPES, ids=str)
def test_every_pair_of_one_width(source):
    """Any bytes, signalling NaNs among them, of an input; of constants and of one that is repeated."""
    x, targets = drawn(source), [d for d in DTYPES if d.itemsize == source.itemsize]
    repeated = np.full(3000, x[5])

    def read(given):
        return {f"{b}_{name}": gc.bitcast(v, b) for b in targets
                for name, v in (("input", given), ("constant", x), ("repeated", gc.broadcast_to(x[5:6], (3000,))))}

    found = gc.compile(read, threads=1, given=source[33])(x)
    for b in targets:
        assert found[f"{b}_input"].tobytes() == found[f"{b}_constant"].tobytes() == expected(x, b)
        assert found[f"{b}_repeated"].tobytes() == expected(repeated, b)

def test_there_and_back_is_nothing():
    both_ways = gc.compile(lambda x: gc.bitcast(gc.bitcast(x, gc.i32), gc.f32) + 1, x=gc.f32[4])
    assert "bitcast(" not in both_ways.dump("fused")
    of_bool = gc.compile(lambda x: gc.bitcast(gc.bitcast(x, gc.bool_), gc.u8), x=gc.u8[3])
    assert of_bool(np.array([0, 1, 7], np.uint8)).tolist() == [0, 1, 1]

def test_another_width():
    with pytest.raises(gc.GraphError, match="f32 has 32 bits, i64 64"):
        gc.compile(lambda x: gc.bitcast(x, gc.i64), x=gc.f32[4])

def test_no_gradient_and_bits_of_exponents():
    """A use: the exponents of floats."""
    run = gc.compile(lambda x: ((gc.bitcast(x, gc.u32) >> 23) & 255).astype(gc.i32) - 127, x=gc.f32[4])
    assert run(np.array([1, 3, 0.4, -8], np.float32)).tolist() == [0, 1, -2, 3]
