"""A pool for `routine_machine`: callers, tiles that check who runs them, and all orders of steps or a random one.

Every tile runs once, with scratch of its own; the caller is back only then; nobody sleeps for ever.
"""
from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Mapping

from happens_before import HappensBefore
from routine_machine import Machine, Program, Thread

from graphc.codegen.abi import Context
from graphc.codegen.routines.routine import Routine, RoutineBody, routine
from graphc.codegen.routines.values import I1, I64, RELAXED, Extern, Ptr
from graphc.runtime import pool_ir, share_ir
from graphc.runtime.pool_ir import gc_parallel
from graphc.runtime.pool_memory import Placement, PoolMemory, PreemptionMemory
from graphc.runtime.preemption_ir import PREEMPTION
from graphc.runtime.system import I64s

# Where things are in the machine's memory.
POOL, CONTEXTS, SCRATCH, COUNTS, RESULTS = 0x1000, 0x100000, 0x200000, 0x300000, 0x10000000
MOVES = POOL + PoolMemory.size + PreemptionMemory.moved.offset
MOST_CALLERS = 8
BEGUN, ENDED = 1, 2

enter = Extern("enter", None, Ptr, I64, Ptr)
leave = Extern("leave", None, Ptr, I64, Ptr)
done = Extern("done", None, Ptr, I64)


@routine
def tile(f: RoutineBody, ctx: Context, frame: Ptr, number: I64, scratch: Ptr):
    """Takes two steps, so that others can come between, and leaves a result."""
    enter(f, frame, number, scratch)
    ctx.profile.load(RELAXED)
    I64s.of(ctx.outputs.value)[number].value = 1
    leave(f, frame, number, scratch)


@routine
def one_job(f: RoutineBody, ctx: Context, tiles: I64):
    """A caller; it reads the results."""
    _job(f, ctx, 1, tiles, tile)


@routine
def two_jobs(f: RoutineBody, ctx: Context, tiles: I64):
    """A caller; workers may be late for the first, and in time for the second."""
    _job(f, ctx, 1, tiles, tile)
    _job(f, ctx, 2, tiles, tile)


@routine
def nesting_tile(f: RoutineBody, ctx: Context, frame: Ptr, number: I64, scratch: Ptr):
    """Its first one is a caller itself, of another context."""
    enter(f, frame, number, scratch)
    with f.if_(number == 0):
        _job(f, Context.of(ctx.plus(0x8000)), 1, 2, tile)
    leave(f, frame, number, scratch)


@routine
def nesting_job(f: RoutineBody, ctx: Context, tiles: I64):
    """A caller."""
    gc_parallel(f, ctx, nesting_tile, ctx.plus(1), tiles)
    done(f, ctx.plus(1), tiles)


@routine
def canceller(f: RoutineBody, ctx: Context, tiles: I64):
    """Asks a call to come back."""
    ctx.cancel.store(1, RELAXED)


def _job(f: RoutineBody, ctx: Context, number: int, tiles: I64 | int, what: Routine) -> None:
    gc_parallel(f, ctx, what, ctx.plus(number), tiles)
    with f.for_(tiles if isinstance(tiles, I64) else I64.constant(f, tiles)) as i:
        _ = I64s.of(ctx.outputs.value)[i].value
    done(f, ctx.plus(number), tiles)


# ---- the checks
def count_at(frame: int, number: int) -> int:
    return COUNTS + 8 * (number + 32 * (frame - CONTEXTS))


def _enter(machine: Machine, thread: Thread, frame: int, number: int, scratch: int) -> None:
    assert machine.load(count_at(frame, number)) == 0, f"tile {number} runs twice"
    assert machine.load(scratch) == 0, "two tiles have one scratch"
    machine.store(count_at(frame, number), BEGUN)
    machine.store(scratch, 1)


def _leave(machine: Machine, thread: Thread, frame: int, number: int, scratch: int) -> None:
    machine.store(count_at(frame, number), ENDED)
    machine.store(scratch, 0)


def _done(machine: Machine, thread: Thread, frame: int, tiles: int) -> None:
    counts = [machine.load(count_at(frame, n)) for n in range(tiles)]
    assert BEGUN not in counts, "the caller is back before a tile is done"
    assert machine.load(cancel_at(frame & ~0xFFF)) or set(counts) == {ENDED}, f"tiles are missing: {counts}"


def cancel_at(context: int) -> int:
    return context + Context.cancel.offset


CHECKS = {"enter": _enter, "leave": _leave, "done": _done}


# ---- a pool without patience: what waits spins once, then sleeps
@routine
def no_patience(f: RoutineBody, pool: PoolMemory) -> I64:
    """One round."""
    return 1


@routine
def one_round(f: RoutineBody, pool: PoolMemory, nanoseconds: I64) -> I64:
    """Whatever the time."""
    return 1


@routine
def no_follow(f: RoutineBody, pool: PoolMemory):
    """Affinities never change."""


@routine
def no_wear(f: RoutineBody, pool: PoolMemory, mask: I64s) -> I64:
    """The version that all have."""
    return 0


@routine
def never_held(f: RoutineBody, own: Placement) -> I1:
    """Nobody narrows affinities."""
    return False


PLAIN = {pool_ir.patience: no_patience, pool_ir.rounds_in: one_round, share_ir.follow: no_follow,
         share_ir.wear: no_wear, share_ir.hold_placement: never_held}


