"""Every operator on samples: types, reference, decomposition, gradients, cost."""
from __future__ import annotations

import numpy as np
import pytest
from op_sample import Sample, rng_for
from samples import CHECKED_ELSEWHERE, NON_DIFFERENTIABLE, SAMPLES

from graphc.autodiff.backward import backward
from graphc.ir.builder import Builder
from graphc.ir.interp import evaluate
from graphc.ir.op import Composite, Op, as_tuple
from graphc.ir.ops import OPS
from graphc.ir.parser import parse
from graphc.ir.printer import print_graph
from graphc.ir.types import f64

STEP = 1e-6
COMPOSITE = [s for s in SAMPLES if isinstance(s.op, Composite)]
EXPECTED = [s for s in SAMPLES if s.expect]
SMOOTH = [s for s in SAMPLES if s.differentiable and s.op.name not in NON_DIFFERENTIABLE]


def named(samples):
    return pytest.mark.parametrize("sample", samples, ids=lambda s: s.name)


def test_every_operator_has_samples():
    missing = sorted(OPS.keys() - {s.op.name for s in SAMPLES})
    assert not missing, f"no sample for {', '.join(missing)}: add some in tests/ops/samples_*.py"


def test_every_operator_has_a_gradient_or_is_listed_as_having_none():
    missing = sorted(OPS.keys() - {s.op.name for s in SMOOTH} - NON_DIFFERENTIABLE - CHECKED_ELSEWHERE.keys())
    assert not missing, f"no gradient is checked for {', '.join(missing)}: add an f64 sample, or list them in NON_DIFFERENTIABLE"


def test_every_operator_says_what_it_computes():
    silent = sorted({type(s.op).__name__ for s in SAMPLES if type(s.op).reference is Op.reference
                     or not type(s.op).__doc__})
    assert not silent, f"no reference or docstring: {', '.join(silent)}"


RULES = {                           # of an operator: the types of its operands, and of what it returns
    "infer": ({"TensorType"}, {"TensorType", "tuple[TensorType, TensorType]", "tuple[TensorType, ...]"}),
    "cost": ({"TensorType"}, {"Cost"}),
    "reference": ({"np.ndarray", "np.ndarray | None"}, {"np.ndarray", "Arrays"}),
    "decompose": ({"OpBuilder", "Value", "Value | None"}, {"Value", "Values"}),
    "vjp": ({"OpBuilder", "Gradients", "Values"}, {"Gradients"}),
}


def test_rules_say_the_types_that_their_base_has():
    """The type checker lets an operator take fewer operands than its base; what each of them is, this holds."""
    wrong = []
    made = [o if isinstance(o, type) else type(o()) for o in OPS.values()]
    for cls in {c for o in made for c in o.__mro__ if issubclass(c, Op)} - {Op, Composite}:
        for rule, (operands, results) in RULES.items():
            types = dict(getattr(vars(cls).get(rule), "__annotations__", {}))
            if types.pop("return", min(results)) not in results or not set(types.values()) <= operands:
                wrong.append(f"{cls.__name__}.{rule}")
    assert not wrong


def test_names_of_samples_are_distinct():
    names = [s.name for s in SAMPLES]
    assert len(set(names)) == len(names), sorted({n for n in names if names.count(n) > 1})


@named(SAMPLES)
def test_reference(sample: Sample):
    """It has the inferred type, leaves its operands alone, and is what other means give; the decomposition gives the
    same; the cost is counted.
    """
    outs, results = as_tuple(sample.op.infer(*sample.types)), check_reference(sample)
    if sample.expect:
        for actual, expect in zip(results, as_tuple(sample.expect(*sample.arrays)), strict=True):
            assert_close(actual, expect, sample.tolerance, sample.scale)
    if isinstance(sample.op, Composite):
        for actual, expect in zip(decomposed(sample, outs), results, strict=True):
            assert_close(actual, expect, 4 * sample.tolerance, sample.scale)
    cost = sample.op.cost(*sample.types)
    assert cost.flops >= 0 and cost.bytes >= sum(t.nbytes for t in outs)


@pytest.mark.parametrize("name", sorted({s.op.name for s in SAMPLES}))
def test_text_reads_back(name):
    b = Builder(name)
    for n, sample in enumerate(s for s in SAMPLES if s.op.name == name):
        b.apply(sample.op, [b.input(f"s{n}_{i}", t) for i, t in enumerate(sample.types)])
    graph = b.finish(b.nodes[-1].outputs, ("",) * len(b.nodes[-1].outputs))
    assert parse(print_graph(graph)) == graph


@named(SMOOTH)
def test_gradients_are_differences(sample: Sample):
    """First and second order, along random directions."""
    b, total, wrt = scalar_program(sample)
    assert_gradients(b, total, wrt, sample.arrays)
    b, total, wrt = scalar_program(sample)
    assert_gradients(b, gradient_product(b, total, wrt, sample.name), wrt, sample.arrays)


