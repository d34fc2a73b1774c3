"""Relief of a thread that the system has taken off its CPU in the middle of a tile, as LLVM text.

A core that another process uses too runs one of the two at a time, for milliseconds, and a kernel ends with its slowest tile. An idle worker therefore
samples the CPU time of each busy worker twice; if it has not advanced, that worker is preempted. The idle worker then changes CPUs with it: the tile goes
on at once, and the idle worker waits for the loaded core instead. A caller, which the user's program needs back, only lends its CPU while it sleeps: the
worker returns to its own CPU as soon as the tile is done. If workers were lately preempted on more than half of the CPUs, nobody moves: programs that want
all CPUs share them best when each runs, waits and sleeps as a whole.

Threads move by having their affinity narrowed to one CPU and widened again. Each post's lock is held meanwhile, and by a worker whose affinity is
bound for sleep, so that nobody takes a narrowed affinity for a thread's own. The caller waits for that lock before it goes back to the user.
"""
from __future__ import annotations

from graphc.runtime.share_ir import GETAFFINITY, MASK_WORDS, SETAFFINITY

# A post, two cache lines: what its thread writes, and what those who watch it do.
THREAD, CPU, JOB, SHARE, HOME = 0, 8, 16, 24, 32        # HOME: the CPU to go back to, counted from 1
LOCK, WATCHER, SEEN_JOB, SEEN_RUN, SEEN_AT = 64, 72, 80, 88, 96
POST_BYTES = 128
MAX_POSTS = 256                 # the caller's and those of the first workers
CHECK_NS = 20_000               # between two looks at a thread
MOVE_NS = 50_000                # what a move may take
STALL_SLOTS = 64                # when a thread stood still on a CPU last, CPUs counted modulo this
STALL_BYTES = 8 * STALL_SLOTS
LATELY_NS = 20_000_000
RUNNING = 4                     # a thread that has run less than this part of the time stands still

YIELD = {"x86_64": 24, "aarch64": 124}


def relief_text(machine: str, posts: int, stalls: int, workers: int, relieved: int) -> str:
    """LLVM text of take_post, leave_post, await_post, relieve, go_home and a post's lock; the numbers are offsets in the pool's memory."""
    return TEXT.format(
        posts=posts, stalls=stalls, workers=workers, relieved=relieved, post_bytes=POST_BYTES, max_posts=MAX_POSTS,
        thread=THREAD, cpu=CPU, job=JOB, share=SHARE, home=HOME, lock=LOCK, watcher=WATCHER, seen_job=SEEN_JOB,
        seen_run=SEEN_RUN, seen_at=SEEN_AT, check_ns=CHECK_NS, move_ns=MOVE_NS, running=RUNNING,
        stall_slots=STALL_SLOTS, last_slot=STALL_SLOTS - 1, lately_ns=LATELY_NS,
        setaffinity=SETAFFINITY[machine], getaffinity=GETAFFINITY[machine], mask_words=MASK_WORDS, mask_bytes=8 * MASK_WORDS,
        yield_cpu=YIELD[machine])


