"""A call of an exported function, as routines: what all functions of all libraries have in common."""
from __future__ import annotations

from graphc.codegen.abi import INDEX_BIAS, INDEX_BITS, INDEX_MASK, RETURN_OK, STATUS_OK, Context
from graphc.codegen.routines.routine import RoutineBody, routine
from graphc.codegen.routines.values import ACQUIRE, I1, I32, I64, RELEASE, Ptr
from graphc.runtime.float_control import gc_run
from graphc.runtime.instances.instance_memory import MAGIC, FunctionRecord, InstanceMemory, Job, Texts
from graphc.runtime.instances.status import (
    ARGUMENT, BUSY, INDEX, MEMORY, NAN, OK, SIZE, UNALIGNED, UNLOADED, UNREADY, WORKER)
from graphc.runtime.instances.texts_ir import append, append_number, failed, length_of
from graphc.runtime.pool_ir import run_alone
from graphc.runtime.pool_memory import TileFunction
from graphc.runtime.system import I64s, Pointers
from graphc.schedule.target import ALIGNMENT


@routine
def check_instance(f: RoutineBody, n: InstanceMemory) -> I32:
    """Whether there is an instance: a status."""
    f.return_if(n.is_null(), UNREADY.code)
    f.return_if(n.to_int() & ALIGNMENT - 1 != 0, UNALIGNED.code)
    f.return_if(n.magic.value != MAGIC, UNREADY.code)
    return f.given(OK.code, I32)


@routine
def call_function(f: RoutineBody, n: InstanceMemory, r: FunctionRecord, arrays: Pointers, outputs: Pointers,
                  sizes: I64s) -> I32:
    """Checks everything that a caller may have wrong, and runs the function. `arrays`: inputs, then outputs."""
    f.return_if(n.busy.compare_exchange(0, 1, ACQUIRE) != 0, BUSY.code)
    n.message[0].value = 0
    code = call_alone(f, n, r, arrays, outputs, sizes)
    n.busy.store(0, RELEASE)
    return code


@routine
def call_alone(f: RoutineBody, n: InstanceMemory, r: FunctionRecord, arrays: Pointers, outputs: Pointers,
               sizes: I64s) -> I32:
    """The call, of which nobody else is inside the instance."""
    with f.if_(n.loaded.value == 0):
        f.return_(failed(f, n, UNLOADED))
    facts = r.facts.value
    wrong = wrong_argument(f, r, arrays)
    with f.if_(wrong >= 0):
        f.return_(failed(f, n, ARGUMENT, wrong))
    with f.if_(~fits_sizes(f, r, sizes, facts.names.value)):
        f.return_(failed(f, n, SIZE))
    need = work_need(f, r, n.threads.value)
    with f.if_(need > n.work_bytes.value):
        f.return_(failed(f, n, MEMORY, need + (n.work.value.to_int() - n.to_int())))
    context = fill_context(f, n, r, arrays, outputs)
    code = f.variable(I32, RETURN_OK)
    with f.if_(~r.prepare.value.is_null()):
        with f.if_(r.seen.value != n.version.value):
            code.value = gc_run(f, r.prepare.value, context)
            with f.if_(code.value == RETURN_OK):
                r.seen.value = n.version.value
    with f.if_(code.value == RETURN_OK):
        code.value = gc_run(f, r.main.value, context)
        with f.if_(facts.writes.value != 0):
            n.version.value += 1
    with f.if_(n.misused.value != 0):
        n.misused.value = 0
        f.return_(failed(f, n, WORKER))
    with f.if_(code.value != RETURN_OK):
        f.return_(failed_check(f, n, r, context.status.value))
    return f.given(OK.code, I32)


@routine
def wrong_argument(f: RoutineBody, r: FunctionRecord, arrays: Pointers) -> I64:
    """The first array that cannot be one; -1 if all can."""
    facts = r.facts.value
    bits = facts.rows()
    with f.for_(facts.arrays.value) as i:
        address = arrays[i].value.to_int()
        f.return_if((address == 0) | (address & bits[i].value != 0), i)
    return f.given(-1, I64)


@routine
def fits_sizes(f: RoutineBody, r: FunctionRecord, sizes: I64s, names: I64) -> I1:
    """Whether the program serves these sizes; then what it needs of them is in the record."""
    f.return_if(names == 0, True)
    known, differs = r.known.value, f.variable(I64, 0)
    with f.for_(names) as i:
        differs.value |= known[i].value ^ sizes[i].value
    f.return_if((r.knows.value != 0) & (differs.value == 0), True)
    r.knows.value = 0
    f.return_if(r.formulas.value(f, sizes, r.sizes.value) == 0, False)
    r.knows.value = 1
    with f.for_(names) as i:
        known[i].value = sizes[i].value
    return f.given(True, I1)


