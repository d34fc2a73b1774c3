"""The thread pool. No platform struct is laid out here: threads come from pthread_create, sleep is the futex system
call.

A job is published by one exchange of the *ticket*, which packs, from high to low, sequence number (32 bits), free
places (16), joined workers (16). A worker joins by compare-and-swap, which gives it its participant number; the caller
closes the ticket when no tile is left and then waits only for those who joined. So a worker that wakes late delays
nobody, and no worker can touch the tile counter of a later job.

Waking a sleeping thread costs the waker 2 us on bare metal and 60 us in some virtual machines. So nobody is woken
before a first tile has shown that the work left is worth it, each participant wakes one other at a time, and workers
spin as long as a few wakes cost. Where even that takes longer than it saves, the caller does all (`short_jobs_ir`).

The tiles are cut into *ranges*, about one for each participant, who begins with the same range in every job: what a
kernel left in the caches of a core is mostly what the next one reads there. Who has finished a range helps with the
next.

`on_begin`, `on_rest` and `on_idle` do nothing; a plug-in puts routines of its own in their place (`preemption_ir`).
"""
from __future__ import annotations

from graphc.codegen.abi import Context
from graphc.codegen.routines.routine import RoutineBody, routine
from graphc.codegen.routines.values import ACQ_REL, ACQUIRE, I32, I64, RELAXED, RELEASE, SEQ_CST, Cell, Ptr
from graphc.runtime.pool_memory import MASK_WORDS, MAX_RANGES, JobTimes, PoolMemory, TileFunction
from graphc.runtime.share_ir import follow, free_placement, hold_placement, take_share, wear
from graphc.runtime.short_jobs_ir import is_for_caller, note, times_of
from graphc.runtime.system import (
    I64s,
    futex_wait,
    futex_wake,
    now,
    pthread_create,
    pthread_detach,
    sched_getcpu,
    time_limit,
)

MAX_WORKERS = (1 << 15) - 1
SPIN_WAKES = 4                  # spin as long as so many wakes cost
LEAST_SPIN_NS, MOST_SPIN_NS = 50_000, 400_000
IDLE_NS = 20_000                # between two calls of on_idle by a worker that spins
LOOK_NS = 100_000               # how long a caller sleeps before it calls on_idle again
LEAST_WAKE_NS, MOST_WAKE_NS = 1_000, 100_000
SIG_BLOCK, SIG_SETMASK, SIGSET_BYTES = 0, 2, 8

COUNT = 0xFFFF                  # the workers that have joined, in a ticket
ONE_PLACE = 1 << 16
PLACES = COUNT << 16
ONE_JOB = 1 << 32
JOBS = -ONE_JOB                 # the sequence number


# ---- hooks
@routine
def on_begin(f: RoutineBody, pool: PoolMemory, who: I64, sequence: I64) -> None:
    """Participant `who`, this thread, begins to run tiles of a job; 0 is the caller."""


@routine
def on_rest(f: RoutineBody, pool: PoolMemory, who: I64) -> None:
    """It has nothing more to do for the job; called again where it waits and comes back."""


@routine
def on_idle(f: RoutineBody, pool: PoolMemory, who: I64) -> None:
    """It waits: for other participants, or for a job."""


# ---- the caller
@routine
def gc_parallel(f: RoutineBody, ctx: Context, fn: TileFunction, frame: Ptr, tiles: I64) -> None:
    """Runs fn(ctx, frame, tile, scratch) for every tile; back when all are done (or the call is cancelled)."""
    others = ctx.threads.value.at_most(tiles) - 1
    with f.if_(others > 0):
        pool = PoolMemory.of(ctx.pool.value)
        with f.if_(pool.lock.compare_exchange(0, 1, ACQUIRE) == 0):
            times = JobTimes.of(times_of(f, pool, fn, tiles, others))
            start = now(f)
            with f.if_(is_for_caller(f, pool, times)):
                run_alone(f, ctx, fn, frame, tiles)
                note(f, I64s.of(times.alone.pointer), now(f) - start)
            with f.else_():
                run_job(f, pool, ctx, fn, frame, tiles, others.at_most(MAX_WORKERS))
                note(f, I64s.of(times.shared.pointer), now(f) - start)
            pool.lock.store(0, RELEASE)
            f.return_()
    run_alone(f, ctx, fn, frame, tiles)         # a single tile, or another caller has the pool


@routine
def run_alone(f: RoutineBody, ctx: Context, fn: TileFunction, frame: Ptr, tiles: I64) -> None:
    """Every tile, on the caller."""
    scratch = ctx.scratch.value
    with f.for_(tiles) as tile:
        f.return_if(ctx.cancel.load(RELAXED) > 0)
        fn(f, ctx, frame, tile, scratch)


