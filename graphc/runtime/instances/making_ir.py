"""Making an instance, its memory and its state, as routines: what all libraries have in common."""
from __future__ import annotations

from graphc.codegen.routines.routine import RoutineBody, routine
from graphc.codegen.routines.values import I32, I64, RELAXED, SEQ_CST, Extern, Global, Ptr, Size
from graphc.runtime.instances.calls_ir import work_need
from graphc.runtime.instances.instance_memory import MAGIC, FunctionRecords, InstanceMemory, Tensors, Texts
from graphc.runtime.instances.status import MEMORY, OK, UNALIGNED, UNREADY, WEIGHTS
from graphc.runtime.instances.texts_ir import say_words, text
from graphc.runtime.pool_ir import gc_spin
from graphc.runtime.pool_memory import MASK_BYTES, MASK_WORDS, PoolMemory, PreemptionMemory
from graphc.runtime.system import I64s, memcmp, memcpy, memset, now
from graphc.schedule.target import ALIGNMENT

QUOTE, ZERO, NINE = 34, 48, 57      # characters
OFFSETS_KEY = ',"data_offsets":['   # ends the part of a tensor's entry in a header that does not depend on the file
LENGTH_BYTES = 8                    # of the number that a safetensors file begins with
MANY = 1 << 55                      # bytes that no file has
FIRST_WAKE_NS = 20_000              # what waking a thread is taken to cost before it has been measured
SPIN_ROUNDS = 20_000
MAX_THREADS = 1 << 12

POOL = Global("pool", zeros=PoolMemory.size + PreemptionMemory.size)
STARTED = Global("started", zeros=8)
pthread_atfork = Extern("pthread_atfork", I32, Ptr, Ptr, Ptr)
posix_memalign = Extern("posix_memalign", I32, Ptr, Size, Size)
c_free = Extern("free", None, Ptr)
windows_malloc = Extern("_aligned_malloc", Ptr, Size, Size)
windows_free = Extern("_aligned_free", None, Ptr)


# ---- an instance
@routine
def begin_instance(f: RoutineBody, n: InstanceMemory, nbytes: I64, least: I64) -> I32:
    """The beginning of an instance, all zero: a status."""
    f.return_if(n.is_null(), UNREADY.code)
    f.return_if(n.to_int() & ALIGNMENT - 1 != 0, UNALIGNED.code)
    f.return_if(nbytes < least, MEMORY.code)
    memset(f, n, 0, least, False)
    return f.given(OK.code, I32)


@routine
def lay_out(f: RoutineBody, n: InstanceMemory, records: FunctionRecords, count: I64, image: Ptr, at: I64,
            nbytes: I64) -> I32:
    """Places of the state's arrays in its image, of derived arrays from `at` on, and of the work behind them."""
    end = f.variable(I64, at)
    with f.for_(count) as k:
        r = records[k]
        facts = r.facts.value
        offsets, states = facts.rows(), facts.states.value
        with f.for_(states) as i:
            r.state.value[i].value = image.plus(offsets[facts.arrays.value + i].value)
        with f.for_(facts.derived.value) as i:
            there = offsets[facts.arrays.value + states + i].value.at_least(0)
            r.state.value[states + i].value = n.plus(end.value + there)
        r.seen.value = -1
        end.value += facts.derived_bytes.value
    n.image.value, n.work.value, n.work_bytes.value = image, n.plus(end.value), nbytes - end.value
    f.return_if(n.work_bytes.value < 0, MEMORY.code)
    with f.for_(count) as k:
        r = records[k]
        with f.if_(r.facts.value.names.value == 0):
            f.return_if(work_need(f, r, n.threads.value) > n.work_bytes.value, MEMORY.code)
    n.magic.value = MAGIC
    return f.given(OK.code, I32)


@routine
def bytes_needed(f: RoutineBody, records: FunctionRecords, count: I64, at: I64, threads: I64) -> I64:
    """Bytes of an instance whose derived arrays begin at `at`, for the sizes that the records have."""
    most, end = f.variable(I64, 0), f.variable(I64, at)
    with f.for_(count) as k:
        r = records[k]
        most.value = most.value.at_least(work_need(f, r, threads))
        end.value += r.facts.value.derived_bytes.value
    return end.value + most.value


@routine
def allocated(f: RoutineBody, nbytes: I64) -> Ptr:
    """So many bytes from the C library; null where it has none."""
    place = f.array(Ptr, 1)
    place[0].value = None
    f.return_if(nbytes <= 0, None)
    f.return_if(posix_memalign(f, place, ALIGNMENT, nbytes) != 0, None)
    return place[0].value


