"""The Python entry as LLVM text: a METH_FASTCALL function that serves every executable by reading its descriptor.

`self` is a tuple whose first item is the descriptor's address. Each argument is checked against its spec through the public layout of
PyArrayObject; whatever is not exactly as expected goes to the Python callable `slow` with the same arguments, which converts or complains.
Frames (context, tables, arena) are taken and given back while the GIL is held, so that their free list needs no atomics.
"""
from __future__ import annotations

from graphc.codegen.abi import CONTEXT_BYTES, OFFSETS, STATUS_OK

# Offsets in a descriptor.
SLOW, FAILED, INPUTS, OUTPUTS, RESULT, ENABLED, RELEASE, MAIN, FRAMES, INPUT_SPECS, OUTPUT_SPECS, KEYS, LOCK, OUT_WORD = range(0, 112, 8)
DESCRIPTOR_BYTES = 112
RESULT_KINDS = {"array": 0, "tuple": 1, "dict": 2}
BUSY = -1                       # of gc_call: the lock or the last frame is in use
SPEC_BYTES = 32                 # dtype object, number of axes, pointer to the sizes, bytes of data
FRAME_NEXT = CONTEXT_BYTES      # a frame starts with its context; the link of the free list follows

ARRAY_DATA, ARRAY_RANK, ARRAY_DIMS, ARRAY_DESCR, ARRAY_FLAGS = 16, 24, 32, 56, 64
CONTIGUOUS_AND_ALIGNED, WRITEABLE = 0x101, 0x400

PYTHON_SYMBOLS = ("PyTuple_Type", "PyTuple_Size", "PyTuple_GetItem", "PyTuple_New", "PyTuple_SetItem", "PyLong_AsVoidPtr", "PyDict_New", "PyDict_SetItem", "Py_IncRef",
                  "Py_DecRef", "PyEval_SaveThread", "PyEval_RestoreThread", "PyObject_Vectorcall", "PyObject_CallFunction")
ARRAY_TYPE, NEW_ARRAY = "graphc_array_type", "graphc_new_array"     # of numpy's C API table


def entry_text(machine: str) -> str:
    """LLVM text of gc_entry, gc_call_arrays, gc_pop_frame, gc_push_frame and gc_run."""
    control = FLOAT_CONTROL if machine == "x86_64" else NO_FLOAT_CONTROL
    return control + TEXT.format(**_OFFSETS)


_OFFSETS = dict(
    slow=SLOW, failed=FAILED, n_inputs=INPUTS, n_outputs=OUTPUTS, result=RESULT, enabled=ENABLED, release=RELEASE, main=MAIN, frames=FRAMES,
    input_specs=INPUT_SPECS, output_specs=OUTPUT_SPECS, keys=KEYS, lock=LOCK, spec_bytes=SPEC_BYTES, next=FRAME_NEXT,
    data=ARRAY_DATA, rank=ARRAY_RANK, dims=ARRAY_DIMS, descr=ARRAY_DESCR, flags=ARRAY_FLAGS, good=CONTIGUOUS_AND_ALIGNED, writeable=WRITEABLE, out_word=OUT_WORD,
    ctx_inputs=OFFSETS["inputs"], ctx_outputs=OFFSETS["outputs"], ctx_status=OFFSETS["status"], ctx_cancel=OFFSETS["cancel"],
    ok=STATUS_OK, busy=BUSY, array_type=ARRAY_TYPE, new_array=NEW_ARRAY)

