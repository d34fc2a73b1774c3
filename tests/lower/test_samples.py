"""Every operator that a nest can hold: native code against the numpy reference, on every sample."""
import numpy as np
import pytest
from native import run_op
from samples import SAMPLES

from graphc.ir.op import as_tuple
from graphc.codegen.lower import LOWERINGS
from graphc.ir.space import RULES

NEST_OPS = RULES.keys() & LOWERINGS.keys()
NEST = [s for s in SAMPLES if type(s.op) in NEST_OPS]


@pytest.mark.parametrize("sample", NEST, ids=[f"{i}-{s.name}" for i, s in enumerate(NEST)])
def test_sample(sample):
    for got, want in zip(run_op(sample.op, *sample.arrays), sample.expected(), strict=True):
        assert_close(got, want, sample)


def assert_close(got: np.ndarray, want: np.ndarray, sample) -> None:
    assert got.shape == want.shape and got.dtype == want.dtype
    if got.dtype.kind != "f":
        np.testing.assert_array_equal(got, want)
        return
    eps = np.finfo(got.dtype).eps * sample.tolerance
    scale = np.max(np.abs(want), initial=0, where=np.isfinite(want)) if sample.scaled else 0
    np.testing.assert_allclose(got, want, rtol=eps, atol=eps * scale + np.finfo(got.dtype).smallest_subnormal)


def test_all_nest_operators_have_samples():
    assert {op.__name__ for op in NEST_OPS} <= {type(s.op).__name__ for s in SAMPLES}
