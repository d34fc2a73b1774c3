"""What is made of captured arrays for products by narrow numbers is made once, as of state."""
import ml_dtypes
import numpy as np
import pytest

import graphc as gc
from graphc.compiler import Compilation
from graphc.nn.network import trace_network
from graphc.schedule.target import AVX512_BF16

RNG = np.random.default_rng(0)
CODES = RNG.integers(-127, 128, (128, 64)).astype(np.int8)
PAIRS = RNG.standard_normal((64, 128)).astype(ml_dtypes.bfloat16)
KERNELS = RNG.integers(-127, 128, (32, 16, 3, 3)).astype(np.int8)
SCALE = RNG.random((128, 1)).astype(np.float32)


@pytest.mark.parametrize("function, type, nbytes", [
    (lambda x: x @ PAIRS, gc.bf16[32, 64], PAIRS.nbytes),
    (lambda x: x.astype(gc.i32) @ gc.cast(CODES.T, gc.i32), gc.i8[32, 64], CODES.nbytes),
    (lambda x: gc.conv2d(x.astype(gc.i32), gc.cast(KERNELS, gc.i32)), gc.i8[2, 16, 9, 9], KERNELS.nbytes),
    (lambda x: x @ (gc.cast(CODES, gc.f32) * SCALE).T, gc.f32[1, 64], 0)], ids=["bf16", "bytes", "convolution", "scaled"])
def test_they_are_packed_once(function, type, nbytes):
    """As many bytes as they have, or none, where products read them as they lie; nothing of them in a call."""
    made = Compilation(trace_network(function, x=type).graph, AVX512_BF16)
    derived = made.memory.derived
    assert nbytes <= derived <= 2 * nbytes + 4096
    assert "f32[128, 64]" not in made.text("fused").split("prepare")[0]
