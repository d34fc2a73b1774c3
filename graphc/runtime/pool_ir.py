"""The thread pool as LLVM text. No platform struct is laid out here: threads come from pthread_create, sleep is the futex system call.

A job is published by one exchange of the *ticket*, which packs, from high to low, sequence number (32 bits), free places (16), joined
workers (16). A worker joins by compare-and-swap, which gives it its participant number; the caller closes the ticket when no tile is left
and then waits only for those who joined. So a worker that wakes late delays nobody, and no worker can touch the tile counter of a later job.

Waking a sleeping thread costs the waker 2 us on bare metal and 60 us in some virtual machines. So nobody is woken before a first tile has
shown that the work left is worth it, each participant wakes one other at a time, and workers spin as long as a few wakes cost.

Who is taken off its CPU in the middle of a tile is relieved by one who waits for it (`preemption_ir`).

The tiles are cut into *ranges*, about one for each participant, who begins with the same range in every job: what a kernel left in the
caches of a core is mostly what the next one reads there. Who has finished a range helps with the next.
"""
from __future__ import annotations

from graphc.codegen.abi import OFFSETS
from graphc.errors import InternalError
from graphc.runtime.preemption_ir import CHECK_NS, MAX_POSTS, POST_BYTES, SHARE, STALL_BYTES, relief_text
from graphc.runtime.share_ir import MASK_WORDS, share_text

# Offsets in the pool's memory; what is written by different threads lies on different cache lines.
LOCK, WORKERS, SPIN, WAKE_NS, BORN, MASK_AT = 0, 8, 16, 24, 32, 40
TICKET, SEQUENCE, SLEEPERS = 64, 68, 72
FUNCTION, FRAME, CONTEXT, TILES, RANGES = 128, 136, 144, 152, 160
CALLER_CPU, MASK_VERSION, MASK_BYTES = 168, 176, 184
LEFT, WAITING, RELIEVED = 192, 196, 200
NEXT, NEXT_BYTES = 256, 64      # the next tile of each range
MAX_RANGES = 32
POSTS = NEXT + MAX_RANGES * NEXT_BYTES
STALLS = POSTS + (MAX_POSTS + 1) * POST_BYTES
MASK = STALLS + STALL_BYTES     # the CPUs where the caller, and so all participants, may run
POOL_BYTES = MASK + 8 * MASK_WORDS
MAX_WORKERS = (1 << 15) - 1
SPIN_WAKES = 4                  # spin as long as so many wakes cost
LEAST_SPIN_NS, MOST_SPIN_NS = 50_000, 400_000
LOOK_NS = 100_000               # how long a caller sleeps before it looks after those it waits for
LEAST_WAKE_NS, MOST_WAKE_NS = 1_000, 100_000

PAUSE = {"x86_64": "llvm.x86.sse2.pause()", "aarch64": "llvm.aarch64.hint(i32 1)"}
PAUSE_TYPE = {"x86_64": "llvm.x86.sse2.pause()", "aarch64": "llvm.aarch64.hint(i32)"}
FUTEX = {"x86_64": 202, "aarch64": 98}
GETTID = {"x86_64": 186, "aarch64": 178}
SIGPROCMASK = {"x86_64": 14, "aarch64": 135}
FUTEX_WAIT_PRIVATE, FUTEX_WAKE_PRIVATE = 128, 129


def pool_text(machine: str) -> str:
    """LLVM text of gc_parallel, gc_spin and what they call; `machine`: "x86_64" or "aarch64"."""
    if machine not in PAUSE:
        raise InternalError(f"no thread pool for {machine}", "runtime")
    names = dict(_OFFSETS, pause=PAUSE[machine], pause_type=PAUSE_TYPE[machine], futex=FUTEX[machine], gettid=GETTID[machine],
                 sigprocmask=SIGPROCMASK[machine])
    return TEXT.format(**names) + share_text(machine, CALLER_CPU, WORKERS, MASK, MASK_BYTES, MASK_VERSION, MASK_AT) + relief_text(machine, POSTS, STALLS, WORKERS, RELIEVED)


