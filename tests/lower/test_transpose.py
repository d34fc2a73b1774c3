"""The transposition in registers, for every number of lanes, by interpreting its loads and shuffles."""
import numpy as np
import pytest

from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.loop_ir import Load
from graphc.codegen.lower.transpose import transposed
from graphc.ir.types import f32, f64


@pytest.mark.parametrize("dtype, lanes", [(f32, 2), (f32, 4), (f32, 8), (f32, 16), (f64, 2), (f64, 4), (f64, 8)],
                         ids=str)
def test_transposed(dtype, lanes):
    f = LoopFunction("turn")
    x = f.view("x", dtype, (lanes, lanes))
    matrix = np.arange(lanes * lanes).reshape(lanes, lanes)
    values = {}

    columns = transposed(f, x, 0, 0, lanes)
    for s in f.body:
        if isinstance(s, Load):
            row, column = (i.const for i in s.index)
            values[s.dst.id] = matrix[row, column:column + s.dst.lanes]
        else:
            values[s.dst.id] = np.concatenate([values[a.id] for a in s.args])[list(s.attr)]
    np.testing.assert_array_equal([values[c.id] for c in columns], matrix.T)
    assert len([s for s in f.body if not isinstance(s, Load)]) == lanes * (lanes.bit_length() - 1)