@routine
def run_job(f: RoutineBody, pool: PoolMemory, ctx: Context, fn: TileFunction, frame: Ptr, tiles: I64,
            others: I64) -> None:
    """Every tile, with at most so many workers. The caller has the pool."""
    follow(f, pool)
    grow(f, pool, others)
    ranges = (others + 1).at_most(MAX_RANGES)
    pool.function.value, pool.frame.value, pool.context.value = fn, frame, ctx
    pool.tiles.value, pool.ranges.value = tiles, ranges
    with f.for_(ranges) as r:
        pool.next[r].next.store(range_start(f, r, ranges, tiles), RELAXED)
    left = pool.left.load(RELAXED)
    ticket = (pool.ticket.load(RELAXED) & JOBS) + ONE_JOB | others * ONE_PLACE
    pool.caller_cpu.store(sched_getcpu(f), RELAXED)
    on_begin(f, pool, 0, ticket >> 32)
    pool.ticket.exchange(ticket, SEQ_CST)
    claim_tiles(f, pool, ctx.scratch.value, 0)
    closed = pool.ticket.bitwise_and(~PLACES, ACQ_REL)          # nobody joins from here on
    await_workers(f, pool, left + (closed & COUNT).trunc(I32))
    on_rest(f, pool, 0)


@routine
def await_workers(f: RoutineBody, pool: PoolMemory, goal: I32) -> None:
    """Until `left` reaches `goal`: spins for a while, then sleeps."""
    rounds = f.variable(I64, patience(f, pool))
    with f.while_(lambda: rounds.value > 0):
        f.return_if(pool.left.load(ACQUIRE) == goal)
        f.pause()
        rounds.value -= 1
    on_rest(f, pool, 0)
    limit = time_limit(f, LOOK_NS)
    pool.waiting.store(1, SEQ_CST)      # and then a second look: the last worker sees this, or we see it gone
    with f.forever():
        left = pool.left.load(SEQ_CST)
        f.break_if(left == goal)
        on_idle(f, pool, 0)
        futex_wait(f, pool.left, left, limit)
    pool.waiting.store(0, SEQ_CST)


@routine
def grow(f: RoutineBody, pool: PoolMemory, want: I64) -> None:
    """Starts workers up to `want`, with all signals blocked in them; keeps what it has when the system gives no
    more."""
    f.return_if(pool.workers.value >= want)
    thread, every, before = f.variable(I64, 0), f.variable(I64, -1), f.variable(I64, 0)
    f.syscall("rt_sigprocmask", SIG_BLOCK, every, before, SIGSET_BYTES)
    with f.while_(lambda: pool.workers.value < want):
        f.break_if(pthread_create(f, thread, None, worker, pool) != 0)
        pthread_detach(f, thread.value)
        pool.workers.store(pool.workers.value + 1, RELAXED)
    f.syscall("rt_sigprocmask", SIG_SETMASK, before, None, SIGSET_BYTES)


# ---- tiles
@routine
def range_start(f: RoutineBody, r: I64, ranges: I64, tiles: I64) -> I64:
    """The first tile of range r."""
    return r * tiles // ranges


@routine
def claim_tiles(f: RoutineBody, pool: PoolMemory, scratch: Ptr, home: I64) -> None:
    """Claims and runs tiles, from range `home` on, until none is left."""
    ranges = pool.ranges.value
    with f.for_(ranges) as i:
        claim_range(f, pool, scratch, (home + i) % ranges)


@routine
def claim_range(f: RoutineBody, pool: PoolMemory, scratch: Ptr, r: I64) -> None:
    """Claims and runs tiles of one range. While places are free and workers sleep, tiles are timed to see whether help
    would pay."""
    fn, ctx, frame = pool.function.value, pool.context.value, pool.frame.value
    tiles, ranges = pool.tiles.value, pool.ranges.value
    last = range_start(f, r + 1, ranges, tiles)
    claims = pool.next[r].next
    with f.while_(lambda: ctx.cancel.load(RELAXED) <= 0):
        f.break_if(claims.load(RELAXED) >= last)        # a look is cheaper than a claim in vain
        tile = claims.add(1, RELAXED)
        f.break_if(tile >= last)
        is_alone = (pool.sleepers.load(RELAXED) != 0) & (pool.ticket.load(RELAXED) & PLACES != 0)
        with f.if_(is_alone):
            start = now(f)
            fn(f, ctx, frame, tile, scratch)
            end = now(f)
            work = unclaimed(f, pool, tiles, ranges) * (end - start)
            with f.if_(work > pool.wake_ns.load(RELAXED) * 2):
                wake_one(f, pool, end)
        with f.else_():
            fn(f, ctx, frame, tile, scratch)


@routine
def unclaimed(f: RoutineBody, pool: PoolMemory, tiles: I64, ranges: I64) -> I64:
    """Tiles of all ranges that nobody has claimed yet."""
    total = f.variable(I64, 0)
    with f.for_(ranges) as r:
        rest = range_start(f, r + 1, ranges, tiles) - pool.next[r].next.load(RELAXED)
        total.value += rest.at_least(0)
    return total.value


