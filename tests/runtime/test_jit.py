"""LLVM text to code: for this machine and for others, without contraction, with errors that show the place."""
from __future__ import annotations

import ctypes
import gc
import mmap
import re

import numpy as np
import pytest

from graphc.codegen.llvm import host, jit
from graphc.errors import GraphError, InternalError
from graphc.runtime.executable import Executable, Program
from graphc.runtime.native import runtime_target, runtime_text
from graphc.runtime.signature import Signature
from graphc.schedule.target import AVX2, AVX512, AVX512_AMX, AVX512_BF16, NEON, SAPPHIRERAPIDS, SSE2, TARGETS, ZEN3

MULTIPLY_ADD = """
define void @gc_main(ptr %p) nounwind {
  %a = load <8 x float>, ptr %p, align 4
  %q = getelementptr i8, ptr %p, i64 32
  %b = load <8 x float>, ptr %q, align 4
  %m = fmul <8 x float> %a, %b
  %s = fadd <8 x float> %m, %a
  store <8 x float> %s, ptr %p, align 4
  ret void
}
"""
FMA = MULTIPLY_ADD.replace("""  %m = fmul <8 x float> %a, %b
  %s = fadd <8 x float> %m, %a
""", "  %s = call <8 x float> @llvm.fma.v8f32(<8 x float> %a, <8 x float> %b, <8 x float> %a)\n") + \
    "declare <8 x float> @llvm.fma.v8f32(<8 x float>, <8 x float>, <8 x float>)\n"
LIBM = """
declare float @expf(float)
declare double @tanh(double)
define void @gc_main(ptr %p) nounwind {
  %a = load float, ptr %p
  %b = call float @expf(float %a)
  %c = fpext float %b to double
  %d = call double @tanh(double %c)
  %e = fptrunc double %d to float
  store float %e, ptr %p
  ret void
}
"""


def call(loaded, array, name="gc_main"):
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(loaded.address(name))(array.ctypes.data)


@pytest.mark.parametrize("target", [AVX2, AVX512, NEON], ids=lambda t: t.name)
def test_products_and_sums_are_not_contracted(target):
    separate, fused = jit.assembly(MULTIPLY_ADD, target), jit.assembly(FMA, target)
    assert not re.search(r"\bv?f(n?m(add|la)|madd)", separate)
    assert re.search(r"fmadd|fmla", fused)


def test_wide_vectors_stay_wide():
    text = MULTIPLY_ADD.replace("8 x", "16 x").replace("i64 32", "i64 64")
    assert "zmm" in jit.assembly(text,
                                 AVX512) and "ymm" in jit.assembly(text, AVX2) and "xmm" in jit.assembly(text, SSE2)


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda t: t.name)
def test_objects_for_any_target(target):
    code = jit.compile_object(MULTIPLY_ADD, target)
    assert code.startswith(b"\x7fELF") and ".eh_frame" not in jit.assembly(MULTIPLY_ADD, target)


@pytest.mark.parametrize("target", [SSE2, NEON], ids=lambda t: t.name)
def test_the_runtime_compiles_for_both_machines(target):
    text = jit.assembly(runtime_text(target), target)
    assert ("pause" if target is SSE2 else "yield") in text and "pthread_create" in text


def test_code_runs_and_unloads():
    code = jit.compile_object(MULTIPLY_ADD, runtime_target())
    for k in range(50):
        loaded = jit.load_object(code)
        data = np.arange(16, dtype=np.float32)
        wanted = data[:8] * data[8:] + data[:8]
        call(loaded, data)
        np.testing.assert_array_equal(data[:8], wanted)
        del loaded
    gc.collect()


def test_libm_is_found():
    data = np.array([0.25], np.float32)
    call(jit.load_object(jit.compile_object(LIBM, runtime_target())), data)
    assert data[0] == pytest.approx(np.tanh(np.exp(0.25)), rel=1e-6)


def test_unknown_symbols_are_our_bug():
    text = "declare i32 @no_such_symbol()\ndefine i32 @gc_main(ptr %ctx) nounwind {\n  %r = call i32 @no_such_symbol()\n  ret i32 %r\n}\n"
    with pytest.raises(InternalError, match="in load"):
        jit.load_object(jit.compile_object(text, runtime_target()))


def test_imports():
    text = "declare i32 @given()\ndefine i32 @gc_main(ptr %ctx) nounwind {\n  %r = call i32 @given()\n  ret i32 %r\n}\n"
    callback = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 42)
    loaded = jit.load_object(jit.compile_object(text, runtime_target()),
                             imports={"given": ctypes.cast(callback, ctypes.c_void_p).value})
    assert ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(loaded.address("gc_main"))(None) == 42


@pytest.mark.parametrize("text, part", [
    ("define i32 @gc_main(ptr %ctx) {\n  %a = add i32 1, 2.0\n  ret i32 %a\n}", "2   %a = add i32 1, 2.0"),
    ("define i32 @gc_main(ptr %ctx) {\n  ret i32 %b\n}", "ret i32 %b"),
])
def test_bad_text_shows_the_line(text, part):
    with pytest.raises(InternalError) as error:
        jit.compile_object(text, runtime_target())
    assert part in str(error.value)


def test_passes_inline_and_clean():
    text = """
define internal i32 @three() nounwind alwaysinline {
  ret i32 3
}
define i32 @gc_main(ptr %ctx) nounwind {
  %a = call i32 @three()
  %b = add i32 %a, 4
  ret i32 %b
}
"""
    assert "ret i32 7" in jit.optimised(text, runtime_target())


