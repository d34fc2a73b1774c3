"""LLVM text for arrays at the Python entry: whether arguments fit their specs, making outputs, using those of out=, packing the result."""
from __future__ import annotations

from graphc.runtime.entry_layout import NUMBERS


def arrays_text() -> str:
    """LLVM text of the internal functions that `entry_ir` calls; Python's and numpy's functions are declared there."""
    return TEXT.format(**NUMBERS)


TEXT = """
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

; Whether an earlier result may be given again: only the list of spares refers to it, and it is as it was made.
define internal i1 @is_spare(ptr %array, ptr %spec) nounwind {{
entry:
  %references = load i32, ptr %array
  %alone = icmp eq i32 %references, 1
  br i1 %alone, label %type, label %no
type:
  %fits = call i1 @fits(ptr %array, ptr %spec)
  br i1 %fits, label %look, label %no
look:
  %flags.at = getelementptr i8, ptr %array, i64 {flags}
  %flags = load i32, ptr %flags.at
  %bits = and i32 %flags, {as_made}
  %unchanged = icmp eq i32 %bits, {as_made}
  %base = call i64 @field(ptr %array, i64 {base})
  %weak = call i64 @field(ptr %array, i64 {weak})
  %seen = or i64 %base, %weak
  %unseen = icmp eq i64 %seen, 0
  %spare = and i1 %unchanged, %unseen
  ret i1 %spare
no:
  ret i1 false
}}

; New arrays for the results. The last two of each large one are kept for later calls, since the system takes as long to give memory as a kernel
; to fill it; two, because a caller mostly holds one result until it has the next.
; Makes the output arrays; gives how many could be made (fewer than `count`: a Python exception is set).
define internal i64 @make_outputs(ptr %d, ptr %outs, i64 %count) nounwind {{
entry:
  %specs.word = call i64 @field(ptr %d, i64 {output_specs})
  %specs = inttoptr i64 %specs.word to ptr
  %spares.word = call i64 @field(ptr %d, i64 {spares})
  %spares = inttoptr i64 %spares.word to ptr
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %step ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %make, label %end
make:
  %offset = mul i64 %i, {spec_bytes}
  %spec = getelementptr i8, ptr %specs, i64 %offset
  %bytes = call i64 @field(ptr %spec, i64 24)
  %large = icmp uge i64 %bytes, {spare_bytes}
  br i1 %large, label %reuse, label %fresh
reuse:
  %last = call ptr @PyList_GetItem(ptr %spares, i64 %i)
  %last.spare = call i1 @is_spare(ptr %last, ptr %spec)
  br i1 %last.spare, label %take, label %older
older:
  %second = add i64 %i, %count
  %before.last = call ptr @PyList_GetItem(ptr %spares, i64 %second)
  %before.spare = call i1 @is_spare(ptr %before.last, ptr %spec)
  br i1 %before.spare, label %take, label %fresh
take:
  %old = phi ptr [ %last, %reuse ], [ %before.last, %older ]
  call void @Py_IncRef(ptr %old)
  br label %step
fresh:
  %descr = load ptr, ptr %spec
  %rank = call i64 @field(ptr %spec, i64 8)
  %rank.32 = trunc i64 %rank to i32
  %dims.word = call i64 @field(ptr %spec, i64 16)
  %dims = inttoptr i64 %dims.word to ptr
  call void @Py_IncRef(ptr %descr)
  br i1 %large, label %aligned, label %plain
plain:
  %small = call ptr @{new_array}(ptr @{array_type}, ptr %descr, i32 %rank.32, ptr %dims, ptr null, ptr null, i32 0, ptr null)
  %small.failed = icmp eq ptr %small, null
  br i1 %small.failed, label %end, label %step
aligned:
  %handler.word = call i64 @field(ptr %d, i64 {handler})
  %handler = inttoptr i64 %handler.word to ptr
  %before = call ptr @{set_handler}(ptr %handler)
  %new = call ptr @{new_array}(ptr @{array_type}, ptr %descr, i32 %rank.32, ptr %dims, ptr null, ptr null, i32 0, ptr null)
  %ours = call ptr @{set_handler}(ptr %before)
  call void @Py_DecRef(ptr %ours)
  call void @Py_DecRef(ptr %before)
  %failed = icmp eq ptr %new, null
  br i1 %failed, label %end, label %keep
keep:
  %held = call ptr @PyList_GetItem(ptr %spares, i64 %i)
  call void @Py_IncRef(ptr %held)
  %place = add i64 %i, %count
  %moved = call i32 @PyList_SetItem(ptr %spares, i64 %place, ptr %held)
  call void @Py_IncRef(ptr %new)
  %kept = call i32 @PyList_SetItem(ptr %spares, i64 %i, ptr %new)
  br label %step
step:
  %array = phi ptr [ %old, %take ], [ %small, %plain ], [ %new, %keep ]
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
