"""The Python entry as LLVM text: a METH_FASTCALL function that serves every executable by reading its descriptor.

`self` is a tuple whose first item is the descriptor's address. Each argument is checked against its spec through the public layout of
PyArrayObject; whatever is not exactly as expected goes to the Python callable `slow` with the same arguments, which converts or complains.
Frames (context, arena, scratch) are taken and given back while the GIL is held, so that their free list needs no atomics.
"""
from __future__ import annotations

from graphc.runtime.arrays_ir import arrays_text
from graphc.runtime.entry_layout import NUMBERS


def entry_text(machine: str) -> str:
    """LLVM text of gc_entry, gc_call_arrays, gc_pop_frame, gc_push_frame and gc_run."""
    return FLOAT_CONTROL[machine] + TEXT.format(**NUMBERS) + arrays_text()


# Some libraries leave "flush subnormals to zero" switched on in the thread that loads them; compiled code computes with IEEE arithmetic.
# Pool threads are started from inside gc_run and inherit its setting.
X86_CONTROL = """
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)

define i32 @gc_run(ptr %main, ptr %ctx) nounwind {
entry:
  %before = alloca i32
  %standard = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %before)
  %word = load i32, ptr %before
  %control = and i32 %word, 65472
  %usual = icmp eq i32 %control, 8064
  br i1 %usual, label %plain, label %guarded
plain:
  %r = call i32 %main(ptr %ctx)
  ret i32 %r
guarded:
  store i32 8064, ptr %standard
  call void @llvm.x86.sse.ldmxcsr(ptr %standard)
  %q = call i32 %main(ptr %ctx)
  call void @llvm.x86.sse.ldmxcsr(ptr %before)
  ret i32 %q
}
"""
ARM_CONTROL = """
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)

define i32 @gc_run(ptr %main, ptr %ctx) nounwind {
entry:
  %before = call i64 @llvm.aarch64.get.fpcr()
  %usual = icmp eq i64 %before, 0
  br i1 %usual, label %plain, label %guarded
plain:
  %r = call i32 %main(ptr %ctx)
  ret i32 %r
guarded:
  call void @llvm.aarch64.set.fpcr(i64 0)
  %q = call i32 %main(ptr %ctx)
  call void @llvm.aarch64.set.fpcr(i64 %before)
  ret i32 %q
}
"""
FLOAT_CONTROL = {"x86_64": X86_CONTROL, "aarch64": ARM_CONTROL}

