"""Loop functions whose sizes are not numbers: verified and compiled once, run at several sizes."""
from __future__ import annotations

import numpy as np
import pytest
from loop_run import ForSizes

from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.index import Ix
from graphc.codegen.loops.index_proofs import at_least, at_most, lower, upper, uppers
from graphc.codegen.loops.printer import print_function
from graphc.codegen.loops.verify import verify
from graphc.errors import InternalError, Unsized
from graphc.ir.dims import Dim, ceil_div, size_name
from graphc.ir.types import f32, i64

T, S = size_name("T"), size_name("S")
TAIL_SIZES = (1, 2, 7, 8, 9, 63, 64, 65, 200)


def floats(rng, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def guarded(*shape: int) -> np.ndarray:
    """Zeros with as many sentinels after them."""
    size = int(np.prod(shape))
    whole = np.full(size + 64, 7, np.float32)
    whole[:size] = 0
    return whole[:size].reshape(shape)


def assert_guarded(array: np.ndarray) -> None:
    assert (array.base[array.size:] == 7).all()


def add_one(n: Dim, extra: int = 0) -> LoopFunction:
    """x + 1 in tiles of 64, vectors of 8 and a masked tail."""
    f = LoopFunction("add_one")
    x, y = f.view("x", f32, (n,)), f.view("y", f32, (n,))
    with f.parallel(ceil_div(n, 64), "tiles") as t:
        end = f.min_(t * 64 + 64, n + extra)
        with f.loop(t * 64, end, step=8) as L:
            mask = f.tail_mask(end - L.index, 8)
            f.store(y, [L.index], f.load(x, [L.index], lanes=8, mask=mask) + 1.0, mask=mask)
    return f


def test_elementwise_with_a_tail(rng):
    program = ForSizes(add_one(T), 1)
    for t in TAIL_SIZES:
        x, y = floats(rng, t), guarded(t)
        assert program.run({"T": t}, [x], y) == 0
        np.testing.assert_array_equal(y, x + 1)
        assert_guarded(y)


def test_one_element_too_many_is_refused():
    verify(add_one(T))
    with pytest.raises(InternalError, match=r"cannot prove that index i of axis 0 of x\[i\] is in \[0, T\)"):
        verify(add_one(T, extra=1))


def test_whole_vectors_where_the_size_divides(rng):
    """16*T elements have no tail; T elements have one, and the verifier knows it."""
    def build(n: Dim) -> LoopFunction:
        f = LoopFunction("double")
        x, y = f.view("x", f32, (n,)), f.view("y", f32, (n,))
        with f.loop(0, n, step=16) as L:
            f.store(y, [L.index], f.load(x, [L.index], lanes=16) * 2.0)
        return f
    program = ForSizes(build(T * 16), 1)
    for t in (1, 3, 10):
        x, y = floats(rng, 16 * t), guarded(16 * t)
        assert program.run({"T": t}, [x], y) == 0
        np.testing.assert_array_equal(y, x * 2)
    with pytest.raises(InternalError, match="cannot prove"):
        verify(build(T))


def transposed(vectors_along: int) -> LoopFunction:
    """y[j, i] = x[i, j]: reads, or writes, go element by element by a stride that is a size."""
    f = LoopFunction("transpose")
    x, y = f.view("x", f32, (S, T)), f.view("y", f32, (T, S))
    turned = f.reinterpret(x, (T, S), (1, T)) if vectors_along else f.reinterpret(y, (S, T), (1, S))
    source, target, (rows, columns) = (turned, y, (T, S)) if vectors_along else (x, turned, (S, T))
    with f.parallel(rows, "rows") as i, f.loop(0, columns, step=4) as L:
        masks = [None, f.tail_mask(columns - L.index, 4)]
        whole = f.le(f.value(L.index + 4), f.value(columns))
        for mask, branch in zip(masks, (f.if_(whole), f.else_())):
            with branch:
                f.store(target, [i, L.index], f.load(source, [i, L.index], lanes=4, mask=mask), mask=mask)
    return f


@pytest.mark.parametrize("vectors_along", [0, 1])
def test_strides_that_are_sizes(rng, vectors_along):
    program = ForSizes(transposed(vectors_along), 1)
    for s, t in ((1, 1), (3, 5), (8, 4), (17, 2), (4, 9)):
        x, y = floats(rng, s, t), guarded(t, s)
        assert program.run({"S": s, "T": t}, [x], y) == 0
        np.testing.assert_array_equal(y, x.T)
        assert_guarded(y)


def test_sums_of_rows_through_scratch(rng):
    """Each tile copies its row into scratch of its own, as long as the row, and adds it up; a shared scratch of another
    size lies below."""
    f = LoopFunction("row_sums")
    x, y = f.view("x", f32, (S, T + 3)), f.view("y", f32, (S,))
    shared = f.scratch("shared", f32, (S,))
    with f.parallel(S, "rows") as i:
        row = f.scratch("row", f32, (T + 3,))
        with f.loop(0, T + 3) as L:
            f.store(row, [L.index], f.load(x, [i, L.index]))
        with f.loop(0, T + 3, carry=[f.const(0, f32)], unroll=4) as L:
            L.next(L.carried[0] + f.load(row, [L.index]))
        f.store(shared, [i], L.results[0])
    with f.loop(0, S) as L:
        f.store(y, [L.index], f.load(shared, [L.index]))
    program = ForSizes(f, 1)
    for s, t in ((1, 1), (4, 2), (30, 20)):
        x, y = floats(rng, s, t + 3), guarded(s)
        assert program.run({"S": s, "T": t}, [x], y) == 0
        expected = np.zeros(s, np.float32)
        for column in x.T:
            expected += column
        np.testing.assert_array_equal(y, expected)


def test_flat_index_divided_by_a_size(rng):
    """Quotient and remainder by a size stay in the axes that they index."""
    def build(n: Dim) -> LoopFunction:
        f = LoopFunction("unflatten")
        flat, y = f.view("flat", f32, (S * T,)), f.view("y", f32, (T, S))
        with f.loop(0, n) as L:
            row, column = f.divmod(L.index, T)
            f.store(y, [column, row], f.load(flat, [row * T + column]))
        return f
    program = ForSizes(build(S * T), 1)
    for s, t in ((1, 1), (3, 5), (7, 2)):
        x, y = floats(rng, s * t), guarded(t, s)
        assert program.run({"S": s, "T": t}, [x], y) == 0
        np.testing.assert_array_equal(y, x.reshape(s, t).T)
    with pytest.raises(InternalError, match="cannot prove"):
        verify(build(S * T + 1))


def test_blocks_of_rows_unrolled_over_a_size(rng):
    """Rows four at a time: pointers a multiple of the row's length apart; the rest one by one."""
    f = LoopFunction("blocks")
    x, y = f.view("x", f32, (S * 4 + 3, T)), f.view("y", f32, (T,))
    with f.loop(0, T) as column:
        with f.loop(0, S * 4, step=4, carry=[f.const(0, f32)]) as L:
            total = L.carried[0]
            for k in range(4):
                total = total + f.load(x, [L.index + k, column.index])
            L.next(total)
        with f.loop(S * 4, S * 4 + 3, carry=L.results, unroll=True) as rest:
            rest.next(rest.carried[0] + f.load(x, [rest.index, column.index]))
        f.store(y, [column.index], rest.results[0])
    program = ForSizes(f, 1)
    for s, t in ((1, 1), (2, 5)):
        x, y = floats(rng, s * 4 + 3, t), guarded(t)
        assert program.run({"S": s, "T": t}, [x], y) == 0
        expected = np.zeros(t, np.float32)
        for row in x:
            expected += row
        np.testing.assert_array_equal(y, expected)


def test_checked_index_below_a_size():
    f = LoopFunction("pick")
    x, at, y = f.view("x", f32, (T,)), f.view("at", i64, ()), f.view("y", f32, ())
    f.store(y, [], f.load(x, [f.check_index(f.load(at, []), T, 5)]))
    program = ForSizes(f, 2)
    x, y = np.arange(6, dtype=np.float32), np.zeros((), np.float32)
    assert program.run({"T": 6}, [x, np.array(5)], y) == 0 and y == 5
    assert program.run({"T": 5}, [x, np.array(5)], y) == 1
    assert program.compiled.failure == (5, 5)


def test_extrema_of_sizes():
    f = LoopFunction("extrema")
    y = f.view("y", i64, (4,))
    with f.loop(0, S) as L:
        values = (f.min_(T, 64), f.max_(T, 64), f.min_(L.index + T, S * 2), f.max_(L.index, T))
        for k, ix in enumerate(values):
            f.store(y, [k], f.value(ix))
    program = ForSizes(f, 0)
    for s, t in ((1, 1), (5, 100), (80, 64)):
        y, i = np.zeros(4, np.int64), s - 1
        assert program.run({"S": s, "T": t}, [], y) == 0
        assert y.tolist() == [min(t, 64), max(t, 64), min(i + t, 2 * s), max(i, t)]


def test_a_callee_that_takes_any_number_of_rows(rng):
    """Blocks of six rows, fewer in the last: all that the callee touches for its integers is in the memory given."""
    def build(rows: Dim) -> LoopFunction:
        kernel = LoopFunction("kernel")
        block, n = kernel.view("block", f32, (6, 8), (T * 8, 1)), kernel.param("n", 0, 6)
        with kernel.loop(0, n) as L:
            kernel.store(block, [L.index, 0], kernel.load(block, [L.index, 0], lanes=8) * 3.0)
        f = LoopFunction("blocks")
        x = f.view("x", f32, (S, T, 8))
        with f.parallel(ceil_div(S, 6), "blocks") as t, f.loop(0, T) as L:
            part = x.view_at([t * 6, L.index, 0], shape=(6, 8), strides=(T * 8, 1))
            f.call(kernel, [part, f.min_(6, rows - t * 6)])
        return f
    program = ForSizes(build(S), 0)
    for s, t in ((1, 1), (6, 2), (13, 5)):
        x = floats(rng, s, t, 8)
        y = x.copy()
        assert program.run({"S": s, "T": t}, [], y) == 0
        np.testing.assert_array_equal(y, x * 3)
    with pytest.raises(InternalError, match="call of kernel: cannot prove that x"):
        verify(build(S + 1))


def test_equal_sizes_share_a_slot_and_the_text_says_them():
    f = LoopFunction("slots")
    x = f.view("x", f32, (T, T))
    with f.loop(0, T - 1) as L:
        f.store(x, [L.index + 1, L.index], f.load(x, [L.index, T - 1 - L.index]))
    assert [str(size) for size in ForSizes(f, 0).sizes] == ["T"]
    assert "for i in 0..T - 1:" in print_function(f)


def test_a_loop_over_a_size_is_not_unrolled_away():
    f = LoopFunction("unrolled")
    with pytest.raises(Unsized, match="must be a number"):
        with f.loop(0, T, unroll=True):
            pass


def test_bounds_of_indices_over_sizes():
    f = LoopFunction("bounds")
    with f.loop(0, T, step=64) as L, f.loop(0, S) as inner:
        rest = f.min_(T - L.index, 64)
        assert lower(rest) == 1 and upper(rest) == 64 and at_most(L.index + rest, T)
        assert not at_most(L.index + rest, T - 1)
        flat = L.index * S + inner.index
        assert at_least(flat, 0) and at_most(flat, S * T - 1) and not at_most(flat, S * T - 2)
        assert uppers(inner.index) == [S - 1]
        assert (flat * 8 + S * 16).divisor() == 8
        row, column = f.divmod(L.index + inner.index, S + T)
        assert at_most(row, 0) and at_most(column, S + T - 2) and not at_most(column, S + T - 3)
    assert T * Ix(3) - Ix(1) == T * 3 - 1 and T - Ix(T) == 0


def test_a_divisor_that_may_be_0_is_refused():
    f = LoopFunction("quotient")
    with f.loop(0, T) as L:
        assert f.divmod(L.index, S)
        with pytest.raises(Unsized, match="S - 1, by which an index is divided, may be 0"):
            f.divmod(L.index, S - 1)


def test_strides_that_are_not_seen_to_be_equal():
    kernel, f = LoopFunction("kernel"), LoopFunction("caller")
    kernel.view("x", f32, (2, 3), (S, 1))
    with pytest.raises(Unsized, match="call of kernel"):
        f.call(kernel, [f.view("x", f32, (2, 3), (T, 1))])
