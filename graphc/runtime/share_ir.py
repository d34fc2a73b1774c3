"""CPUs of sleeping pool workers.

A scheduler that packs threads wakes a worker where its caller or another worker runs, to no use. So each is bound,
while it sleeps, to a share of the CPUs of its own, the caller's CPU left out, and is free again when it is awake.
Nobody waits for a worker that has not joined a job: a share that other processes keep busy costs a helper, not time.

Workers may run where their caller may, also after that has changed (taskset, sched_setaffinity, a cpuset): the caller
looks, now and then, at its own mask when it begins a job, and workers put on the new one when they wake or join.
"""
from __future__ import annotations

from graphc.codegen.routines.routine import RoutineBody, routine
from graphc.codegen.routines.values import ACQUIRE, I1, I64, RELAXED, RELEASE, SEQ_CST, VOLATILE
from graphc.runtime.pool_memory import MASK_BYTES, MASK_WORDS, Placement, PoolMemory
from graphc.runtime.system import I64s, memcmp, memcpy, now

FOLLOW_NS = 20_000_000          # between two looks of callers at their mask
SELF = 0                        # this thread, to the system


@routine
def follow(f: RoutineBody, pool: PoolMemory) -> None:
    """The caller, who has the pool, notes where it may run, at most every so often. The version is odd while that is
    written."""
    time = now(f)
    f.return_if(time - pool.looked_at.value < FOLLOW_NS)
    pool.looked_at.value = time
    mine = f.array(I64, MASK_WORDS)
    known = f.syscall("sched_getaffinity", SELF, MASK_BYTES, mine)
    f.return_if(known <= 0)
    is_equal = memcmp(f, mine, pool.mask, known) == 0
    f.return_if(is_equal & (pool.mask_bytes.value == known))
    pool.mask_version.add(1, SEQ_CST)
    memcpy(f, pool.mask, mine, known, False)
    pool.mask_bytes.value = known
    pool.mask_version.add(1, SEQ_CST)


@routine
def noted(f: RoutineBody, pool: PoolMemory, mask: I64s, version: I64s) -> I64:     # type: ignore[return]  # loops till it does
    """Copies what the caller has noted to `mask`, and its version; returns its bytes."""
    with f.forever():
        before = pool.mask_version.load(ACQUIRE)
        known = pool.mask_bytes.load(VOLATILE)
        memcpy(f, mask, pool.mask, MASK_BYTES, True)
        f.fence(ACQUIRE)
        is_torn = (before & 1 != 0) | (before != pool.mask_version.load(RELAXED))
        with f.if_(~is_torn):
            version[0].value = before
            f.return_(known)


@routine
def wear(f: RoutineBody, pool: PoolMemory, mask: I64s) -> I64:
    """This thread may run where the caller may; the version of that."""
    version = f.array(I64, 1)
    known = noted(f, pool, mask, version)
    with f.if_(known > 0):
        f.syscall("sched_setaffinity", SELF, known, mask)
    return version[0].value


@routine
def take_share(f: RoutineBody, pool: PoolMemory, mask: I64s, k: I64) -> I64:
    """Binds this worker to share k. Returns the bytes of the mask that it is a share of, left in `mask`; not above 0
    when it is not known."""
    known = noted(f, pool, mask, f.array(I64, 1))
    with f.if_(known > 0):
        share = f.array(I64, MASK_WORDS)
        caller = pool.caller_cpu.load(RELAXED).sext(I64)
        total = mark_share(f, mask, known, caller, share, 1, 0)
        parts = pool.workers.load(RELAXED).at_most(total)
        with f.if_(parts > 0):
            mark_share(f, mask, known, caller, share, parts, k % parts)
            f.syscall("sched_setaffinity", SELF, known, share)
    return known


@routine
def mark_share(f: RoutineBody, mask: I64s, known: I64, caller: I64, share: I64s, parts: I64, part: I64) -> I64:
    """Marks in `share` every `parts`-th CPU of `mask`, `part` being the first, the caller's CPU left out; returns how
    many there are to share."""
    rank = f.variable(I64, 0)
    with f.for_(known << 3) as cpu:
        word, bit = share[cpu >> 6], cpu & 63
        with f.if_(bit == 0):
            word.value = 0
        with f.if_((mask[cpu >> 6].value >> bit & 1 != 0) & (cpu != caller)):
            with f.if_(rank.value % parts == part):
                word.value |= 1 << bit
            rank.value += 1
    return rank.value


# ---- whoever has the lock of a placement may narrow the affinity of its thread
@routine
def hold_placement(f: RoutineBody, own: Placement) -> I1:
    """Whether it could be had."""
    return own.lock.exchange(1, SEQ_CST) == 0


@routine
def free_placement(f: RoutineBody, own: Placement) -> None:
    """Gives it back."""
    own.lock.store(0, RELEASE)
