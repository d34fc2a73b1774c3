"""Small hand-written programs for the runtime's tests: what the compiler would emit, without the compiler."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graphc.codegen.abi import OFFSETS
from graphc.codegen.llvm.jit import compile_cached
from graphc.ir.types import f32, i64
from graphc.runtime.executable import Executable, Program
from graphc.runtime.lock import StateLock
from graphc.runtime.native import native, runtime_target
from graphc.runtime.signature import ArraySpec, Signature


def load_field(name: str, field: str, type: str = "ptr") -> str:
    return f"  %{name}.at = getelementptr i8, ptr %ctx, i64 {OFFSETS[field]}\n  %{name} = load {type}, ptr %{name}.at\n"


def load_pointer(name: str, table: str, slot: int) -> str:
    """%name = the pointer in `slot` of a table of the context."""
    return (load_field(f"{name}.table", table) + f"  %{name}.slot = getelementptr ptr, ptr %{name}.table, i64 {slot}\n"
            f"  %{name} = load ptr, ptr %{name}.slot\n")


ADD_ONE = f"""
define i32 @gc_main(ptr %ctx) nounwind {{
entry:
{load_pointer("x", "inputs", 0)}{load_pointer("y", "outputs", 0)}
  %v = load float, ptr %x
  %w = fadd float %v, 1.0
  store float %w, ptr %y
  ret i32 0
}}
"""

# y = x + 1, z = x + 2
TWO = f"""
define i32 @gc_main(ptr %ctx) nounwind {{
entry:
{load_pointer("x", "inputs", 0)}{load_pointer("y", "outputs", 0)}{load_pointer("z", "outputs", 1)}
  %v = load float, ptr %x
  %w = fadd float %v, 1.0
  store float %w, ptr %y
  %u = fadd float %v, 2.0
  store float %u, ptr %z
  ret i32 0
}}
"""

# tile t: y[t] = x[t] * 3 + t by way of the participant's scratch; z counts how often each tile ran
TILES = f"""
define internal void @tile(ptr %ctx, ptr %frame, i64 %t, ptr %scratch) nounwind {{
{load_pointer("x", "inputs", 0)}{load_pointer("y", "outputs", 0)}{load_pointer("z", "outputs", 1)}
  %n = load volatile i64, ptr %frame
  br label %spin
spin:
  %i = phi i64 [ 0, %0 ], [ %j, %spin ]
  store volatile i64 %t, ptr %scratch
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, %n
  br i1 %more, label %spin, label %end
end:
  %back = load volatile i64, ptr %scratch
  %x.at = getelementptr float, ptr %x, i64 %t
  %v = load float, ptr %x.at
  %f = sitofp i64 %back to float
  %m = fmul float %v, 3.0
  %r = fadd float %m, %f
  %y.at = getelementptr float, ptr %y, i64 %t
  store float %r, ptr %y.at
  %z.at = getelementptr i64, ptr %z, i64 %t
  %was = atomicrmw add ptr %z.at, i64 1 monotonic
  ret void
}}

define i32 @gc_main(ptr %ctx) nounwind {{
{load_field("parallel", "parallel")}
  %frame = alloca i64
  store i64 WORK, ptr %frame
  call void %parallel(ptr %ctx, ptr @tile, ptr %frame, i64 COUNT)
{load_field("cancel", "cancel", "i64")}
  %stop = icmp ne i64 %cancel, 0
  %code = select i1 %stop, i32 2, i32 0
  ret i32 %code
}}
"""

# empty tiles, REPEATS times in one call: the cost of a dispatch
DISPATCH = f"""
define internal void @tile(ptr %ctx, ptr %frame, i64 %t, ptr %scratch) nounwind {{
  ret void
}}

