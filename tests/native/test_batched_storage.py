"""Batches of small products of types that are only stored."""
import numpy as np
import pytest

import graphc as gc


@pytest.mark.parametrize("dtype", [gc.f16, gc.bf16])
def test_batched_products_with_one_row(dtype):
    """A batch of [1, k] @ [k, n], which is computed without packing: both factors are widened."""
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(shape).astype(dtype.np) for shape in ((2, 4, 1, 8), (2, 4, 8, 8)))
    run = gc.compile(gc.matmul, x=dtype[x.shape], y=dtype[y.shape])
    wanted = (x.astype(np.float32) @ y.astype(np.float32)).astype(dtype.np)
    np.testing.assert_allclose(run(x, y).astype(np.float32), wanted.astype(np.float32), rtol=2 ** -dtype.mantissa)
