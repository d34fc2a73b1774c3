"""Short jobs: whether other threads take part, by what was measured.

What it costs to hand tiles to another thread and to wait for it differs from machine to machine by ten times, and of a
job of some microseconds it may be more than is gained. So the pool notes of each job (its function and how many tiles
and threads it has) how long it took with others and without, and takes the shorter way: bits are the same. Now and
then some jobs in a row are tried each way: of a single one, workers would be asleep.
"""
from __future__ import annotations

from graphc.codegen.routines.routine import RoutineBody, routine
from graphc.codegen.routines.values import I1, I64, Ptr
from graphc.runtime.pool_memory import KNOWN_JOBS, JobTimes, PoolMemory
from graphc.runtime.system import I64s

SHORT_NS = 100_000              # a longer job is always shared
TRIAL, PERIOD = 64, 1 << 13     # of so many short jobs, that many are tried each way
MIX = 0x9E3779B97F4A7C15        # odd, of 64 bits: the upper bits of a product depend on all of the other factor
DRIFT = 3                       # a time that was too short grows by this power of two's part with each longer one


@routine
def times_of(f: RoutineBody, pool: PoolMemory, function: Ptr, tiles: I64, others: I64) -> Ptr:
    """What is known of this job; the caller has the pool."""
    job = (function.to_int() * MIX + tiles) * MIX + others
    times = pool.times[(job * MIX >> 32) % KNOWN_JOBS]
    with f.if_(times.job.value != job):
        times.job.value, times.shared.value, times.alone.value = job, 0, 0
    return times


@routine
def is_for_caller(f: RoutineBody, pool: PoolMemory, times: JobTimes) -> I1:
    """Whether the job takes longer with other threads than without."""
    shared, alone = times.shared.value, times.alone.value
    f.return_if((shared == 0) | (shared > SHORT_NS), False)
    count = pool.short.value
    pool.short.value = count + 1
    place = count % PERIOD
    f.return_if(place < TRIAL, False)
    f.return_if((alone == 0) | (place < 2 * TRIAL), True)
    return alone <= shared


@routine
def note(f: RoutineBody, time: I64s, found: I64) -> None:
    """Of what a job took lately the least, more or less: others may have been on the core."""
    before = time[0].value
    longer = found.at_most(before + (before >> DRIFT) + 1)
    time[0].value = f.select(before == 0, found, longer).at_least(1)
