"""Gradients of every operator at NaN, infinities, signed zeros, ties, equal numbers and of nothing, against the table
in edges.py.
"""
from __future__ import annotations

import numpy as np
import pytest
from edges import EDGES, LINEAR, NAN, PRODUCTS, REGIONS, Edge
from op_sample import Sample, rng_for
from samples import CHECKED_ELSEWHERE, NON_DIFFERENTIABLE, SAMPLES

from graphc.autodiff.backward import backward
from graphc.ir.builder import Builder
from graphc.ir.interp import evaluate
from graphc.ir.ops import OPS
from graphc.ir.types import TensorType, dtype_of, f64


def gradients(op, arrays, seed=None):
    """Gradients of the weighted sum of the float results towards each float operand; zeros where nothing flows."""
    b = Builder()
    ins = [b.input(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(arrays)]
    outs = b.apply(op, ins)
    seeds = {}
    for i, y in enumerate(y for y in (outs[:1] if seed is not None else outs) if y.type.dtype.is_float):
        weight = rng_for(op.name, i).uniform(-1, 1,
                                             y.type.shape) if seed is None else np.broadcast_to(np.asarray(seed, float), y.type.shape)
        seeds[y] = b.constant(weight, y.type.dtype)
    wrt = [v for v in ins if v.type.dtype.is_float]
    found = backward(b, list(b.nodes), seeds, wrt)
    with np.errstate(all="ignore"):
        given = iter(evaluate(b.finish([g for g in found if g is not None]), arrays))
        return [np.zeros(v.type.shape) if g is None else next(given) for v, g in zip(wrt, found)]


def test_every_operator_has_a_row():
    told = {edge.op.name
            for edge in EDGES} | LINEAR | PRODUCTS | REGIONS | NON_DIFFERENTIABLE | CHECKED_ELSEWHERE.keys()
    missing = sorted(OPS.keys() - told)
    assert not missing, f"what is the gradient of {', '.join(missing)} at NaN, infinity, zero, ties and of nothing? Say so in edges.py"
    assert not sorted(told - OPS.keys()), "no such operator"


@pytest.mark.parametrize("edge", EDGES, ids=lambda e: e.name)
def test_gradient(edge: Edge):
    for actual, expect in zip(gradients(edge.op, edge.arrays, edge.seed), edge.expect, strict=True):
        np.testing.assert_allclose(actual, expect, rtol=1e-12, atol=1e-12)
        assert actual.shape == expect.shape


def smooth(names):
    """One f64 sample of each operator."""
    found: dict[str, Sample] = {}
    for s in SAMPLES:
        if s.op.name in names and s.differentiable and s.op.name not in NON_DIFFERENTIABLE:
            found.setdefault(s.op.name, s)
    assert found.keys() == names
    return pytest.mark.parametrize("sample", found.values(), ids=found.keys())


def without_numbers(arrays, which):
    """The arrays, the float ones among them that `which` names filled with NaN."""
    return tuple(np.full_like(a, NAN) if a.dtype.kind == "f" and i in which else a for i, a in enumerate(arrays))


@smooth(LINEAR)
def test_a_gradient_that_reads_no_operand(sample: Sample):
    ordinary, without = (gradients(sample.op, a)
                         for a in (sample.arrays, without_numbers(sample.arrays, range(len(sample.arrays)))))
    for a, b in zip(ordinary, without, strict=True):
        np.testing.assert_array_equal(a, b)


@smooth(PRODUCTS)
def test_a_gradient_that_reads_the_other_operands_alone(sample: Sample):
    ordinary = gradients(sample.op, sample.arrays)
    floats = [i for i, a in enumerate(sample.arrays) if a.dtype == f64.np]
    for n, i in enumerate(floats):
        np.testing.assert_array_equal(gradients(sample.op, without_numbers(sample.arrays, (i,)))[n], ordinary[n])