@routine
def arena_of(f: RoutineBody, r: FunctionRecord) -> I64:
    """Bytes of arena for the sizes in the record, or for all."""
    f.return_if(r.formulas.value.is_null(), rounded(r.facts.value.arena.value))
    return rounded(r.sizes.value[0].value)


@routine
def scratch_of(f: RoutineBody, r: FunctionRecord) -> I64:
    """The same of the scratch of one thread."""
    f.return_if(r.formulas.value.is_null(), rounded(r.facts.value.scratch.value))
    return rounded(r.sizes.value[1].value)


def rounded(nbytes: I64) -> I64:
    """To whole cache lines."""
    return nbytes + (ALIGNMENT - 1) & -ALIGNMENT


@routine
def work_need(f: RoutineBody, r: FunctionRecord, threads: I64) -> I64:
    """Bytes of work that a call takes."""
    return arena_of(f, r) + scratch_of(f, r) * threads + r.facts.value.passing_bytes.value


@routine
def fill_context(f: RoutineBody, n: InstanceMemory, r: FunctionRecord, inputs: Pointers, outputs: Pointers) -> Context:
    """What the program gets."""
    c, scratch = n.context[0], scratch_of(f, r)
    work = n.work.value
    c.parallel.value, c.threads.value = n.parallel.value, n.threads.value
    c.arena.value, c.consts.value, c.state.value = work, r.consts.value, r.state.value
    c.inputs.value, c.outputs.value = inputs, outputs
    c.scratch.value, c.scratch_bytes.value = work.plus(arena_of(f, r)), scratch
    c.status.value, c.cancel.value = STATUS_OK, 0
    c.sizes.value = r.sizes.value.plus(16)
    lay_passing(f, n, r, work.plus(arena_of(f, r) + scratch * n.threads.value))
    return c


@routine
def lay_passing(f: RoutineBody, n: InstanceMemory, r: FunctionRecord, there: Ptr) -> None:
    """What only passes while derived arrays are made lies behind the scratch, which moves with the sizes."""
    facts = r.facts.value
    f.return_if(facts.passing_bytes.value == 0)
    states = facts.states.value
    offsets = facts.rows()
    with f.for_(facts.derived.value) as i:
        at = facts.arrays.value + states + i
        with f.if_(offsets[at].value < 0):
            r.state.value[states + i].value = there


@routine
def failed_check(f: RoutineBody, n: InstanceMemory, r: FunctionRecord, status: I64) -> I32:
    """A failed check of an index, or of a NaN: its message, index and code."""
    index = (status & INDEX_MASK) - INDEX_BIAS
    row = r.messages.value.plus((status >> INDEX_BITS) * 24)
    n.index.value = index
    texts = r.messages.value
    before = Texts.of(texts.plus(I64s.of(row)[0].value))
    after = Texts.of(texts.plus(I64s.of(row)[1].value))
    at = append(f, n, 0, before, length_of(f, before))
    behind = append_number(f, n, at, index)
    append(f, n, behind, after, length_of(f, after))
    return f.select(I64s.of(row)[2].value != 0, f.given(NAN.code, I32), f.given(INDEX.code, I32))


# ---- parallel loops that the caller runs
@routine
def run_by_caller(f: RoutineBody, ctx: Context, fn: TileFunction, frame: Ptr, tiles: I64) -> None:
    """Stands where the pool does: gives the tiles to the caller's own way of running them."""
    n = InstanceMemory.of(ctx.pool.value)
    with f.if_((ctx.threads.value <= 1) | (tiles <= 1)):
        run_alone(f, ctx, fn, frame, tiles)
        f.return_()
    job = Job.of(f.array(I64, Job.size // 8))
    job.context.value, job.function.value, job.frame.value, job.instance.value = ctx, fn, frame, n
    n.run_tiles.value(f, n.run_with.value, run_tile, job, tiles)


@routine
def run_tile(f: RoutineBody, given: Ptr, tile: I64, worker: I32) -> None:
    """What the caller calls for each tile, on any thread; no two at once as the same worker."""
    job = Job.of(given)
    ctx, number = job.context.value, worker.sext(I64)
    with f.if_((number < 0) | (number >= ctx.threads.value)):
        job.instance.value.misused.value = 1
        f.return_()
    fn = job.function.value
    fn(f, ctx, job.frame.value, tile, ctx.scratch.value.plus(number * ctx.scratch_bytes.value))
