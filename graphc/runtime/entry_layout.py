"""The records that the native Python entry reads, and what it needs to know of CPython's and numpy's objects."""
from __future__ import annotations

from graphc.codegen.abi import CONTEXT_BYTES, OFFSETS, STATUS_OK

# Offsets in a descriptor.
(SLOW, FAILED, INPUTS, OUTPUTS, RESULT, ENABLED, RELEASE, MAIN, FRAMES, INPUT_SPECS, OUTPUT_SPECS, KEYS, LOCK, OUT_WORD, DERIVES, SEEN, WRITES,
 SPARES, HANDLER, PREPARE, MADE, PASSING, PASSING_BYTES) = range(0, 184, 8)
DESCRIPTOR_BYTES = 184
VERSION_AT = 8                  # after the lock's word: the version of the state, an i64
RESULT_KINDS = {"array": 0, "tuple": 1, "dict": 2}
BUSY = -1                       # of gc_call: the lock or the last frame is in use, or derived values are out of date
NO_FRAME = -2                   # of gc_call_waiting, whose BUSY means the lock alone
# Offsets in the record of a call that may wait: whether it is cancelled, the context it runs in now, how long the program took, its status
# word, and a frame of its own (0: one of the list).
CANCELLED, CONTEXT, DURATION, STATUS, OWN = range(0, 40, 8)
JOB_BYTES = 40
SPEC_BYTES = 32                 # dtype object, number of axes, pointer to the sizes, bytes of data
FRAME_NEXT = CONTEXT_BYTES      # a frame starts with its context; the link of the free list follows

ARRAY_DATA, ARRAY_RANK, ARRAY_DIMS, ARRAY_BASE, ARRAY_DESCR, ARRAY_FLAGS, ARRAY_WEAK = 16, 24, 32, 48, 56, 64, 72
CONTIGUOUS_AND_ALIGNED, OWNED, WRITEABLE = 0x101, 0x4, 0x400
SPARE_BYTES = 1 << 16           # results from here on are kept for the next call, if nobody else has kept them

PYTHON_SYMBOLS = (
    "PyTuple_Type", "PyTuple_Size", "PyTuple_GetItem", "PyTuple_New", "PyTuple_SetItem", "PyLong_AsVoidPtr", "PyDict_New", "PyDict_SetItem",
    "PyList_GetItem", "PyList_SetItem", "Py_IncRef", "Py_DecRef", "PyEval_SaveThread", "PyEval_RestoreThread", "PyObject_Vectorcall", "PyObject_CallFunction")
ARRAY_TYPE, NEW_ARRAY, SET_HANDLER = "graphc_array_type", "graphc_new_array", "graphc_set_handler"       # of numpy's C API table

# Every number that the LLVM texts of the entry name.
NUMBERS = dict(
    slow=SLOW, failed=FAILED, n_inputs=INPUTS, n_outputs=OUTPUTS, result=RESULT, enabled=ENABLED, release=RELEASE, main=MAIN, frames=FRAMES,
    input_specs=INPUT_SPECS, output_specs=OUTPUT_SPECS, keys=KEYS, lock=LOCK, derives=DERIVES, seen=SEEN, writes=WRITES,
    spares=SPARES, handler=HANDLER, prepare=PREPARE, made=MADE, passing=PASSING, passing_bytes=PASSING_BYTES, no_frame=NO_FRAME,
    job_cancelled=CANCELLED, job_context=CONTEXT, job_duration=DURATION, job_status=STATUS, job_own=OWN, spare_bytes=SPARE_BYTES, version_at=VERSION_AT, spec_bytes=SPEC_BYTES, next=FRAME_NEXT,
    data=ARRAY_DATA, rank=ARRAY_RANK, dims=ARRAY_DIMS, descr=ARRAY_DESCR, flags=ARRAY_FLAGS, good=CONTIGUOUS_AND_ALIGNED,
    writeable=WRITEABLE, as_made=OWNED | WRITEABLE, base=ARRAY_BASE, weak=ARRAY_WEAK, out_word=OUT_WORD,
    ctx_inputs=OFFSETS["inputs"], ctx_outputs=OFFSETS["outputs"], ctx_status=OFFSETS["status"], ctx_cancel=OFFSETS["cancel"],
    ok=STATUS_OK, busy=BUSY, array_type=ARRAY_TYPE, new_array=NEW_ARRAY, set_handler=SET_HANDLER)
