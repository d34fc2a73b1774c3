"""Products of bytes on processors that are not this one: by their instructions, or widened, always the same integers."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from machines import MACHINES, built, job_of, results_of

from graphc.ir.builder import Builder
from graphc.ir.types import TensorType, dtype_of, i32

FEATURES = {"aarch64-linux": ("", ",+dotprod", ",+dotprod,+i8mm")}
CASES = [(platform, extra) for platform in MACHINES for extra in FEATURES.get(platform, ("",))]


@pytest.mark.parametrize("platform,extra", CASES)
def test_products(platform, extra):
    machine = MACHINES[platform]
    if lacks := machine.lacks():
        pytest.skip(f"needs {lacks}")
    rng, shapes = np.random.default_rng(0), ((1, 64, 9), (7, 37, 13), (16, 128, 24))

    given = []
    for m, k, n in shapes:
        for left, right in ((np.int8, np.int8), (np.uint8, np.int8), (np.uint8, np.uint8)):
            given += [rng.choice([-128, -1, 0, 77, 127], (m, k)).astype(left),
                      rng.choice([-128, -1, 3, 127], (n, k)).astype(right)]
    b = Builder("products")
    values = [b.input(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(given)]
    graph = b.finish([b.matmul(x, b.transpose(w, perm=(1, 0)), dtype=i32) for x, w in zip(values[::2], values[1::2])],
                     ("",) * (len(given) // 2))
    target = replace(machine.target, features=machine.target.features + extra)
    program = built(graph, target).program
    found = results_of(program, machine.run(program, job_of(program, given, (), 1)), ()).outputs
    wanted = [x.astype(np.int32) @ w.astype(np.int32).T for x, w in zip(given[::2], given[1::2])]
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


