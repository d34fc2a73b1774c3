"""Native gradients of every operator against the oracle's: forward and backward in one compiled graph, as in a training step."""
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from graphc.autodiff.backward import backward
from graphc.compiler import Compilation
from graphc.ir.builder import Builder
from graphc.ir.interp import evaluate
from graphc.ir.types import f32
from graphc.runtime.executable import Executable

sys.path.insert(0, str(Path(__file__).parent.parent / "ops"))
from op_sample import Sample, rng_for, shares  # noqa: E402
from samples import NON_DIFFERENTIABLE, SAMPLES  # noqa: E402


def has_gradient(s: Sample) -> bool:
    """f32 throughout, smooth or not: here both sides use the same rule."""
    floats = [t for t in (*s.types, *(v.type for v in s.graph().outputs)) if t.dtype.is_float]
    return s.op.name not in NON_DIFFERENTIABLE and bool(floats) and all(t.dtype == f32 for t in floats) and "special" not in s.tag and s.tag != "odd"


DIFFERENTIABLE = [s for s in SAMPLES if has_gradient(s)]


def graph_of(samples):
    """Outputs and gradients of all samples, and the arrays: operands, then the gradients given to the outputs."""
    b, arrays, results = Builder("gradients"), [], []
    for n, s in enumerate(samples):
        ins = [b.input(f"s{n}_{i}", t) for i, t in enumerate(s.types)]
        start = len(b.nodes)
        outs = b.apply(s.op, ins)
        seeds = {v: b.input(f"s{n}_g{i}", v.type) for i, v in enumerate(outs) if v.type.dtype.is_float}
        arrays += [*s.arrays, *(rng_for(s.name, v.type.shape).uniform(-1, 1, v.type.shape).astype(np.float32) for v in seeds)]
        wrt = [v for v in ins if v.type.dtype.is_float]
        results.append((*outs, *(g for g in backward(b, b.nodes[start:], seeds, wrt) if g is not None)))
    flat = [v for row in results for v in row]
    return b.finish(flat, ("",) * len(flat)), arrays, [len(row) for row in results]


@pytest.mark.parametrize("samples", shares(DIFFERENTIABLE))
def test_native_gradients_are_the_oracles(samples):
    graph, arrays, counts = graph_of(samples)
    with np.errstate(all="ignore"):
        expected = iter(evaluate(graph, arrays))
    actual = iter(Executable(Compilation(graph).build.program, 2).slow(*arrays))
    for s, n in zip(samples, counts):
        for _ in range(n):
            check(s, next(actual), next(expected))


def check(sample: Sample, actual, expected):
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype), sample.name
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(actual, expected, err_msg=sample.name)
        return
    eps, finite = np.finfo(np.float32).eps, np.abs(expected[np.isfinite(expected)])
    scale = max(sample.scale, min(finite.max(initial=0.0), 16.0))
    np.testing.assert_allclose(actual, expected, rtol=8 * sample.tolerance * eps, atol=8 * sample.tolerance * eps * scale, err_msg=sample.name)