def test_host_target(monkeypatch):
    here = host.host_target()
    assert host.can_run(here) and here.machine.l1_bytes > 0 and here.machine.l2_bytes >= here.machine.l1_bytes
    assert here.vector_bytes == max(t.vector_bytes for t in TARGETS.values() if host.can_run(t))
    monkeypatch.setenv("GRAPHC_TARGET", "neon")
    assert host.host_target() is NEON
    monkeypatch.setenv("GRAPHC_TARGET", "z80")
    with pytest.raises(GraphError, match="z80 is not a target; known: sse2, avx2, avx2_vnni, avx512, avx512_vnni, avx512_bf16, avx512_amx, neon, neon_dot, neon_bf16, zen3, sapphirerapids"):
        host.host_target()


def test_a_cpu_that_an_entry_names_gets_it(monkeypatch):
    allowed = {ZEN3, AVX512_AMX, SAPPHIRERAPIDS, AVX512_BF16, AVX2}
    monkeypatch.setattr(host, "can_run", lambda target: target in allowed)
    def found(cpu): return host.preferred(host.BY_PREFERENCE["x86_64"], cpu)
    assert found("znver3") is ZEN3 and found("emeraldrapids") is found("a CPU of next year") is AVX512_AMX
    allowed.remove(AVX512_AMX)              # the system keeps its registers
    assert found("emeraldrapids") is SAPPHIRERAPIDS and found("znver4") is AVX512_BF16


def test_code_for_another_machine_is_not_loaded():
    text = "define i32 @gc_main(ptr %ctx) nounwind {\n  ret i32 0\n}\n"
    program = Program(jit.compile_object(text, NEON), Signature((), ()), target=NEON)
    with pytest.raises(GraphError, match="code for neon does not run on this machine, which lacks aarch64"):
        Executable(program)
    assert host.lacking(runtime_target()) == ()


def test_cache_sizes(tmp_path):
    for k, (kind, level,
            size) in enumerate([("Data", 1, "48K"), ("Instruction", 1, "64K"), ("Unified", 2, "2M"),
                                ("Unified", 3, "?")]):
        folder = tmp_path / f"index{k}"
        folder.mkdir()
        for name, value in (("type", kind), ("level", level), ("size", size)):
            (folder / name).write_text(f"{value}\n")
    assert host.cache_sizes(tmp_path) == {"l1_bytes": 48 << 10, "l2_bytes": 2 << 20}


ONCE = """
define internal i32 @"only one"(i32 %a) nounwind {
  %b = add i32 %a, 1
  ret i32 %b
}
define internal i32 @shared(i32 %a) nounwind {
  %b = mul i32 %a, 3
  ret i32 %b
}
define internal i32 @kernel(i32 %a) nounwind {
  %b = call i32 @"only one"(i32 %a)
  %c = call i32 @shared(i32 %b)
  %d = call i32 @shared(i32 %c)
  ret i32 %d
}
define i32 @gc_main(i32 %a) nounwind {
  %b = call i32 @kernel(i32 %a)
  ret i32 %b
}
"""


def test_what_is_called_in_one_place_is_inlined_but_not_into_main():
    text = jit.optimised(ONCE, runtime_target())
    assert "only one" not in text
    assert text.count("call i32 @kernel") == 1 and text.count("call i32 @shared") == 2


DATA = """
@table = private constant [2 x double] [double 2.5, double 4.0], align 16
@counter = internal global i64 5, align 8
@pointer = internal global ptr @counter, align 8
declare double @pow(double, double)
define double @gc_main(ptr %ctx) nounwind {
  %at = load ptr, ptr @pointer
  %n = load i64, ptr %at
  %m = add i64 %n, 1
  store i64 %m, ptr @counter
  %base = load double, ptr @table
  %f = sitofp i64 %m to double
  %r = call double @pow(double %base, double %f)
  ret double %r
}
"""


def test_code_with_data_of_its_own_and_functions_of_others():
    loaded = jit.load_object(jit.compile_object(DATA, runtime_target()))
    run = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_void_p)(loaded.address("gc_main"))
    assert [run(None), run(None)] == [2.5 ** 6, 2.5 ** 7]


def test_sections_lie_together_where_memory_is_scattered():
    """Small holes near other memory and the rest far away, as in a process with many large libraries: LLVM's own linker
    ends such a process."""
    holes = [mmap.mmap(-1, 3 << 12, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(64)]
    far = mmap.mmap(-1, 5 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, prot=0)      # nothing is taken
    for hole in holes[::2]:
        hole.close()
    test_code_with_data_of_its_own_and_functions_of_others()
    far.close()


def test_a_later_process_knows_the_cpu_without_llvm(monkeypatch, tmp_path):
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path))
    made = host.host.__wrapped__()
    assert made == host.host() and "fxsr" in made.features and "cpu MHz" not in host._cpu_text()
    monkeypatch.setattr(host, "llvm", lambda: pytest.fail("LLVM is asked"))
    assert host.host.__wrapped__() == made
    (tmp_path / "cpu").write_text("model name\t: another\nprocessor\t: 0\n\nmodel name\t: second\n")
    assert host._cpu_text(tmp_path / "cpu") == "model name\t: another" and host._cpu_text(tmp_path / "none") == ""
