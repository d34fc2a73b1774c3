"""A lock in one 32-bit word, as LLVM text, for state that native code and Python share: 0 free, 1 held, 2 held and waited for.

Python never holds it: what it does under the lock is one native call, which no signal, exception or collection of garbage can leave half done.
"""
from __future__ import annotations

from graphc.runtime.entry_layout import ARRAY_DATA, VERSION_AT
from graphc.runtime.pool_ir import FUTEX, FUTEX_WAIT_PRIVATE, FUTEX_WAKE_PRIVATE


def lock_text(machine: str) -> str:
    """LLVM text of gc_lock(word, milliseconds) -> 1 when it was taken, gc_unlock(word) and gc_transfer."""
    return TEXT.format(futex=FUTEX[machine], wait=FUTEX_WAIT_PRIVATE, wake=FUTEX_WAKE_PRIVATE, version_at=VERSION_AT, data=ARRAY_DATA)


TEXT = """
declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)

define i32 @gc_lock(ptr %word, i64 %milliseconds) nounwind {{
entry:
  %swap = cmpxchg ptr %word, i32 0, i32 1 acquire monotonic
  %free = extractvalue {{ i32, i1 }} %swap, 1
  br i1 %free, label %taken, label %wait
wait:
  call void @await_lock(ptr %word, i64 %milliseconds)
  %late = call i1 @lock_awaited(ptr %word)
  %r = zext i1 %late to i32
  ret i32 %r
taken:
  ret i32 1
}}

; Until the lock may be free, but not longer than so many milliseconds. It is not taken.
define internal void @await_lock(ptr %word, i64 %milliseconds) nounwind {{
entry:
  %time = alloca [2 x i64]
  %swap = cmpxchg ptr %word, i32 1, i32 2 monotonic monotonic
  %was = extractvalue {{ i32, i1 }} %swap, 0
  %held = icmp ne i32 %was, 0
  br i1 %held, label %wait, label %end
wait:
  %nanoseconds = mul i64 %milliseconds, 1000000
  store i64 0, ptr %time
  %fraction = getelementptr i64, ptr %time, i64 1
  store i64 %nanoseconds, ptr %fraction
  %r = call i64 (i64, ...) @syscall(i64 {futex}, ptr %word, i64 {wait}, i64 2, ptr %time, ptr null, i64 0)
  br label %end
end:
  ret void
}}

; Takes the lock if it is free, by one who has waited: others may be waiting still, so its release wakes one.
define internal i1 @lock_awaited(ptr %word) nounwind {{
  %swap = cmpxchg ptr %word, i32 0, i32 2 acquire monotonic
  %free = extractvalue {{ i32, i1 }} %swap, 1
  ret i1 %free
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

; Copies, the lock held, the data of `count` numpy arrays, rows (target, source, bytes), and advances the version by `writes`; nothing if the version is no
; longer `expected` (-1: any). 1: copied; 0: the lock could not be had in that time; 2: another version.
define i32 @gc_transfer(ptr %word, ptr %rows, i64 %count, i64 %writes, i64 %expected, i64 %milliseconds) nounwind {{
entry:
  %got = call i32 @gc_lock(ptr %word, i64 %milliseconds)
  %taken = icmp ne i32 %got, 0
  br i1 %taken, label %look, label %busy
busy:
  ret i32 0
look:
  %version.at = getelementptr i8, ptr %word, i64 {version_at}
  %version = load i64, ptr %version.at
  %any = icmp slt i64 %expected, 0
  %same = icmp eq i64 %version, %expected
  %good = or i1 %any, %same
  %some = icmp sgt i64 %count, 0
  %go = and i1 %good, %some
  br i1 %go, label %loop, label %end
loop:
  %i = phi i64 [ 0, %look ], [ %next, %loop ]
  %row = mul i64 %i, 3
  %target.at = getelementptr i64, ptr %rows, i64 %row
  %source.at = getelementptr i64, ptr %target.at, i64 1
  %bytes.at = getelementptr i64, ptr %target.at, i64 2
  %target.array = load ptr, ptr %target.at
  %source.array = load ptr, ptr %source.at
  %target.data = getelementptr i8, ptr %target.array, i64 {data}
  %source.data = getelementptr i8, ptr %source.array, i64 {data}
  %target = load ptr, ptr %target.data
  %source = load ptr, ptr %source.data
  %bytes = load i64, ptr %bytes.at
  call void @llvm.memmove.p0.p0.i64(ptr %target, ptr %source, i64 %bytes, i1 false)
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %count
  br i1 %more, label %loop, label %end
end:
  %advance = select i1 %good, i64 %writes, i64 0
  %new = add i64 %version, %advance
  store i64 %new, ptr %version.at
  call void @gc_unlock(ptr %word)
  %r = select i1 %good, i32 1, i32 2
  ret i32 %r
}}
"""
