"""Subnormal numbers taken for 0, by the mode that CPUs have for it, as LLVM text.

Whoever runs the code of a program sets the mode and puts back what was there: its entries for the thread that calls,
and around each tile of a parallel loop for the others, which serve programs that keep such numbers as well.
"""
from __future__ import annotations

from collections.abc import Callable

from graphc.codegen import abi
from graphc.schedule.target import Target

FLUSH_AND_ZERO = 0x8040             # MXCSR: flush to zero, denormals are zeros
FLUSH_INPUTS_AND_RESULTS = 1 << 24  # FPCR: FZ, of f32 and f64
BEGIN, END, PARALLEL, TILE = "@gc.flush.begin", "@gc.flush.end", "@gc.flush.parallel", "@gc.flush.tile"


def has_mode(target: Target) -> bool:
    """Whether the CPU has such a mode. Vectors of Armv7 have no other; RISC-V, WebAssembly and Cortex-M keep them."""
    return target.architecture in MODES


def text(symbol: str, target: Target) -> str:
    """The function of that symbol."""
    return TEXTS.get(symbol) or MODES[target.architecture](symbol)


USES = {PARALLEL: (TILE,), TILE: (BEGIN, END)}
# A job's function and frame become one frame, whose function is TILE.
TEXTS = {
    PARALLEL: f"""define internal void {PARALLEL}(ptr %ctx, ptr %fn, ptr %frame, i64 %tiles) noinline nounwind {{
  %job = alloca [2 x ptr]
  store ptr %fn, ptr %job
  %second = getelementptr ptr, ptr %job, i64 1
  store ptr %frame, ptr %second
  %at = getelementptr i8, ptr %ctx, i64 {abi.OFFSETS['parallel']}
  %run = load ptr, ptr %at
  call void %run(ptr %ctx, ptr {TILE}, ptr %job, i64 %tiles)
  ret void
}}""",
    TILE: f"""define internal void {TILE}(ptr %ctx, ptr %job, i64 %tile, ptr %scratch) noinline nounwind {{
  %control = call i64 {BEGIN}()
  %fn = load ptr, ptr %job
  %second = getelementptr ptr, ptr %job, i64 1
  %frame = load ptr, ptr %second
  call void %fn(ptr %ctx, ptr %frame, i64 %tile, ptr %scratch)
  call void {END}(i64 %control)
  ret void
}}"""}


def _mxcsr(symbol: str) -> str:
    if symbol == BEGIN:
        return f"""declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define internal i64 {BEGIN}() noinline nounwind {{
  %word = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %word)
  %before = load i32, ptr %word
  %flushing = or i32 %before, {FLUSH_AND_ZERO}
  %control = zext i32 %before to i64
  %same = icmp eq i32 %before, %flushing
{_unless_same("%flushing")}
  ret i64 %control
}}"""
    return f"""define internal void {END}(i64 %control) noinline nounwind {{
  %word = alloca i32
  %before = trunc i64 %control to i32
  %flushed = and i32 %before, {FLUSH_AND_ZERO}
  %same = icmp eq i32 %flushed, {FLUSH_AND_ZERO}
{_unless_same("%before")}
  ret void
}}"""


def _unless_same(value: str) -> str:
    """Loads the register with it, unless %same; the label behind."""
    return f"""  br i1 %same, label %done, label %set
set:
  store i32 {value}, ptr %word
  call void @llvm.x86.sse.ldmxcsr(ptr %word)
  br label %done
done:"""


def _fpcr(symbol: str) -> str:
    if symbol == BEGIN:
        return f"""declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)
define internal i64 {BEGIN}() noinline nounwind {{
  %control = call i64 @llvm.aarch64.get.fpcr()
  %flushing = or i64 %control, {FLUSH_INPUTS_AND_RESULTS}
  call void @llvm.aarch64.set.fpcr(i64 %flushing)
  ret i64 %control
}}"""
    return f"""define internal void {END}(i64 %control) noinline nounwind {{
  call void @llvm.aarch64.set.fpcr(i64 %control)
  ret void
}}"""


MODES: dict[str, Callable[[str], str]] = {"x86_64": _mxcsr, "aarch64": _fpcr}
