"""Machine code of hot loops, for this machine's kind and for others: vector width, fma, no calls, no spills."""
from __future__ import annotations

import re

import pytest
from loop_functions import micro_kernel, softmax
from loop_run import assembly

from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.ops import MATH
from graphc.ir.types import DType, f32, f64, i32, i64
from graphc.schedule.target import AVX2, AVX512, NEON, SSE2, Target

CALL = re.compile(r"\b(callq?|bl)\b")


def inner_loops(text: str) -> list[list[str]]:
    """The instructions of each loop without a loop inside: from a label to the last branch back to it."""
    lines = [line.strip() for line in text.splitlines()]
    labels = {line.rstrip(":"): n for n, line in enumerate(lines) if re.fullmatch(r"\.LBB\w+:", line)}
    loops = []
    for n, line in enumerate(lines):
        target = re.search(r"\.LBB\w+", line)
        if target and not line.endswith(":") and target.group() in labels and labels[target.group()] < n:
            loops.append((labels[target.group()], n))
    inner = [(a, b) for a, b in loops if not any((c, d) != (a, b) and a <= c and d <= b for c, d in loops)]
    return [[line for line in lines[a:b + 1] if line and not line.startswith((".", "#", "//"))] for a, b in inner]


def only_loop(text: str) -> list[str]:
    [loop] = inner_loops(text)
    return loop


@pytest.mark.parametrize("target, rows, vectors, lanes, fma, load", [
    (AVX2, 6, 2, 8, "vfmadd231ps", r"vmovups .*ymm"),
    (AVX512, 14, 2, 16, "vfmadd231ps", r"vmovups .*zmm"),
    (NEON, 8, 3, 4, "fmla\tv", r"ld[pr]\tq"),
], ids=lambda v: getattr(v, "name", None))
def test_micro_kernel(target, rows, vectors, lanes, fma, load):
    loop = only_loop(assembly([micro_kernel(rows, vectors, lanes)], target))
    assert sum(fma in line for line in loop) == rows * vectors
    assert any(re.search(load.replace(" ", r"\s"), line) for line in loop)
    assert not any("rsp" in line or "[sp" in line or CALL.search(line) for line in loop)
    overhead = [line for line in loop if not re.match(r"v?fm|vmovups|vbroadcast|ld|dup", line)]
    assert len(overhead) <= 6, overhead


def elementwise(op: str, lanes: int) -> LoopFunction:
    f = LoopFunction("map")
    x, y = f.view("x", f32, (1024,)), f.view("y", f32, (1024,))
    with f.loop(0, 1024, step=lanes) as L:
        args = [f.load(x, [L.index], lanes=lanes)] * (2 if op == "pow" else 1)
        f.store(y, [L.index], getattr(f, op)(*args))
    return f


@pytest.mark.parametrize("target, register", [(SSE2, "xmm"), (AVX2, "ymm"), (AVX512, "zmm"), (NEON, r"v\d+\.4s")],
                         ids=lambda v: getattr(v, "name", None))
@pytest.mark.parametrize("op", [*MATH, "pow"])
def test_mathematical_functions(target, register, op):
    text = assembly([elementwise(op, target.lanes(4))], target)
    assert re.search(register, text)
    if target is SSE2:                                              # has no fma: libm's, correct and slow
        return
    calls = [line for line in text.splitlines() if CALL.search(line)]
    assert op in ("sin", "cos") or not calls, calls
    if op in ("sin", "cos"):                                        # libm is called from the repair only
        main = text[:text.index("repair")]
        assert not any(CALL.search(line) and op in line for line in main.splitlines() if "repair" not in line)


@pytest.mark.parametrize("target", [AVX2, AVX512], ids=lambda t: t.name)
@pytest.mark.parametrize("lanes", [1, 4, 8])
@pytest.mark.parametrize("op", ["sin", "cos"])
def test_repairs_preserve_whole_registers(target, lanes, op):
    """Their convention says that no register changes; what clears upper halves on the way out would change sixteen of
    them.
    """
    text = assembly([elementwise(op, lanes)], target)
    repair = re.search(r"^gc\.repair\.[\w.]+:\n(.*?)^\.Lfunc_end", text, re.MULTILINE | re.DOTALL).group(1)
    assert "call" in repair and "ret" in repair and "vzeroupper" not in repair


