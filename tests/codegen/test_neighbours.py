"""Divisions by sizes that come with the call: those of neighbours are additions, and give the same."""
from __future__ import annotations

import numpy as np
import pytest
from loop_run import ForSizes

from graphc.codegen.llvm.emit import emit_module
from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.index import Ix
from graphc.ir.dims import Dim, size_name
from graphc.ir.types import i64
from graphc.schedule.target import AVX2

B, H, W = map(size_name, "BHW")
ROWS = 4
SIZES = [(1, 1, 1), (1, 1, 9), (3, 1, 1), (2, 3, 1), (1, 2, 2), (3, 2, 5), (2, 7, 7), (5, 3, 3)]


def positions(height: Dim, apart: int) -> LoopFunction:
    """y[row] = (b, h, w) of each row of [B, height, W]; ROWS at a time, that lie `apart`, the last ones repeated."""
    f = LoopFunction("positions")
    rows = B * height * W
    y = f.view("y", i64, (rows, 3))

    def store(row: Ix) -> None:
        rest, w = f.divmod(row, W)
        b, h = f.divmod(rest, height)
        for axis, ix in enumerate((b, h, w)):
            f.store(y, [row, axis], f.value(ix))
    with f.loop(0, rows) as loop:
        if apart == 1:
            for i in range(ROWS):
                store(f.min_(loop.index + i, rows - 1))
        else:
            with f.loop(0, ROWS, unroll=True) as copies:
                store(f.min_(loop.index + copies.index * apart, rows - 1))
    return f


@pytest.mark.parametrize("apart", [1, 2])
@pytest.mark.parametrize("height", [H, W], ids=str)
def test_neighbours_are_divided_by_additions(height, apart):
    """apart 2: copies of a loop's body, whose symbols mean something else in each, are no neighbours."""
    f = positions(height, apart)
    run, text = ForSizes(f, 0), emit_module([f], None, AVX2)
    assert text.count("udiv") == (2 if apart == 1 else 2 * ROWS)
    for b, h, w in SIZES:
        shape = b, w if height is W else h, w
        found = np.full((np.prod(shape), 3), -1)
        run.run({"B": b, "H": h, "W": w}, [], found)
        np.testing.assert_array_equal(found, np.stack(np.unravel_index(np.arange(len(found)), shape), 1))
