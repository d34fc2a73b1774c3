"""Calls that may wait, as LLVM text: what Python does where the fast entry gives up.

All that such a call takes, the state's lock and a frame, is taken and given back by one native function, so that nothing is left taken when an
exception arrives between two steps of Python. It lets other Python threads go on while it waits and while the program runs; frames and the record
of the call change hands while the GIL is held.
"""
from __future__ import annotations

from graphc.codegen.abi import RETURN_CANCELLED
from graphc.runtime.entry_layout import NUMBERS

MADV_DONTNEED = 4
WAIT_MS = 100                   # between two waits Python looks at its signals


def waiting_text() -> str:
    """LLVM text of gc_call_waiting, gc_cancel and gc_add_frame."""
    return TEXT.format(**NUMBERS, wait_ms=WAIT_MS, cancelled_code=RETURN_CANCELLED, dontneed=MADV_DONTNEED)


TEXT = """
; One call: 0, or why the program left early; {busy} when the lock could not be had for a while, {no_frame} when no frame is free, {cancelled_code} when
; the call was cancelled. Derived values are made first if the state has changed.
define i32 @gc_call_waiting(ptr %d, ptr %inputs, ptr %outputs, ptr %job) nounwind {{
entry:
  %asked.at = getelementptr i8, ptr %job, i64 {job_cancelled}
  %lock.word = call i64 @field(ptr %d, i64 {lock})
  %lock = inttoptr i64 %lock.word to ptr
  %locked = call i1 @try_lock(ptr %lock)
  br i1 %locked, label %take, label %wait
wait:
  %waiter = call ptr @PyEval_SaveThread()
  call void @await_lock(ptr %lock, i64 {wait_ms})
  call void @PyEval_RestoreThread(ptr %waiter)
  %late = call i1 @lock_awaited(ptr %lock)
  br i1 %late, label %take, label %busy
busy:
  ret i32 {busy}
take:
  %own.word = call i64 @field(ptr %job, i64 {job_own})
  %own = inttoptr i64 %own.word to ptr
  %listed = icmp eq i64 %own.word, 0
  br i1 %listed, label %pop, label %fill
pop:
  %popped = call ptr @gc_pop_frame(ptr %d)
  %none = icmp eq ptr %popped, null
  br i1 %none, label %no.frame, label %fill
no.frame:
  call void @try_unlock(ptr %lock)
  ret i32 {no_frame}
fill:
  %ctx = phi ptr [ %own, %take ], [ %popped, %pop ]
  call void @fill_context(ptr %ctx, ptr %inputs, ptr %outputs)
  %status.at = getelementptr i8, ptr %ctx, i64 {ctx_status}
  %asked = load i64, ptr %asked.at
  %unwanted = icmp ne i64 %asked, 0
  br i1 %unwanted, label %give, label %begin
begin:
  %context.at = getelementptr i8, ptr %job, i64 {job_context}
  store ptr %ctx, ptr %context.at
  %thread = call ptr @PyEval_SaveThread()
  %current = call i1 @is_current(ptr %d, ptr %lock)
  br i1 %current, label %main, label %prepare
prepare:
  %made = call i32 @derive(ptr %d, ptr %lock, ptr %ctx)
  %good = icmp eq i32 %made, 0
  br i1 %good, label %main, label %back
main:
  %main.word = call i64 @field(ptr %d, i64 {main})
  %program = inttoptr i64 %main.word to ptr
  %start = call i64 @now()
  %ran = call i32 @gc_run(ptr %program, ptr %ctx)
  %end = call i64 @now()
  %duration = sub i64 %end, %start
  %duration.at = getelementptr i8, ptr %job, i64 {job_duration}
  store i64 %duration, ptr %duration.at
  %whole = call i32 @unless_cancelled(ptr %ctx, i32 %ran)
  br label %back
back:
  %code.back = phi i32 [ %made, %prepare ], [ %whole, %main ]
  call void @PyEval_RestoreThread(ptr %thread)
  store ptr null, ptr %context.at
  %status = load i64, ptr %status.at
  %word.at = getelementptr i8, ptr %job, i64 {job_status}
  store i64 %status, ptr %word.at
  call void @gc_wrote(ptr %d, ptr %lock)
  br label %give
give:
  %code = phi i32 [ {cancelled_code}, %fill ], [ %code.back, %back ]
  br i1 %listed, label %push, label %unlock
push:
  call void @gc_push_frame(ptr %d, ptr %ctx)
  br label %unlock
unlock:
  call void @try_unlock(ptr %lock)
  ret i32 %code
}}

; Makes the derived values of the state's present version; the memory of what passes is the system's again.
define internal i32 @derive(ptr %d, ptr %lock, ptr %ctx) nounwind {{
entry:
  %prepare.word = call i64 @field(ptr %d, i64 {prepare})
  %prepare = inttoptr i64 %prepare.word to ptr
  %ran = call i32 @gc_run(ptr %prepare, ptr %ctx)
  %bytes = call i64 @field(ptr %d, i64 {passing_bytes})
  %some = icmp sgt i64 %bytes, 0
  br i1 %some, label %drop, label %look
drop:
  %passing.word = call i64 @field(ptr %d, i64 {passing})
  %passing = inttoptr i64 %passing.word to ptr
  %a = call i32 @madvise(ptr %passing, i64 %bytes, i32 {dontneed})
  br label %look
look:
  %code = call i32 @unless_cancelled(ptr %ctx, i32 %ran)
  %good = icmp eq i32 %code, 0
  br i1 %good, label %note, label %end
note:
  %version = call i64 @field(ptr %lock, i64 {version_at})
  %seen.at = getelementptr i8, ptr %d, i64 {seen}
  store i64 %version, ptr %seen.at
  br label %end
end:
  ret i32 %code
}}

; `code`; or that of a cancelled call, whose last kernel may have left out tiles.
define internal i32 @unless_cancelled(ptr %ctx, i32 %code) nounwind {{
  %at = getelementptr i8, ptr %ctx, i64 {ctx_cancel}
  %word = load atomic i64, ptr %at monotonic, align 8
  %asked = icmp sgt i64 %word, 0
  %fine = icmp eq i32 %code, 0
  %left = and i1 %asked, %fine
  %r = select i1 %left, i32 {cancelled_code}, i32 %code
  ret i32 %r
}}

; Asks the call to come back, unless it has begun to write state. GIL held, as when its context comes and goes.
define void @gc_cancel(ptr %job) nounwind {{
entry:
  %asked.at = getelementptr i8, ptr %job, i64 {job_cancelled}
  store i64 1, ptr %asked.at
  %context = call i64 @field(ptr %job, i64 {job_context})
  %runs = icmp ne i64 %context, 0
  br i1 %runs, label %ask, label %end
ask:
  %ctx = inttoptr i64 %context to ptr
  %at = getelementptr i8, ptr %ctx, i64 {ctx_cancel}
  %swap = cmpxchg ptr %at, i64 0, i64 1 monotonic monotonic
  br label %end
end:
  ret void
}}

; Puts a new frame among the free ones unless there are `bound` already; whether it did.
define i32 @gc_add_frame(ptr %d, ptr %ctx, i64 %bound) nounwind {{
entry:
  %made.at = getelementptr i8, ptr %d, i64 {made}
  %made = load i64, ptr %made.at
  %room = icmp slt i64 %made, %bound
  br i1 %room, label %add, label %end
add:
  %more = add i64 %made, 1
  store i64 %more, ptr %made.at
  call void @gc_push_frame(ptr %d, ptr %ctx)
  br label %end
end:
  %r = zext i1 %room to i32
  ret i32 %r
}}
"""