_OFFSETS = dict(
    workers=WORKERS, spin=SPIN, wake_ns=WAKE_NS, wakes=SPIN_WAKES, least_ns=LEAST_SPIN_NS, most_ns=MOST_SPIN_NS,
    least_wake_ns=LEAST_WAKE_NS, most_wake_ns=MOST_WAKE_NS,
    ticket=TICKET, sequence=SEQUENCE, sleepers=SLEEPERS, function=FUNCTION, frame=FRAME, context=CONTEXT,
    born=BORN, mask_version=MASK_VERSION, caller_cpu=CALLER_CPU, mask_words=MASK_WORDS,
    share=SHARE, check_ns=CHECK_NS, look_ns=LOOK_NS,
    tiles=TILES, ranges=RANGES, next=NEXT, next_bytes=NEXT_BYTES, max_ranges=MAX_RANGES, left=LEFT, waiting=WAITING, max_workers=MAX_WORKERS, wait=FUTEX_WAIT_PRIVATE, wake=FUTEX_WAKE_PRIVATE,
    ctx_pool=OFFSETS["pool"], ctx_threads=OFFSETS["threads"], ctx_scratch=OFFSETS["scratch"],
    ctx_scratch_bytes=OFFSETS["scratch_bytes"], ctx_cancel=OFFSETS["cancel"])

