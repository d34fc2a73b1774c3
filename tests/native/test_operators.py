"""Native code of every operator against its numpy reference, and the same bits for any number of threads.

The samples of an operator are one graph, compiled once: the compiler's fixed cost would otherwise be most of the time. CI takes those of them
that cover its attributes, shapes and types; `slow` takes all.
"""
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from graphc.compiler import Compilation
from graphc.ir.builder import Builder
from graphc.ir.types import TensorType, dtype_of
from graphc.runtime.executable import Executable

sys.path.insert(0, str(Path(__file__).parent.parent / "ops"))
from op_sample import shares  # noqa: E402
from samples import SAMPLES  # noqa: E402

THREADS = (1, 2, 3, 4)


def graph_of(samples):
    """One graph with the inputs and outputs of all samples."""
    b = Builder("samples")
    outputs = []
    for n, s in enumerate(samples):
        ins = [b.input(f"s{n}_{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(s.arrays)]
        outputs += b.apply(s.op, ins)
    return b.finish(outputs, ("",) * len(outputs))


@pytest.mark.parametrize("samples", shares(SAMPLES))
def test_native_code_is_the_reference(samples):
    built = Compilation(graph_of(samples)).build
    inputs = [a for s in samples for a in s.arrays]
    runs = [Executable(built.program, threads).slow(*inputs) for threads in THREADS]
    for other in runs[1:]:
        for a, b in zip(runs[0], other):
            assert a.tobytes() == b.tobytes(), "the bits depend on the number of threads"
    results = iter(runs[0])
    for s in samples:
        for expected in s.expected():
            check(s, next(results), np.asarray(expected))


def check(sample, actual, expected):
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype), sample.name
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(actual, expected, err_msg=sample.name)
        return
    eps = np.finfo(expected.dtype).eps
    np.testing.assert_allclose(actual, expected, rtol=4 * sample.tolerance * eps,
                               atol=sample.tolerance * eps * sample.scale, err_msg=sample.name)