def pool_machine(caller: Routine, callers: int, threads: int, tiles: int, others: tuple[Routine, ...] = (),
                 replaced: Mapping[Routine, Routine] = PLAIN, kind: type[Machine] = Machine) -> Machine:
    """Callers, each about to begin, and threads of `others`, which have the first caller's context."""
    machine = kind(Program([caller, *others], replaced, {**CHECKS, **kind.functions}))
    machine.store(POOL + PoolMemory.wake_ns.offset, 1000)
    machine.store(POOL + PoolMemory.spin.offset, 1)
    for n in range(2 * MOST_CALLERS):                   # the upper half is for calls inside others
        fields = dict(pool=POOL, threads=threads, scratch=SCRATCH + 0x100 * n, scratch_bytes=8,
                      outputs=RESULTS + 0x100 * n)
        for name, value in fields.items():
            machine.store(CONTEXTS + 0x1000 * n + Context.fields[name].offset, value)
    for n in range(callers):
        machine.start(caller.name, CONTEXTS + 0x1000 * n, tiles)
    for other in others:
        machine.start(other.name, CONTEXTS, tiles)
    return machine


def explore(machine: Machine, callers: Iterable[int]) -> int:
    """Follows every order of steps. AssertionError when a check fails, or when from some state the callers cannot come
    back. Number of states."""
    numbers, before, finals = {machine.key(): 0}, [[]], []
    waiting = deque([(0, machine)])
    while waiting:
        at, machine = waiting.popleft()
        if all(machine.threads[n].is_done for n in callers):
            finals.append(at)
            continue
        for n, thread in enumerate(machine.threads):
            if thread.is_done or thread.asleep:
                continue
            after = machine.copy()
            after.step(after.threads[n])
            key = after.key()
            if key not in numbers:
                numbers[key] = len(before)
                before.append([])
                waiting.append((numbers[key], after))
            before[numbers[key]].append(at)
    fine, todo = set(finals), list(finals)
    while todo:
        for earlier in before[todo.pop()]:
            if earlier not in fine:
                fine.add(earlier)
                todo.append(earlier)
    assert len(fine) == len(before), f"from {len(before) - len(fine)} of {len(before)} states callers never come back"
    return len(before)


# ---- one order
class BusyMachine(Machine):
    """A machine with two CPUs and their affinities, on which a step takes 10 us. It is watched for races."""
    STEP_NS, CPUS = 10_000, 0b11

    def __init__(self, program: Program):
        super().__init__(program, HappensBefore())
        self.steps: dict[int, int] = {}             # of each thread
        self.affinity: dict[int, int] = {}          # of those that are not to run everywhere

    def run(self, seed: int, callers: Iterable[int], limit: int = 30_000) -> None:
        """Steps in an order that `seed` decides, mostly several of one thread, until the callers are back. Any sleep
        may end without reason."""
        order, thread = random.Random(seed), None
        for _ in range(limit):
            if all(self.threads[n].is_done for n in callers):
                return
            for sleeper in [t for t in self.threads if t.asleep]:
                if order.random() < (0.02 if sleeper.may_time_out else 0.002):
                    self.wake(sleeper, -1)
            able = [t for t in self.threads if not t.is_done and not t.asleep]
            assert able or any(t.may_time_out for t in self.threads), "all sleep"
            if thread not in able or order.random() < 0.2:
                thread = order.choice(able) if able else None
            if thread:
                self.steps[thread.number] = self.steps.get(thread.number, 0) + 1
                self.step(thread)
        raise AssertionError(f"not back after {limit} steps")


def _time(machine: BusyMachine, thread: Thread, which: int, at: int) -> int:
    """Of the machine, or (of another thread: its number, inverted, in the upper bits) how long that has run."""
    steps = sum(machine.steps.values()) if which == 1 else machine.steps.get(~(which >> 3) - 1, 0)
    machine.store(at, 1)                # nothing is lately when it starts
    machine.store(at + 8, steps * machine.STEP_NS)
    return 0


def _set_affinity(machine: BusyMachine, thread: Thread, whose: int, nbytes: int, mask: int) -> int:
    assert machine.load(mask) & machine.CPUS, "a thread that may run nowhere"
    machine.affinity[whose - 1 if whose else thread.number] = machine.load(mask)
    return 0


def _get_affinity(machine: BusyMachine, thread: Thread, whose: int, nbytes: int, mask: int) -> int:
    machine.store(mask, machine.affinity.get(whose - 1 if whose else thread.number, machine.CPUS))
    return 8


def _cpu(machine: BusyMachine, thread: Thread) -> int:
    mask = machine.affinity.get(thread.number, machine.CPUS)
    return thread.number % 2 if mask == machine.CPUS else mask.bit_length() - 1


BusyMachine.functions = {"clock_gettime": _time, "sched_setaffinity": _set_affinity,
                         "sched_getaffinity": _get_affinity, "sched_getcpu": _cpu}


def busy_machine(caller: Routine, callers: int, threads: int, tiles: int, others: tuple[Routine, ...] = (),
                 patient: bool = True) -> BusyMachine:
    """With all parts of the pool, the plug-in too; `patient`: who waits spins several times."""
    replaced = {pool_ir.patience: some_patience if patient else no_patience, pool_ir.rounds_in: one_round, **PREEMPTION}
    return pool_machine(caller, callers, threads, tiles, others, replaced, BusyMachine)


@routine
def some_patience(f: RoutineBody, pool: PoolMemory) -> I64:
    """A few rounds."""
    return 5


def forked(machine: BusyMachine) -> BusyMachine:
    """A child that has the memory as it is and none of the threads, after `ThreadPool.after_fork`."""
    child = BusyMachine(machine.program)
    measured = [POOL + PoolMemory.spin.offset, POOL + PoolMemory.wake_ns.offset]
    pool = range(POOL, POOL + PoolMemory.size + PreemptionMemory.size)
    child.memory = {a: word for a, word in machine.memory.items() if a in measured or a not in pool and a < SCRATCH}
    return child
