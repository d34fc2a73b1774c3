"""A lock in one 32-bit word, for state that native code and Python share: 0 free, 1 held, 2 held and waited for, 3 free
for those who have waited: who takes the lock again and again leaves it to them in between.

Python never holds it: what it does under the lock is one native call, which no signal, exception or collection of
garbage can leave half done.
"""
from __future__ import annotations

from graphc.codegen.routines.routine import RoutineBody, routine
from graphc.codegen.routines.values import ACQUIRE, I1, I32, I64, RELAXED, RELEASE, Records
from graphc.runtime.entry_layout import COPIED, LOCK_BUSY, OTHER_VERSION, LockMemory, Transfer
from graphc.runtime.system import futex_wait, futex_wake, memmove, time_limit

FREE, HELD, AWAITED, GIVEN = 0, 1, 2, 3

Transfers = Records[Transfer]


@routine
def gc_lock(f: RoutineBody, lock: LockMemory, milliseconds: I64) -> I32:
    """1 when the lock was taken, 0 when it could not be had in that time or woke up for nothing."""
    f.return_if(lock.word.compare_exchange(FREE, HELD, ACQUIRE) == FREE, 1)
    await_lock(f, lock, milliseconds)
    return lock_awaited(f, lock).zext(I32)


@routine
def await_lock(f: RoutineBody, lock: LockMemory, milliseconds: I64) -> None:
    """Until the lock may be free, but not longer than that. It is not taken."""
    with f.if_(lock.word.compare_exchange(HELD, AWAITED, RELAXED) != FREE):
        futex_wait(f, lock.word, AWAITED, time_limit(f, milliseconds * 1_000_000))


@routine
def lock_awaited(f: RoutineBody, lock: LockMemory) -> I1:
    """Takes the lock if it is free, for one who has waited: others may be waiting still, so its release wakes one."""
    f.return_if(lock.word.compare_exchange(GIVEN, AWAITED, ACQUIRE) == GIVEN, True)
    return lock.word.compare_exchange(FREE, AWAITED, ACQUIRE) == FREE


@routine
def gc_unlock(f: RoutineBody, lock: LockMemory) -> None:
    """Gives it back, and wakes one who waits, for whom it is then; if nobody does any more, it is free."""
    with f.if_(lock.word.compare_exchange(HELD, FREE, RELEASE) != HELD):
        lock.word.store(GIVEN, RELEASE)
        with f.if_(futex_wake(f, lock.word) < 1):
            lock.word.compare_exchange(GIVEN, FREE, RELEASE)


@routine
def gc_transfer(f: RoutineBody, lock: LockMemory, rows: Transfers, count: I64, writes: I64, expected: I64,
                milliseconds: I64) -> I32:
    """Copies, the lock held, and advances the version by `writes`; nothing if the version is no longer `expected` (-1:
    any)."""
    f.return_if(gc_lock(f, lock, milliseconds) == 0, LOCK_BUSY)
    version = lock.version.value
    is_expected = (expected < 0) | (version == expected)
    with f.if_(is_expected):
        with f.for_(count) as i:
            row = rows[i]
            memmove(f, row.target.value.data.value, row.source.value.data.value, row.nbytes.value, False)
        lock.version.value = version + writes
    gc_unlock(f, lock)
    return f.select(is_expected, f.given(COPIED, I32), OTHER_VERSION)