@named(SMOOTH)
def test_forward_mode_is_two_vjps(sample: Sample):
    """The gradient of <vjp(g), v> in g is the derivative along v: every gradient rule is linear in g and differentiable
    in it.
    """
    b = Builder()
    ins = [b.input(f"x{i}", t) for i, t in enumerate(sample.types)]
    outs = [v for v in b.apply(sample.op, ins) if v.type.dtype.is_float]
    value, wrt = b.finish(outs), [v for v in ins if v.type.dtype.is_float]
    seeds = [b.input(f"g{i}", v.type) for i, v in enumerate(outs)]
    directions = [rng_for(sample.name, i).uniform(-1, 1, v.type.shape) for i, v in enumerate(wrt)]
    grads = backward(b, list(b.nodes), dict(zip(outs, seeds)), wrt)
    total = b.constant(0.0, f64)
    for g, direction in zip(grads, directions):
        if g is not None:
            total = b.add(total, b.sum(b.mul(g, b.constant(direction)), axes=tuple(range(direction.ndim))))
    slopes = backward(b, list(b.nodes), {total: b.constant(1.0, f64)}, seeds)
    arrays = [*sample.arrays, *(np.zeros(v.type.shape) for v in outs)]
    actual = iter(evaluate(b.finish([v for v in slopes if v is not None]), arrays))
    along = iter(directions)
    path = [next(along) if v in wrt else 0 for v in ins]
    high, low = (evaluate(value, [a + sign * STEP * d if v in wrt else a for v, a, d in zip(ins, sample.arrays, path)])
                 for sign in (1, -1))
    for v, slope, up, down in zip(outs, slopes, high, low):
        expect = (up - down) / (2 * STEP)
        np.testing.assert_allclose(next(actual) if slope is not None else 0, expect, rtol=1e-6,
                                   atol=1e-7 * (1 + np.abs(up).max()))


def check_reference(sample: Sample) -> tuple[np.ndarray, ...]:
    before = [a.copy() for a in sample.arrays]
    outs, results = as_tuple(sample.op.infer(*sample.types)), sample.expected()
    assert [(np.shape(a), np.asarray(a).dtype) for a in results] == [(t.shape, t.dtype.np) for t in outs]
    for old, array in zip(before, sample.arrays):
        np.testing.assert_array_equal(old, array, err_msg="the reference changed its operand")
    return results


def decomposed(sample: Sample, types) -> tuple[np.ndarray, ...]:
    b = Builder()
    outs = as_tuple(sample.op.decompose(b, *(b.input(f"x{i}", t) for i, t in enumerate(sample.types))))
    assert tuple(v.type for v in outs) == types
    with np.errstate(all="ignore"):
        return evaluate(b.finish(outs), sample.arrays)


def scalar_program(sample: Sample):
    """A builder with the operator and a random combination of its float outputs; that value, and the float inputs."""
    b = Builder()
    ins = [b.input(f"x{i}", t) for i, t in enumerate(sample.types)]
    outs = [v for v in b.apply(sample.op, ins) if v.type.dtype.is_float]
    return b, combination(b, outs, sample.name), [v for v in ins if v.type.dtype.is_float]


def combination(b: Builder, values, seed):
    """A scalar: the sum of the values times random weights."""
    total = b.constant(0.0, f64)
    for i, v in enumerate(values):
        weights = b.constant(rng_for(seed, i, v.type.shape).uniform(-1, 1, v.type.shape), f64)
        total = b.add(total, b.sum(b.mul(v, weights), axes=tuple(range(v.type.rank))))
    return total


def gradient_product(b: Builder, total, wrt, seed):
    """A random combination of the gradients of `total`."""
    grads = backward(b, list(b.nodes), {total: b.constant(1.0, f64)}, wrt)
    return combination(b, [g for g in grads if g is not None], (seed, "second"))


def assert_gradients(b: Builder, total, wrt, arrays):
    """The gradient along random directions of every input against central differences."""
    nodes = list(b.nodes)
    value = b.finish([total])
    grads = backward(b, nodes, {total: b.constant(1.0, f64)}, wrt)
    slopes = evaluate(b.finish([g for g in grads if g is not None]), arrays)
    slopes = iter(slopes)
    for v, g in zip(wrt, grads):
        slope = np.zeros(v.type.shape) if g is None else next(slopes)
        assert slope.shape == v.type.shape
        assert_slope(value, arrays, value.inputs.index(v), slope)


def assert_slope(value, arrays, index: int, slope: np.ndarray):
    rng = rng_for(slope.shape, index)
    for _ in range(3):
        direction = rng.uniform(-1, 1, slope.shape)
        high, low = (evaluate(value, moved(arrays, index, sign * STEP * direction))[0] for sign in (1, -1))
        difference = (high - low) / (2 * STEP)
        scale = 1 + np.abs(slope * direction).sum() + abs(evaluate(value, arrays)[0])
        assert abs(difference - (slope * direction).sum()) <= 2e-8 * scale, f"input {index}"


def moved(arrays, index: int, by: np.ndarray):
    return [a + by if i == index else a for i, a in enumerate(arrays)]


def assert_close(actual, expect, tolerance: float, scale: float):
    """Equal within `tolerance` eps, relative to each element or to `scale`; NaN and infinities in the same places."""
    actual, expect = np.asarray(actual), np.asarray(expect)
    if actual.dtype.kind != "f":
        np.testing.assert_array_equal(actual, expect)
        return
    info = np.finfo(actual.dtype)
    with np.errstate(all="ignore"):
        expect = expect.astype(actual.dtype)
    absolute = max(float(info.smallest_subnormal), float(info.eps) * scale)
    np.testing.assert_allclose(actual, expect, rtol=tolerance * info.eps, atol=tolerance * absolute)
