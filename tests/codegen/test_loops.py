"""Loops, memory and control of the loop IR, run and compared with numpy."""
from __future__ import annotations

import numpy as np
import pytest
from loop_run import compiled, run

from graphc.codegen.loops.builder import LoopFunction
from graphc.errors import InternalError
from graphc.ir.types import bool_, f32, f64, i32, i64


def test_parallel_blocks(rng):
    f = LoopFunction("scale")
    x, y = f.view("x", f32, (1024,)), f.view("y", f32, (1024,))
    with f.parallel(16, "blocks") as t:
        with f.loop(0, 64, step=8) as L:
            i = t * 64 + L.index
            f.store(y, [i], f.load(x, [i], lanes=8) * 2.0)
    a, b = rng.standard_normal(1024).astype(np.float32), np.zeros(1024, np.float32)
    assert run(f, [a], b) == 0
    np.testing.assert_array_equal(b, a * 2)


def test_tail_mask_and_bounded_tiles(rng):
    n, tile = 1003, 96
    f = LoopFunction("add_one")
    x, y = f.view("x", f32, (n,)), f.view("y", f32, (n,))
    with f.parallel(-(-n // tile), "blocks") as t:
        end = f.min_(t * tile + tile, n)
        with f.loop(t * tile, end, step=8) as L:
            mask = f.tail_mask(end - L.index, 8)
            f.store(y, [L.index], f.load(x, [L.index], lanes=8, mask=mask) + 1.0, mask=mask)
    a, b = rng.standard_normal(n).astype(np.float32), np.zeros(n + 8, np.float32)
    assert run(f, [a], b[:n]) == 0
    np.testing.assert_array_equal(b[:n], a + np.float32(1))
    assert not b[n:].any()


@pytest.mark.parametrize("unroll", [None, True, 2, 4, 16])
@pytest.mark.parametrize("n", [0, 1, 2, 7, 12])
def test_carried_sum(rng, n, unroll):
    f = LoopFunction("total")
    x, y = f.view("x", f64, (max(n, 1),)), f.view("y", f64, (1,))
    with f.loop(0, n, carry=[f.const(1.5, f64)], unroll=unroll) as L:
        L.next(L.carried[0] + f.load(x, [L.index]))
    f.store(y, [0], L.results[0])
    a, b = rng.standard_normal(max(n, 1)), np.zeros(1)
    assert run(f, [a], b) == 0
    np.testing.assert_allclose(b[0], 1.5 + a[:n].sum(), rtol=1e-14)


@pytest.mark.parametrize("unroll", [None, 3])
@pytest.mark.parametrize("n", [0, 2, 3, 11])
def test_bounds_from_parameters(n, unroll):
    f = LoopFunction("count")
    y = f.view("y", i64, (20,))
    count = f.param("n", 0, 20)
    with f.loop(0, count, step=2, unroll=unroll) as L:
        f.store(y, [L.index], f.value(L.index * 3 + count))
    out = np.zeros(20, np.int64)
    assert run(f, [], out, ints=[n]) == 0
    assert out[:n:2].tolist() == [i * 3 + n for i in range(0, n, 2)] and not out[n:].any()


def test_two_carries_in_nested_loops(rng):
    f = LoopFunction("stats")
    x, y = f.view("x", f32, (5, 16)), f.view("y", f32, (5, 2))
    with f.loop(0, 5) as rows:
        zero = f.const(0.0, f32, 8)
        with f.loop(0, 16, step=8, carry=[zero, f.const(-np.inf, f32, 8)]) as L:
            v = f.load(x, [rows.index, L.index], lanes=8)
            L.next(L.carried[0] + v, f.max(L.carried[1], v))
        total, top = L.results
        f.store(y, [rows.index, 0], f.reduce(total, "add"))
        f.store(y, [rows.index, 1], f.reduce(top, "max"))
    a, b = rng.standard_normal((5, 16)).astype(np.float32), np.zeros((5, 2), np.float32)
    assert run(f, [a], b) == 0
    np.testing.assert_allclose(b, np.stack([a.sum(1), a.max(1)], 1), rtol=1e-6)


@pytest.mark.parametrize("dtype", [f32, f64, i32, i64, bool_])
@pytest.mark.parametrize("stride", [1, 0, -1, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_vector_loads_by_stride(dtype, stride, masked):
    f = LoopFunction("gather")
    x = f.view("x", dtype, (2, 8), (30, stride))
    y = f.view("y", dtype, (2, 8))
    mask = f.tail_mask(5, 8) if masked else None
    with f.loop(0, 2) as L:
        f.store(y, [L.index, 0], f.load(x, [L.index, 0], lanes=8, mask=mask))
    data = (np.arange(60) % 7).astype(dtype.np)
    start = data[25:] if stride < 0 else data
    expected = np.lib.stride_tricks.as_strided(start, (2, 8), (30 * dtype.itemsize, stride * dtype.itemsize)).copy()
    if masked:
        expected[:, 5:] = 0
    out = np.ones((2, 8), dtype.np)
    assert run(f, [start], out) == 0
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("dtype", [f32, f64, i32, i64, bool_])
@pytest.mark.parametrize("stride", [1, -1, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_vector_stores_by_stride(dtype, stride, masked):
    f = LoopFunction("scatter")
    x = f.view("x", dtype, (8,))
    y = f.view("y", dtype, (8,), (stride,))
    f.store(y, [0], f.load(x, [0], lanes=8), mask=f.tail_mask(5, 8) if masked else None)
    data = (np.arange(8) % 2).astype(dtype.np)
    out, expected = np.full(32, 1).astype(dtype.np), np.full(32, 1).astype(dtype.np)
    start = 10 if stride < 0 else 0
    for k in range(5 if masked else 8):
        expected[start + k * stride] = data[k]
    assert run(f, [data], out[start:]) == 0
    np.testing.assert_array_equal(out, expected)


def test_divmod_unflattens():
    f = LoopFunction("unflatten")
    y = f.view("y", i64, (6, 5))
    with f.parallel(30, "all") as t:
        q, r = f.divmod(t, 5)
        f.store(y, [q, r], f.value(q * 100 + r))
    out = np.zeros((6, 5), np.int64)
    assert run(f, [], out) == 0
    np.testing.assert_array_equal(out, np.arange(6)[:, None] * 100 + np.arange(5))


@pytest.mark.parametrize("n", [-7, -5, -1, 0, 4, 13])
def test_divmod_rounds_down(n):
    f = LoopFunction("floor")
    y = f.view("y", i64, (2,))
    q, r = f.divmod(f.param("n", -100, 100), 5)
    f.store(y, [0], f.value(q))
    f.store(y, [1], f.value(r))
    out = np.zeros(2, np.int64)
    assert run(f, [], out, ints=[n]) == 0
    assert out.tolist() == list(divmod(n, 5))


def test_if_and_else():
    f = LoopFunction("signs")
    x, y = f.view("x", f32, (6,)), f.view("y", i32, (6,))
    with f.loop(0, 6) as L:
        with f.if_(f.lt(f.load(x, [L.index]), 0.0)):
            f.store(y, [L.index], f.const(-1, i32))
        with f.else_():
            f.store(y, [L.index], f.const(1, i32))
    out = np.zeros(6, np.int32)
    assert run(f, [np.float32([1, -1, 2, -2, 0, np.nan])], out) == 0
    assert out.tolist() == [1, -1, 1, -1, 1, 1]


@pytest.mark.parametrize("start, count, value", [(6, 8, 1), (1, 0, 1), (27, 20, None)])
def test_while_is_bounded(start, count, value):
    f = LoopFunction("collatz")
    y = f.view("y", i64, (2,))
    with f.while_(20, carry=[f.value(f.param("n", 1, 1000))]) as W:
        n = W.carried[0]
        W.condition(f.ne(n, 1))
        odd = f.eq(f.and_(n, 1), 1)
        W.next(f.select(odd, n * 3 + 1, f.ashr(n, 1)))
    f.store(y, [0], f.value(W.count))
    f.store(y, [1], W.results[0])
    out = np.zeros(2, np.int64)
    assert run(f, [], out, ints=[start]) == 0
    assert out[0] == count and (value is None or out[1] == value)


def test_checked_index_reports_the_least_failure():
    f = LoopFunction("take")
    x, index, y = f.view("x", f32, (10,)), f.view("index", i32, (4,)), f.view("y", f32, (4,))
    with f.parallel(4, "all") as t:
        f.store(y, [t], f.load(x, [f.check_index(f.load(index, [t]), 10, node_id=7)]))
    data, out = np.arange(10, dtype=np.float32), np.zeros(4, np.float32)
    c = compiled(f, 2)
    assert c.run([data, np.int32([1, 2, 9, 0])], [out]) == 0 and c.failure is None
    assert out.tolist() == [1, 2, 9, 0]
    assert c.run([data, np.int32([1, 10, -3, 0])], [out]) == 1
    assert c.failure == (7, -3) and out.tolist() == [1, 0, 0, 0]


def test_fail_unless():
    f = LoopFunction("positive")
    x = f.view("x", i64, (3,))
    with f.loop(0, 3) as L:
        v = f.load(x, [L.index])
        f.fail_unless(f.gt(v, 0), 3, v)
    c = compiled(f, 1)
    assert c.run([np.int64([1, 2, 3])], []) == 0
    assert c.run([np.int64([1, -5, -4])], []) == 1 and c.failure == (3, -5)


def test_node_of_a_check_may_be_computed():
    f = LoopFunction("checks")
    x, node = f.view("x", i64, (1,)), f.param("node", 0, 100)
    for _ in range(2):
        f.fail_unless(f.lt(f.load(x, [0]), 5), node * 2 + 1, f.load(x, [0]))
    f.store(x, [0], f.value(node * 2 + 1))
    c, out = compiled(f, 0, ints=[20]), np.int64([9])
    assert c.run([], [out]) == 1 and c.failure == (41, 9) and out[0] == 41


def test_scratch_of_callers_and_callees_is_apart(rng):
    inner = LoopFunction("inner")
    a = inner.view("a", f32, (16,))
    mine = inner.scratch("mine", f32, (16,))
    with inner.loop(0, 16) as L:
        inner.store(mine, [L.index], inner.load(a, [L.index]) + 1.0)
    with inner.loop(0, 16) as L:
        inner.store(a, [L.index], inner.load(mine, [15 - L.index]))
    f = LoopFunction("outer")
    x, y = f.view("x", f32, (4, 16)), f.view("y", f32, (4, 16))
    shared = f.scratch("shared", f32, (16,))
    with f.loop(0, 16) as L:
        f.store(shared, [L.index], f.load(x, [0, L.index]))
    with f.parallel(4, "rows") as t:
        row = f.scratch("row", f32, (16,))
        with f.loop(0, 16) as L:
            f.store(row, [L.index], f.load(x, [t, L.index]))
        f.call(inner, [row])
        with f.loop(0, 16) as L:
            f.store(y, [t, L.index], f.load(row, [L.index]) + f.load(shared, [L.index]))
    data, out = rng.standard_normal((4, 16)).astype(np.float32), np.zeros((4, 16), np.float32)
    assert run(f, [data], out) == 0
    np.testing.assert_array_equal(out, (data + np.float32(1))[:, ::-1] + data[0])


def test_tiles_see_values_and_views_of_their_function(rng):
    f = LoopFunction("captured")
    x, y = f.view("x", f32, (3, 8)), f.view("y", f32, (3, 8))
    n = f.param("n", 0, 3)
    bias = f.splat(f.load(x, [0, 0]), 8)
    with f.loop(0, n) as outer:
        row = x.view_at([outer.index, 0], shape=(8,), strides=(1,))
        with f.parallel(2, "halves") as t:
            with f.loop(0, 4) as L:
                i = t * 4 + L.index
                f.store(y, [outer.index, i], f.load(row, [i]) + f.extract(bias, 3))
    data, out = rng.standard_normal((3, 8)).astype(np.float32), np.zeros((3, 8), np.float32)
    assert run(f, [data], out, ints=[3]) == 0
    np.testing.assert_array_equal(out, data + data[0, 0])


def test_parallel_inside_an_unrolled_loop():
    f = LoopFunction("unrolled")
    y = f.view("y", i64, (3, 4))
    with f.loop(0, 3, unroll=True) as outer:
        with f.parallel(4, "columns") as t:
            f.store(y, [outer.index, t], f.value(outer.index * 10 + t))
    out = np.zeros((3, 4), np.int64)
    assert run(f, [], out) == 0
    np.testing.assert_array_equal(out, np.arange(3)[:, None] * 10 + np.arange(4))


def test_nontemporal_and_prefetch():
    f = LoopFunction("copy")
    x, y = f.view("x", f32, (64,)), f.view("y", f32, (64,))
    s = f.scratch("s", f32, (64,))
    with f.loop(0, 64, step=8) as L:
        f.prefetch(x, [L.index + 64])
        f.store(s, [L.index], f.load(x, [L.index], lanes=8), hint="nontemporal")
    with f.loop(0, 64, step=8) as L:
        f.store(y, [L.index], f.load(s, [L.index], lanes=8))
    data, out = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    assert run(f, [data], out) == 0
    np.testing.assert_array_equal(out, data)


def test_misuse_of_the_builder_is_an_internal_error():
    f = LoopFunction("wrong")
    x = f.view("x", f32, (4,))
    with pytest.raises(InternalError, match="add does not take"):
        f.add(f.load(x, [0]), f.const(1, i32))
    with pytest.raises(InternalError, match="inside parallel"):
        with f.parallel(4), f.parallel(2):
            pass
    with pytest.raises(InternalError, match="carries"):
        with f.loop(0, 4, carry=[f.const(0.0, f32)]) as L:
            L.next(f.const(0, i32))
    with pytest.raises(InternalError, match="not affine"):
        f.param("a") * f.param("b")
    with pytest.raises(InternalError, match="ranks differ"):
        x.view_at([0], shape=(2, 2))
    with pytest.raises(InternalError, match="1 indices for x|2 indices for x of 1"):
        f.load(x, [0, 0])
    g = LoopFunction("callee")
    g.view("block", f32, (4,), (2,))
    with pytest.raises(InternalError, match="call of callee: x f32"):
        f.call(g, [x])
    with pytest.raises(InternalError, match="takes 1 views and 0 integers, the call gives 0 and 1"):
        f.call(g, [3])
    with pytest.raises(InternalError, match="needs its condition"):
        with f.while_(4):
            pass
    with pytest.raises(InternalError, match="else_ stands directly after if_"):
        with f.else_():
            pass
    with pytest.raises(InternalError, match="cannot be built"):
        with f.loop(0, f.param("m", 0, 9), unroll=True):
            pass
