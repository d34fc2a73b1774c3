"""Plug-in of the pool: a thread that the system has taken off its CPU in the middle of a tile goes on elsewhere.

A core that another process uses too runs one of the two at a time, for milliseconds, and a kernel ends with its slowest
tile. An idle worker therefore samples the CPU time of each busy worker twice; if it has not advanced, that worker is
preempted. The idle worker then changes CPUs with it: the tile goes on at once, and the idle worker waits for the loaded
core instead. A caller, which the user's program needs back, only lends its CPU while it sleeps: the worker returns to
its own CPU as soon as the tile is done. If workers were lately preempted on more than half of the CPUs, nobody moves:
programs that want all CPUs share them best when each runs, waits and sleeps as a whole.

Threads move by having their affinity narrowed to one CPU and widened again. The lock of the thread's place is held
meanwhile, and by a worker whose affinity is bound for sleep, so that nobody takes a narrowed affinity for a thread's
own. The caller waits for that lock before it goes back to the user.
"""
from __future__ import annotations

from graphc.codegen.routines.routine import RoutineBody, routine
from graphc.codegen.routines.values import ACQUIRE, I1, I32, I64, RELAXED, RELEASE, SEQ_CST
from graphc.runtime.pool_ir import IDLE_NS, ONE_JOB, on_begin, on_idle, on_rest
from graphc.runtime.pool_memory import (
    MASK_BYTES,
    MASK_WORDS,
    MAX_PLACES,
    STALL_SLOTS,
    Placement,
    PoolMemory,
    PreemptionMemory,
    Watched,
)
from graphc.runtime.share_ir import SELF, free_placement, hold_placement
from graphc.runtime.system import I64s, clock, memset, now, sched_getcpu

MOVE_NS = 50_000                # what a move may take
LATELY_NS = 20_000_000
RUNNING = 4                     # a thread that has run less than this part of the time is preempted
CPU_TIME_CLOCK = 6              # of a thread: clock_getcpuclockid(3)


def watched(pool: PoolMemory, who: I64) -> Watched:
    """Later workers share one record that nobody looks at."""
    return PreemptionMemory.behind(pool).watched[who.at_most(MAX_PLACES)]


# ---- what takes the place of the pool's hooks
@routine
def begin_watched(f: RoutineBody, pool: PoolMemory, who: I64, sequence: I64) -> None:
    """From here on this thread is missed when it stops."""
    own = watched(pool, who)
    is_known = (who != 0) & (own.thread.load(RELAXED) != 0)     # another thread may be the caller each time
    with f.if_(~is_known):
        own.thread.store(f.syscall("gettid"), RELAXED)
    own.cpu.store(sched_getcpu(f).sext(I64), RELAXED)
    own.job.store(sequence | ONE_JOB, RELEASE)


@routine
def rest_watched(f: RoutineBody, pool: PoolMemory, who: I64) -> None:
    """It may stop. A worker whose tile was done on the caller's CPU leaves it."""
    own, placement = watched(pool, who), pool.placement(who)
    own.job.exchange(0, SEQ_CST)
    with f.if_(who == 0):
        with f.while_(lambda: placement.lock.load(SEQ_CST) != 0):
            f.syscall("sched_yield")            # the user's program gets its thread back with its own affinity
    with f.else_():
        home = own.home.load(RELAXED)
        with f.if_(home != 0):
            own.home.store(0, RELAXED)
            go_to(f, placement, home - 1)


@routine
def help_preempted(f: RoutineBody, pool: PoolMemory, who: I64) -> None:
    """Participant `who` has nothing to do: looks after the others, and brings one that is preempted to its CPU. A
    worker then goes where that one was."""
    participants = pool.workers.load(RELAXED) + 1
    with f.for_(participants.at_most(MAX_PLACES)) as other:
        with f.if_(other != who):
            with f.if_(is_preempted(f, watched(pool, other))):
                f.return_if(~few_are_preempted(f, pool, watched(pool, other), participants))
                there = bring(f, pool, other, who == 0)
                f.return_if((there < 0) | (who == 0))
                with f.if_(other != 0):
                    swap_shares(f, pool.placement(who), pool.placement(other))
                go_to(f, pool.placement(who), there)
                f.return_()


PREEMPTION = {on_begin: begin_watched, on_rest: rest_watched, on_idle: help_preempted}


# ---- finding
@routine
def run_time(f: RoutineBody, thread: I64) -> I64:
    """Nanoseconds that a thread has run; -1 when the system does not tell."""
    return clock(f, (~thread << 3 | CPU_TIME_CLOCK).trunc(I32))


