"""All routines of the runtime that Python or compiled code calls."""
from __future__ import annotations

from graphc.codegen.routines.architecture import architecture_of
from graphc.codegen.routines.text import module_text
from graphc.errors import InternalError
from graphc.runtime.arrays_ir import gc_data_pointers
from graphc.runtime.copies_ir import gc_copy_runs
from graphc.runtime.entry_ir import gc_call_arrays, gc_drop_frames, gc_entry, gc_pop_frame, gc_push_frame
from graphc.runtime.float_control import gc_run
from graphc.runtime.lock_ir import gc_lock, gc_transfer, gc_unlock
from graphc.runtime.pool_ir import gc_parallel, gc_spin
from graphc.runtime.preemption_ir import PREEMPTION
from graphc.runtime.result_memory_ir import gc_mem_calloc, gc_mem_free, gc_mem_malloc, gc_mem_realloc
from graphc.runtime.sizes_entry_ir import gc_entry_for_sizes, gc_sizes_row
from graphc.runtime.waiting_ir import gc_add_frame, gc_call_waiting, gc_cancel

ROUTINES = (
    gc_parallel, gc_spin, gc_lock, gc_unlock, gc_transfer, gc_run, gc_entry, gc_call_arrays, gc_call_waiting, gc_cancel,
    gc_pop_frame, gc_push_frame, gc_add_frame, gc_drop_frames, gc_entry_for_sizes, gc_sizes_row,
    gc_data_pointers, gc_copy_runs,
    gc_mem_malloc, gc_mem_calloc, gc_mem_realloc, gc_mem_free)


def llvm_text(triple: str, exports: tuple[str, ...]) -> str:
    """LLVM text for a machine; InternalError when it would not define just these functions for others."""
    if {r.name for r in ROUTINES} != set(exports):
        raise InternalError(f"the runtime exports {[r.name for r in ROUTINES]}", "runtime")
    return module_text(ROUTINES, architecture_of(triple), PREEMPTION)
