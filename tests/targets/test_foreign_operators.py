"""Operators on processors that are not this one, against their numpy references: a share of all samples, each operator
on each machine."""
from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from machines import MACHINES, run_on


from graphc.ir.builder import Builder
from graphc.ir.types import TensorType, bf16, dtype_of, f16

sys.path[:0] = [str(Path(__file__).parent.parent / folder) for folder in ("ops", "native")]
from samples import SAMPLES  # noqa: E402
from test_conversions import edges  # noqa: E402
from test_operators import check, graph_of  # noqa: E402

GROUPS = 4
NAMES = sorted({s.op.name for s in SAMPLES})
TINY = np.finfo(np.float32).tiny


def runs_on(machine, sample):
    """Whether the machine has what the sample needs."""
    return machine.libm or sample.op.name != "lgamma" and not any(np.asarray(a).dtype == np.float64 for a in (*sample.arrays, *sample.expected()))


def flushed(array):
    """The array with f32's subnormals as zeros of their signs; also the smallest normal number, to which what is flushed
    may round."""
    if array.dtype != np.float32:
        return array
    return np.where(np.abs(array) <= TINY, np.copysign(np.float32(0), array), array)


def share_of(machine, group):
    """One ordinary sample of every operator in the group, and one of special numbers."""
    chosen = []
    for name in NAMES[group::GROUPS]:
        samples = [s for s in SAMPLES if s.op.name == name and runs_on(machine, s)]
        chosen += samples[:1] + [s for s in samples[1:] if s.tag == "special"][:1]
    return [as_given(machine, s) for s in chosen]


def as_given(machine, sample):
    """The sample of numbers that the machine keeps."""
    return sample if machine.subnormals else replace(sample, arrays=tuple(map(flushed, sample.arrays)))


def check_on(machine, samples):
    found = run_on(machine, graph_of(samples), [a for s in samples for a in s.arrays])
    results = iter(found.outputs)
    for s in samples:
        for expected in s.expected():
            actual, expected = next(results), np.asarray(expected)
            check(s, *((actual, expected) if machine.subnormals else map(flushed, (actual, expected))))


@pytest.mark.parametrize("group", range(GROUPS))
@pytest.mark.parametrize("platform", MACHINES)
def test_operators_are_their_references(platform, group):
    machine = MACHINES[platform]
    if lacking := machine.lacks():
        pytest.skip(f"{lacking} not installed")
    check_on(machine, share_of(machine, group))


@pytest.mark.parametrize("platform", MACHINES)
def test_storage_types_are_converted_exactly(platform):
    """All numbers of f16 and bf16 to f32; and numbers of f32, half way between two of them and beside that, back."""
    machine = MACHINES[platform]
    if lacking := machine.lacks():
        pytest.skip(f"{lacking} not installed")
    b, inputs, expected = Builder("casts"), [], []
    patterns = np.arange(1 << 16, dtype=np.uint16)
    for stored in (f16, bf16):
        x = patterns.view(stored.np)
        wide = x.astype(np.float32)
        wide = np.where(np.isnan(wide), np.float32(np.nan), wide)
        back = edges(stored)
        inputs += [x, back]
        with np.errstate(all="ignore"):
            expected += [wide, back.astype(stored.np)]
    outputs = [b.cast(b.input(f"x{i}", TensorType(dtype_of(x), x.shape)), dtype=dtype_of(y))
               for i, (x, y) in enumerate(zip(inputs, expected))]
    found = run_on(machine, b.finish(outputs, ("",) * len(outputs)), inputs).outputs
    for x, actual, wanted in zip(inputs, found, expected):
        nan, word = np.isnan(wanted.astype(np.float32)), f"u{wanted.itemsize}"
        kept = ~nan if machine.subnormals else ~nan & (np.abs(np.asarray(x, np.float32)) >= TINY)
        np.testing.assert_array_equal(np.isnan(actual.astype(np.float32)), nan)
        np.testing.assert_array_equal(actual.view(word)[kept], wanted.view(word)[kept])
