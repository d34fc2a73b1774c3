"""CPUs of sleeping pool workers, as LLVM text.

A scheduler that packs threads wakes a worker where its caller or another worker runs, to no use. So each is bound, while it sleeps, to a share of
the CPUs of its own, the caller's CPU left out, and is free again when it is awake. Nobody waits for a worker that has not joined a job: a share
that other processes keep busy costs a helper, not time.

Workers may run where their caller may, also after that has changed (taskset, sched_setaffinity, a cpuset): the caller looks, now and then, at its
own mask when it begins a job, and workers put on the new one when they wake or join.
"""
from __future__ import annotations

SETAFFINITY = {"x86_64": 203, "aarch64": 122}
GETAFFINITY = {"x86_64": 204, "aarch64": 123}
MASK_WORDS = 128                # CPUs / 64 that an affinity mask has room for
FOLLOW_NS = 20_000_000          # between two looks of callers at their mask


def share_text(machine: str, caller_cpu: int, workers: int, mask: int, bytes_at: int, version: int, looked_at: int) -> str:
    """LLVM text of follow, wear, take_share and leave_share; the numbers are offsets in the pool's memory."""
    return TEXT.format(mask=mask, bytes_at=bytes_at, version=version, looked_at=looked_at, follow_ns=FOLLOW_NS, caller_cpu=caller_cpu, workers=workers, mask_words=MASK_WORDS, mask_bytes=8 * MASK_WORDS,
                       setaffinity=SETAFFINITY[machine], getaffinity=GETAFFINITY[machine])


