"""A state's lock under every order of steps: one thread has it at a time, and nobody waits for ever."""
from __future__ import annotations

import itertools

import pytest
from pool_model import explore
from happens_before import HappensBefore
from routine_machine import Machine, Program, Thread

from graphc.codegen.routines.routine import RoutineBody, routine
from graphc.codegen.routines.values import ACQUIRE, I1, I64, RELAXED, RELEASE, Extern
from graphc.runtime.entry_layout import LockMemory
from graphc.runtime.lock_ir import FREE, GIVEN, HELD, await_lock, gc_lock, gc_unlock, lock_awaited
from graphc.runtime.system import futex_wait, futex_wake

LOCK, INSIDE = 0x1000, 0x2000

enter = Extern("enter", None)
leave = Extern("leave", None)


@routine
def user(f: RoutineBody, lock: LockMemory, times: I64):
    """Takes the lock so many times, and leaves it in between; what is under it takes a step."""
    with f.for_(times):
        with f.while_(lambda: gc_lock(f, lock, 100) == 0):
            f.pause()
        enter(f)
        lock.word.load(RELAXED)
        lock.version.value = lock.version.value + 1
        leave(f)
        gc_unlock(f, lock)


def _enter(machine: Machine, thread: Thread) -> None:
    assert machine.load(INSIDE) == 0, "two threads have the lock"
    machine.store(INSIDE, 1)


def _leave(machine: Machine, thread: Thread) -> None:
    machine.store(INSIDE, 0)


def lock_machine(threads: int, times: int, replaced=(), watch: HappensBefore | None = None) -> Machine:
    machine = Machine(Program([user], dict(replaced), {"enter": _enter, "leave": _leave}), watch)
    for _ in range(threads):
        machine.start("user", LOCK, times)
    return machine


@pytest.mark.parametrize("threads, times", [(2, 2), (3, 1)])
def test_every_order(threads, times):
    assert explore(lock_machine(threads, times), range(threads)) > 100


@routine
def forgets_others(f: RoutineBody, lock: LockMemory) -> I1:
    """Who has waited takes the lock as if nobody else waited."""
    f.return_if(lock.word.compare_exchange(GIVEN, HELD, ACQUIRE) == GIVEN, True)
    return lock.word.compare_exchange(FREE, HELD, ACQUIRE) == FREE


@routine
def says_nothing(f: RoutineBody, lock: LockMemory, milliseconds: I64):
    """Waits without saying so."""
    with f.if_(lock.word.load(RELAXED) != FREE):
        futex_wait(f, lock.word, HELD)


@routine
def wakes_nobody(f: RoutineBody, lock: LockMemory):
    """Only gives the lock back."""
    lock.word.store(FREE, RELAXED)


@routine
def keeps_for_nobody(f: RoutineBody, lock: LockMemory):
    """Leaves the lock to those who have waited, whether anybody has or not."""
    with f.if_(lock.word.compare_exchange(HELD, FREE, RELEASE) != HELD):
        lock.word.store(GIVEN, RELEASE)
        futex_wake(f, lock.word)


def test_at_the_end_the_lock_is_free():
    """Else each later call would take the long way."""
    for wrong in ((), {gc_unlock: keeps_for_nobody}):
        ends = set()
        for order in itertools.permutations(range(3)):
            machine = lock_machine(3, 2, wrong)
            while able := [machine.threads[i] for i in order if not machine.threads[i].is_done and not machine.threads[i].asleep]:
                machine.step(able[0])
                if not able[0].is_done and not able[0].asleep and len(able) > 1:
                    machine.step(able[-1])
            ends.add(machine.load(LOCK, 32))
        assert (ends == {FREE}) == (not wrong), ends


@pytest.mark.parametrize("sound, wrong", [
    (lock_awaited, forgets_others), (await_lock, says_nothing), (gc_unlock, wakes_nobody)])
def test_mistakes_are_found(sound, wrong):
    with pytest.raises(AssertionError, match="never come back"):
        explore(lock_machine(3, 1, {sound: wrong}), range(3))


def test_a_missing_memory_order_is_found():
    """Each step of a thread may come at once after any of another; here they take turns."""
    _take_turns(lock_machine(2, 3, watch=HappensBefore()))
    with pytest.raises(AssertionError, match="race"):
        _take_turns(lock_machine(2, 3, {gc_unlock: wakes_nobody}, HappensBefore()))


def _take_turns(machine: Machine) -> None:
    while able := [t for t in machine.threads if not t.is_done and not t.asleep]:
        for thread in able:
            if not thread.asleep:
                machine.step(thread)
