"""Every public function against numpy: each dtype, empty axes, axes of size 1, scalars, views, NaN and infinity; gradients of first and second order.

All sizes run in the interpreter, which costs little; ordinary, empty and special ones in native code, as one graph for many functions.
"""
from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from table import ELEMENTWISE, NOT_OF_ARRAYS, TABLE, Row

import graphc as gc
from graphc.dsl.function import GraphFunction, finish
from graphc.dsl.trace import Trace
from graphc.errors import GraphError
from graphc.ir.graph import Graph
from graphc.ir.interp import evaluate
from graphc.ir.op import as_tuple
from graphc.ir.types import TensorType, dtype_of

DTYPES = (np.float32, np.float64, np.int32, np.int64, bool)
SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5)
STEP = 1e-6
CHUNKS = 6


class Called:
    """A graph of calls: for each, the row, its arrays and the number of its results."""

    def __init__(self, what: str = "calls"):
        self.what = what
        self.rows: list[tuple[str, Row, list[np.ndarray], int]] = []

    def build(self, cases) -> GraphFunction:
        outputs = []
        with Trace(self.what) as trace:
            for label, row, arrays in cases:
                ins = [trace.input(f"x{len(self.rows)}_{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(arrays)]
                results = as_tuple(row.call(*ins))
                results = tuple(results) if isinstance(results, (list, tuple)) else (results,)
                self.rows.append((f"{row.id} {label}", row, arrays, len(results)))
                outputs += results
            return finish(trace, tuple(outputs))

    def arrays(self) -> list[np.ndarray]:
        return [a for _, _, arrays, _ in self.rows for a in arrays]

    def check(self, results: Sequence[np.ndarray]) -> None:
        results = iter(results)
        for label, row, arrays, count in self.rows:
            for expect in expected(row, arrays):
                compare(label, row, next(results), expect)


def expected(row: Row, arrays) -> tuple[np.ndarray, ...]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return tuple(map(np.asarray, as_tuple(row.numpy(*arrays))))


def refused(row: Row, arrays) -> bool:
    """Whether numpy has an error."""
    try:
        expected(row, arrays)
    except (ValueError, IndexError, ZeroDivisionError):
        return True
    return False


def compare(label: str, row: Row, actual: np.ndarray, expect: np.ndarray) -> None:
    assert actual.shape == expect.shape, (label, actual.shape, expect.shape)
    assert actual.dtype.kind == expect.dtype.kind, (label, actual.dtype, expect.dtype)
    if row.draws:
        return
    if actual.dtype.kind != "f":
        np.testing.assert_array_equal(actual, expect.astype(actual.dtype), err_msg=label)
        return
    with np.errstate(all="ignore"):
        eps, expect = np.finfo(actual.dtype).eps, expect.astype(actual.dtype)
    np.testing.assert_allclose(actual, expect, rtol=400 * eps, atol=400 * eps, err_msg=label)


def ordinary(row: Row, dtype) -> Iterator[tuple[str, Row, list[np.ndarray]]]:
    yield "", row, row.arrays(dtype)


def sizes(row: Row, dtype) -> Iterator[tuple[str, Row, list[np.ndarray]]]:
    """Each free size as 0 and as 1, all as 1; scalars of elementwise functions."""
    for letter in row.letters:
        for size in (0, 1):
            yield f"{letter} = {size}", row, row.arrays(dtype, {letter: size})
    yield "all 1", row, row.arrays(dtype, dict.fromkeys(row.letters, 1))
    yield "all 0", row, row.arrays(dtype, dict.fromkeys(row.letters, 0))
    if row.name in ELEMENTWISE:
        yield "scalar", row, [a.reshape(-1)[0].reshape(()) for a in row.arrays(dtype)]


def special(row: Row, dtype) -> Iterator[tuple[str, Row, list[np.ndarray]]]:
    """NaN, infinities and signed zeros among the numbers, in a different order in each operand."""
    arrays = row.arrays(dtype)
    if row.special and any(a.dtype.kind == "f" for a in arrays):
        for shift in range(2):
            yield f"special {shift}", row, [np.resize(np.roll(SPECIAL, shift * 3 + i), a.shape).astype(dtype) if a.dtype.kind == "f" else a
                                            for i, a in enumerate(arrays)]


def of(dtype) -> list[Row]:
    """Rows that take arrays of this dtype; those without operands count as f32."""
    return [r for r in TABLE if np.dtype(dtype).kind in r.kinds and (r.shapes or dtype is np.float32)]


def cases(rows: Sequence[Row], dtype, *variants):
    return [case for row in rows for variant in variants for case in variant(row, dtype)]


def views(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The same numbers, not contiguous: every second element of reversed memory."""
    out = []
    for a in arrays:
        wide = np.zeros((*a.shape, 2), a.dtype)
        view = wide[..., 0].T if a.ndim else wide[..., 0]
        view = view[::-1] if a.ndim else view
        view[...] = a.T[::-1] if a.ndim else a
        out.append((view[::-1] if a.ndim else view).T)
    return out


def test_every_public_function_has_a_row():
    public = {n for n in dir(gc) if not n.startswith("_") and n not in NOT_OF_ARRAYS and callable(getattr(gc, n))}
    told = {r.name for r in TABLE}
    assert not public - told, f"how is {', '.join(sorted(public - told))} called, and what does numpy give? Say so in table.py"
    assert not told - public
    assert len({(r.id, r.shapes) for r in TABLE}) == len(TABLE)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
def test_all_sizes(dtype):
    """In the interpreter. Where numpy has an error, graphc has one, and the other way round."""
    wrong = []
    for case in cases(of(dtype), dtype, ordinary, sizes, special):
        label, row, arrays = case
        error_there, called = refused(row, arrays), Called()
        try:
            graph = called.build([case]).graph
        except GraphError as error:
            if not error_there:
                wrong.append(f"{row.id} {label}: {error.text}")
            continue
        if error_there:
            wrong.append(f"{row.id} {label}: numpy has an error, graphc a value")
            continue
        with np.errstate(all="ignore"):
            results = evaluate(graph, arrays)
        try:
            called.check(results)
        except AssertionError as error:
            wrong.append(str(error))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
def test_native(dtype, chunk):
    """Ordinary numbers, given as views, special ones, and empty arrays."""
    called = Called()
    rows = of(dtype)[chunk::CHUNKS]
    variants = (ordinary, special, empty) if dtype is np.float32 else (ordinary,)
    function = called.build(cases(rows, dtype, *variants))
    called.check(gc.compile(function)(*views(called.arrays())))


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("dtype", (np.float32, np.int32, bool), ids=lambda d: np.dtype(d).name)
def test_native_all_sizes(dtype, chunk):
    """Each free size as 0 and 1, scalars and special numbers, given as views."""
    called = Called()
    found = [case for case in cases(of(dtype)[chunk::CHUNKS], dtype, sizes, special) if not refused(*case[1:])]
    called.check(gc.compile(called.build(found))(*views(called.arrays())))


def empty(row: Row, dtype):
    for case in sizes(row, dtype):
        if case[0].endswith("= 0") and not refused(row, case[2]):
            yield case
            return


def differentiable(row: Row) -> bool:
    arrays = row.arrays(np.float64)
    return row.smooth and not row.draws and any(a.dtype.kind == "f" for a in arrays) and any(e.dtype.kind == "f" for e in expected(row, arrays))


SMOOTH = [r for r in of(np.float64) if differentiable(r)]


class Gradients:
    """Of one graph: sum of the float results times weights, its gradients g, and those of the sum of g times directions."""

    def __init__(self, cases):
        self.called = Called("gradients")
        self.parts = []
        self.graphs: list[Graph] = []
        for case in cases:
            self._add(case)

    def _add(self, case) -> None:
        called = Called("one")
        function = called.build([case])
        rng = np.random.default_rng(7)
        arrays = case[2]
        outs = [v.type for v in function.graph.outputs]
        weights = [rng.uniform(0.5, 1, t.shape) if t.dtype.is_float else None for t in outs]
        wrt = tuple(v.name for v in function.graph.inputs if v.type.dtype.is_float)
        directions = [rng.uniform(-1, 1, a.shape) for a in arrays if a.dtype.kind == "f"]
        with Trace("total") as trace:
            ins = [trace.input(v.name, v.type) for v in function.graph.inputs]
            results = function(*ins)
            total = sum((gc.sum(y * w) for y, w in zip(results, weights) if w is not None), 0.0)
            loss = finish(trace, total)
        first = gc.grad(loss, wrt=wrt)
        second = gc.hvp(loss, wrt=wrt)
        self.parts.append((case, weights, directions, first, second))


def moved(arrays, directions, by: float):
    along = iter(directions)
    return [a + by * next(along) if a.dtype.kind == "f" else a for a in arrays]


def value(row: Row, arrays, weights) -> float:
    return sum(float(np.sum(y * w)) for y, w in zip(expected(row, arrays), weights) if w is not None)


@pytest.mark.parametrize("variant", (ordinary, sizes), ids=("ordinary", "sizes"))
def test_gradients_are_differences(variant):
    """The first derivative against numpy's function, the second against the first; of arrays with no elements the shapes."""
    for case in cases(SMOOTH, np.float64, variant):
        label, row, arrays = case
        if refused(row, arrays):
            continue
        ((_, weights, directions, first, second),) = Gradients([case]).parts
        with np.errstate(all="ignore"):
            g = evaluate(first.graph, arrays)
            h = evaluate(second.graph, [*arrays, *directions])
        assert [a.shape for a in (*g, *h)] == [a.shape for a in directions] * 2, (row.id, label)
        if not all(a.size for a in arrays) or not np.isfinite(value(row, arrays, weights)):
            continue
        high, low = (moved(arrays, directions, sign * STEP) for sign in (1, -1))
        slope = (value(row, high, weights) - value(row, low, weights)) / (2 * STEP)
        found = sum(float(np.sum(a * d)) for a, d in zip(g, directions))
        assert abs(found - slope) <= 2e-7 * (1 + abs(slope) + abs(value(row, arrays, weights))), (row.id, label, found, slope)
        with np.errstate(all="ignore"):
            up, down = (evaluate(first.graph, a) for a in (high, low))
        for actual, a, b in zip(h, up, down):
            difference = (a - b) / (2 * STEP)
            np.testing.assert_allclose(actual, difference, rtol=1e-5, atol=1e-6 * (1 + np.abs(difference).max()), err_msg=f"{row.id} {label}")


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_native_gradients(chunk):
    """First and second derivatives in native code, against the interpreter's."""
    parts = Gradients(cases(SMOOTH[chunk::CHUNKS], np.float64, ordinary)).parts
    outputs, given = [], []
    with Trace("derivatives") as trace:
        for n, ((_, _, arrays), _, directions, first, second) in enumerate(parts):
            for which, (function, operands) in enumerate(((first, arrays), (second, [*arrays, *directions]))):
                ins = [trace.input(f"p{n}_{which}_{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(operands)]
                outputs += function(*ins)
                given += operands
        function = finish(trace, tuple(outputs))
    with np.errstate(all="ignore"):
        expect = evaluate(function.graph, given)
    for actual, e in zip(gc.compile(function)(*given), expect, strict=True):
        np.testing.assert_allclose(actual, e, rtol=1e-10, atol=1e-11)
