"""Modules as a whole: main's memory and return codes, names, scratch, frames."""
from __future__ import annotations

import numpy as np
import pytest
from loop_run import Compiled

from graphc.codegen import abi
from graphc.codegen.llvm.emit import emit_module, scratch_bytes
from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.verify import verify
from graphc.errors import InternalError
from graphc.ir.types import f32, i64
from graphc.schedule.target import AVX2


def module(main: LoopFunction, *functions: LoopFunction) -> Compiled:
    verify(main)
    return Compiled(emit_module(list(functions), main, AVX2), scratch_bytes(list(functions), main))


def copy_function(n: int) -> LoopFunction:
    f = LoopFunction("copy")
    x, y = f.view("x", f32, (n,)), f.view("y", f32, (n,))
    with f.loop(0, n) as L:
        f.store(y, [L.index], f.load(x, [L.index]))
    return f


def test_arena_offsets_are_bytes():
    main, copy = LoopFunction("main"), copy_function(4)
    half = main.buffer("arena", 0, 128, f32, (4,))
    main.call(copy, [main.buffer("input", 0, 8, f32, (4,)), half])
    main.call(copy, [half, main.buffer("output", 1, 0, f32, (4,))])
    x, unused, y = np.arange(6, dtype=np.float32), np.zeros(1, np.float32), np.zeros(4, np.float32)
    c = module(main, copy)
    assert c.run([x], [unused, y]) == 0
    np.testing.assert_array_equal(y, x[2:])
    np.testing.assert_array_equal(c.arena[(-c.arena.ctypes.data) % 64 + 128:][:16].view(np.float32), x[2:])


def test_slots_that_move_with_a_loop():
    main, copy = LoopFunction("main"), copy_function(4)
    rows, out = main.buffer("input", 0, 0, f32, (3, 4)), main.buffer("output", 0, 0, f32, (3, 4))
    with main.loop(0, 3) as L:
        main.call(copy, [rows.view_at([L.index, 0], (4,), (1,)), out.view_at([2 - L.index, 0], (4,), (1,))])
    x, y = np.arange(12, dtype=np.float32).reshape(3, 4), np.zeros((3, 4), np.float32)
    assert module(main, copy).run([x], [y]) == 0
    np.testing.assert_array_equal(y, x[::-1])


def test_a_failed_check_ends_main_before_state_is_written():
    main = LoopFunction("main")
    index, out = main.buffer("input", 0, 0, i64, (1,)), main.buffer("output", 0, 0, f32, (2,))
    main.check_index(main.load(index, [0]), 10, 3)
    main.return_if_failed()
    main.store(out, [0], main.const(1.0, f32))
    c, y = module(main), np.zeros(2, np.float32)
    assert c.run([np.int64([10])], [y]) == abi.RETURN_FAILED and c.failure == (3, 10) and y[0] == 0
    assert c.run([np.int64([9])], [y]) == abi.RETURN_OK and y[0] == 1


def test_cancelled():
    main = LoopFunction("main")
    with main.loop(0, 10):
        main.return_if_cancelled()
    text = emit_module([], main, AVX2)
    assert f"ret i32 {abi.RETURN_CANCELLED}" in text and module(main).run([], []) == abi.RETURN_OK


@pytest.mark.parametrize("index", [0, -1, 10, abi.INDEX_BIAS - 1, -abi.INDEX_BIAS])
def test_failure_codes_order_by_node_and_carry_the_index(index):
    assert abi.read_failure(abi.failure_code(7, index)) == (7, index)
    assert abi.failure_code(7, index) < abi.failure_code(8, index) < abi.STATUS_OK
    assert abi.read_failure(abi.STATUS_OK) is None


def test_functions_of_one_name_are_refused():
    with pytest.raises(InternalError, match="functions of equal name: .'copy'"):
        emit_module([copy_function(3), copy_function(4)], None, AVX2)


def test_a_function_may_be_called_like_a_libm_function():
    f = LoopFunction("expf")
    x = f.view("x", f32, (1,))
    f.store(x, [0], f.sin(f.load(x, [0])))
    main = LoopFunction("sinf")
    main.call(f, [main.buffer("output", 0, 0, f32, (1,))])
    y = np.float32([1e6])
    assert module(main, f).run([], [y]) == 0
    np.testing.assert_allclose(y, np.sin(1e6), rtol=1e-6)


def test_scratch_is_stacked_along_calls_and_shared_by_siblings():
    def leaf(name: str, size: int) -> LoopFunction:
        f = LoopFunction(name)
        f.scratch("s", f32, (size,))
        return f
    small, large = leaf("small", 16), leaf("large", 160)
    main = LoopFunction("main")
    main.scratch("own", f32, (1,))
    main.call(small, [])
    main.call(large, [])
    assert scratch_bytes([], main) == 64 + 640
    for size in (32, 64):
        with main.parallel(2, "tiles"):
            main.scratch("tile", f32, (size,))
    assert scratch_bytes([], main) == 64 + 256 + 640


def test_equal_captures_share_a_slot_and_constants_none():
    f = LoopFunction("capture")
    x, y = f.view("x", f32, (8,)), f.view("y", f32, (8,))
    factor, mask = f.load(x, [0]), f.tail_mask(3, 8)
    with f.parallel(2, "tiles") as t:
        for _ in range(3):
            f.store(y, [t], f.load(x, [t]) * factor + 1.0)
        f.store(y, [0], f.load(x, [0], lanes=8, mask=mask), mask=mask)
    text = emit_module([f], None, AVX2)
    assert "alloca [24 x i8]" in text                               # two pointers and the factor


def test_outlined_bodies_of_one_text_are_one_function():
    def copies(name: str, tiles: int) -> LoopFunction:
        f = LoopFunction(name)
        x, y = f.view("x", f32, (8 * tiles,)), f.view("y", f32, (8 * tiles,))
        with f.parallel(tiles, "tiles") as t:
            f.store(y, [t * 8], f.load(x, [t * 8], lanes=8) * (2.0 if tiles < 9 else 3.0))
        return f
    text = emit_module([copies("a", 4), copies("b", 6), copies("c", 9)], None, AVX2)
    assert text.count("define internal void") == 2
    assert [text.count(f'@"k.{n}"') for n in ("c.tiles.1", "b.tiles.2")] == [2, 3]      # its head, and where it is named


@pytest.mark.parametrize("arrays, hidden", [(1, 0), (16, 2)])
def test_a_loop_around_many_addresses_is_not_strength_reduced(arrays, hidden):
    f = LoopFunction("nest")
    views = [f.view(f"x{n}", f32, (6, 5, 4)) for n in range(arrays + 1)]
    with f.loop(0, 6) as i, f.loop(0, 5) as j, f.loop(0, 4) as k:
        for x, y in zip(views, views[1:]):
            f.store(y, [i.index, j.index, k.index], f.load(x, [i.index, j.index, k.index]))
    verify(f)
    assert emit_module([f], None, AVX2).count("call i64 @llvm.expect.i64") == hidden
