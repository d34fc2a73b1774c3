"""A lock in one 32-bit word, as LLVM text, for state that native code and Python share: 0 free, 1 held, 2 held and waited for."""
from __future__ import annotations

from graphc.runtime.pool_ir import FUTEX, FUTEX_WAIT_PRIVATE, FUTEX_WAKE_PRIVATE


def lock_text(machine: str) -> str:
    """LLVM text of gc_lock(word, milliseconds) -> 1 when it was taken, and gc_unlock(word)."""
    return TEXT.format(futex=FUTEX[machine], wait=FUTEX_WAIT_PRIVATE, wake=FUTEX_WAKE_PRIVATE)


TEXT = """
define i32 @gc_lock(ptr %word, i64 %milliseconds) nounwind {{
entry:
  %swap = cmpxchg ptr %word, i32 0, i32 1 acquire monotonic
  %free = extractvalue {{ i32, i1 }} %swap, 1
  br i1 %free, label %taken, label %contend
contend:
  %was = atomicrmw xchg ptr %word, i32 2 acquire
  %now = icmp eq i32 %was, 0
  br i1 %now, label %taken, label %wait
wait:
  %time = alloca [2 x i64]
  %nanoseconds = mul i64 %milliseconds, 1000000
  store i64 0, ptr %time
  %fraction = getelementptr i64, ptr %time, i64 1
  store i64 %nanoseconds, ptr %fraction
  %r = call i64 (i64, ...) @syscall(i64 {futex}, ptr %word, i64 {wait}, i64 2, ptr %time, ptr null, i64 0)
  %then = atomicrmw xchg ptr %word, i32 2 acquire
  %later = icmp eq i32 %then, 0
  br i1 %later, label %taken, label %busy
taken:
  ret i32 1
busy:
  ret i32 0
}}

define void @gc_unlock(ptr %word) nounwind {{
entry:
  %was = atomicrmw xchg ptr %word, i32 0 release
  %awaited = icmp eq i32 %was, 2
  br i1 %awaited, label %wake, label %end
wake:
  %r = call i64 (i64, ...) @syscall(i64 {futex}, ptr %word, i64 {wake}, i64 1, ptr null, ptr null, i64 0)
  br label %end
end:
  ret void
}}
"""