def masked_copy(dtype: DType, lanes: int) -> LoopFunction:
    f = LoopFunction("tail")
    x, y, n = f.view("x", dtype, (lanes,)), f.view("y", dtype, (lanes,)), f.param("n", 0, lanes)
    mask = f.tail_mask(n, lanes)
    f.store(y, [0], f.load(x, [0], lanes=lanes, mask=mask), mask=mask)
    return f


@pytest.mark.parametrize("dtype, lanes, move",
                         [(f32, 8, "vmaskmovps"), (i32, 8, "vp?maskmov"), (f64, 4, "vmaskmovpd"),
                          (i64, 4, "vp?maskmov")])
def test_tail_masks(dtype, lanes, move):
    lines = [line.strip() for line in assembly([masked_copy(dtype, lanes)], AVX2).splitlines()]
    assert sum(bool(re.match(move, line)) for line in lines) == 2
    body = [line for line in lines if re.match(r"[a-z]", line)]
    assert len(body) <= 9 and not any(line.startswith("j") for line in body), body
    text = assembly([masked_copy(dtype, lanes * 2)], AVX512)
    assert len(re.findall(r"zmm\d+.*\{%k", text)) == 2


@pytest.mark.parametrize("target", [AVX2, AVX512, NEON], ids=lambda t: t.name)
def test_a_whole_kernel_compiles_without_calls_in_its_loops(target: Target):
    loops = inner_loops(assembly([softmax(lanes=target.lanes(4))], target))
    assert len(loops) == 3
    assert not any(CALL.search(line) for loop in loops for line in loop)


@pytest.mark.parametrize("stride, width", [(0, "vbroadcastss"), (-1, "vperm|vshuf")])
def test_loads_by_stride(stride, width):
    f = LoopFunction("load")
    x, y = f.view("x", f32, (8,), (stride,)), f.view("y", f32, (8,))
    f.store(y, [0], f.load(x, [0], lanes=8))
    assert re.search(width, assembly([f], AVX2))


def test_extrema_with_constants_are_one_instruction():
    f = LoopFunction("relu")
    x, y = f.view("x", f32, (1024,)), f.view("y", f32, (1024,))
    with f.loop(0, 1024, step=8) as L:
        f.store(y, [L.index], f.max(f.load(x, [L.index], lanes=8), 0.0))
    loop = only_loop(assembly([f], AVX2))
    assert sum(line.startswith("vmaxps") for line in loop) == 1 and len(loop) <= 6, loop


def test_subscripts_are_hoisted():
    """Only the innermost index moves in the inner loop: no multiplication there, however many strides there are."""
    f = LoopFunction("nest")
    x, y = f.view("x", f32, (7, 5, 64), (1000, 77, 1)), f.view("y", f32, (7, 5, 64))
    with f.loop(0, 7) as i, f.loop(0, 5) as j, f.loop(0, 64, step=8) as k:
        at = [i.index, j.index, k.index]
        f.store(y, at, f.load(x, at, lanes=8) + 1.0)
    loop = only_loop(assembly([f], AVX2))
    assert not any("imul" in line or "lea" in line for line in loop) and len(loop) <= 7, loop


def test_wide_lanes_split_into_registers():
    loop = only_loop(assembly([elementwise("neg", 32)], AVX2))
    assert sum("vxorps" in line for line in loop) == 4


def test_integer_mulhi_uses_the_vector_multiplier():
    f = LoopFunction("philox")
    x, y = f.view("x", i32, (1024,)), f.view("y", i32, (1024,))
    with f.loop(0, 1024, step=8) as L:
        f.store(y, [L.index], f.mulhi_u(f.load(x, [L.index], lanes=8), 0xD2511F53))
    assert any("vpmuludq" in line for line in only_loop(assembly([f], AVX2)))


def test_powers_of_two_are_one_instruction_with_avx512():
    loop = only_loop(assembly([elementwise("exp", 16)], AVX512))
    assert sum("vscalefps" in line
               for line in loop) == 1 and not any("vpslld" in line or "vblendm" in line for line in loop)
    assert not any("vscalef" in line for line in only_loop(assembly([elementwise("exp", 8)], AVX2)))