TEXT = """
@{array_type} = external global i8
@PyTuple_Type = external global i8
@failure.format = private constant [3 x i8] c"Li\\00"
declare i64 @PyTuple_Size(ptr)
declare ptr @{new_array}(ptr, ptr, i32, ptr, ptr, ptr, i32, ptr)
declare ptr @{set_handler}(ptr)
declare ptr @PyTuple_GetItem(ptr, i64)
declare ptr @PyTuple_New(i64)
declare i32 @PyTuple_SetItem(ptr, i64, ptr)
declare ptr @PyLong_AsVoidPtr(ptr)
declare ptr @PyDict_New()
declare i32 @PyDict_SetItem(ptr, ptr, ptr)
declare ptr @PyList_GetItem(ptr, i64)
declare i32 @PyList_SetItem(ptr, i64, ptr)
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare ptr @PyObject_Vectorcall(ptr, ptr, i64, ptr)
declare ptr @PyObject_CallFunction(ptr, ptr, ...)

define ptr @gc_entry(ptr %self, ptr %args, i64 %nargs, ptr %names) nounwind {{
entry:
  %number = call ptr @PyTuple_GetItem(ptr %self, i64 0)
  %d = call ptr @PyLong_AsVoidPtr(ptr %number)
  %wanted = call i64 @field(ptr %d, i64 {n_inputs})
  %all = icmp eq i64 %nargs, %wanted
  %enabled = call i64 @field(ptr %d, i64 {enabled})
  %on = icmp ne i64 %enabled, 0
  %ok = and i1 %all, %on
  br i1 %ok, label %check, label %unusual
check:
  %specs.word = call i64 @field(ptr %d, i64 {input_specs})
  %specs = inttoptr i64 %specs.word to ptr
  %fit = call i1 @all_fit(ptr %args, i64 %nargs, ptr %specs)
  br i1 %fit, label %known, label %unusual
known:
  %ins = alloca ptr, i64 %nargs
  call void @data_pointers(ptr %args, i64 %nargs, ptr %ins)
  %count = call i64 @field(ptr %d, i64 {n_outputs})
  %outs = alloca ptr, i64 %count
  %results = alloca ptr, i64 %count
  %status = alloca i64
  %positional = icmp eq ptr %names, null
  br i1 %positional, label %make, label %given
given:
  %out.at = getelementptr ptr, ptr %args, i64 %nargs
  %out = load ptr, ptr %out.at
  %usable = call i1 @given_outputs(ptr %d, ptr %args, i64 %nargs, ptr %names, ptr %out, ptr %outs, i64 %count)
  br i1 %usable, label %write, label %unusual
write:
  call void @data_pointers(ptr %outs, i64 %count, ptr %results)
  %code.given = call i32 @gc_call(ptr %d, ptr %ins, ptr %results, ptr %status)
  switch i32 %code.given, label %raise [ i32 0, label %give
                                         i32 {busy}, label %unusual ]
give:
  call void @Py_IncRef(ptr %out)
  ret ptr %out
unusual:
  %slow.word = call i64 @field(ptr %d, i64 {slow})
  %slow = inttoptr i64 %slow.word to ptr
  %answer = call ptr @PyObject_Vectorcall(ptr %slow, ptr %args, i64 %nargs, ptr %names)
  ret ptr %answer
make:
  %made = call i64 @make_outputs(ptr %d, ptr %outs, i64 %count)
  %complete = icmp eq i64 %made, %count
  br i1 %complete, label %run, label %no.memory
no.memory:
  call void @drop(ptr %outs, i64 %made)
  ret ptr null
run:
  call void @data_pointers(ptr %outs, i64 %count, ptr %results)
  %code = call i32 @gc_call(ptr %d, ptr %ins, ptr %results, ptr %status)
  switch i32 %code, label %fail [ i32 0, label %return
                                  i32 {busy}, label %wait ]
return:
  %value = call ptr @result(ptr %d, ptr %outs, i64 %count)
  ret ptr %value
wait:
  call void @drop(ptr %outs, i64 %count)
  br label %unusual
fail:
  call void @drop(ptr %outs, i64 %count)
  br label %raise
raise:
  %code.bad = phi i32 [ %code, %fail ], [ %code.given, %write ]
  %word = load i64, ptr %status
  %failed.word = call i64 @field(ptr %d, i64 {failed})
  %failed = inttoptr i64 %failed.word to ptr
  %raised = call ptr (ptr, ptr, ...) @PyObject_CallFunction(ptr %failed, ptr @failure.format, i64 %word, i32 %code.bad)
  ret ptr %raised
}}

; One call of compiled code, GIL held: takes lock and frame, gives them back, in one step as far as Python's signal handlers can see.

; Returns gc_main's code and the status word, or {busy} when another call has the lock or all frames, or the derived values are not those
; of the state as it is now.

define internal i32 @gc_call(ptr %d, ptr %inputs, ptr %outputs, ptr %status) nounwind {{
entry:
  %lock.word = call i64 @field(ptr %d, i64 {lock})
  %lock = inttoptr i64 %lock.word to ptr
  %locked = call i1 @try_lock(ptr %lock)
  br i1 %locked, label %look, label %busy
look:
  %current = call i1 @is_current(ptr %d, ptr %lock)
  br i1 %current, label %take, label %unlock
take:
  %ctx = call ptr @gc_pop_frame(ptr %d)
  %none = icmp eq ptr %ctx, null
  br i1 %none, label %unlock, label %fill
unlock:
  call void @try_unlock(ptr %lock)
  br label %busy
busy:
  ret i32 {busy}
fill:
  call void @fill_context(ptr %ctx, ptr %inputs, ptr %outputs)
  %status.at = getelementptr i8, ptr %ctx, i64 {ctx_status}
  %main.word = call i64 @field(ptr %d, i64 {main})
  %main = inttoptr i64 %main.word to ptr
  %release = call i64 @field(ptr %d, i64 {release})
  %long = icmp ne i64 %release, 0
  br i1 %long, label %released, label %held
held:
  %code.held = call i32 @gc_run(ptr %main, ptr %ctx)
  br label %after
released:
  %thread = call ptr @PyEval_SaveThread()
  %code.released = call i32 @gc_run(ptr %main, ptr %ctx)
  call void @PyEval_RestoreThread(ptr %thread)
  br label %after
after:
  %code = phi i32 [ %code.held, %held ], [ %code.released, %released ]
  %word = load i64, ptr %status.at
  store i64 %word, ptr %status
  call void @gc_push_frame(ptr %d, ptr %ctx)
  call void @gc_wrote(ptr %d, ptr %lock)
  call void @try_unlock(ptr %lock)
  ret i32 %code
}}

; What a call leaves in its context.
define internal void @fill_context(ptr %ctx, ptr %inputs, ptr %outputs) nounwind alwaysinline {{
  %inputs.at = getelementptr i8, ptr %ctx, i64 {ctx_inputs}
  store ptr %inputs, ptr %inputs.at
  %outputs.at = getelementptr i8, ptr %ctx, i64 {ctx_outputs}
  store ptr %outputs, ptr %outputs.at
  %status.at = getelementptr i8, ptr %ctx, i64 {ctx_status}
  store i64 {ok}, ptr %status.at
  %cancel.at = getelementptr i8, ptr %ctx, i64 {ctx_cancel}
  store i64 0, ptr %cancel.at
  ret void
}}

; Whether what the program derives from the state, if anything, was derived from its present version.

define internal i1 @is_current(ptr %d, ptr %lock) nounwind alwaysinline {{
entry:
  %derives = call i64 @field(ptr %d, i64 {derives})
  %none = icmp eq i64 %derives, 0
  br i1 %none, label %end, label %compare
compare:
  %version = call i64 @field(ptr %lock, i64 {version_at})
  %seen = call i64 @field(ptr %d, i64 {seen})
  %same = icmp eq i64 %version, %seen
  br label %end
end:
  %r = phi i1 [ true, %entry ], [ %same, %compare ]
  ret i1 %r
}}

; A program that writes state makes a new version of it. What it derives itself depends only on what it does not write, and stays current.

define void @gc_wrote(ptr %d, ptr %lock) nounwind {{
entry:
  %writes = call i64 @field(ptr %d, i64 {writes})
  %none = icmp eq i64 %writes, 0
  br i1 %none, label %end, label %advance
advance:
  %at = getelementptr i8, ptr %lock, i64 {version_at}
  %version = load i64, ptr %at
  %next = add i64 %version, 1
  store i64 %next, ptr %at
  %seen.at = getelementptr i8, ptr %d, i64 {seen}
  %seen = load i64, ptr %seen.at
  %same = icmp eq i64 %version, %seen
  %kept = select i1 %same, i64 %next, i64 %seen
  store i64 %kept, ptr %seen.at
  br label %end
end:
  ret void
}}

; gc_call on arrays that are known to fit.

define i32 @gc_call_arrays(ptr %d, ptr %args, ptr %outs, ptr %status) nounwind {{
  %nargs = call i64 @field(ptr %d, i64 {n_inputs})
  %ins = alloca ptr, i64 %nargs
  call void @data_pointers(ptr %args, i64 %nargs, ptr %ins)
  %count = call i64 @field(ptr %d, i64 {n_outputs})
  %results = alloca ptr, i64 %count
  call void @data_pointers(ptr %outs, i64 %count, ptr %results)
  %code = call i32 @gc_call(ptr %d, ptr %ins, ptr %results, ptr %status)
  ret i32 %code
}}

define internal i64 @field(ptr %d, i64 %offset) nounwind alwaysinline {{
  %at = getelementptr i8, ptr %d, i64 %offset
  %value = load i64, ptr %at
  ret i64 %value
}}

define internal i1 @try_lock(ptr %lock) nounwind alwaysinline {{
entry:
  %stateless = icmp eq ptr %lock, null
  br i1 %stateless, label %end, label %try
try:
  %swap = cmpxchg ptr %lock, i32 0, i32 1 acquire monotonic
  %taken = extractvalue {{ i32, i1 }} %swap, 1
  br label %end
end:
  %r = phi i1 [ true, %entry ], [ %taken, %try ]
  ret i1 %r
}}

define internal void @try_unlock(ptr %lock) nounwind {{
entry:
  %stateless = icmp eq ptr %lock, null
  br i1 %stateless, label %end, label %unlock
unlock:
  call void @gc_unlock(ptr %lock)
  br label %end
end:
  ret void
}}

define ptr @gc_pop_frame(ptr %d) nounwind {{
entry:
  %head.at = getelementptr i8, ptr %d, i64 {frames}
  %head = load ptr, ptr %head.at
  %empty = icmp eq ptr %head, null
  br i1 %empty, label %end, label %pop
pop:
  %next.at = getelementptr i8, ptr %head, i64 {next}
  %next = load ptr, ptr %next.at
  store ptr %next, ptr %head.at
  br label %end
end:
  ret ptr %head
}}

define void @gc_push_frame(ptr %d, ptr %ctx) nounwind {{
  %head.at = getelementptr i8, ptr %d, i64 {frames}
  %head = load ptr, ptr %head.at
  %next.at = getelementptr i8, ptr %ctx, i64 {next}
  store ptr %head, ptr %next.at
  store ptr %ctx, ptr %head.at
  ret void
}}
"""
