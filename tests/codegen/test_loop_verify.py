"""The loop verifier accepts what can be proved and names what cannot."""
from __future__ import annotations

import pytest

from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.index import Ix
from graphc.codegen.loops.index_proofs import at_least, at_most, lower, upper
from graphc.codegen.loops.verify import verify
from graphc.errors import InternalError
from graphc.ir.types import f32, i32, i64


def copier(n: int, size: int, lanes: int = 1, masked: bool = False, tile: int = 64) -> LoopFunction:
    """Copies `n` elements of views of `size`, in tiles."""
    f = LoopFunction("copy")
    x, y = f.view("x", f32, (size,)), f.view("y", f32, (size,))
    with f.parallel(-(-n // tile), "tiles") as t:
        with f.loop(0, f.min_(n - t * tile, tile), step=lanes) as L:
            i = t * tile + L.index
            mask = f.tail_mask(f.min_(n - i, lanes), lanes) if masked else None
            f.store(y, [i], f.load(x, [i], lanes=lanes, mask=mask), mask=mask)
    return f


@pytest.mark.parametrize("n, size, lanes, masked",
                         [(100, 100, 1, False), (1, 1, 1, False), (128, 128, 8, False), (100, 100, 8, True)])
def test_tiled_copies_are_in_bounds(n, size, lanes, masked):
    verify(copier(n, size, lanes, masked))


@pytest.mark.parametrize("n, size, lanes, masked", [(101, 100, 1, False), (100, 100, 8, False), (101, 100, 8, True)])
def test_tiled_copies_out_of_bounds(n, size, lanes, masked):
    with pytest.raises(InternalError, match=r"cannot prove that index .* of x\[.*\] is in \[0, 100\)"):
        verify(copier(n, size, lanes, masked))


def test_the_error_shows_the_function():
    with pytest.raises(InternalError, match='parallel t < 2 "tiles":'):
        verify(copier(101, 100))


def test_negative_index():
    f = LoopFunction("shift")
    x = f.view("x", f32, (10,))
    with f.loop(0, 9) as L:
        f.load(x, [L.index - 1])
    with pytest.raises(InternalError, match="index i - 1 of axis 0"):
        verify(f)


def test_quotient_and_remainder_address_the_same_element():
    f = LoopFunction("unflatten")
    x, flat = f.view("x", f32, (6, 7)), f.view("flat", f32, (42,))
    with f.loop(0, 42) as L:
        q, r = f.divmod(L.index, 7)
        f.store(x, [q, r], f.load(flat, [q * 7 + r]))
    verify(f)


@pytest.mark.parametrize("step, fits", [(8, True), (4, False)])
def test_vectors_stay_in_a_row_of_whole_vectors(step, fits):
    f = LoopFunction("rows")
    x = f.view("x", f32, (6, 40))
    with f.loop(0, 240, step=step) as L:
        f.load(x, [*f.divmod(L.index, 40)], lanes=8)
    if fits:
        return verify(f)
    with pytest.raises(InternalError, match="index r of axis 1"):
        verify(f)


@pytest.mark.parametrize("step, fits", [(24, True), (9, False)])
def test_lines_that_are_left_fit_behind_whole_ones(step, fits):
    f = LoopFunction("lines")
    x = f.view("x", f32, (36,))
    with f.loop(0, 36, step=step) as L:
        line, _ = f.divmod(L.index, 6)
        with f.loop(0, f.min_(6 - line, 4) * 6) as left:
            f.load(x, [L.index + left.index])
    if fits:
        return verify(f)
    with pytest.raises(InternalError, match="cannot prove"):
        verify(f)


def test_tail_after_whole_vectors():
    f = LoopFunction("tail")
    x, n = f.view("x", f32, (100,)), f.param("n", 0, 100)
    whole, rest = f.divmod(n, 8)
    with f.loop(0, whole) as L:
        f.load(x, [L.index * 8], lanes=8)
    with f.loop(0, f.min_(rest, 1)):
        f.load(x, [whole * 8], lanes=8, mask=f.tail_mask(rest, 8))
    verify(f)


def test_shifted_views_reach_their_root_only():
    def build(rows: int) -> LoopFunction:
        f = LoopFunction("rows")
        x = f.view("x", f32, (10, 4))
        with f.loop(0, 3) as L:
            block = x.view_at([L.index * 4, 0], shape=(4, 4))
            with f.loop(0, f.min_(4, rows - L.index * 4)) as inner:
                f.load(block, [inner.index, 0], lanes=4)
        return f
    verify(build(10))
    with pytest.raises(InternalError, match="stays in the elements"):
        verify(build(11))


def test_a_branch_narrows_indices():
    def build(limit: int) -> LoopFunction:
        f = LoopFunction("padded")
        x = f.view("x", f32, (10,))
        with f.loop(0, 14) as L:
            at = L.index - 2
            inside = f.and_(f.ge(f.value(at), 0), f.lt(f.value(at), limit))
            with f.if_(inside):
                f.load(x, [at])
        return f
    verify(build(10))
    with pytest.raises(InternalError, match="cannot prove"):
        verify(build(11))


def test_calls_with_fewer_rows_than_declared():
    def build(rows: int) -> LoopFunction:
        kernel = LoopFunction("kernel")
        block, n = kernel.view("block", f32, (6, 8), (8, 1)), kernel.param("n", 0, 6)
        with kernel.loop(0, n) as L:
            kernel.store(block, [L.index, 0], kernel.load(block, [L.index, 0], lanes=8))
        f = LoopFunction("blocks")
        x = f.view("x", f32, (10, 8))
        with f.parallel(2, "blocks") as t:
            f.call(kernel, [x.view_at([t * 6, 0], shape=(6, 8)), f.min_(6, rows - t * 6)])
        return f
    verify(build(10))
    with pytest.raises(InternalError, match="call of kernel: cannot prove that x"):
        verify(build(11))


@pytest.mark.parametrize("last", [7, 8])
def test_what_is_called_is_proved_within_what_it_declares(last):
    """Its callers look at the size alone."""
    inner, outer = LoopFunction(f"inner{last}"), LoopFunction("outer")
    row = inner.view("row", f32, (8,))
    inner.store(row, [last], inner.const(0.0, f32))
    outer.call(inner, [outer.view("x", f32, (8,))])
    if last < 8:
        verify(outer)
    else:
        with pytest.raises(InternalError, match="inner8"):
            verify(outer)


def test_integer_arguments_are_in_range():
    kernel = LoopFunction("kernel")
    kernel.param("n", 0, 4)
    f = LoopFunction("caller")
    with f.loop(0, 6) as L:
        f.call(kernel, [L.index])
    with pytest.raises(InternalError, match="cannot prove 0 <= i <= 4"):
        verify(f)


def test_tiles_that_write_the_same_place():
    def build(serial: bool) -> LoopFunction:
        f = LoopFunction("sum")
        x, y = f.view("x", f32, (8,)), f.view("y", f32, (1,))
        with f.parallel(8, "all", serial=serial) as t:
            f.store(y, [0], f.load(x, [t]))
        return f
    verify(build(serial=True))
    with pytest.raises(InternalError, match="every tile of 'all' writes y at the same place"):
        verify(build(serial=False))


def test_tiles_may_write_their_own_scratch():
    f = LoopFunction("own")
    x, y = f.view("x", f32, (8,)), f.view("y", f32, (8,))
    with f.parallel(8, "all") as t:
        s = f.scratch("s", f32, (1,))
        f.store(s, [0], f.load(x, [t]))
        f.store(y, [t], f.load(s, [0]))
    verify(f)


def test_shared_scratch_is_seen_by_all_tiles():
    f = LoopFunction("shared")
    x = f.view("x", f32, (8,))
    s = f.scratch("s", f32, (1,))
    with f.parallel(8, "all") as t:
        f.store(s, [0], f.load(x, [t]))
    with pytest.raises(InternalError, match="writes s at the same place"):
        verify(f)


def test_parallel_through_a_call():
    inner = LoopFunction("inner")
    with inner.parallel(4, "inside"):
        pass
    f = LoopFunction("outer")
    with f.parallel(4, "outside"):
        f.call(inner, [])
    with pytest.raises(InternalError, match="inner has parallel loops"):
        verify(f)


def test_values_do_not_leave_their_loop():
    f = LoopFunction("leak")
    x = f.view("x", f32, (8,))
    with f.loop(0, 8) as L:
        value = f.load(x, [L.index])
    f.store(x, [0], value)
    with pytest.raises(InternalError, match="used where it is not defined"):
        verify(f)


def test_indices_do_not_leave_their_loop():
    f = LoopFunction("leak")
    x = f.view("x", f32, (8,))
    with f.loop(0, 8) as L:
        pass
    f.store(x, [L.index], f.const(0.0, f32))
    with pytest.raises(InternalError, match="index i is used where it is not defined"):
        verify(f)


def test_values_of_another_function():
    other = LoopFunction("other")
    value = other.load(other.view("x", f32, (1,)), [0])
    f = LoopFunction("thief")
    f.store(f.view("y", f32, (1,)), [0], value)
    with pytest.raises(InternalError, match="not defined"):
        verify(f)


def test_checked_indices_are_in_bounds_and_may_collide():
    f = LoopFunction("scatter")
    index, y = f.view("index", i32, (8,)), f.view("y", f32, (10,))
    with f.parallel(8, "all") as t:
        f.store(y, [f.check_index(f.load(index, [t]), 10, 0)], f.const(1.0, f32))
    verify(f)


def test_a_loop_that_never_runs_proves_nothing_and_needs_nothing():
    f = LoopFunction("empty")
    x = f.view("x", f32, (0,))
    with f.loop(0, 0) as L:
        f.load(x, [L.index])
    verify(f)


def test_return_belongs_to_main():
    f = LoopFunction("early")
    f.view("x", f32, (1,))
    f.return_if_failed()
    with pytest.raises(InternalError, match="only main returns early"):
        verify(f)


def test_bounds_of_affine_expressions():
    f = LoopFunction("bounds")
    n = f.param("n", 3, 9)
    with f.loop(n, n * 2 + 1, step=2) as L:
        i = L.index
        assert lower(i - n) == 0 and upper(i) == 18 and at_most(i - n * 2, 0) and not at_most(i - n * 2, -1)
        assert at_least(f.min_(i, 5), 3) and upper(f.min_(i, 5) - i) == 0
        assert (i * 4 + 2).divisor() == 2 and Ix(12).divisor() == 12
    assert upper(f.product(n, n + 1)) == 90


def test_bounds_of_a_minimum_of_what_is_left():
    """Its items say what its own bounds, which are numbers, need not say."""
    f = LoopFunction("rest")
    n = f.param("n", 1, 100)
    width = f.min_(n, 40)
    whole, _ = f.divmod(width, 16)
    rest = f.min_(width - whole * 16, 16)
    assert at_least(rest, 0) and not at_least(rest, 1)
    assert at_most(f.max_(whole * 16 - width, whole * 16 - 64), 0)


def test_types_of_memory():
    f = LoopFunction("types")
    with pytest.raises(InternalError, match="store of i64 into x of f32"):
        f.store(f.view("x", f32, (1,)), [0], f.const(1, i64))
