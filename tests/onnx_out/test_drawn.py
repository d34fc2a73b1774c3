"""Random programs of tests/random in ONNX Runtime."""
from __future__ import annotations

import numpy as np
import pytest
from peer import assert_same, run

from graphc.doors.onnx_out.model import model_of
from graphc.errors import GraphError
from graphc.ir.interp import evaluate
from tests.random.generator import Refused, program

SEED = 7
# In 240, 267, 725 and 790 NaN is compared (max, sort), which ONNX leaves open; 654: a batch norm of numbers that are
# nearly equal, whose rounding it divides by their spread
LEFT_OUT = frozenset((240, 267, 654, 725, 790))


@pytest.mark.parametrize("index", [*range(40), *(pytest.param(i, marks=pytest.mark.slow) for i in range(40, 800))])
def test_program(index: int):
    if index in LEFT_OUT:
        pytest.skip("said above")
    try:
        p = program(SEED, index)
    except (Refused, GraphError):
        pytest.skip("no program")
    graph, arrays = p.graph, p.inputs(0)
    inputs = len(graph.inputs)
    state = list(zip((v.name for v in graph.state), arrays[inputs:]))
    model = model_of(p.named or graph, state, 23, "0")
    actual = run(model, dict(zip((v.name for v in graph.inputs), arrays)))
    with np.errstate(all="ignore"):
        expect = evaluate(graph, arrays)
    assert_same(list(actual.values()), expect, 1e-4, 1e-6)         # what is left of numbers around 1 that cancel