TEXT = """
; The post of participant k: 0 is the caller, who has one like the first workers; later workers share one that nobody looks at.
define internal ptr @post(ptr %pool, i64 %k) nounwind {{
  %own = call i64 @llvm.smin.i64(i64 %k, i64 {max_posts})
  %bytes = mul i64 %own, {post_bytes}
  %offset = add i64 %bytes, {posts}
  %at = getelementptr i8, ptr %pool, i64 %offset
  ret ptr %at
}}

; Thread number `thread`, this one, works at a job from here on, and is missed when it stops.
define internal void @take_post(ptr %post, i64 %thread, i64 %sequence) nounwind {{
  %thread.at = getelementptr i8, ptr %post, i64 {thread}
  store atomic i64 %thread, ptr %thread.at monotonic, align 8
  %cpu.32 = call i32 @sched_getcpu()
  %cpu = sext i32 %cpu.32 to i64
  %cpu.at = getelementptr i8, ptr %post, i64 {cpu}
  store atomic i64 %cpu, ptr %cpu.at monotonic, align 8
  %job = or i64 %sequence, 4294967296
  %job.at = getelementptr i8, ptr %post, i64 {job}
  store atomic i64 %job, ptr %job.at release, align 8
  ret void
}}

define internal void @leave_post(ptr %post) nounwind {{
  %job.at = getelementptr i8, ptr %post, i64 {job}
  %j = atomicrmw xchg ptr %job.at, i64 0 seq_cst
  ret void
}}

define internal i1 @take_word(ptr %lock) nounwind {{
  %old = atomicrmw xchg ptr %lock, i64 1 seq_cst
  %free = icmp eq i64 %old, 0
  ret i1 %free
}}

define internal i1 @try_post(ptr %post) nounwind {{
  %lock = getelementptr i8, ptr %post, i64 {lock}
  %free = call i1 @take_word(ptr %lock)
  ret i1 %free
}}

define internal void @free_post(ptr %post) nounwind {{
  %lock = getelementptr i8, ptr %post, i64 {lock}
  store atomic i64 0, ptr %lock release, align 8
  ret void
}}

; Until nobody holds the affinity of this thread.
define internal void @await_post(ptr %post) nounwind {{
entry:
  %lock = getelementptr i8, ptr %post, i64 {lock}
  br label %loop
loop:
  %held = load atomic i64, ptr %lock seq_cst, align 8
  %free = icmp eq i64 %held, 0
  br i1 %free, label %end, label %yield
yield:
  %y = call i64 (i64, ...) @syscall(i64 {yield_cpu})
  br label %loop
end:
  ret void
}}

; Nanoseconds that a thread has run (its clock's number: clock_getcpuclockid(3)); -1 when the system does not tell.
define internal i64 @run_time(i64 %thread) nounwind {{
  %not = xor i64 %thread, -1
  %high = shl i64 %not, 3
  %which = or i64 %high, 6
  %which.32 = trunc i64 %which to i32
  %ns = call i64 @clock(i32 %which.32)
  ret i64 %ns
}}

; Whether the thread at this post stands still: it has hardly run since somebody looked last, in the same job. One watcher at a time.
define internal i1 @stands_still(ptr %post) nounwind {{
entry:
  %job.at = getelementptr i8, ptr %post, i64 {job}
  %job = load atomic i64, ptr %job.at acquire, align 8
  %busy = icmp ne i64 %job, 0
  br i1 %busy, label %watch, label %no
watch:
  %watcher = getelementptr i8, ptr %post, i64 {watcher}
  %alone = call i1 @take_word(ptr %watcher)
  br i1 %alone, label %look, label %no
look:
  %at.at = getelementptr i8, ptr %post, i64 {seen_at}
  %seen.at = load i64, ptr %at.at
  %now = call i64 @now()
  %passed = sub i64 %now, %seen.at
  %due = icmp sge i64 %passed, {check_ns}
  br i1 %due, label %read, label %leave
read:
  %thread.at = getelementptr i8, ptr %post, i64 {thread}
  %thread = load atomic i64, ptr %thread.at monotonic, align 8
  %run = call i64 @run_time(i64 %thread)
  %known = icmp sge i64 %run, 0
  br i1 %known, label %compare, label %leave
compare:
  %seen.job.at = getelementptr i8, ptr %post, i64 {seen_job}
  %seen.job = load i64, ptr %seen.job.at
  %seen.run.at = getelementptr i8, ptr %post, i64 {seen_run}
  %seen.run = load i64, ptr %seen.run.at
  store i64 %job, ptr %seen.job.at
  store i64 %run, ptr %seen.run.at
  store i64 %now, ptr %at.at
  %ran = sub i64 %run, %seen.run
  %times = mul i64 %ran, {running}
  %little = icmp slt i64 %times, %passed
  %same = icmp eq i64 %job, %seen.job
  %still = and i1 %little, %same
  br i1 %still, label %found, label %leave
found:
  %later = add i64 %now, {move_ns}
  store i64 %later, ptr %at.at
  store i64 0, ptr %seen.job.at
  br label %leave
leave:
  %result = phi i1 [ false, %look ], [ false, %read ], [ false, %compare ], [ true, %found ]
  store atomic i64 0, ptr %watcher release, align 8
  ret i1 %result
no:
  ret i1 false
}}

; Participant k has nothing to do: looks after the others, and brings one that stands still to its CPU. A worker then goes where that one was.
define internal void @relieve(ptr %pool, i64 %k) nounwind {{
entry:
  %workers.at = getelementptr i8, ptr %pool, i64 {workers}
  %workers = load atomic i64, ptr %workers.at monotonic, align 8
  %all = add i64 %workers, 1
  %posts = call i64 @llvm.smin.i64(i64 %all, i64 {max_posts})
  %own = call ptr @post(ptr %pool, i64 %k)
  %caller = icmp eq i64 %k, 0
  br label %loop
loop:
  %p = phi i64 [ 0, %entry ], [ %p.next, %next ]
  %post = call ptr @post(ptr %pool, i64 %p)
  %self = icmp eq i64 %p, %k
  br i1 %self, label %next, label %look
look:
  %still = call i1 @stands_still(ptr %post)
  br i1 %still, label %judge, label %next
judge:
  %few = call i1 @few_stand_still(ptr %pool, ptr %post, i64 %all)
  br i1 %few, label %help, label %end
next:
  %p.next = add i64 %p, 1
  %more = icmp slt i64 %p.next, %posts
  br i1 %more, label %loop, label %end
help:
  %there = call i64 @bring(ptr %pool, ptr %post, i1 %caller)
  %stays = icmp slt i64 %there, 0
  %done = or i1 %stays, %caller
  br i1 %done, label %end, label %change
change:
  %worker = icmp ne i64 %p, 0
  br i1 %worker, label %shares, label %go
shares:
  call void @swap_shares(ptr %own, ptr %post)
  br label %go
go:
  call void @go_to(ptr %own, i64 %there)
  br label %end
end:
  ret void
}}

; Notes that the thread at this post stands still on its CPU. Whether threads have lately stood still on at most half as many CPUs as take part.
define internal i1 @few_stand_still(ptr %pool, ptr %post, i64 %participants) nounwind {{
entry:
  %stalls = getelementptr i8, ptr %pool, i64 {stalls}
  %cpu.at = getelementptr i8, ptr %post, i64 {cpu}
  %cpu = load atomic i64, ptr %cpu.at monotonic, align 8
  %slot = and i64 %cpu, {last_slot}
  %own = getelementptr i64, ptr %stalls, i64 %slot
  %now = call i64 @now()
  store atomic i64 %now, ptr %own monotonic, align 8
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %loop ]
  %sum = phi i64 [ 0, %entry ], [ %sum.next, %loop ]
  %at = getelementptr i64, ptr %stalls, i64 %i
  %then = load atomic i64, ptr %at monotonic, align 8
  %passed = sub i64 %now, %then
  %lately = icmp slt i64 %passed, {lately_ns}
  %one = zext i1 %lately to i64
  %sum.next = add i64 %sum, %one
  %i.next = add i64 %i, 1
  %more = icmp slt i64 %i.next, {stall_slots}
  br i1 %more, label %loop, label %end
end:
  %double = shl i64 %sum.next, 1
  %few = icmp sle i64 %double, %participants
  ret i1 %few
}}

; Where two workers sleep, exchanged.
define internal void @swap_shares(ptr %post, ptr %other) nounwind {{
  %a.at = getelementptr i8, ptr %post, i64 {share}
  %b.at = getelementptr i8, ptr %other, i64 {share}
  %a = load atomic i64, ptr %a.at monotonic, align 8
  %b = load atomic i64, ptr %b.at monotonic, align 8
  store atomic i64 %b, ptr %a.at monotonic, align 8
  store atomic i64 %a, ptr %b.at monotonic, align 8
  ret void
}}

; The thread at this post comes to this CPU, to go back when its tile is done if it is a guest. Returns the CPU that it was on; -1 when it stays.
define internal i64 @bring(ptr %pool, ptr %post, i1 %guest) nounwind {{
entry:
  %mask = alloca [{mask_words} x i64]
  %job.at = getelementptr i8, ptr %post, i64 {job}
  %thread.at = getelementptr i8, ptr %post, i64 {thread}
  %cpu.at = getelementptr i8, ptr %post, i64 {cpu}
  %held = call i1 @try_post(ptr %post)
  br i1 %held, label %look, label %no
look:
  %job = load atomic i64, ptr %job.at seq_cst, align 8
  %thread = load atomic i64, ptr %thread.at monotonic, align 8
  %there = load atomic i64, ptr %cpu.at monotonic, align 8
  %here.32 = call i32 @sched_getcpu()
  %here = sext i32 %here.32 to i64
  %busy = icmp ne i64 %job, 0
  %apart = icmp ne i64 %here, %there
  %sensible = and i1 %busy, %apart
  br i1 %sensible, label %read, label %give.way
give.way:
  call void @free_post(ptr %post)
  %y = call i64 (i64, ...) @syscall(i64 {yield_cpu})
  br label %no
read:
  %bytes = call i64 (i64, ...) @syscall(i64 {getaffinity}, i64 %thread, i64 {mask_bytes}, ptr %mask)
  %may = call i1 @has_cpu(ptr %mask, i64 %bytes, i64 %here)
  br i1 %may, label %move, label %free
move:
  %from = add i64 %there, 1
  %home = select i1 %guest, i64 %from, i64 0
  %home.at = getelementptr i8, ptr %post, i64 {home}
  store atomic i64 %home, ptr %home.at monotonic, align 8
  store atomic i64 %here, ptr %cpu.at monotonic, align 8
  %relieved.at = getelementptr i8, ptr %pool, i64 {relieved}
  %c = atomicrmw add ptr %relieved.at, i64 1 monotonic
  call void @move(i64 %thread, i64 %here, ptr %mask, i64 %bytes)
  br label %free
free:
  %result = phi i64 [ -1, %read ], [ %there, %move ]
  call void @free_post(ptr %post)
  ret i64 %result
no:
  ret i64 -1
}}

; This thread, of this post, goes to another CPU, if it may.
define internal void @go_to(ptr %post, i64 %cpu) nounwind {{
entry:
  %mask = alloca [{mask_words} x i64]
  %held = call i1 @try_post(ptr %post)
  br i1 %held, label %read, label %end
read:
  %bytes = call i64 (i64, ...) @syscall(i64 {getaffinity}, i64 0, i64 {mask_bytes}, ptr %mask)
  %may = call i1 @has_cpu(ptr %mask, i64 %bytes, i64 %cpu)
  br i1 %may, label %move, label %free
move:
  call void @move(i64 0, i64 %cpu, ptr %mask, i64 %bytes)
  br label %free
free:
  call void @free_post(ptr %post)
  br label %end
end:
  ret void
}}

; A worker whose tile was done on the caller's CPU leaves it.
define internal void @go_home(ptr %post) nounwind {{
entry:
  %home.at = getelementptr i8, ptr %post, i64 {home}
  %home = load atomic i64, ptr %home.at monotonic, align 8
  %guest = icmp ne i64 %home, 0
  br i1 %guest, label %go, label %end
go:
  store atomic i64 0, ptr %home.at monotonic, align 8
  %cpu = sub i64 %home, 1
  call void @go_to(ptr %post, i64 %cpu)
  br label %end
end:
  ret void
}}

define internal i1 @has_cpu(ptr %mask, i64 %bytes, i64 %cpu) nounwind {{
entry:
  %some = call i64 @llvm.smax.i64(i64 %bytes, i64 0)
  %cpus = shl i64 %some, 3
  %inside = icmp ult i64 %cpu, %cpus
  br i1 %inside, label %test, label %no
test:
  %index = lshr i64 %cpu, 6
  %bit = and i64 %cpu, 63
  %at = getelementptr i64, ptr %mask, i64 %index
  %word = load i64, ptr %at
  %shifted = lshr i64 %word, %bit
  %has = trunc i64 %shifted to i1
  ret i1 %has
no:
  ret i1 false
}}

; A thread (0: this one) goes to one CPU, and may then run where `mask` allows.
define internal void @move(i64 %thread, i64 %cpu, ptr %mask, i64 %bytes) nounwind {{
  %one = alloca [{mask_words} x i64]
  call void @llvm.memset.p0.i64(ptr %one, i8 0, i64 {mask_bytes}, i1 false)
  %index = lshr i64 %cpu, 6
  %bit = and i64 %cpu, 63
  %at = getelementptr i64, ptr %one, i64 %index
  %word = shl i64 1, %bit
  store i64 %word, ptr %at
  %m = call i64 (i64, ...) @syscall(i64 {setaffinity}, i64 %thread, i64 %bytes, ptr %one)
  %w = call i64 (i64, ...) @syscall(i64 {setaffinity}, i64 %thread, i64 %bytes, ptr %mask)
  ret void
}}
"""
