"""Elementary functions of f32 give the same bits on every processor, with an instruction that multiplies and adds or
without one, by vectors or one by one."""
from __future__ import annotations

import numpy as np
import pytest
from machines import MACHINES, run_on

import graphc as gc

N = 1 << 13
FUNCTIONS = ("exp", "exp2", "expm1", "log", "log1p", "sin", "cos", "tanh", "sigmoid", "erf", "sqrt", "rsqrt")
TINY = np.finfo(np.float32).tiny


@gc.graph
def functions(x: gc.f32[N]):
    return tuple(getattr(gc, name)(x) for name in FUNCTIONS)


@pytest.mark.parametrize("platform", MACHINES)
def test_the_same_bits_everywhere(platform):
    machine = MACHINES[platform]
    if lacking := machine.lacks():
        pytest.skip(f"{lacking} not installed")
    r = np.random.default_rng(0)
    x = np.concatenate([r.standard_normal(N // 2) * 10, np.exp(r.uniform(-30, 11, N // 2))]).astype(np.float32)
    for name, found, here in zip(FUNCTIONS, run_on(machine, functions.graph, [x]).outputs, functions(x)):
        kept = ~np.isnan(here) & (machine.subnormals | ~(np.abs(here) < TINY) | (here == 0))
        np.testing.assert_array_equal(np.isnan(found), np.isnan(here), name)
        np.testing.assert_array_equal(found.view(np.uint32)[kept], here.view(np.uint32)[kept], name)
