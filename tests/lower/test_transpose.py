"""The transposition in registers, for every number of lanes, by interpreting its loads and shuffles."""
import numpy as np
import pytest

from native import run_op

from graphc.codegen.llvm import host
from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.loop_ir import Load
from graphc.codegen.lower.transpose import transposed
from graphc.compiler import Compilation
from graphc.ir.builder import Builder
from graphc.ir.ops.elementwise import ADD, COPY
from graphc.ir.types import f32, f64, i8, i16
from graphc.schedule.target import AVX2, AVX512, SSE2


@pytest.mark.parametrize("dtype, lanes", [(f32, 2), (f32, 4), (f32, 8), (f32, 16), (f64, 2), (f64, 4), (f64, 8),
                                          (i8, 8), (i8, 16), (i16, 8), (i16, 16)],
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


TARGETS = [t for t in (SSE2, AVX2, AVX512) if {*t.features.split(",")} <= {*host.host_target().features.split(",")}]


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("shape, dtype", [((5, 40), np.float32), ((17, 33), np.float64), ((64, 70), np.float32), ((7, 100), np.int8), ((100, 15), np.int8),
                                          ((40, 4), np.float32), ((600, 45), np.float32), ((5, 9, 200), np.float32), ((19, 35), np.bool_), ((3, 9, 50), np.int16)], ids=str)
def test_operands_that_lie_the_other_way(shape, dtype, target):
    """Squares of them are transposed, at every edge."""
    x = (np.arange(np.prod(shape)) % 120).reshape(shape).astype(dtype)
    y, = run_op(COPY, x.T, target=target)
    np.testing.assert_array_equal(y, x.T)
    if dtype is not np.bool_:
        z, = run_op(ADD, x.T, y, target=target)
        np.testing.assert_array_equal(z, x.T + y)


def test_squares_of_bytes_are_small():
    """Shuffles of 64 bytes each, written out for 64 rows, took LLVM most of a second."""
    b = Builder()
    x = b.input("x", i8[100, 15])
    compilation = Compilation(b.finish([b.transpose(x, perm=(1, 0))]), AVX512)
    assert len(compilation.llvm) < 60_000
