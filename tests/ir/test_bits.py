"""Numbers that compare equal but differ in their bits: 0.0 and -0.0 stay apart in attributes, constants, texts,
rewrites and the cache's keys.
"""
from __future__ import annotations

from math import copysign, inf, nan

import numpy as np
import pytest

import graphc as gc
from graphc.ir.bits import is_uniform, number_key, same_bits
from graphc.ir.interp import evaluate
from graphc.ir.op import Op
from graphc.ir.ops import OPS
from graphc.ir.parser import parse

X = np.float32([0.0, -0.0, 1.5, -2.0])


def test_keys_of_numbers():
    assert number_key(0.0) == number_key(0) == number_key(False) != number_key(-0.0)
    assert number_key(1.0) == number_key(1) and number_key(nan) == number_key(-nan) != number_key(inf)
    assert number_key((0.0, 1.0)) != number_key((-0.0, 1.0))


@pytest.mark.parametrize("array, uniform", [
    ([0.0, 0.0], True), ([0.0, -0.0], False), ([nan, nan], True), ([1.0], True), ([], False), ([[2, 2], [2, 2]], True),
    ([True, False], False)])
def test_arrays_of_one_number(array, uniform):
    assert is_uniform(np.array(array)) is uniform
    assert same_bits(np.array(array), np.array(array))


def test_bits_of_arrays():
    assert not same_bits(np.float32([0.0]), np.float32([-0.0]))


def with_floats() -> list[tuple[str, str]]:
    return [(name, field) for name, op in OPS.items() if isinstance(op, type) for field in op.FLOATS]


@pytest.mark.parametrize("name, field", with_floats())
def test_operators_with_zeros_of_either_sign_differ(name, field):
    """Equality of operators merges nodes and kernels, and what is not printed is lost in texts and keys."""
    cls: type[Op] = OPS[name]
    rest = {n: 1 for n in cls.FIELDS if n not in cls.DEFAULTS and n != field}
    plus, minus = (cls(**rest, **{field: zero}) for zero in (0.0, -0.0))
    assert plus != minus and plus == plus.replace() and hash(plus) == hash(plus.replace())
    assert cls(**rest, **{field: nan}) == cls(**rest, **{field: float("nan")})
    assert copysign(1, minus.attributes[field]) == -1 and (field in plus.attributes) is (cls.DEFAULTS.get(field) != 0)


def reciprocals(*arrays):
    with np.errstate(divide="ignore"):
        return [1 / a for a in arrays]


PROGRAMS = {
    "pads": lambda x: reciprocals(gc.pad(x, ((1, 1),), value=0.0), gc.pad(x, ((1, 1),), value=-0.0)),
    "less nothing": lambda x: reciprocals(x - 0.0, x - np.float32(-0.0), x + np.float32(-0.0),
                                          x - np.float32([-0.0] * 4)),
    "constants": lambda x: [x / np.float32([0.0, -0.0, -0.0, 0.0]), x / -np.float32([0.0, 0.0, 0.0, 0.0]),
                            x / np.float32([0.0, 0.0, 0.0, 0.0])],
    "folded": lambda x: [x / gc.sqrt(np.float32([0.0, -0.0, 0.0, -0.0])),
                         x / gc.minimum(np.float32([-0.0, -0.0, 0.0, 0.0]), 1.0)],
    "chosen": lambda x: reciprocals(gc.where(x > 1, 0.0, x), gc.where(x > 1, -0.0, x)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_zeros_keep_their_sign(name):
    @gc.graph
    def f(x: gc.f32[4]):
        return tuple(PROGRAMS[name](x))
    assert parse(str(f)) == f.graph
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = evaluate(f.graph, [X])
    for native, oracle in zip(gc.compile(f)(X), expected, strict=True):
        np.testing.assert_array_equal(native, oracle)
        known = ~np.isnan(oracle)
        np.testing.assert_array_equal(np.signbit(native)[known], np.signbit(oracle)[known])
