"""The transposition in registers, for every number of lanes, by interpreting its shuffles."""
import numpy as np
import pytest

from graphc.codegen.loop_ir import Compute
from graphc.codegen.loops import Function
from graphc.codegen.lower.contract_pack import transposed
from graphc.ir.types import f32, f64


@pytest.mark.parametrize("dtype, lanes", [(f32, 4), (f32, 8), (f32, 16), (f64, 2), (f64, 4), (f64, 8)], ids=str)
def test_transposed(dtype, lanes):
    f = Function("turn")
    x = f.view("x", dtype, (lanes, lanes))
    rows = [f.load(x, [i, 0], lanes) for i in range(lanes)]
    results = transposed(f, rows)
    matrix = np.arange(lanes * lanes).reshape(lanes, lanes)
    values = {row.id: matrix[i] for i, row in enumerate(rows)}
    shuffles = [s for s in f.body if isinstance(s, Compute)]
    for s in shuffles:
        values[s.dst.id] = np.concatenate([values[a.id] for a in s.args])[list(s.attr)]
    np.testing.assert_array_equal([values[r.id] for r in results], matrix.T)
    assert len(shuffles) == lanes * (lanes.bit_length() - 1)
