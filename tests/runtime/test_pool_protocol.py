"""The pool's protocol under every order of steps (few threads, few tiles) and under many random ones; mistakes,
planted, to show that the checks find them."""
from __future__ import annotations

import pytest
from pool_model import (
    CONTEXTS,
    MOVES,
    PLAIN,
    POOL,
    RESULTS,
    busy_machine,
    cancel_at,
    canceller,
    explore,
    forked,
    nesting_job,
    one_job,
    pool_machine,
    two_jobs,
)
from routine_machine import Machine, Op

from graphc.codegen.abi import COMMITTED, Context
from graphc.codegen.routines.routine import RoutineBody, routine
from graphc.codegen.routines.values import I32, I64, SEQ_CST
from graphc.runtime.pool_ir import await_workers
from graphc.runtime.pool_memory import JobTimes, PoolMemory
from graphc.runtime.short_jobs_ir import PERIOD, SHORT_NS, TRIAL, is_for_caller, note
from graphc.runtime.system import I64s, futex_wait

# ---- all orders
@pytest.mark.parametrize("caller, tiles", [(one_job, 2), (one_job, 3), (two_jobs, 2)])
def test_every_order_of_a_caller_and_a_worker(caller, tiles):
    assert explore(pool_machine(caller, 1, 2, tiles), [0]) > 1000


def test_every_order_of_a_call_that_is_cancelled():
    assert explore(pool_machine(one_job, 1, 2, 2, others=(canceller,)), [0]) > 1000


def test_a_call_that_has_begun_to_write_state_is_not_cancelled():
    machine = pool_machine(one_job, 1, 2, 2)
    machine.store(cancel_at(CONTEXTS), COMMITTED)
    assert explore(machine, [0]) > 1000


# ---- random orders
SEEDS = range(12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("callers, threads, tiles", [(1, 2, 7), (1, 5, 3), (1, 7, 12), (3, 3, 5), (6, 3, 2)])
def test_random_orders(callers, threads, tiles, seed):
    """More threads than tiles or CPUs, and callers that find the pool busy; workers that are preempted, since others
    take their steps."""
    machine = busy_machine(two_jobs, callers, threads, tiles, patient=seed % 2 == 0)
    machine.run(seed, range(callers))
    affinities = [machine.affinity.get(n, machine.CPUS) for n in range(callers)]
    assert set(affinities) == {machine.CPUS}, "a caller's affinity is narrowed"


def test_some_of_them_move_preempted_workers():
    moved = 0
    for seed in SEEDS:
        machine = busy_machine(two_jobs, 1, 4, 12)
        machine.run(seed, [0])
        moved += machine.load(MOVES)
    assert moved > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_calls_inside_tiles_run_on_their_caller(seed):
    busy_machine(nesting_job, 1, 3, 4).run(seed, [0])


@pytest.mark.parametrize("seed", SEEDS)
def test_cancelled_calls_come_back(seed):
    machine = busy_machine(one_job, 1, 3, 20, others=(canceller,))
    machine.run(seed, [0, 1])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_fork_in_the_middle_of_a_call(seed):
    machine = busy_machine(two_jobs, 2, 3, 5)
    with pytest.raises(AssertionError, match="not back"):
        machine.run(seed, [0, 1], limit=40 + 20 * seed)
    child = forked(machine)
    child.start("two_jobs", CONTEXTS, 5)
    child.run(seed, [0])


# ---- mistakes, planted
def change(machine: Machine, name: str, kind: str, nth: int, order: str | None = None) -> None:
    """In routine `name` the atomic instruction `nth` of a kind gets another memory order, or (None) is left out."""
    ops = machine.program.codes[name].ops
    at = [n for n, op in enumerate(ops) if op.kind == kind and op.how is not None][nth]
    old = ops[at]
    ops[at] = Op("skip") if order is None else Op(kind, old.result, old.operands, order, old.function, old.bits)


@routine
def no_second_look(f: RoutineBody, pool: PoolMemory, goal: I32):
    """`left` is not read again after `waiting` is set."""
    with f.forever():
        f.break_if(pool.left.load(SEQ_CST) == goal)
        pool.waiting.store(1, SEQ_CST)
        futex_wait(f, pool.left, pool.left.load(SEQ_CST))
    pool.waiting.store(0, SEQ_CST)


def test_a_missing_second_look_before_sleep_is_found():
    with pytest.raises(AssertionError, match="never come back"):
        explore(pool_machine(one_job, 1, 2, 2, replaced={**PLAIN, await_workers: no_second_look}), [0])


@pytest.mark.parametrize("name, kind, nth, order", [
    ("run_job", "atomicrmw", 0, "monotonic"),           # of the ticket that publishes the job
    ("worker", "atomicrmw", 3, "acquire"),              # of its leaving: its results
    ("gc_parallel", "store", 0, "monotonic"),           # of the pool's lock, for the next caller
    ("is_preempted", "store", 0, "monotonic"),          # of what a watcher has seen
])
def test_a_missing_memory_order_is_found(name, kind, nth, order):
    with pytest.raises(AssertionError, match="race"):
        for seed in range(40):
            for callers, tiles in ((6, 2), (1, 12)):
                machine = busy_machine(one_job, callers, 4, tiles)
                change(machine, name, kind, nth, order)
                machine.run(seed, range(callers))


@pytest.mark.parametrize("name, kind, nth, found", [
    ("run_job", "atomicrmw", 1, "tiles are missing"),               # the ticket is not closed
    ("await_workers", "store", 0, "never come back"),               # the caller does not say that it sleeps
    ("worker", "atomicrmw", 3, "never come back"),                  # a worker does not say that it has left
    ("claim_range", "atomicrmw", 0, "runs twice|never come back"),  # a tile is looked at and not claimed
])
def test_a_missing_step_is_found(name, kind, nth, found):
    machine = pool_machine(one_job, 1, 2, 2)
    change(machine, name, kind, nth)
    with pytest.raises(AssertionError, match=found):
        explore(machine, [0])


# ---- short jobs
TIMES = 0x20000000


@routine
def asked(f: RoutineBody, ctx: Context, tiles: I64):
    """Notes a time of a job without others, and asks whether the next is for the caller alone."""
    times = JobTimes.of(ctx.profile.value)
    note(f, I64s.of(times.alone.pointer), tiles)
    I64s.of(ctx.outputs.value)[0].value = is_for_caller(f, PoolMemory.of(ctx.pool.value), times).zext(I64)


@pytest.mark.parametrize("shared, alone, new, count, is_alone", [
    (0, 100, 100, PERIOD - 1, False),                   # not known how long with others
    (SHORT_NS + 1, 100, 100, PERIOD - 1, False),        # no short job
    (100, 90, 90, PERIOD - 1, True),
    (100, 0, 110, PERIOD - 1, False),
    (100, 110, 90, PERIOD - 1, True),                   # the least counts
    (100, 90, 500, PERIOD - 1, False),                  # and grows slowly
    (100, 80, 500, PERIOD - 1, True),
    (100, 90, 90, PERIOD, False),                       # tried again with others
    (100, 110, 110, PERIOD + TRIAL, True)])             # and without
def test_short_jobs_go_the_shorter_way(shared, alone, new, count, is_alone):
    machine = pool_machine(asked, 0, 2, new)
    machine.store(CONTEXTS + Context.profile.offset, TIMES)
    for field, value in ((JobTimes.shared, shared), (JobTimes.alone, alone)):
        machine.store(TIMES + field.offset, value)
    machine.store(POOL + PoolMemory.short.offset, count)
    machine.start(asked.name, CONTEXTS, new)
    assert machine.load(RESULTS) == is_alone
