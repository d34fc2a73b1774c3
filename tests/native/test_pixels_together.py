"""One-tap convolutions of channels-first images whose lines fill no vectors: pixels are one run where the epilogue reads
along channels only, or as the result lies."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.compiler import Compilation
from graphc.runtime.executable import Executable
from graphc.schedule.contraction_schedule import ContractionSchedule
from tests.native.test_attention import RUNS

READ = {    # what is added: its shape, and whether lines stay apart
    "channels": ((6, 1, 1), False), "image": ((2, 6, 5, 7), False), "columns": ((7,), True), "lines": ((5, 1), True)}


@pytest.mark.parametrize("target", RUNS)
@pytest.mark.parametrize("shape, apart", READ.values(), ids=READ)
def test_lines_are_one_run_unless_the_epilogue_tells_them_apart(shape, apart, target):
    @gc.graph
    def f(x: gc.f32[2, 9, 5, 7], w: gc.f32[6, 9, 1, 1], added: gc.f32[shape]):
        return gc.relu(gc.conv2d(x, w) + added), gc.exp(-gc.square(gc.conv2d(x, w) + added))
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in ((2, 9, 5, 7), (6, 9, 1, 1), shape)]
    c = Compilation(f.graph, target)
    schedule, = (s for s in c.plan.schedules.values() if isinstance(s, ContractionSchedule))
    assert (schedule.form.together == 0) == apart
    assert all((len([d for d in p.m + p.n + p.batch if p.sizes[d] in (5, 7)]) == 2) == apart for p in schedule.form.phases)
    y = np.einsum("nchw,oc->nohw", arrays[0].astype(np.float64), arrays[1][..., 0, 0]) + arrays[2]
    relu, bump = Executable(c.build.program, 1).slow(*arrays)
    np.testing.assert_allclose(relu, np.maximum(y, 0), rtol=0, atol=1e-5)
    np.testing.assert_allclose(bump, np.exp(-y * y), rtol=0, atol=1e-5)