define i32 @gc_main(ptr %ctx) nounwind {{
entry:
{load_field("parallel", "parallel")}
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %j, %loop ]
  call void %parallel(ptr %ctx, ptr @tile, ptr null, i64 COUNT)
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, REPEATS
  br i1 %more, label %loop, label %end
end:
  ret i32 0
}}
"""

# loops until cancelled, without parallel work; counts rounds in state 0
ENDLESS = f"""
define i32 @gc_main(ptr %ctx) nounwind {{
entry:
{load_pointer("count", "state", 0)}
  %cancel.at = getelementptr i8, ptr %ctx, i64 {OFFSETS["cancel"]}
  br label %loop
loop:
  %cancel = load atomic i64, ptr %cancel.at monotonic, align 8
  %n = load i64, ptr %count
  %m = add i64 %n, 1
  store i64 %m, ptr %count
  %stop = icmp ne i64 %cancel, 0
  br i1 %stop, label %end, label %loop
end:
  ret i32 2
}}
"""

# fails with node 7 at index x[0] unless 0 <= x[0] < 5
CHECKED = f"""
define i32 @gc_main(ptr %ctx) nounwind {{
entry:
{load_pointer("x", "inputs", 0)}{load_pointer("y", "outputs", 0)}
  %v = load i64, ptr %x
  store i64 %v, ptr %y
  %good = icmp ult i64 %v, 5
  br i1 %good, label %end, label %bad
bad:
  %biased = add i64 %v, {1 << 39}
  %masked = and i64 %biased, {(1 << 40) - 1}
  %word = or i64 %masked, {7 << 40}
  %status.at = getelementptr i8, ptr %ctx, i64 {OFFSETS["status"]}
  %old = atomicrmw umin ptr %status.at, i64 %word monotonic
  ret i32 1
end:
  ret i32 0
}}
"""

# state[0] += 1 in a way that loses updates unless calls exclude each other
COUNTER = f"""
define i32 @gc_main(ptr %ctx) nounwind {{
entry:
{load_pointer("count", "state", 0)}{load_pointer("y", "outputs", 0)}
  %n = load volatile i64, ptr %count
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %j, %loop ]
  store volatile i64 %i, ptr %y
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, 20000
  br i1 %more, label %loop, label %end
end:
  %m = add i64 %n, 1
  store volatile i64 %m, ptr %count
  store i64 %m, ptr %y
  ret i32 0
}}
"""

# y[0] = x[0] * x[1]: shows whether subnormals are kept
MULTIPLY = f"""
define i32 @gc_main(ptr %ctx) nounwind {{
entry:
{load_pointer("x", "inputs", 0)}{load_pointer("y", "outputs", 0)}
  %b.at = getelementptr float, ptr %x, i64 1
  %a = load float, ptr %x
  %b = load float, ptr %b.at
  %r = fmul float %a, %b
  store float %r, ptr %y
  ret i32 0
}}
"""

# copies all constants, then all of the arena's first bytes, to y: n floats each
MEMORY = f"""
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
define i32 @gc_main(ptr %ctx) nounwind {{
entry:
{load_pointer("x", "inputs", 0)}{load_pointer("y", "outputs", 0)}{load_field("consts", "consts")}{load_field("arena", "arena")}
  call void @llvm.memcpy.p0.p0.i64(ptr %arena, ptr %x, i64 16, i1 false)
  call void @llvm.memcpy.p0.p0.i64(ptr %y, ptr %consts, i64 16, i1 false)
  %second = getelementptr i8, ptr %y, i64 16
  call void @llvm.memcpy.p0.p0.i64(ptr %second, ptr %arena, i64 16, i1 false)
  ret i32 0
}}
"""


def executable(text: str, inputs: dict, outputs: dict, result: str = "tuple", threads: int = 1, arena_bytes: int = 0,
               scratch_bytes: int = 0, consts: bytes = b"", work_ns: int = 0, varies: bool = False,
               writes: bool = False, **options) -> Executable:
    """`text` compiled and loaded; inputs and outputs: name -> static tensor type."""
    signature = Signature(_specs(inputs), _specs(outputs), result, "f")
    program = Program(compile_cached(text, runtime_target()), signature, arena_bytes, scratch_bytes, consts, work_ns,
                      varies=varies, writes=writes)
    return Executable(program, threads=threads, **options)


@contextmanager
def held(lock: StateLock) -> Iterator[None]:
    """The lock taken, as by a native call that takes long."""
    assert native().lock(lock.address, 10_000)
    try:
        yield
    finally:
        native().unlock(lock.address)


def add_one(**options) -> Executable:
    return executable(ADD_ONE, {"x": f32[1]}, {"y": f32[1]}, result="array", **options)


def tiles(count: int, threads: int, work: int = 1, **options) -> Executable:
    """f(x[count]) -> (x * 3 + arange, how often each tile ran); `work` sets how long a tile takes."""
    text = TILES.replace("COUNT", str(count)).replace("WORK", str(work))
    return executable(text, {"x": f32[count]}, {"y": f32[count], "z": i64[count]}, threads=threads, scratch_bytes=8,
                      **options)


def _specs(types: dict) -> tuple[ArraySpec, ...]:
    return tuple(ArraySpec(name, type) for name, type in types.items())
