"""The memory of an exported library: what a program is, in constants, and what an instance holds. C sees none of it.

An instance is one block of the caller's memory:

    InstanceMemory | FunctionRecord of each function | their tables | image of the state | derived arrays | work

Up to the image its layout is the same for all instruction sets. The work is arena, scratch of each thread, and memory
for what is packed while derived arrays are made; functions use it in turn.
"""
from __future__ import annotations

from graphc.codegen.abi import Context
from graphc.codegen.routines.values import I8, I32, I64, Elements, Field, FunctionPointer, Ptr, Records, Struct
from graphc.runtime.entry_layout import ProgramFunction
from graphc.runtime.pool_memory import TileFunction
from graphc.runtime.system import I64s, Pointers

MAGIC = 0x67726170_68632E31         # what an instance begins with once it is made
TEXT_BYTES = 512                    # of the message about the last mistake
PASSES = -1                         # in place of a derived array's offset: it has memory only while others are made

# (names of sizes, where to write) -> whether the program serves these sizes; writes arena, scratch, the table of sizes
FormulaFunction = FunctionPointer[I32, I64s, I64s]
TaskFunction = FunctionPointer[None, Ptr, I64, I32]             # (job, tile, worker)
ForFunction = FunctionPointer[None, Ptr, Ptr, Ptr, I64]         # (the caller's own, task, job, tiles)


class ProgramFacts(Struct):
    """Constants of one function for one instruction set. Three arrays of i64 follow: for each array of a call the bits
    of its address that must be 0, then where each array of state, and each derived one, lies in an instance."""
    arena = Field(I64)          # of a program without named sizes; of others formulas say it
    scratch = Field(I64)        # for each thread
    arrays = Field(I64)         # inputs and outputs of a call
    states = Field(I64)
    derived = Field(I64)
    derived_bytes = Field(I64)
    passing_bytes = Field(I64)
    writes = Field(I64)         # whether it changes state
    names = Field(I64)          # of sizes

    def rows(self) -> I64s:
        """The arrays that follow."""
        return I64s.of(self.plus(ProgramFacts.size))


class FunctionRecord(Struct):
    """A function of an instance, for the instruction set that this CPU runs."""
    facts = Field(ProgramFacts)
    main = Field(ProgramFunction)
    prepare = Field(ProgramFunction)    # null: nothing is derived from the state
    consts = Field(Ptr)
    formulas = Field(FormulaFunction)   # null: no named sizes
    messages = Field(I64s)      # for each number of a check, where its two texts begin
    state = Field(Pointers)     # table of addresses: the state's arrays, then the derived ones
    known = Field(I64s)         # the sizes of the last call, where there are
    knows = Field(I64)          # some
    sizes = Field(I64s)         # arena, scratch, and what the code needs of these sizes
    seen = Field(I64)           # the version of the state that the derived arrays are of


class InstanceMemory(Struct):
    """Begins an instance."""
    magic = Field(I64)
    busy = Field(I64)           # 1 during a call
    chosen = Field(I64)            # number of the instruction set
    threads = Field(I64)
    version = Field(I64)        # of the state: grows when it changes
    loaded = Field(I64)         # whether the state has values
    image = Field(Ptr)          # of the state, a safetensors file
    work = Field(Ptr)
    work_bytes = Field(I64)
    parallel = Field(Ptr)       # what runs tiles: of the context
    run_tiles = Field(ForFunction)      # the caller's own way to do so, and what it is given
    run_with = Field(Ptr)
    misused = Field(I64)        # whether it named a worker that there is not
    index = Field(I64)          # that the last failed check reports
    message = Field(I8, TEXT_BYTES)
    context = Field(Context, 1)


class TensorFacts(Struct):
    """An array of the state, as constants: how a safetensors header names it, up to its offsets, and where it is."""
    entry = Field(I64)          # of its entry's text, from the first of these records on
    entry_bytes = Field(I64)
    offset = Field(I64)         # in the image
    nbytes = Field(I64)
    optional = Field(I64)       # whether files may lack it


class Job(Struct):
    """The tiles of a parallel loop, as the caller's own way of running them gets them."""
    context = Field(Context)
    function = Field(TileFunction)
    frame = Field(Ptr)
    instance = Field(InstanceMemory)


FunctionRecords = Records[FunctionRecord]
Tensors = Records[TensorFacts]
Texts = Elements[I8]
