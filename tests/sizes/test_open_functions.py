"""Every public function as part of a program for all sizes of its axes, and its gradient: native code against the
reference."""
from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.dsl.function import GraphFunction, finish
from graphc.dsl.trace import Trace
from graphc.ir.builder import bind_graph
from graphc.ir.dim_text import parse_dim
from graphc.ir.interp import evaluate
from graphc.ir.op import as_tuple
from graphc.ir.types import TensorType, dtype_of
from graphc.specialised import SpecialisedGraph

sys.path.insert(0, str(Path(__file__).parent.parent / "functions"))
from table import BOOL, INT, TABLE, Row  # noqa: E402
from table import SIZES as FIXED  # noqa: E402

SIZES = ({"a": 1, "b": 3, "c": 3, "d": 4}, {"a": 17, "b": 5, "c": 9, "d": 2}, {"a": 4, "b": 33, "c": 2, "d": 70})
CHUNKS = 8

APART = {
    "split-sizes=[1, 0, 3],axis=1": "a part without elements", "trapezoid-dx=0.5,axis=0": "a part without elements",
    "attention": "its features must be a number", "attention-causal=True": "its features must be a number",
    "batch_norm-eps=0.01": "of one number it is not defined",
    "max_unpool1d": "what it gives depends on sizes", "max_unpool2d": "what it gives depends on sizes",
    "max_unpool3d": "what it gives depends on sizes", "roll-3,-1": "a short axis is turned several times",
    **dict.fromkeys(("fft-5", "ifft-5"), "a part of a long axis, zeros behind a short one"),
    "unique": "as many as there are, one at least",
    "array_equal": "whether shapes of different names are equal is not known",
    **dict.fromkeys(("diagonal-1,1,2", "diagonal--2", "pdist", "vander", "vander-3,True",
                     *(f"{name}-mode={mode}" for name in ("convolve", "correlate") for mode in ("full", "same", "valid"))),
                    "refused: its sizes must be numbers"),
}
"""Functions that have a program for each size, maybe: with what that has to do."""

GRADIENTS_APART = {"trapezoid"}
"""Gradients of which parts have no elements at the least sizes."""

ROWS = [r for r in TABLE if r.letters and r.id not in APART]
FIRST = {r.name: r for r in reversed(ROWS)}     # of each function
ORDINARY, CHECKED = np.float32, np.float64


def dtype_for(row: Row, floats: type) -> type:
    return {INT: np.int32, BOOL: bool}.get(row.kinds[0], floats)


def program(rows: Sequence[Row], floats: type, gradient: bool) -> GraphFunction:
    """A graph of the calls of all rows, or a number made of all their results."""
    outputs = []
    with Trace("functions") as trace:
        for n, row in enumerate(rows):
            ins = [trace.input(f"x{n}_{i}", TensorType(dtype_of(array), named(labels)))
                   for i, (array, labels) in enumerate(zip(row.arrays(dtype_for(row, floats)), row.shapes))]
            results = row.call(*ins)
            outputs += results if isinstance(results, (list, tuple)) else as_tuple(results)
        if gradient:
            outputs = [sum(gc.sum(gc.sin(r).astype(gc.f64)) for r in outputs if r.dtype.is_float)]
        return finish(trace, tuple(outputs))


def named(labels: str) -> tuple:
    return tuple(parse_dim(c) if c.islower() else FIXED[c] for c in labels)


def has_gradient(row: Row) -> bool:
    return (row.kinds[0] not in (INT, BOOL) and row.smooth and not row.draws
            and any(v.type.dtype.is_float for v in program([row], CHECKED, False).graph.outputs))


def check(run: SpecialisedGraph, rows: Sequence[Row], floats: type, rtol: float) -> None:
    assert run.sized is not None, run.why_not
    for sizes in SIZES:
        bound = {name: sizes[name] for name in run.graph.dim_names}
        assert run.sized.serves(bound)
        arrays = [a for row in rows for a in row.arrays(dtype_for(row, floats), sizes)]
        for got, want in zip(as_tuple(run(*arrays)), evaluate(bind_graph(run.graph, bound), arrays), strict=True):
            if want.dtype.kind != "f":
                np.testing.assert_array_equal(got, want)
            else:
                scale = np.abs(want[np.isfinite(want)]).max(initial=1.0)
                np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * scale)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_one_program_gives_what_the_reference_gives(chunk: int):
    rows = ROWS[chunk::CHUNKS]
    check(gc.compile(program(rows, ORDINARY, False), threads=1), rows, ORDINARY, 1e-4)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_gradients_of_one_program(chunk: int):
    rows = [r for r in FIRST.values() if has_gradient(r) and r.name not in GRADIENTS_APART][chunk::CHUNKS]
    total = program(rows, CHECKED, True)
    wrt = tuple(v.name for v in total.graph.inputs if v.type.dtype.is_float)
    check(gc.compile(gc.grad(total, wrt=wrt), threads=1), rows, CHECKED, 1e-9)
