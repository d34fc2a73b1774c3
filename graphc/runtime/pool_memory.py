"""The memory that the pool's threads share. What is written by different threads lies on different cache lines."""
from __future__ import annotations

from graphc.codegen.abi import Context
from graphc.codegen.routines.values import I32, I64, Cell, Field, FunctionPointer, Ptr, Struct

MAX_RANGES = 32
MAX_PLACES = 256                # participants that have a placement of their own; later ones share the last
MASK_WORDS = 128                # CPUs / 64 that an affinity mask has room for
MASK_BYTES = 8 * MASK_WORDS
STALL_SLOTS = 64                # a power of two
KNOWN_JOBS = 128                # of which it is known how long they take

TileFunction = FunctionPointer[None, Context, Ptr, I64, Ptr]        # (ctx, frame, tile, scratch)


class TileRange(Struct, line=True):
    """Tiles that lie side by side."""
    next = Field(I64)           # the first that nobody has claimed


class Placement(Struct, line=True):
    """Where a participant may run."""
    share = Field(I64)          # which part of the CPUs it sleeps on
    lock = Field(I64)           # 1: its affinity is narrowed, or about to be, so nobody else may touch it


class JobTimes(Struct):
    """How long a job takes, in nanoseconds; 0: not known."""
    job = Field(I64)            # which
    shared = Field(I64)         # among threads
    alone = Field(I64)          # on its caller


class PoolMemory(Struct, line=True):
    """The pool. Its first word is 1 while a caller has it."""
    lock = Field(I32)
    workers = Field(I64)        # threads started so far
    spin = Field(I64)           # how often a waiting loop goes round in a microsecond
    wake_ns = Field(I64)        # an estimate of what waking a thread costs
    born = Field(I64)           # workers that have begun to run
    looked_at = Field(I64)      # when a caller looked at its affinity last
    short = Field(I64)          # how many short jobs there were

    ticket = Field(I64, line=True)
    sleepers = Field(I32)

    function = Field(TileFunction, line=True)       # the job
    frame = Field(Ptr)
    context = Field(Context)
    tiles = Field(I64)
    ranges = Field(I64)
    caller_cpu = Field(I32)
    mask_version = Field(I64)   # grows when the mask changes; odd while it does
    mask_bytes = Field(I64)

    left = Field(I32, line=True)        # how many workers have left jobs so far
    waiting = Field(I32)        # whether the caller sleeps until `left` has grown

    next = Field(TileRange, MAX_RANGES)
    placements = Field(Placement, MAX_PLACES + 1)
    mask = Field(I64, MASK_WORDS)       # the CPUs where the caller, and so all participants, may run
    times = Field(JobTimes, KNOWN_JOBS, line=True)      # for callers that have the pool

    def sequence_word(self) -> Cell[I32]:
        """The upper half of the ticket, which is what sleeping workers watch."""
        return Cell(self.ticket.pointer.plus(4), I32)

    def placement(self, who: I64) -> Placement:
        return self.placements[who.at_most(MAX_PLACES)]


# ---- of the plug-in `preemption_ir`
class Watched(Struct, line=True):
    """A participant, two cache lines: what its thread writes, and what those who watch it do."""
    thread = Field(I64)
    cpu = Field(I64)
    job = Field(I64)            # sequence number, and a bit that makes it no 0; 0 while it does not run tiles
    home = Field(I64)           # the CPU to go back to, counted from 1

    watcher = Field(I64, line=True)     # 1 while somebody looks
    seen_job = Field(I64)
    seen_run = Field(I64)
    seen_at = Field(I64)


class PreemptionMemory(Struct, line=True):
    """Lies behind the pool's own memory."""
    moved = Field(I64)          # how often a thread was
    stalls = Field(I64, STALL_SLOTS)    # when a thread was preempted on a CPU last, CPUs counted modulo this
    watched = Field(Watched, MAX_PLACES + 1)

    @staticmethod
    def behind(pool: PoolMemory) -> PreemptionMemory:
        return PreemptionMemory.of(pool.plus(PoolMemory.size))
