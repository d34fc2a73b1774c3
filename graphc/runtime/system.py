"""What the runtime's routines use of C and of the system: threads, clocks, futexes, memory."""
from __future__ import annotations

from graphc.codegen.routines.routine import RoutineBody, routine
from graphc.codegen.routines.values import I1, I32, I64, I8, Cell, Elements, Extern, Ptr, Size

I64s = Elements[I64]
Pointers = Elements[Ptr]

pthread_create = Extern("pthread_create", I32, Ptr, Ptr, Ptr, Ptr)
pthread_detach = Extern("pthread_detach", I32, I64)
sched_getcpu = Extern("sched_getcpu", I32)
clock_gettime = Extern("clock_gettime", I32, I32, Ptr)
madvise = Extern("madvise", I32, Ptr, I64, I32)
memcmp = Extern("memcmp", I32, Ptr, Ptr, Size)
memcpy = Extern("llvm.memcpy.p0.p0.i64", None, Ptr, Ptr, I64, I1)         # to, from, bytes, volatile
memmove = Extern("llvm.memmove.p0.p0.i64", None, Ptr, Ptr, I64, I1)
memset = Extern("llvm.memset.p0.i64", None, Ptr, I8, I64, I1)             # with a byte

FUTEX_WAIT_PRIVATE, FUTEX_WAKE_PRIVATE = 128, 129
MONOTONIC_CLOCK = 1
SECOND_NS = 1_000_000_000


@routine
def now(f: RoutineBody) -> I64:
    """Nanoseconds of the monotonic clock."""
    return clock(f, MONOTONIC_CLOCK)


@routine
def clock(f: RoutineBody, which: I32) -> I64:
    """Nanoseconds of a clock; -1 when the system does not tell."""
    time = f.array(I64, 2)
    f.return_if(clock_gettime(f, which, time) != 0, -1)
    return time[0].value * SECOND_NS + time[1].value


def futex_wait(f: RoutineBody, word: Cell[I32], expected: I32 | I64 | int, limit: I64s | None = None) -> None:
    """Sleeps unless the word is another than expected by now; until woken, for no reason, or for as long as `limit`
    says."""
    f.syscall("futex", word, FUTEX_WAIT_PRIVATE, expected, limit, None, 0)


def futex_wake(f: RoutineBody, word: Cell[I32]) -> I64:
    """Wakes one thread that sleeps at the word; how many did."""
    return f.syscall("futex", word, FUTEX_WAKE_PRIVATE, 1, None, None, 0)


def time_limit(f: RoutineBody, nanoseconds: I64 | int) -> I64s:
    """Less than a second, as system calls take it."""
    limit = f.array(I64, 2)
    limit[0].value = 0
    limit[1].value = nanoseconds
    return limit