# Some libraries leave "flush subnormals to zero" switched on in the thread that loads them; compiled code computes with IEEE arithmetic.
FLOAT_CONTROL = """
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
NO_FLOAT_CONTROL = """
define i32 @gc_run(ptr %main, ptr %ctx) nounwind {
  %r = call i32 %main(ptr %ctx)
  ret i32 %r
}
"""

TEXT = """
@{array_type} = external global i8
@PyTuple_Type = external global i8
declare i64 @PyTuple_Size(ptr)
@failure.format = private constant [3 x i8] c"Li\\00"
declare ptr @{new_array}(ptr, ptr, i32, ptr, ptr, ptr, i32, ptr)
declare ptr @PyTuple_GetItem(ptr, i64)
declare ptr @PyTuple_New(i64)
declare i32 @PyTuple_SetItem(ptr, i64, ptr)
declare ptr @PyLong_AsVoidPtr(ptr)
declare ptr @PyDict_New()
declare i32 @PyDict_SetItem(ptr, ptr, ptr)
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
; Returns gc_main's code and the status word, or {busy} when another call has the lock or all frames.
define internal i32 @gc_call(ptr %d, ptr %inputs, ptr %outputs, ptr %status) nounwind {{
entry:
  %lock.word = call i64 @field(ptr %d, i64 {lock})
  %lock = inttoptr i64 %lock.word to ptr
  %locked = call i1 @try_lock(ptr %lock)
  br i1 %locked, label %take, label %busy
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
  %inputs.at = getelementptr i8, ptr %ctx, i64 {ctx_inputs}
  store ptr %inputs, ptr %inputs.at
  %outputs.at = getelementptr i8, ptr %ctx, i64 {ctx_outputs}
  store ptr %outputs, ptr %outputs.at
  %status.at = getelementptr i8, ptr %ctx, i64 {ctx_status}
  store i64 {ok}, ptr %status.at
  %cancel.at = getelementptr i8, ptr %ctx, i64 {ctx_cancel}
  store i64 0, ptr %cancel.at
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
  call void @try_unlock(ptr %lock)
  ret i32 %code
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

define internal i1 @all_fit(ptr %args, i64 %nargs, ptr %specs) nounwind {{
entry:
  %any = icmp sgt i64 %nargs, 0
  br i1 %any, label %loop, label %yes
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %step ]
  %arg.at = getelementptr ptr, ptr %args, i64 %i
  %arg = load ptr, ptr %arg.at
  %offset = mul i64 %i, {spec_bytes}
  %spec = getelementptr i8, ptr %specs, i64 %offset
  %fits = call i1 @fits(ptr %arg, ptr %spec)
  br i1 %fits, label %step, label %no
step:
  %i.next = add i64 %i, 1
  %more = icmp slt i64 %i.next, %nargs
  br i1 %more, label %loop, label %yes
yes:
  ret i1 true
no:
  ret i1 false
}}

; Whether `arg` is a plain ndarray of the spec's dtype object and shape, C-contiguous and aligned.
define internal i1 @fits(ptr %arg, ptr %spec) nounwind {{
entry:
  %type.at = getelementptr i8, ptr %arg, i64 8
  %type = load ptr, ptr %type.at
  %plain = icmp eq ptr %type, @{array_type}
  br i1 %plain, label %array, label %no
array:
  %descr.at = getelementptr i8, ptr %arg, i64 {descr}
  %descr = load ptr, ptr %descr.at
  %descr.wanted = load ptr, ptr %spec
  %same.type = icmp eq ptr %descr, %descr.wanted
  %rank.at = getelementptr i8, ptr %arg, i64 {rank}
  %rank.32 = load i32, ptr %rank.at
  %rank = sext i32 %rank.32 to i64
  %rank.wanted = call i64 @field(ptr %spec, i64 8)
  %same.rank = icmp eq i64 %rank, %rank.wanted
  %flags.at = getelementptr i8, ptr %arg, i64 {flags}
  %flags = load i32, ptr %flags.at
  %bits = and i32 %flags, {good}
  %good = icmp eq i32 %bits, {good}
  %ok.0 = and i1 %same.type, %same.rank
  %ok.1 = and i1 %ok.0, %good
  br i1 %ok.1, label %shape, label %no
shape:
  %dims.at = getelementptr i8, ptr %arg, i64 {dims}
  %dims = load ptr, ptr %dims.at
  %dims.wanted.word = call i64 @field(ptr %spec, i64 16)
  %dims.wanted = inttoptr i64 %dims.wanted.word to ptr
  br label %loop
loop:
  %j = phi i64 [ 0, %shape ], [ %j.next, %compare ]
  %more = icmp slt i64 %j, %rank
  br i1 %more, label %compare, label %yes
compare:
  %dim.at = getelementptr i64, ptr %dims, i64 %j
  %dim = load i64, ptr %dim.at
  %wanted.at = getelementptr i64, ptr %dims.wanted, i64 %j
  %wanted = load i64, ptr %wanted.at
  %j.next = add i64 %j, 1
  %equal = icmp eq i64 %dim, %wanted
  br i1 %equal, label %loop, label %no
yes:
  ret i1 true
no:
  ret i1 false
}}

; Whether the only keyword is out= with arrays that can be written as they are; then they are put into `outs`.
define internal i1 @given_outputs(ptr %d, ptr %args, i64 %nargs, ptr %names, ptr %out, ptr %outs, i64 %count) nounwind {{
entry:
  %size = call i64 @PyTuple_Size(ptr %names)
  %single = icmp eq i64 %size, 1
  br i1 %single, label %name, label %no
name:
  %key = call ptr @PyTuple_GetItem(ptr %names, i64 0)
  %word.int = call i64 @field(ptr %d, i64 {out_word})
  %word = inttoptr i64 %word.int to ptr
  %is.out = icmp eq ptr %key, %word
  %kind = call i64 @field(ptr %d, i64 {result})
  %kind.array = icmp eq i64 %kind, 0
  br i1 %is.out, label %form, label %no
form:
  br i1 %kind.array, label %one, label %several
one:
  store ptr %out, ptr %outs
  br label %check
several:
  %kind.tuple = icmp eq i64 %kind, 1
  %type.at = getelementptr i8, ptr %out, i64 8
  %type = load ptr, ptr %type.at
  %is.tuple = icmp eq ptr %type, @PyTuple_Type
  %as.tuple = and i1 %kind.tuple, %is.tuple
  br i1 %as.tuple, label %length, label %no
length:
  %given = call i64 @PyTuple_Size(ptr %out)
  %same = icmp eq i64 %given, %count
  br i1 %same, label %items, label %no
items:
  %i = phi i64 [ 0, %length ], [ %i.next, %item ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %item, label %check
item:
  %array = call ptr @PyTuple_GetItem(ptr %out, i64 %i)
  %slot = getelementptr ptr, ptr %outs, i64 %i
  store ptr %array, ptr %slot
  %i.next = add i64 %i, 1
  br label %items
check:
  %specs.word = call i64 @field(ptr %d, i64 {output_specs})
  %specs = inttoptr i64 %specs.word to ptr
  %fit = call i1 @all_fit(ptr %outs, i64 %count, ptr %specs)
  br i1 %fit, label %apart, label %no
apart:
  %input.specs.word = call i64 @field(ptr %d, i64 {input_specs})
  %input.specs = inttoptr i64 %input.specs.word to ptr
  br label %loop
loop:
  %j = phi i64 [ 0, %apart ], [ %j.next, %step ]
  %left = icmp slt i64 %j, %count
  br i1 %left, label %test, label %yes
test:
  %this.at = getelementptr ptr, ptr %outs, i64 %j
  %this = load ptr, ptr %this.at
  %offset = mul i64 %j, {spec_bytes}
  %spec = getelementptr i8, ptr %specs, i64 %offset
  %flags.at = getelementptr i8, ptr %this, i64 {flags}
  %flags = load i32, ptr %flags.at
  %write.bit = and i32 %flags, {writeable}
  %writeable = icmp ne i32 %write.bit, 0
  %from.inputs = call i1 @apart_from(ptr %this, ptr %spec, ptr %args, ptr %input.specs, i64 %nargs)
  %from.outputs = call i1 @apart_from(ptr %this, ptr %spec, ptr %outs, ptr %specs, i64 %j)
  %clear = and i1 %from.inputs, %from.outputs
  %good = and i1 %clear, %writeable
  br i1 %good, label %step, label %no
step:
  %j.next = add i64 %j, 1
  br label %loop
yes:
  ret i1 true
no:
  ret i1 false
}}

; Whether the memory of `array` meets that of none of the `count` arrays.
define internal i1 @apart_from(ptr %array, ptr %spec, ptr %arrays, ptr %specs, i64 %count) nounwind {{
entry:
  %start = call i64 @field(ptr %array, i64 {data})
  %bytes = call i64 @field(ptr %spec, i64 24)
  %end = add i64 %start, %bytes
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %step ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %step, label %yes
step:
  %other.at = getelementptr ptr, ptr %arrays, i64 %i
  %other = load ptr, ptr %other.at
  %offset = mul i64 %i, {spec_bytes}
  %other.spec = getelementptr i8, ptr %specs, i64 %offset
  %other.start = call i64 @field(ptr %other, i64 {data})
  %other.bytes = call i64 @field(ptr %other.spec, i64 24)
  %other.end = add i64 %other.start, %other.bytes
  %before = icmp ule i64 %end, %other.start
  %after = icmp ule i64 %other.end, %start
  %clear = or i1 %before, %after
  %i.next = add i64 %i, 1
  br i1 %clear, label %loop, label %no
yes:
  ret i1 true
no:
  ret i1 false
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

define internal void @data_pointers(ptr %arrays, i64 %count, ptr %table) nounwind {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %step ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %step, label %end
step:
  %array.at = getelementptr ptr, ptr %arrays, i64 %i
  %array = load ptr, ptr %array.at
  %data.at = getelementptr i8, ptr %array, i64 {data}
  %data = load ptr, ptr %data.at
  %slot = getelementptr ptr, ptr %table, i64 %i
  store ptr %data, ptr %slot
  %i.next = add i64 %i, 1
  br label %loop
end:
  ret void
}}

; Makes the output arrays; gives how many could be made (fewer than `count`: a Python exception is set).
define internal i64 @make_outputs(ptr %d, ptr %outs, i64 %count) nounwind {{
entry:
  %specs.word = call i64 @field(ptr %d, i64 {output_specs})
  %specs = inttoptr i64 %specs.word to ptr
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %step ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %make, label %end
make:
  %offset = mul i64 %i, {spec_bytes}
  %spec = getelementptr i8, ptr %specs, i64 %offset
  %descr = load ptr, ptr %spec
  %rank = call i64 @field(ptr %spec, i64 8)
  %rank.32 = trunc i64 %rank to i32
  %dims.word = call i64 @field(ptr %spec, i64 16)
  %dims = inttoptr i64 %dims.word to ptr
  call void @Py_IncRef(ptr %descr)
  %array = call ptr @{new_array}(ptr @{array_type}, ptr %descr, i32 %rank.32, ptr %dims, ptr null, ptr null, i32 0, ptr null)
  %failed = icmp eq ptr %array, null
  br i1 %failed, label %end, label %step
step:
  %out = getelementptr ptr, ptr %outs, i64 %i
  store ptr %array, ptr %out
  %i.next = add i64 %i, 1
  br label %loop
end:
  ret i64 %i
}}

define internal void @drop(ptr %outs, i64 %count) nounwind {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %step ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %step, label %end
step:
  %out.at = getelementptr ptr, ptr %outs, i64 %i
  %out = load ptr, ptr %out.at
  call void @Py_DecRef(ptr %out)
  %i.next = add i64 %i, 1
  br label %loop
end:
  ret void
}}

; The outputs as the signature says: 0 the array itself, 1 a tuple, 2 a dict. Takes over the references.
define internal ptr @result(ptr %d, ptr %outs, i64 %count) nounwind {{
entry:
  %kind = call i64 @field(ptr %d, i64 {result})
  switch i64 %kind, label %tuple [ i64 0, label %array
                                   i64 2, label %dict ]
array:
  %only = load ptr, ptr %outs
  ret ptr %only
tuple:
  %t = call ptr @PyTuple_New(i64 %count)
  %t.none = icmp eq ptr %t, null
  br i1 %t.none, label %no.memory, label %t.loop
t.loop:
  %i = phi i64 [ 0, %tuple ], [ %i.next, %t.step ]
  %t.more = icmp slt i64 %i, %count
  br i1 %t.more, label %t.step, label %t.end
t.step:
  %item.at = getelementptr ptr, ptr %outs, i64 %i
  %item = load ptr, ptr %item.at
  %t.set = call i32 @PyTuple_SetItem(ptr %t, i64 %i, ptr %item)
  %i.next = add i64 %i, 1
  br label %t.loop
t.end:
  ret ptr %t
dict:
  %m = call ptr @PyDict_New()
  %m.none = icmp eq ptr %m, null
  br i1 %m.none, label %no.memory, label %m.keys
m.keys:
  %keys.word = call i64 @field(ptr %d, i64 {keys})
  %keys = inttoptr i64 %keys.word to ptr
  br label %m.loop
m.loop:
  %j = phi i64 [ 0, %m.keys ], [ %j.next, %m.step ]
  %m.more = icmp slt i64 %j, %count
  br i1 %m.more, label %m.step, label %m.end
m.step:
  %key.at = getelementptr ptr, ptr %keys, i64 %j
  %key = load ptr, ptr %key.at
  %value.at = getelementptr ptr, ptr %outs, i64 %j
  %value = load ptr, ptr %value.at
  %m.set = call i32 @PyDict_SetItem(ptr %m, ptr %key, ptr %value)
  %m.failed = icmp ne i32 %m.set, 0
  %j.next = add i64 %j, 1
  br i1 %m.failed, label %m.error, label %m.loop
m.end:
  call void @drop(ptr %outs, i64 %count)
  ret ptr %m
m.error:
  call void @Py_DecRef(ptr %m)
  br label %no.memory
no.memory:
  call void @drop(ptr %outs, i64 %count)
  ret ptr null
}}
"""