TEXT = """
declare i32 @memcmp(ptr, ptr, i64)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)

; The caller, who has the pool, notes where it may run, at most every so often. The version is odd while that is written.
define internal void @follow(ptr %pool) nounwind {{
entry:
  %mine = alloca [{mask_words} x i64]
  %looked.at = getelementptr i8, ptr %pool, i64 {looked_at}
  %looked = load i64, ptr %looked.at
  %now = call i64 @now()
  %passed = sub i64 %now, %looked
  %due = icmp sge i64 %passed, {follow_ns}
  br i1 %due, label %read, label %end
read:
  store i64 %now, ptr %looked.at
  %bytes = call i64 (i64, ...) @syscall(i64 {getaffinity}, i64 0, i64 {mask_bytes}, ptr %mine)
  %got = icmp sgt i64 %bytes, 0
  br i1 %got, label %compare, label %end
compare:
  %bytes.at = getelementptr i8, ptr %pool, i64 {bytes_at}
  %noted = load i64, ptr %bytes.at
  %mask.at = getelementptr i8, ptr %pool, i64 {mask}
  %differs = call i32 @memcmp(ptr %mine, ptr %mask.at, i64 %bytes)
  %equal = icmp eq i32 %differs, 0
  %long = icmp eq i64 %noted, %bytes
  %same = and i1 %equal, %long
  br i1 %same, label %end, label %write
write:
  %version.at = getelementptr i8, ptr %pool, i64 {version}
  %o = atomicrmw add ptr %version.at, i64 1 seq_cst
  call void @llvm.memcpy.p0.p0.i64(ptr %mask.at, ptr %mine, i64 %bytes, i1 false)
  store i64 %bytes, ptr %bytes.at
  %e = atomicrmw add ptr %version.at, i64 1 seq_cst
  br label %end
end:
  ret void
}}

; Copies what the caller has noted; its bytes, and its version to `version.out`.
define internal i64 @noted(ptr %pool, ptr %mask, ptr %version.out) nounwind {{
entry:
  %version.at = getelementptr i8, ptr %pool, i64 {version}
  %bytes.at = getelementptr i8, ptr %pool, i64 {bytes_at}
  %mask.at = getelementptr i8, ptr %pool, i64 {mask}
  br label %loop
loop:
  %before = load atomic i64, ptr %version.at acquire, align 8
  %bytes = load volatile i64, ptr %bytes.at
  call void @llvm.memcpy.p0.p0.i64(ptr %mask, ptr %mask.at, i64 {mask_bytes}, i1 true)
  fence acquire
  %after = load atomic i64, ptr %version.at monotonic, align 8
  %odd = trunc i64 %before to i1
  %moved = icmp ne i64 %before, %after
  %torn = or i1 %odd, %moved
  br i1 %torn, label %loop, label %end
end:
  store i64 %before, ptr %version.out
  ret i64 %bytes
}}

; This thread may run where the caller may; the version of that.
define internal i64 @wear(ptr %pool, ptr %mask) nounwind {{
entry:
  %version.at = alloca i64
  %bytes = call i64 @noted(ptr %pool, ptr %mask, ptr %version.at)
  %some = icmp sgt i64 %bytes, 0
  br i1 %some, label %set, label %end
set:
  %r = call i64 (i64, ...) @syscall(i64 {setaffinity}, i64 0, i64 %bytes, ptr %mask)
  br label %end
end:
  %version = load i64, ptr %version.at
  ret i64 %version
}}

; Binds worker k to its share. Returns the bytes of the mask that it is a share of, left in `mask`; not above 0 when it is not known.
define internal i64 @take_share(ptr %pool, ptr %mask, i64 %k) nounwind {{
entry:
  %share = alloca [{mask_words} x i64]
  %version = alloca i64
  %bytes = call i64 @noted(ptr %pool, ptr %mask, ptr %version)
  %got = icmp sgt i64 %bytes, 0
  br i1 %got, label %start, label %end
start:
  %caller.at = getelementptr i8, ptr %pool, i64 {caller_cpu}
  %caller.32 = load atomic i32, ptr %caller.at monotonic, align 4
  %caller = sext i32 %caller.32 to i64
  %workers.at = getelementptr i8, ptr %pool, i64 {workers}
  %workers = load atomic i64, ptr %workers.at monotonic, align 8
  %total = call i64 @mark_share(ptr %mask, i64 %bytes, i64 %caller, ptr %share, i64 1, i64 0)
  %parts = call i64 @llvm.smin.i64(i64 %workers, i64 %total)
  %any = icmp sgt i64 %parts, 0
  br i1 %any, label %bind, label %end
bind:
  %part = urem i64 %k, %parts
  %again = call i64 @mark_share(ptr %mask, i64 %bytes, i64 %caller, ptr %share, i64 %parts, i64 %part)
  %r = call i64 (i64, ...) @syscall(i64 {setaffinity}, i64 0, i64 %bytes, ptr %share)
  br label %end
end:
  ret i64 %bytes
}}

; Marks in `share` every `parts`-th CPU of `mask`, `part` being the first, the caller's CPU left out; returns how many there are to share.
define internal i64 @mark_share(ptr %mask, i64 %bytes, i64 %caller, ptr %share, i64 %parts, i64 %part) nounwind {{
entry:
  %cpus = shl i64 %bytes, 3
  br label %loop
loop:
  %cpu = phi i64 [ 0, %entry ], [ %cpu.next, %loop ]
  %rank = phi i64 [ 0, %entry ], [ %rank.next, %loop ]
  %index = lshr i64 %cpu, 6
  %bit = and i64 %cpu, 63
  %mask.at = getelementptr i64, ptr %mask, i64 %index
  %allowed = load i64, ptr %mask.at
  %shifted = lshr i64 %allowed, %bit
  %odd = trunc i64 %shifted to i1
  %other = icmp ne i64 %cpu, %caller
  %counts = and i1 %odd, %other
  %turn = urem i64 %rank, %parts
  %due = icmp eq i64 %turn, %part
  %mine = and i1 %counts, %due
  %mine.64 = zext i1 %mine to i64
  %flag = shl i64 %mine.64, %bit
  %share.at = getelementptr i64, ptr %share, i64 %index
  %first = icmp eq i64 %bit, 0
  %old = load i64, ptr %share.at
  %so.far = select i1 %first, i64 0, i64 %old
  %new = or i64 %so.far, %flag
  store i64 %new, ptr %share.at
  %step = zext i1 %counts to i64
  %rank.next = add i64 %rank, %step
  %cpu.next = add i64 %cpu, 1
  %more = icmp slt i64 %cpu.next, %cpus
  br i1 %more, label %loop, label %end
end:
  ret i64 %rank.next
}}

define internal void @leave_share(ptr %pool, ptr %mask, i64 %bytes, ptr %worn) nounwind {{
entry:
  %known = icmp sgt i64 %bytes, 0
  br i1 %known, label %free, label %end
free:
  %version = call i64 @wear(ptr %pool, ptr %mask)
  store i64 %version, ptr %worn
  br label %end
end:
  ret void
}}
"""
