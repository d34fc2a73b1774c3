"""The calling convention between generated code and the runtime: one context struct of 8-byte fields.

`gc_main(ptr ctx) -> i32` returns 0, 1 (a failed check, see `status`) or 2 (cancelled).
`parallel(ctx, fn, frame, ntiles)` calls `fn(ctx, frame, tile, scratch)` once for every tile in [0, ntiles), in any
order, on any threads, and returns when all are done; `scratch` is the claiming thread's own region.
"""
from __future__ import annotations

from graphc.codegen.routines.values import I64, Field, Ptr, Struct

MAIN = "gc_main"
PREPARE = "gc_prepare"           # like gc_main: makes the part of the state table that is derived from the rest
ENTRIES = (MAIN, PREPARE)


class Context(Struct):
    """What a call of generated code works on; the order is the layout."""
    parallel = Field(Ptr)           # void (*)(ctx, fn, frame, i64 ntiles); fn = void (*)(ctx, frame, i64 tile, scratch)
    pool = Field(Ptr)               # the runtime's own
    threads = Field(I64)            # for this call; 1 means everything on the caller
    arena = Field(Ptr)
    consts = Field(Ptr)
    inputs = Field(Ptr)             # tables of pointers
    outputs = Field(Ptr)
    state = Field(Ptr)
    scratch = Field(Ptr)            # thread k's is at scratch + k * scratch_bytes; the caller is thread 0
    scratch_bytes = Field(I64)
    status = Field(I64)             # STATUS_OK, or the least `failure_code` of all failed checks
    cancel = Field(I64)             # above 0 asks gc_main to return early; COMMITTED: it writes state, and ends first
    profile = Field(Ptr)            # of an instrumented program: pairs of i64, nanoseconds and calls of each call site
    sizes = Field(Ptr)              # of a program for sizes that come with the call: i64, what its code needs of them


FIELDS = Context.fields
OFFSETS = {name: field.offset for name, field in FIELDS.items()}
CONTEXT_BYTES = Context.size

STATUS_OK = 0x7FFFFFFFFFFFFFFF
INDEX_BITS = 40
INDEX_BIAS = 1 << (INDEX_BITS - 1)
INDEX_MASK = (1 << INDEX_BITS) - 1

COMMITTED = -1
RETURN_OK, RETURN_FAILED, RETURN_CANCELLED = 0, 1, 2


def failure_code(node_id: int, index: int) -> int:
    """What a failed check of `index` at node `node_id` (in [0, 2^22)) leaves in the status word, by atomic minimum."""
    return node_id << INDEX_BITS | (index + INDEX_BIAS) & INDEX_MASK


def read_failure(status: int) -> tuple[int, int] | None:
    """(node id, index) of a status word; None while it says that all went well."""
    if status == STATUS_OK:
        return None
    return status >> INDEX_BITS, (status & INDEX_MASK) - INDEX_BIAS
