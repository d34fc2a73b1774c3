"""The native Python entry: what it takes itself, what goes the slow way, and that nothing leaks."""
from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
import threading
import weakref

import numpy as np
import pytest
from native_programs import ADD_ONE, CHECKED, MEMORY, MULTIPLY, TWO, add_one, executable

from graphc.codegen.abi import failure_code, read_failure
from graphc.codegen.llvm.jit import compile_object, load_object
from graphc.errors import GraphError, InternalError
from graphc.ir.types import f32, i64
from graphc.runtime.entry_layout import EntryRecord
from graphc.runtime.native import runtime_target


def warm(exe, *args):
    """Past the timed calls, after which the native entry serves."""
    for _ in range(3):
        exe.call(*args)
    assert exe._descriptor.enabled
    return exe.call


@pytest.fixture
def x():
    return np.array([1.5], np.float32)


@pytest.fixture
def only_native(monkeypatch):
    """A call that leaves the native path raises."""
    def make(exe):
        def refuse(*args, **named):
            raise AssertionError("slow path")
        exe.refuse = refuse
        exe._descriptor._set(EntryRecord.slow, id(refuse))
        return exe.call
    return make


def test_exact_arrays_stay_native(x, only_native):
    exe = add_one()
    warm(exe, x)
    run = only_native(exe)
    y = run(x)
    assert type(y) is np.ndarray and y.dtype == np.float32 and y.shape == (1,) and y[0] == 2.5
    assert y.flags.owndata and y.flags.writeable
    frozen = x.copy()
    frozen.flags.writeable = False
    assert run(frozen)[0] == 2.5


@pytest.mark.parametrize("bad", [
    lambda x: x.astype(np.float64), lambda x: np.array([1, 2], np.float32), lambda x: x.reshape(1, 1),
    lambda x: np.float32(1), lambda x: None,
    lambda x: [1.5], lambda x: x.astype(">f4"), lambda x: x.view(np.recarray)])
def test_everything_else_goes_the_slow_way(x, bad, only_native):
    exe = add_one()
    warm(exe, x)
    with pytest.raises(AssertionError, match="slow path"):
        only_native(exe)(bad(x))


def test_names_and_counts_go_the_slow_way(x, only_native):
    exe = add_one()
    warm(exe, x)
    run = only_native(exe)
    frozen = x.copy()
    frozen.flags.writeable = False
    for call in (lambda: run(), lambda: run(x, x), lambda: run(x=x), lambda: run(x, out=x), lambda: run(x, out=frozen),
                 lambda: run(x, out=(x.copy(),)), lambda: run(x, out=None), lambda: run(x, what=x.copy()),
                 lambda: run(out=x.copy())):
        with pytest.raises(AssertionError, match="slow path"):
            call()


def test_out_stays_native(x, only_native):
    single = add_one()
    warm(single, x)
    run, out = only_native(single), np.empty(1, np.float32)
    assert run(x, out=out) is out and out[0] == 2.5
    pair = executable(TWO, {"x": f32[1]}, {"y": f32[1], "z": f32[1]})
    warm(pair, x)
    run, outs = only_native(pair), (np.empty(1, np.float32), np.empty(1, np.float32))
    before = [sys.getrefcount(o) for o in (outs, *outs)]
    for _ in range(100):
        assert run(x, out=outs) is outs
    assert (outs[0][0], outs[1][0]) == (2.5, 3.5) and [sys.getrefcount(o) for o in (outs, *outs)] == before
    for bad in ((out, out), (out,), [out, out.copy()], out, (out, x), (out, x.astype("f8"))):
        with pytest.raises(AssertionError, match="slow path"):
            run(x, out=bad)


def test_failure_with_out():
    exe = executable(CHECKED, {"x": i64[1]}, {"y": i64[1]}, "array", on_failure=lambda n, i: GraphError(f"index {i}"))
    run, out = warm(exe, np.array([4], np.int64)), np.zeros(1, np.int64)
    with pytest.raises(GraphError, match="index 5"):
        run(np.array([5], np.int64), out=out)
    assert sys.getrefcount(out) == 2