@routine
def wake_one(f: RoutineBody, pool: PoolMemory, start: I64) -> None:
    """Wakes a sleeping worker. Moves the estimate of what that costs a step up or down: it settles at the median,
    whatever preemption adds."""
    futex_wake(f, pool.sequence_word())
    cost = now(f) - start
    median = pool.wake_ns.load(RELAXED)
    step = median // 8
    moved = f.select(cost > median, median + step, median - step)
    pool.wake_ns.store(moved.at_least(LEAST_WAKE_NS).at_most(MOST_WAKE_NS), RELAXED)


@routine
def patience(f: RoutineBody, pool: PoolMemory) -> I64:
    """Rounds to spin before sleeping: as long as it costs to be woken several times over, within bounds."""
    cost = pool.wake_ns.load(RELAXED) * SPIN_WAKES
    return rounds_in(f, pool, cost.at_least(LEAST_SPIN_NS).at_most(MOST_SPIN_NS))


@routine
def rounds_in(f: RoutineBody, pool: PoolMemory, nanoseconds: I64) -> I64:
    """How often a waiting loop goes round in that time."""
    return pool.spin.value * nanoseconds // 1000


# ---- the workers
@routine
def worker(f: RoutineBody, pool: PoolMemory) -> Ptr:      # type: ignore[return]  # its loop has no end
    """The life of a worker."""
    mask = f.array(I64, MASK_WORDS)
    worn = f.variable(I64, wear(f, pool, mask))
    number = pool.born.add(1, RELAXED)
    who = number + 1
    placement = pool.placement(who)
    placement.share.store(number, RELAXED)
    between = rounds_in(f, pool, IDLE_NS)
    seen = f.variable(I64, pool.ticket.load(ACQUIRE) >> 32 ^ 0xFFFFFFFF)        # of no job that is there or comes soon
    ticket, rounds = f.variable(I64, 0), f.variable(I64, 0)
    with f.forever():
        rounds.value = patience(f, pool)
        with f.forever():
            ticket.value = pool.ticket.load(ACQUIRE)
            with f.if_(ticket.value >> 32 == seen.value):
                f.pause()
                rounds.value -= 1
                with f.if_(rounds.value % between == 0):
                    on_idle(f, pool, who)
                    with f.if_(rounds.value <= 0):
                        _sleep(f, pool, who, seen.value, mask, worn)
                        rounds.value = patience(f, pool)
            with f.else_():
                with f.if_(ticket.value & PLACES == 0):
                    seen.value = ticket.value >> 32             # it came too late for that one
                with f.else_():
                    joined = ticket.value - ONE_PLACE + 1
                    f.break_if(pool.ticket.compare_exchange(ticket.value, joined, ACQ_REL) == ticket.value)
        seen.value = ticket.value >> 32
        _wear_if_changed(f, pool, who, mask, worn)
        _work(f, pool, number, ticket.value)


def _work(f: RoutineBody, pool: PoolMemory, number: I64, ticket: I64) -> None:
    """As the worker that found this ticket and joined."""
    who, ctx = number + 1, pool.context.value
    participant = (ticket & COUNT) + 1
    scratch = ctx.scratch.value.plus(participant * ctx.scratch_bytes.value)
    home = number % (pool.ranges.value - 1) + 1         # the caller's is 0
    on_begin(f, pool, who, ticket >> 32)
    claim_tiles(f, pool, scratch, home)
    pool.left.add(1, SEQ_CST)
    with f.if_(pool.waiting.load(SEQ_CST) != 0):
        futex_wake(f, pool.left)
    on_rest(f, pool, who)


def _sleep(f: RoutineBody, pool: PoolMemory, who: I64, seen: I64, mask: I64s, worn: Cell[I64]) -> None:
    """Until there is another job than the one seen last and somebody wants help, on a share of the CPUs of its own."""
    placement = pool.placement(who)
    pool.sleepers.add(1, SEQ_CST)
    held, known = hold_placement(f, placement), f.variable(I64, 0)
    with f.if_(held):
        known.value = take_share(f, pool, mask, placement.share.load(RELAXED))
    futex_wait(f, pool.sequence_word(), seen)
    with f.if_(held):
        with f.if_(known.value > 0):
            worn.value = wear(f, pool, mask)
        free_placement(f, placement)
    pool.sleepers.subtract(1, SEQ_CST)


def _wear_if_changed(f: RoutineBody, pool: PoolMemory, who: I64, mask: I64s, worn: Cell[I64]) -> None:
    """Runs where the caller may, unless somebody else has just narrowed this thread's affinity; then at the next
    job."""
    with f.if_(pool.mask_version.load(RELAXED) != worn.value):
        placement = pool.placement(who)
        with f.if_(hold_placement(f, placement)):
            worn.value = wear(f, pool, mask)
            free_placement(f, placement)


@routine
def gc_spin(f: RoutineBody, rounds: I64) -> None:
    """Busy-waits: the runtime times it to turn microseconds into rounds."""
    rest = f.variable(I64, rounds)
    with f.while_(lambda: rest.value > 0):
        f.pause()
        rest.value -= 1
