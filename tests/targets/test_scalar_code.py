"""Code without vectors, as for processors that have none, on this one."""
from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from graphc.codegen.llvm.host import can_run, host_target
from graphc.compiler import Compilation
from graphc.runtime.executable import Executable
from graphc.schedule.platforms import SMALL_CORE
from graphc.schedule.target import SSE2

sys.path[:0] = [str(Path(__file__).parent.parent / folder) for folder in ("ops", "native")]
from samples import SAMPLES  # noqa: E402
from test_operators import check, graph_of  # noqa: E402

SCALAR = replace(SSE2, name="scalar", vector_bytes=1, machine=SMALL_CORE, has_threads=False)
NAMES = ("matmul", "conv2d", "conv2d_input_grad", "conv2d_weight_grad", "attention", "softmax", "sum", "cumsum", "exp",
         "log", "where", "concat", "pad", "argsort", "gather", "maxpool2d", "transpose", "solve", "round")


@pytest.mark.skipif(not can_run(SSE2), reason="this CPU is no x86-64")
def test_operators_one_element_at_a_time():
    samples = [s for name in NAMES for s in [s for s in SAMPLES if s.op.name == name][:3]]
    compilation = Compilation(graph_of(samples), SCALAR)
    results = iter(Executable(compilation.build.program, 1).slow(*[a for s in samples for a in s.arrays]))
    for s in samples:
        for expected in s.expected():
            check(s, next(results), np.asarray(expected))


def test_lanes():
    assert [SCALAR.lanes(size) for size in (1, 2, 4, 8)] == [1, 1, 1, 1] and host_target().lanes(4) > 1