def test_slow_way_gives_the_same(x):
    exe = add_one()
    run = warm(exe, x)
    assert run(x=x)[0] == 2.5
    wide = np.array([1.5, 9, 9], np.float32)[::3]
    assert run(wide)[0] == 2.5
    out = np.empty(1, np.float32)
    assert run(x, out=out) is out and out[0] == 2.5
    assert run(memoryview(x))[0] == 2.5


@pytest.mark.parametrize("result, kind", [("tuple", tuple), ("dict", dict)])
def test_result_forms(x, result, kind):
    exe = executable(ADD_ONE, {"x": f32[1]}, {"y": f32[1]}, result)
    run = warm(exe, x)
    for call in (exe.slow, run):
        value = call(x)
        assert type(value) is kind and len(value) == 1
        assert (value["y"] if kind is dict else value[0])[0] == 2.5
    assert sys.getrefcount(value) == 2


def test_no_inputs_no_outputs():
    text = "define i32 @gc_main(ptr %ctx) nounwind {\n  ret i32 0\n}\n"
    exe = executable(text, {}, {})
    for _ in range(4):
        assert exe.call() == ()
    with pytest.raises(GraphError, match="takes 0 arrays"):
        exe.call(1)


def test_scalars_and_high_ranks():
    exe = executable(ADD_ONE, {"x": f32[()]}, {"y": f32[1, 1, 1, 1, 1]}, "array")
    run = warm(exe, np.array(1.5, np.float32))
    assert run(np.array(1.5, np.float32)).shape == (1, 1, 1, 1, 1)
    assert run(2.5)[0, 0, 0, 0, 0] == 3.5


def test_checked_index_is_reported():
    seen = []

    def on_failure(node, index):
        seen.append((node, index))
        return GraphError(f"node {node}, index {index}")

    exe = executable(CHECKED, {"x": i64[1]}, {"y": i64[1]}, "array", on_failure=on_failure)
    good, bad, low = (np.array([v], np.int64) for v in (4, 5, -3))
    with pytest.raises(GraphError, match="node 7, index 5"):
        exe.call(bad)
    run = warm(exe, good)
    with pytest.raises(GraphError, match="node 7, index -3"):
        run(low)
    assert run(good)[0] == 4 and seen == [(7, 5), (7, -3)]


def test_unexplained_failure_is_ours():
    exe = executable(CHECKED, {"x": i64[1]}, {"y": i64[1]}, "array")
    with pytest.raises(InternalError, match="node 7"):
        exe.call(np.array([9], np.int64))


def test_status_words_order_by_node():
    assert read_failure(failure_code(3, -1)) == (3, -1)
    assert failure_code(3, 1 << 30) < failure_code(4, -(1 << 30))


def test_consts_and_arena():
    exe = executable(MEMORY, {"x": f32[4]}, {"y": f32[8]}, "array", arena_bytes=64,
                     consts=np.arange(4, dtype=np.float32).tobytes())
    x = np.array([5, 6, 7, 8], np.float32)
    run = warm(exe, x)
    np.testing.assert_array_equal(run(x), [0, 1, 2, 3, 5, 6, 7, 8])
    assert exe.memory_bytes == dict(arena=64, scratch=0, consts=16)


def test_the_builtin_keeps_the_code_alive(x):
    exe = add_one()
    ref, run = weakref.ref(exe), exe.call
    del exe
    gc.collect()
    assert ref() is not None and run(x)[0] == 2.5
    del run
    gc.collect()
    assert ref() is None


def test_references_do_not_leak(x):
    for result in ("array", "tuple", "dict"):
        exe = executable(ADD_ONE, {"x": f32[1]}, {"y": f32[1]}, result)
        run = warm(exe, x)
        before = [sys.getrefcount(o) for o in (x, run, exe, f32.np)]
        for _ in range(1000):
            run(x)
        assert [sys.getrefcount(o) for o in (x, run, exe, f32.np)] == before