@routine
def allocated_by_windows(f: RoutineBody, nbytes: I64) -> Ptr:
    """The same on Windows."""
    f.return_if(nbytes <= 0, None)
    return windows_malloc(f, nbytes, ALIGNMENT)


# ---- threads
@routine
def own_cpus(f: RoutineBody) -> I64:
    """How many CPUs this thread may use."""
    mask, total = f.array(I64, MASK_WORDS), f.variable(I64, 0)
    known = f.syscall("sched_getaffinity", 0, MASK_BYTES, mask)
    with f.for_((known << 3).at_least(0)) as cpu:
        total.value += mask[cpu >> 6].value >> (cpu & 63) & 1
    return total.value.at_least(1)


@routine
def start_pool(f: RoutineBody) -> Ptr:
    """The pool of the process, ready for its first job."""
    pool, started = PoolMemory.of(f.address(POOL)), I64s.of(f.address(STARTED))
    with f.if_(started[0].exchange(1, SEQ_CST) == 0):
        pthread_atfork(f, None, None, forget_workers)
    with f.if_(pool.spin.load(RELAXED) == 0):
        begin = now(f)
        gc_spin(f, SPIN_ROUNDS)
        spent = (now(f) - begin).at_least(1)
        pool.wake_ns.store(FIRST_WAKE_NS, RELAXED)
        pool.spin.store((f.given(SPIN_ROUNDS * 1000, I64) // spent).at_least(1), RELAXED)
    return Ptr.of(pool)


@routine
def forget_workers(f: RoutineBody) -> None:
    """The child of a fork has no workers, and nobody holds the pool."""
    pool = PoolMemory.of(f.address(POOL))
    spin, wake = pool.spin.value, pool.wake_ns.value
    memset(f, pool, 0, PoolMemory.size + PreemptionMemory.size, False)
    pool.spin.value, pool.wake_ns.value = spin, wake


# ---- the state
@routine
def load_image(f: RoutineBody, n: InstanceMemory, tensors: Tensors, count: I64, data: Texts, nbytes: I64) -> I32:
    """Takes every array of the state from a safetensors file in memory; nothing is written unless all fit."""
    with f.for_(count) as i:
        with f.if_(found_at(f, tensors, i, data, nbytes) < 0):
            with f.if_(tensors[i].optional.value == 0):
                entry = Texts.of(tensors.plus(tensors[i].entry.value))
                words = Texts.of(f.address(text(WEIGHTS.before)))
                say_words(f, n, words, entry, tensors[i].entry_bytes.value - len(OFFSETS_KEY))
                f.return_(WEIGHTS.code)
    with f.for_(count) as i:
        begin = found_at(f, tensors, i, data, nbytes)
        with f.if_(begin >= 0):
            memcpy(f, n.image.value.plus(tensors[i].offset.value), data.plus(begin), tensors[i].nbytes.value, False)
    n.loaded.value = 1
    n.version.value += 1
    return f.given(OK.code, I32)


@routine
def found_at(f: RoutineBody, tensors: Tensors, i: I64, data: Texts, nbytes: I64) -> I64:
    """Where the values of an array begin in a safetensors file in memory; -1 where it has none of that name, type and
    shape, or ends before."""
    f.return_if(data.is_null() | (nbytes < LENGTH_BYTES), -1)
    word = f.array(I64, 1)
    memcpy(f, word, data, LENGTH_BYTES, False)
    length = word[0].value
    f.return_if((length < 0) | (length > nbytes - LENGTH_BYTES), -1)
    wanted = tensors[i]
    entry, count = Texts.of(tensors.plus(wanted.entry.value)), wanted.entry_bytes.value
    at, end = f.variable(I64, LENGTH_BYTES), length + LENGTH_BYTES
    with f.while_(lambda: at.value + count < end):
        with f.if_(data[at.value].value == QUOTE):
            f.break_if(memcmp(f, data.plus(at.value), entry, count) == 0)
        at.value += 1
    f.return_if(at.value + count >= end, -1)
    at.value += count
    begin = number_in(f, data, at, end)
    at.value += 1
    stop = number_in(f, data, at, end)
    is_right = (stop - begin == wanted.nbytes.value) & (stop <= nbytes - end)
    return f.select(is_right, end + begin, f.given(-1, I64))


@routine
def number_in(f: RoutineBody, data: Texts, at: I64s, end: I64) -> I64:
    """The decimal number at a place of a text, which moves behind it; a very large one where it is too long."""
    total = f.variable(I64, 0)
    with f.while_(lambda: at[0].value < end):
        digit = data[at[0].value].value.zext(I64)
        f.break_if((digit < ZERO) | (digit > NINE))
        total.value = (total.value * 10 + digit - ZERO).at_most(MANY)
        at[0].value += 1
    return total.value
