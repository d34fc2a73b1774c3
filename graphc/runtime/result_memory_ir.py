"""What numpy calls for the memory of large results, as LLVM text."""
from __future__ import annotations

LARGE, HUGE_PAGE, ALIGNMENT = 4 << 20, 2 << 20, 64      # from LARGE bytes on memory starts at a huge page and asks for huge pages
MADV_HUGEPAGE = 14


def result_memory_text() -> str:
    """LLVM text of gc_mem_malloc, gc_mem_calloc, gc_mem_realloc and gc_mem_free, with the types of numpy's PyDataMemAllocator."""
    return TEXT.format(large=LARGE, huge=HUGE_PAGE, alignment=ALIGNMENT, advice=MADV_HUGEPAGE)


TEXT = """
declare i32 @posix_memalign(ptr, i64, i64)
declare i32 @madvise(ptr, i64, i32)
declare ptr @calloc(i64, i64)
declare ptr @realloc(ptr, i64)
declare void @free(ptr)

define ptr @gc_mem_malloc(ptr %context, i64 %size) nounwind {{
entry:
  %slot = alloca ptr
  %large = icmp uge i64 %size, {large}
  %alignment = select i1 %large, i64 {huge}, i64 {alignment}
  %failed = call i32 @posix_memalign(ptr %slot, i64 %alignment, i64 %size)
  %ok = icmp eq i32 %failed, 0
  br i1 %ok, label %got, label %none
got:
  %memory = load ptr, ptr %slot
  br i1 %large, label %advise, label %end
advise:
  %ignored = call i32 @madvise(ptr %memory, i64 %size, i32 {advice})
  br label %end
end:
  ret ptr %memory
none:
  ret ptr null
}}

define ptr @gc_mem_calloc(ptr %context, i64 %count, i64 %size) nounwind {{
  %memory = call ptr @calloc(i64 %count, i64 %size)
  ret ptr %memory
}}

define ptr @gc_mem_realloc(ptr %context, ptr %old, i64 %size) nounwind {{
  %memory = call ptr @realloc(ptr %old, i64 %size)
  ret ptr %memory
}}

define void @gc_mem_free(ptr %context, ptr %memory, i64 %size) nounwind {{
  call void @free(ptr %memory)
  ret void
}}
"""