TEXT = """
declare void @{pause_type}
declare i64 @syscall(i64, ...)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_detach(i64)
declare i32 @sched_getcpu()
declare i32 @clock_gettime(i32, ptr)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)

; The runtime's entry: run fn(ctx, frame, tile, scratch) for every tile; back when all are done (or the call is cancelled).
define void @gc_parallel(ptr %ctx, ptr %fn, ptr %frame, i64 %tiles) nounwind {{
entry:
  %threads.at = getelementptr i8, ptr %ctx, i64 {ctx_threads}
  %threads = load i64, ptr %threads.at
  %some = call i64 @llvm.smin.i64(i64 %threads, i64 %tiles)
  %several = icmp sgt i64 %some, 1
  br i1 %several, label %try, label %alone
try:
  %pool.at = getelementptr i8, ptr %ctx, i64 {ctx_pool}
  %pool = load ptr, ptr %pool.at
  %taken = cmpxchg ptr %pool, i32 0, i32 1 acquire monotonic
  %free = extractvalue {{ i32, i1 }} %taken, 1
  br i1 %free, label %together, label %alone
together:
  %others = sub i64 %some, 1
  %want = call i64 @llvm.smin.i64(i64 %others, i64 {max_workers})
  call void @run_job(ptr %pool, ptr %ctx, ptr %fn, ptr %frame, i64 %tiles, i64 %want)
  store atomic i32 0, ptr %pool release, align 4
  ret void
alone:
  call void @run_alone(ptr %ctx, ptr %fn, ptr %frame, i64 %tiles)
  ret void
}}

; Busy-waits n rounds: the runtime times it to turn microseconds into rounds.
define void @gc_spin(i64 %n) nounwind {{
entry:
  br label %loop
loop:
  %i = phi i64 [ %n, %entry ], [ %rest, %loop ]
  call void @{pause}
  %rest = sub i64 %i, 1
  %more = icmp sgt i64 %rest, 0
  br i1 %more, label %loop, label %end
end:
  ret void
}}

define internal void @run_alone(ptr %ctx, ptr %fn, ptr %frame, i64 %tiles) nounwind {{
entry:
  %scratch.at = getelementptr i8, ptr %ctx, i64 {ctx_scratch}
  %scratch = load ptr, ptr %scratch.at
  %cancel.at = getelementptr i8, ptr %ctx, i64 {ctx_cancel}
  %any = icmp sgt i64 %tiles, 0
  br i1 %any, label %loop, label %end
loop:
  %t = phi i64 [ 0, %entry ], [ %next, %step ]
  %cancel = load atomic i64, ptr %cancel.at monotonic, align 8
  %stop = icmp sgt i64 %cancel, 0
  br i1 %stop, label %end, label %step
step:
  call void %fn(ptr %ctx, ptr %frame, i64 %t, ptr %scratch)
  %next = add i64 %t, 1
  %more = icmp slt i64 %next, %tiles
  br i1 %more, label %loop, label %end
end:
  ret void
}}

define internal void @run_job(ptr %pool, ptr %ctx, ptr %fn, ptr %frame, i64 %tiles, i64 %want) nounwind {{
entry:
  call void @follow(ptr %pool)
  call void @grow(ptr %pool, i64 %want)
  %fn.at = getelementptr i8, ptr %pool, i64 {function}
  store ptr %fn, ptr %fn.at
  %frame.at = getelementptr i8, ptr %pool, i64 {frame}
  store ptr %frame, ptr %frame.at
  %ctx.at = getelementptr i8, ptr %pool, i64 {context}
  store ptr %ctx, ptr %ctx.at
  %tiles.at = getelementptr i8, ptr %pool, i64 {tiles}
  store i64 %tiles, ptr %tiles.at
  %participants = add i64 %want, 1
  %ranges = call i64 @llvm.smin.i64(i64 %participants, i64 {max_ranges})
  %ranges.at = getelementptr i8, ptr %pool, i64 {ranges}
  store i64 %ranges, ptr %ranges.at
  br label %range
range:
  %r = phi i64 [ 0, %entry ], [ %r.next, %range ]
  %first = call i64 @range_start(i64 %r, i64 %ranges, i64 %tiles)
  %next.at = call ptr @range_next(ptr %pool, i64 %r)
  store atomic i64 %first, ptr %next.at monotonic, align 8
  %r.next = add i64 %r, 1
  %more = icmp slt i64 %r.next, %ranges
  br i1 %more, label %range, label %publish
publish:
  %left.at = getelementptr i8, ptr %pool, i64 {left}
  %left.before = load atomic i32, ptr %left.at monotonic, align 4
  %ticket.at = getelementptr i8, ptr %pool, i64 {ticket}
  %old = load atomic i64, ptr %ticket.at monotonic, align 8
  %sequence.old = and i64 %old, -4294967296
  %sequence = add i64 %sequence.old, 4294967296
  %places = shl i64 %want, 16
  %ticket = or i64 %sequence, %places
  %cpu = call i32 @sched_getcpu()
  %cpu.at = getelementptr i8, ptr %pool, i64 {caller_cpu}
  store atomic i32 %cpu, ptr %cpu.at monotonic, align 4
  %post = call ptr @post(ptr %pool, i64 0)
  %thread = call i64 (i64, ...) @syscall(i64 {gettid})
  %job = lshr i64 %ticket, 32
  call void @take_post(ptr %post, i64 %thread, i64 %job)
  %was = atomicrmw xchg ptr %ticket.at, i64 %ticket seq_cst
  %scratch.at = getelementptr i8, ptr %ctx, i64 {ctx_scratch}
  %scratch = load ptr, ptr %scratch.at
  call void @claim_tiles(ptr %pool, ptr %ctx, ptr %fn, ptr %frame, i64 %tiles, ptr %scratch, i64 0)
  %closed = atomicrmw and ptr %ticket.at, i64 -4294901761 acq_rel
  %joined = and i64 %closed, 65535
  %joined.32 = trunc i64 %joined to i32
  %goal = add i32 %left.before, %joined.32
  call void @await(ptr %pool, ptr %post, i32 %goal)
  call void @leave_post(ptr %post)
  call void @await_post(ptr %post)
  ret void
}}

; Until `left` reaches `goal`: spin for a while, then sleep, looking after those who are still at their posts.
define internal void @await(ptr %pool, ptr %post, i32 %goal) nounwind {{
entry:
  %limit = alloca [2 x i64]
  %left.at = getelementptr i8, ptr %pool, i64 {left}
  %spin = call i64 @patience(ptr %pool)
  br label %loop
loop:
  %i = phi i64 [ %spin, %entry ], [ %rest, %again ]
  %left = load atomic i32, ptr %left.at acquire, align 4
  %all = icmp eq i32 %left, %goal
  br i1 %all, label %end, label %again
again:
  call void @{pause}
  %rest = sub i64 %i, 1
  %more = icmp sgt i64 %rest, 0
  br i1 %more, label %loop, label %sleep
sleep:
  call void @leave_post(ptr %post)
  %limit.ns = getelementptr i64, ptr %limit, i64 1
  store i64 0, ptr %limit
  store i64 {look_ns}, ptr %limit.ns
  %waiting.at = getelementptr i8, ptr %pool, i64 {waiting}
  store atomic i32 1, ptr %waiting.at seq_cst, align 4
  br label %look
look:
  %now = load atomic i32, ptr %left.at seq_cst, align 4
  %done = icmp eq i32 %now, %goal
  br i1 %done, label %clear, label %wait
wait:
  call void @relieve(ptr %pool, i64 0)
  %now.64 = zext i32 %now to i64
  %r = call i64 (i64, ...) @syscall(i64 {futex}, ptr %left.at, i64 {wait}, i64 %now.64, ptr %limit, ptr null, i64 0)
  br label %look
clear:
  store atomic i32 0, ptr %waiting.at seq_cst, align 4
  br label %end
end:
  ret void
}}

; The first tile of range r, and where its next tile is counted.
define internal i64 @range_start(i64 %r, i64 %ranges, i64 %tiles) nounwind {{
  %part = mul i64 %r, %tiles
  %start = udiv i64 %part, %ranges
  ret i64 %start
}}

define internal ptr @range_next(ptr %pool, i64 %r) nounwind {{
  %line = mul i64 %r, {next_bytes}
  %offset = add i64 %line, {next}
  %at = getelementptr i8, ptr %pool, i64 %offset
  ret ptr %at
}}

; Claims and runs tiles, from range `home` on, until none is left.
define internal void @claim_tiles(ptr %pool, ptr %ctx, ptr %fn, ptr %frame, i64 %tiles, ptr %scratch, i64 %home) nounwind {{
entry:
  %ranges.at = getelementptr i8, ptr %pool, i64 {ranges}
  %ranges = load i64, ptr %ranges.at
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %loop ]
  %after = add i64 %home, %i
  %r = urem i64 %after, %ranges
  call void @claim_range(ptr %pool, ptr %ctx, ptr %fn, ptr %frame, i64 %tiles, ptr %scratch, i64 %r, i64 %ranges)
  %i.next = add i64 %i, 1
  %more = icmp slt i64 %i.next, %ranges
  br i1 %more, label %loop, label %end
end:
  ret void
}}

; Claims and runs tiles of one range. While places are free and workers sleep, tiles are timed to see whether help would pay.
define internal void @claim_range(ptr %pool, ptr %ctx, ptr %fn, ptr %frame, i64 %tiles, ptr %scratch, i64 %r, i64 %ranges) nounwind {{
entry:
  %next.at = call ptr @range_next(ptr %pool, i64 %r)
  %r.next = add i64 %r, 1
  %last = call i64 @range_start(i64 %r.next, i64 %ranges, i64 %tiles)
  %ticket.at = getelementptr i8, ptr %pool, i64 {ticket}
  %sleepers.at = getelementptr i8, ptr %pool, i64 {sleepers}
  %cancel.at = getelementptr i8, ptr %ctx, i64 {ctx_cancel}
  br label %loop
loop:
  %cancel = load atomic i64, ptr %cancel.at monotonic, align 8
  %stop = icmp sgt i64 %cancel, 0
  br i1 %stop, label %end, label %see
see:
  %seen = load atomic i64, ptr %next.at monotonic, align 8
  %any = icmp slt i64 %seen, %last
  br i1 %any, label %claim, label %end
claim:
  %t = atomicrmw add ptr %next.at, i64 1 monotonic
  %mine = icmp slt i64 %t, %last
  br i1 %mine, label %run, label %end
run:
  %sleepers = load atomic i32, ptr %sleepers.at monotonic, align 4
  %ticket = load atomic i64, ptr %ticket.at monotonic, align 8
  %places = and i64 %ticket, 4294901760
  %asleep = icmp ne i32 %sleepers, 0
  %free = icmp ne i64 %places, 0
  %lonely = and i1 %asleep, %free
  br i1 %lonely, label %timed, label %plain
plain:
  call void %fn(ptr %ctx, ptr %frame, i64 %t, ptr %scratch)
  br label %loop
timed:
  %start = call i64 @now()
  call void %fn(ptr %ctx, ptr %frame, i64 %t, ptr %scratch)
  %stopped = call i64 @now()
  %cost = sub i64 %stopped, %start
  %rest = call i64 @unclaimed(ptr %pool, i64 %tiles, i64 %ranges)
  %work = mul i64 %rest, %cost
  %wake.at = getelementptr i8, ptr %pool, i64 {wake_ns}
  %wake = load atomic i64, ptr %wake.at monotonic, align 8
  %price = mul i64 %wake, 2
  %worth = icmp sgt i64 %work, %price
  br i1 %worth, label %wake.one, label %loop
wake.one:
  call void @wake_one(ptr %pool, i64 %stopped)
  br label %loop
end:
  ret void
}}

; Tiles of all ranges that nobody has claimed yet.
define internal i64 @unclaimed(ptr %pool, i64 %tiles, i64 %ranges) nounwind {{
entry:
  br label %loop
loop:
  %r = phi i64 [ 0, %entry ], [ %r.next, %loop ]
  %sum = phi i64 [ 0, %entry ], [ %sum.next, %loop ]
  %next.at = call ptr @range_next(ptr %pool, i64 %r)
  %next = load atomic i64, ptr %next.at monotonic, align 8
  %r.next = add i64 %r, 1
  %last = call i64 @range_start(i64 %r.next, i64 %ranges, i64 %tiles)
  %rest = sub i64 %last, %next
  %rest.some = call i64 @llvm.smax.i64(i64 %rest, i64 0)
  %sum.next = add i64 %sum, %rest.some
  %more = icmp slt i64 %r.next, %ranges
  br i1 %more, label %loop, label %end
end:
  ret i64 %sum.next
}}

; Wakes one sleeping worker and moves the estimate of what that costs a step up or down: it settles at the median, whatever preemption adds.
define internal void @wake_one(ptr %pool, i64 %start) nounwind {{
  %sequence.at = getelementptr i8, ptr %pool, i64 {sequence}
  %woken = call i64 (i64, ...) @syscall(i64 {futex}, ptr %sequence.at, i64 {wake}, i64 1, ptr null, ptr null, i64 0)
  %end = call i64 @now()
  %cost = sub i64 %end, %start
  %wake.at = getelementptr i8, ptr %pool, i64 {wake_ns}
  %median = load atomic i64, ptr %wake.at monotonic, align 8
  %part = sdiv i64 %median, 8
  %up = add i64 %median, %part
  %down = sub i64 %median, %part
  %above = icmp sgt i64 %cost, %median
  %moved = select i1 %above, i64 %up, i64 %down
  %floor = call i64 @llvm.smax.i64(i64 %moved, i64 {least_wake_ns})
  %new = call i64 @llvm.smin.i64(i64 %floor, i64 {most_wake_ns})
  store atomic i64 %new, ptr %wake.at monotonic, align 8
  ret void
}}

; Rounds to spin before sleeping: as long as it costs to be woken several times over, within bounds.
define internal i64 @patience(ptr %pool) nounwind {{
  %wake.at = getelementptr i8, ptr %pool, i64 {wake_ns}
  %wake = load atomic i64, ptr %wake.at monotonic, align 8
  %several = mul i64 %wake, {wakes}
  %least = call i64 @llvm.smax.i64(i64 %several, i64 {least_ns})
  %bounded = call i64 @llvm.smin.i64(i64 %least, i64 {most_ns})
  %rounds = call i64 @rounds(ptr %pool, i64 %bounded)
  ret i64 %rounds
}}

; How often a waiting loop goes round in so many nanoseconds.
define internal i64 @rounds(ptr %pool, i64 %ns) nounwind {{
  %spin.at = getelementptr i8, ptr %pool, i64 {spin}
  %rate = load i64, ptr %spin.at
  %scaled = mul i64 %rate, %ns
  %rounds = sdiv i64 %scaled, 1000
  ret i64 %rounds
}}

; Nanoseconds of the monotonic clock.
define internal i64 @now() nounwind {{
  %ns = call i64 @clock(i32 1)
  ret i64 %ns
}}

; Nanoseconds of a clock; -1 when the system does not tell.
define internal i64 @clock(i32 %which) nounwind {{
entry:
  %time = alloca [2 x i64]
  %r = call i32 @clock_gettime(i32 %which, ptr %time)
  %ok = icmp eq i32 %r, 0
  br i1 %ok, label %read, label %unknown
read:
  %seconds = load i64, ptr %time
  %fraction.at = getelementptr i64, ptr %time, i64 1
  %fraction = load i64, ptr %fraction.at
  %whole = mul i64 %seconds, 1000000000
  %ns = add i64 %whole, %fraction
  ret i64 %ns
unknown:
  ret i64 -1
}}

; Starts workers up to `want`, with all signals blocked in them; keeps what it has when the system gives no more.
define internal void @grow(ptr %pool, i64 %want) nounwind {{
entry:
  %workers.at = getelementptr i8, ptr %pool, i64 {workers}
  %have = load i64, ptr %workers.at
  %enough = icmp sge i64 %have, %want
  br i1 %enough, label %end, label %block
block:
  %all = alloca i64
  %before = alloca i64
  %thread = alloca i64
  store i64 -1, ptr %all
  %b = call i64 (i64, ...) @syscall(i64 {sigprocmask}, i64 0, ptr %all, ptr %before, i64 8)
  br label %loop
loop:
  %n = phi i64 [ %have, %block ], [ %n.next, %started ]
  %failed = call i32 @pthread_create(ptr %thread, ptr null, ptr @worker, ptr %pool)
  %ok = icmp eq i32 %failed, 0
  br i1 %ok, label %started, label %restore
started:
  %id = load i64, ptr %thread
  %d = call i32 @pthread_detach(i64 %id)
  %n.next = add i64 %n, 1
  store i64 %n.next, ptr %workers.at
  %more = icmp slt i64 %n.next, %want
  br i1 %more, label %loop, label %restore
restore:
  %u = call i64 (i64, ...) @syscall(i64 {sigprocmask}, i64 2, ptr %before, ptr null, i64 8)
  br label %end
end:
  ret void
}}

define internal ptr @worker(ptr %pool) nounwind {{
entry:
  %mask = alloca [{mask_words} x i64]
  %worn.at = alloca i64
  %worn.first = call i64 @wear(ptr %pool, ptr %mask)
  store i64 %worn.first, ptr %worn.at
  %born.at = getelementptr i8, ptr %pool, i64 {born}
  %k.self = atomicrmw add ptr %born.at, i64 1 monotonic
  %k.post = add i64 %k.self, 1
  %post = call ptr @post(ptr %pool, i64 %k.post)
  %share.at = getelementptr i8, ptr %post, i64 {share}
  store atomic i64 %k.self, ptr %share.at monotonic, align 8
  %thread = call i64 (i64, ...) @syscall(i64 {gettid})
  %check = call i64 @rounds(ptr %pool, i64 {check_ns})
  %ticket.at = getelementptr i8, ptr %pool, i64 {ticket}
  %sleepers.at = getelementptr i8, ptr %pool, i64 {sleepers}
  %sequence.at = getelementptr i8, ptr %pool, i64 {sequence}
  %first = load atomic i64, ptr %ticket.at acquire, align 8
  %first.high = lshr i64 %first, 32
  %none = xor i64 %first.high, 4294967295
  br label %rest
rest:
  %seen.rest = phi i64 [ %none, %entry ], [ %seen, %awake ], [ %sequence, %home ]
  %spin = call i64 @patience(ptr %pool)
  br label %look
look:
  %seen = phi i64 [ %seen.rest, %rest ], [ %seen, %pause ], [ %seen, %relieve ], [ %seen, %join ], [ %sequence, %fresh ]
  %i = phi i64 [ %spin, %rest ], [ %less, %pause ], [ %less, %relieve ], [ %i, %join ], [ %i, %fresh ]
  %ticket = load atomic i64, ptr %ticket.at acquire, align 8
  %sequence = lshr i64 %ticket, 32
  %same = icmp eq i64 %sequence, %seen
  br i1 %same, label %pause, label %fresh
pause:
  call void @{pause}
  %less = sub i64 %i, 1
  %phase = urem i64 %less, %check
  %due = icmp eq i64 %phase, 0
  br i1 %due, label %relieve, label %look
relieve:
  call void @relieve(ptr %pool, i64 %k.post)
  %patient = icmp sgt i64 %less, 0
  br i1 %patient, label %look, label %sleep
sleep:
  %s = atomicrmw add ptr %sleepers.at, i32 1 seq_cst
  %share = load atomic i64, ptr %share.at monotonic, align 8
  %held = call i1 @try_post(ptr %post)
  br i1 %held, label %bind, label %doze
bind:
  %mask.bytes = call i64 @take_share(ptr %pool, ptr %mask, i64 %share)
  br label %doze
doze:
  %bound = phi i64 [ 0, %sleep ], [ %mask.bytes, %bind ]
  %f = call i64 (i64, ...) @syscall(i64 {futex}, ptr %sequence.at, i64 {wait}, i64 %seen, ptr null, ptr null, i64 0)
  br i1 %held, label %unbind, label %awake
unbind:
  call void @leave_share(ptr %pool, ptr %mask, i64 %bound, ptr %worn.at)
  call void @free_post(ptr %post)
  br label %awake
awake:
  %a = atomicrmw sub ptr %sleepers.at, i32 1 seq_cst
  br label %rest
fresh:
  %low = lshr i64 %ticket, 16
  %places = and i64 %low, 65535
  %full = icmp eq i64 %places, 0
  br i1 %full, label %look, label %join
join:
  %joined.ticket = sub i64 %ticket, 65535
  %swap = cmpxchg ptr %ticket.at, i64 %ticket, i64 %joined.ticket acq_rel monotonic
  %in = extractvalue {{ i64, i1 }} %swap, 1
  br i1 %in, label %work, label %look
work:
  %version.at = getelementptr i8, ptr %pool, i64 {mask_version}
  %version = load atomic i64, ptr %version.at monotonic, align 8
  %worn = load i64, ptr %worn.at
  %as.worn = icmp eq i64 %version, %worn
  br i1 %as.worn, label %begin, label %change
change:
  %changing = call i1 @try_post(ptr %post)
  br i1 %changing, label %wear, label %begin
wear:
  %wears = call i64 @wear(ptr %pool, ptr %mask)
  store i64 %wears, ptr %worn.at
  call void @free_post(ptr %post)
  br label %begin
begin:
  %before = and i64 %ticket, 65535
  %k = add i64 %before, 1
  %fn.at = getelementptr i8, ptr %pool, i64 {function}
  %fn = load ptr, ptr %fn.at
  %frame.at = getelementptr i8, ptr %pool, i64 {frame}
  %frame = load ptr, ptr %frame.at
  %ctx.at = getelementptr i8, ptr %pool, i64 {context}
  %ctx = load ptr, ptr %ctx.at
  %tiles.at = getelementptr i8, ptr %pool, i64 {tiles}
  %tiles = load i64, ptr %tiles.at
  %base.at = getelementptr i8, ptr %ctx, i64 {ctx_scratch}
  %base = load ptr, ptr %base.at
  %bytes.at = getelementptr i8, ptr %ctx, i64 {ctx_scratch_bytes}
  %bytes = load i64, ptr %bytes.at
  %offset = mul i64 %k, %bytes
  %scratch = getelementptr i8, ptr %base, i64 %offset
  %ranges.at = getelementptr i8, ptr %pool, i64 {ranges}
  %ranges = load i64, ptr %ranges.at
  %others = sub i64 %ranges, 1
  %turn = urem i64 %k.self, %others
  %range = add i64 %turn, 1
  call void @take_post(ptr %post, i64 %thread, i64 %sequence)
  call void @claim_tiles(ptr %pool, ptr %ctx, ptr %fn, ptr %frame, i64 %tiles, ptr %scratch, i64 %range)
  call void @leave_post(ptr %post)
  br label %leave
leave:
  %left.at = getelementptr i8, ptr %pool, i64 {left}
  %l = atomicrmw add ptr %left.at, i32 1 seq_cst
  %waiting.at = getelementptr i8, ptr %pool, i64 {waiting}
  %waiting = load atomic i32, ptr %waiting.at seq_cst, align 4
  %awaited = icmp ne i32 %waiting, 0
  br i1 %awaited, label %wake, label %home
wake:
  %w = call i64 (i64, ...) @syscall(i64 {futex}, ptr %left.at, i64 {wake}, i64 1, ptr null, ptr null, i64 0)
  br label %home
home:
  call void @go_home(ptr %post)
  br label %rest
}}
"""
