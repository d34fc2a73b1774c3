"""The records that the native entry and Python share, and what the entry must know of CPython's and numpy's objects."""
from __future__ import annotations

from graphc.codegen.abi import Context
from graphc.codegen.routines.values import I32, I64, Elements, Field, FunctionPointer, Ptr, Records, Struct

RESULT_KINDS = {"array": 0, "tuple": 1, "dict": 2}
BUSY = -1                       # of gc_call: the lock or the last frame is in use, or derived values are out of date
NO_FRAME = -2                   # of gc_call_waiting, whose BUSY means the lock alone
LOCK_BUSY, COPIED, OTHER_VERSION = 0, 1, 2        # of gc_transfer: whether it has copied, or why not
WAIT_MS = 100                   # between two waits Python looks at its signals
SPARE_BYTES = 1 << 16           # results from here on are kept for the next call, if nobody else has kept them

ProgramFunction = FunctionPointer[I32, Context]     # gc_main or gc_prepare


class FrameMemory(Context):
    """What a call in flight has besides its arguments, from a list of free frames."""
    next = Field(Ptr)           # the next free one
    arena_bytes = Field(I64)    # that it has; of scratch it has scratch_bytes
    dropped = Field(I64)        # whether it has left the list for good


class FreeFrames(Struct):
    """The frames of one program; only touched with the GIL."""
    first = Field(FrameMemory)  # of the free ones
    made = Field(I64)           # frames there are, free or in flight


class DerivedVersion(Struct):
    """What is derived from a state, by one program."""
    seen = Field(I64)           # the version of the state that it was made from


class ArrayObject(Struct):
    """PyArrayObject, on 64-bit systems."""
    references = Field(I32)     # the part of ob_refcnt that counts
    type = Field(Ptr)
    data = Field(Ptr)
    rank = Field(I32)
    dims = Field(Elements[I64])
    strides = Field(Ptr)
    base = Field(Ptr)
    descr = Field(Ptr)
    flags = Field(I32)
    weak = Field(Ptr)


CONTIGUOUS_AND_ALIGNED, OWNED, WRITEABLE = 0x101, 0x4, 0x400    # of `flags`


class SpecRecord(Struct):
    """What an array must be."""
    descr = Field(Ptr)          # its dtype object
    rank = Field(I64)
    dims = Field(Elements[I64])
    nbytes = Field(I64)
    element = Field(I32)        # what DLPack calls the type of an element: code, bits and lanes
    itemsize = Field(I32)


class DLTensor(Struct):
    """dlpack.h's, on 64-bit systems."""
    data = Field(Ptr)
    device_type = Field(I32)
    device = Field(I32)
    rank = Field(I32)
    element = Field(I32)        # code, bits and lanes
    dims = Field(Elements[I64])
    strides = Field(Elements[I64])      # of elements; null: rows lie one after the other
    byte_offset = Field(I64)    # of the first element, behind `data`


ExportFunction = FunctionPointer[I32, Ptr, DLTensor]


class ForeignType(Struct):
    """Arrays of another library that are read in place: exactly of `type`."""
    type = Field(Ptr)
    export = Field(ExportFunction)
    gradient = Field(Ptr)       # name of the attribute that says whether a gradient is wanted, or null
    recording = Field(Ptr)      # takes nothing and says whether gradients are recorded at present, or null
    negated = Field(Ptr)        # takes one and says whether its numbers have the other sign in memory, or null
    inner = Field(I64)          # `TensorWords`, whose words say so much without asking; 0: it has none
    inner_bits = Field(I64)
    inner_negated = Field(I64)
    inner_recorded = Field(I64)


class Recording(Struct):
    """What was asked in this call."""
    question = Field(Ptr)       # `ForeignType.recording`
    answer = Field(I64)


MOST_TYPES = 8


class ForeignTypes(Struct):
    """Those that have been met in this process."""
    count = Field(I64)
    rows = Field(ForeignType, count=MOST_TYPES)


class LockMemory(Struct):
    """The lock of a state and how often it was written."""
    word = Field(I32)
    version = Field(I64)


class Transfer(Struct):
    """A copy between two arrays of so many bytes."""
    target = Field(ArrayObject)
    source = Field(ArrayObject)
    nbytes = Field(I64)


class EntryRecord(Struct):
    """What the native entry knows of one compiled function."""
    slow = Field(Ptr)           # a Python callable that takes any arguments, and says what is wrong with them
    failed = Field(Ptr)         # a Python callable that raises: (status word, return code)
    n_inputs = Field(I64)
    n_outputs = Field(I64)
    result = Field(I64)         # one of RESULT_KINDS
    enabled = Field(I64)        # whether native calls are made at all
    release = Field(I64)        # whether they let other Python threads go on
    main = Field(ProgramFunction)
    frames = Field(FreeFrames)
    arena_bytes = Field(I64)    # that a frame must have at least
    scratch_bytes = Field(I64)  # for each thread
    sizes = Field(Ptr)          # what the code needs of the sizes of this call, or null
    input_specs = Field(Records[SpecRecord])
    foreign = Field(ForeignTypes)
    output_specs = Field(Records[SpecRecord])
    keys = Field(Elements[Ptr])         # names of the outputs
    lock = Field(LockMemory)    # null: no state
    out_word = Field(Ptr)       # the interned "out"
    derives = Field(I64)        # whether there are derived values
    derived = Field(DerivedVersion)
    writes = Field(I64)         # whether the program makes a new version
    anew = Field(I64)           # whether what it derives depends on what it writes
    spares = Field(Ptr)         # a list: the last result of each output, then those before them
    handler = Field(Ptr)        # numpy's allocator of large results
    prepare = Field(ProgramFunction)    # makes derived values
    passing = Field(Ptr)        # memory that only `prepare` needs
    passing_bytes = Field(I64)


class CallRecord(Struct):
    """A call that may wait."""
    cancelled = Field(I64)
    context = Field(Context)    # that it runs in now, or null
    duration = Field(I64)       # of the program, in nanoseconds
    status = Field(I64)         # its status word
    own = Field(FrameMemory)          # a frame of its own; null: one of the list