@routine
def is_preempted(f: RoutineBody, other: Watched) -> I1:
    """Whether a participant has hardly run since somebody looked last, in the same job. One watcher at a time."""
    job = other.job.load(ACQUIRE)
    f.return_if(job == 0, False)
    f.return_if(other.watcher.exchange(1, SEQ_CST) != 0, False)
    found = f.variable(I1, False)
    time = now(f)
    passed = time - other.seen_at.value
    with f.if_(passed >= IDLE_NS):
        run = run_time(f, other.thread.load(RELAXED))
        with f.if_(run >= 0):
            has_stopped = (run - other.seen_run.value) * RUNNING < passed
            found.value = has_stopped & (other.seen_job.value == job)
            other.seen_job.value, other.seen_run.value, other.seen_at.value = job, run, time
            with f.if_(found.value):                            # it is not found again before it can have been moved
                other.seen_job.value, other.seen_at.value = 0, time + MOVE_NS
    other.watcher.store(0, RELEASE)
    return found.value


@routine
def few_are_preempted(f: RoutineBody, pool: PoolMemory, other: Watched, participants: I64) -> I1:
    """Notes that this one is, on its CPU. Whether some lately were on at most half as many CPUs as take part."""
    stalls = PreemptionMemory.behind(pool).stalls
    time = now(f)
    stalls[other.cpu.load(RELAXED) & STALL_SLOTS - 1].store(time, RELAXED)
    lately = f.variable(I64, 0)
    with f.for_(STALL_SLOTS) as slot:
        lately.value += (time - stalls[slot].load(RELAXED) < LATELY_NS).zext(I64)
    return lately.value * 2 <= participants


# ---- moving
@routine
def bring(f: RoutineBody, pool: PoolMemory, who: I64, is_guest: I1) -> I64:
    """Participant `who` comes to this CPU, to go back when its tile is done if it is a guest. Returns the CPU that it
    was on; -1 when it stays."""
    other, placement = watched(pool, who), pool.placement(who)
    f.return_if(~hold_placement(f, placement), -1)
    is_busy = other.job.load(SEQ_CST) != 0
    thread, there, here = other.thread.load(RELAXED), other.cpu.load(RELAXED), sched_getcpu(f).sext(I64)
    with f.if_(~is_busy | (here == there)):     # it went on meanwhile, or needs the CPU that this thread is on
        free_placement(f, placement)
        f.syscall("sched_yield")
        f.return_(-1)
    mask, result = f.array(I64, MASK_WORDS), f.variable(I64, -1)
    known = f.syscall("sched_getaffinity", thread, MASK_BYTES, mask)
    with f.if_(has_cpu(f, mask, known, here)):
        other.home.store(f.select(is_guest, there + 1, 0), RELAXED)
        other.cpu.store(here, RELAXED)
        PreemptionMemory.behind(pool).moved.add(1, RELAXED)
        move_thread(f, thread, here, mask, known)
        result.value = there
    free_placement(f, placement)
    return result.value


@routine
def go_to(f: RoutineBody, placement: Placement, cpu: I64) -> None:
    """This thread, whose place it is, goes to another CPU, if it may."""
    f.return_if(~hold_placement(f, placement))
    mask = f.array(I64, MASK_WORDS)
    known = f.syscall("sched_getaffinity", SELF, MASK_BYTES, mask)
    with f.if_(has_cpu(f, mask, known, cpu)):
        move_thread(f, SELF, cpu, mask, known)
    free_placement(f, placement)


@routine
def swap_shares(f: RoutineBody, one: Placement, other: Placement) -> None:
    """Where two workers sleep, exchanged."""
    share = one.share.load(RELAXED)
    one.share.store(other.share.load(RELAXED), RELAXED)
    other.share.store(share, RELAXED)


@routine
def has_cpu(f: RoutineBody, mask: I64s, known: I64, cpu: I64) -> I1:
    """Of an affinity mask of so many bytes."""
    f.return_if((cpu < 0) | (cpu >= known * 8), False)
    return mask[cpu >> 6].value >> (cpu & 63) & 1 != 0


@routine
def move_thread(f: RoutineBody, thread: I64, cpu: I64, mask: I64s, known: I64) -> None:
    """A thread goes to one CPU, and may then run where `mask` allows."""
    one = f.array(I64, MASK_WORDS)
    memset(f, one, 0, MASK_BYTES, False)
    one[cpu >> 6].value = 1 << (cpu & 63)
    f.syscall("sched_setaffinity", thread, known, one)
    f.syscall("sched_setaffinity", thread, known, mask)