def test_memory_does_not_grow(x):
    run = warm(add_one(), x)
    failing = executable(CHECKED, {"x": i64[1]}, {"y": i64[1]}, "array", on_failure=lambda n, i: GraphError("bad"))
    good, bad = np.array([1], np.int64), np.array([5], np.int64)
    check = warm(failing, good)

    def many():
        for _ in range(20000):
            run(x)
        for _ in range(2000):
            with pytest.raises(GraphError):
                check(bad)

    many()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        many()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2000      # KB


def test_executables_do_not_leak_memory(x):
    def make():
        exe = add_one(arena_bytes=1 << 20)
        exe.call(x)

    for _ in range(20):
        make()
    gc.collect()
    before = resident_kb()
    for _ in range(100):
        make()
    gc.collect()
    assert resident_kb() - before < 20_000


def resident_kb() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() // 1024


def test_many_python_threads(x):
    exe = add_one()
    wrong = []

    def caller(value):
        mine = np.array([value], np.float32)
        for _ in range(3000):
            if exe.call(mine)[0] != value + 1:
                wrong.append(value)

    threads = [threading.Thread(target=caller, args=(v,)) for v in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert not wrong


def test_subnormals_are_kept_whatever_the_caller_set():
    """Libraries built with -ffast-math switch them off for the thread that loads them."""
    text = """declare void @llvm.x86.sse.ldmxcsr(ptr)
define i32 @gc_main(i32 %word) nounwind {
  %at = alloca i32
  store i32 %word, ptr %at
  call void @llvm.x86.sse.ldmxcsr(ptr %at)
  ret i32 0
}"""
    if not runtime_target().triple.startswith("x86_64"):
        pytest.skip("mxcsr is x86's")
    code = load_object(compile_object(text, runtime_target()))
    set_control = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint32)(code.address("gc_main"))
    exe = executable(MULTIPLY, {"x": f32[2]}, {"y": f32[1]}, "array")
    x = np.array([1e-30, 1e-10], np.float32)
    run = warm(exe, x)
    try:
        set_control(0x9FC0)
        y = run(x)
        slow = exe.slow(x)
    finally:
        set_control(0x1F80)
    assert y[0] > 0 and slow[0] > 0


@pytest.mark.parametrize("work_ns, varies, measured, enabled, releases", [
    (0, False, (3000, 2000), True, False),              # nothing estimated: the measured time decides
    (0, False, (9000, 8000), True, True),
    (100, False, (19000, 9000), True, False),           # first calls run cold
    (100, False, (60000, 30000), True, True),
    (9000, False, (3000, 2000), True, True),
    (0, False, (300_000_000, 250_000_000), False, True),
    (300_000_000, False, (1000, 1000), True, True),      # estimated too high
    (300_000_000, True, (1000, 1000), False, True),      # a loop that may run long
])
def test_what_the_native_entry_learns(work_ns, varies, measured, enabled, releases):
    exe = add_one(work_ns=work_ns, varies=varies)
    for nanoseconds in measured:
        assert not exe._descriptor.enabled
        exe._timed(nanoseconds)
    assert (exe._descriptor.enabled, exe._descriptor.releases) == (enabled, releases)


def test_long_calls_work_without_the_native_entry(x):
    exe = add_one(work_ns=1 << 40, varies=True)
    for _ in range(4):
        assert exe.call(x)[0] == 2.5
    assert not exe._descriptor.enabled


def test_a_call_that_releases_the_gil(x):
    exe = add_one(work_ns=10_000)
    run = warm(exe, x)
    assert exe._descriptor.releases
    threads = [threading.Thread(target=lambda: [run(x) for _ in range(2000)]) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert run(x)[0] == 2.5 and 1 <= len(exe.resident.frames) <= max(4, len(os.sched_getaffinity(0)))
