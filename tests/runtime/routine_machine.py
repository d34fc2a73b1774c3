"""Runs routines step by step: several threads, one memory, any order of their steps.

A step is one access that other threads can see, an atomic one or a system call, and all that its thread does before the
next. Between steps a `Machine` can be copied, compared and asked which threads could go on, so that a test can follow
one schedule or all of them. Memory is sequentially consistent; `HappensBefore` finds plain accesses that the memory
orders of the atomic ones do not order.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from happens_before import HappensBefore
from routine_code import Code, Flatten, Op, signed

from graphc.codegen.routines.architecture import X86_64
from graphc.codegen.routines.routine import Routine
from graphc.codegen.routines.text import routine_bodies
from graphc.codegen.routines.values import VOLATILE, Extern, Ptr

SYSCALLS = {number: name for name, number in X86_64.syscalls.items()}
STACK, STACK_BYTES, CODE = 1 << 40, 1 << 20, 1 << 50        # where threads' stacks begin, and addresses of functions
BLOCKED = object()              # what a function of C returns when its thread must wait


class Frame:
    """A call in flight. Calls of other routines leave `pc` at the call until they are back."""

    def __init__(self, code: Code, values: Iterable[int], stack: int):
        self.code, self.pc, self.stack, self.top = code, 0, stack, stack
        self.registers = code.registers.copy()
        for n, value in enumerate(values):
            self.registers[n] = value

    def copy(self) -> Frame:
        new = object.__new__(Frame)
        new.code, new.pc, new.stack, new.top = self.code, self.pc, self.stack, self.top
        new.registers = self.registers.copy()
        return new

    def key(self) -> tuple:
        registers = self.registers
        return self.code.name, self.pc, tuple([registers[n] for n in self.code.live[self.pc]])


@dataclass
class Thread:
    number: int
    frames: list[Frame]
    asleep: int = 0                     # the address of the futex that it sleeps at
    may_time_out: bool = False
    clock: int = 0
    result: int = 0                     # of the routine that it began with

    def copy(self) -> Thread:
        return Thread(self.number, [f.copy() for f in self.frames], self.asleep, self.may_time_out, self.clock)

    @property
    def is_done(self) -> bool:
        return not self.frames


class Program:
    """Routines as code. `functions`: (machine, thread, *values) -> result in the place of functions of C."""

    def __init__(self, routines: Iterable[Routine], replaced: Mapping[Routine, Routine],
                 functions: Mapping[str, Callable]):
        self.replaced, self.functions = replaced, {**FUNCTIONS, **functions}
        bodies = routine_bodies(routines, X86_64, replaced)
        self.numbers = {name: n for n, name in enumerate(bodies)}
        self.codes = {name: Flatten(body, self.address).code for name, body in bodies.items()}
        self._by_address = {self.address(name): code for name, code in self.codes.items()}

    def address(self, name: str) -> int:
        return CODE + 16 * self.numbers[name]

    def code_at(self, address: int) -> Code:
        return self._by_address[address]

    def callee(self, how: object, values: list[int]) -> tuple[Code | Callable, list[int]]:
        """Whom a call calls, with what."""
        if isinstance(how, Ptr):
            return self._by_address[values[0]], values[1:]
        if isinstance(how, Extern):
            return self.functions[how.name], values
        return self.codes[self.replaced.get(how, how).name], values


class Machine:
    """Memory and threads. `watch` is told of every access (None: of none). `functions`: C's and the system's, besides
    FUNCTIONS, where a kind of machine has its own."""
    functions: ClassVar[Mapping[str, Callable]] = {}

    def __init__(self, program: Program, watch: HappensBefore | None = None):
        self.program, self.watch = program, watch
        self.memory: dict[int, int] = {}        # 8-byte words
        self.threads: list[Thread] = []

    def copy(self) -> Machine:
        new = Machine(self.program)
        new.memory, new.threads = self.memory.copy(), [t.copy() for t in self.threads]
        return new

    def key(self) -> int:
        """Equal for machines that go on in the same way."""
        threads = tuple([(t.asleep, t.clock, tuple([f.key() for f in t.frames])) for t in self.threads])
        return hash((frozenset(self.memory.items()), threads))

    def start(self, name: str, *values: int) -> Thread:
        """A new thread, at the first step of a routine."""
        thread = Thread(len(self.threads), [])
        self.threads.append(thread)
        self._enter(thread, self.program.codes[name], values)
        self._go_on(thread)
        return thread

    # ---- memory
    def load(self, address: int, bits: int = 64) -> int:
        word = self.memory.get(address & ~7, 0)
        return signed(word >> 8 * (address & 7), bits)

    def store(self, address: int, value: int, bits: int = 64) -> None:
        at, shift = address & ~7, 8 * (address & 7)
        mask = (1 << bits) - 1 << shift
        word = self.memory.get(at, 0) & ((1 << 64) - 1) & ~mask | value << shift & mask
        if word:
            self.memory[at] = word
        else:
            self.memory.pop(at, None)

    # ---- steps
    def step(self, thread: Thread) -> None:
        """What the thread is about to do, and on until others could see the next."""
        self._execute(thread)
        self._go_on(thread)

    def wake(self, thread: Thread, result: int = 0) -> None:
        """Ends its sleep, for whatever reason."""
        frame = thread.frames[-1]
        thread.asleep, thread.may_time_out = 0, False
        self._set(frame, frame.code.ops[frame.pc], result)
        frame.pc += 1
        self._go_on(thread)

    def _go_on(self, thread: Thread) -> None:
        while thread.frames and not thread.asleep and not self._is_visible(thread):
            self._execute(thread)

    def _is_visible(self, thread: Thread) -> bool:
        frame = thread.frames[-1]
        op = frame.code.ops[frame.pc]
        if op.kind in ("load", "store"):
            return op.how not in (None, VOLATILE) and frame.registers[op.operands[0]] < STACK
        if op.kind in ("atomicrmw", "cmpxchg"):
            return True
        return op.kind == "call" and isinstance(op.how, Extern) and op.how.name == "syscall"

    def _execute(self, thread: Thread) -> None:
        frame = thread.frames[-1]
        op = frame.code.ops[frame.pc]
        values = [frame.registers[n] for n in op.operands]
        getattr(self, f"_{op.kind}")(thread, frame, op, values)

    def _set(self, frame: Frame, op: Op, value: int) -> None:
        if op.result >= 0:
            frame.registers[op.result] = signed(int(value), op.bits)

    def _pure(self, thread: Thread, frame: Frame, op: Op, values: list[int]) -> None:
        self._set(frame, op, op.function(*values))
        frame.pc += 1

    def _skip(self, thread: Thread, frame: Frame, op: Op, values: list[int]) -> None:
        frame.pc += 1

    def _jump(self, thread: Thread, frame: Frame, op: Op, values: list[int]) -> None:
        frame.pc = op.how

    def _branch(self, thread: Thread, frame: Frame, op: Op, values: list[int]) -> None:
        frame.pc = frame.pc + 1 if values[0] else op.how

    def _alloca(self, thread: Thread, frame: Frame, op: Op, values: list[int]) -> None:
        if not frame.registers[op.result]:              # once, also in a loop
            frame.registers[op.result] = frame.top
            frame.top += -(-(values[0] if values else op.how) // 8) * 8
        frame.pc += 1

    def _fence(self, thread: Thread, frame: Frame, op: Op, values: list[int]) -> None:
        if self.watch:
            self.watch.fence(thread.number)
        frame.pc += 1

    def _load(self, thread: Thread, frame: Frame, op: Op, values: list[int]) -> None:
        if self.watch and values[0] < STACK and op.how != VOLATILE:
            self.watch.read(thread.number, values[0], op.how)
        self._set(frame, op, self.load(values[0], op.bits))
        frame.pc += 1

    def _store(self, thread: Thread, frame: Frame, op: Op, values: list[int]) -> None:
        if self.watch and values[0] < STACK:
            self.watch.write(thread.number, values[0], op.how)
        self.store(values[0], values[1], op.bits)
        frame.pc += 1

    def _atomicrmw(self, thread: Thread, frame: Frame, op: Op, values: list[int]) -> None:
        if self.watch:
            self.watch.update(thread.number, values[0], op.how)
        old = self.load(values[0], op.bits)
        self.store(values[0], op.function(old, values[1]), op.bits)
        self._set(frame, op, old)
        frame.pc += 1

    def _cmpxchg(self, thread: Thread, frame: Frame, op: Op, values: list[int]) -> None:
        old = self.load(values[0], op.bits)
        if self.watch:
            if old == values[1]:
                self.watch.update(thread.number, values[0], op.how)
            else:
                self.watch.read(thread.number, values[0], "monotonic")
        if old == values[1]:
            self.store(values[0], values[2], op.bits)
        self._set(frame, op, old)
        frame.pc += 1

    def _call(self, thread: Thread, frame: Frame, op: Op, values: list[int]) -> None:
        callee, values = self.program.callee(op.how, values)
        if isinstance(callee, Code):
            self._enter(thread, callee, values)
            return
        result = callee(self, thread, *values)
        if result is not BLOCKED:
            self._set(frame, op, result or 0)
            frame.pc += 1

    def _ret(self, thread: Thread, frame: Frame, op: Op, values: list[int]) -> None:
        for address in range(frame.stack, frame.top, 8):
            self.memory.pop(address, None)
        thread.frames.pop()
        if thread.frames:
            caller = thread.frames[-1]
            self._set(caller, caller.code.ops[caller.pc], values[0] if values else 0)
            caller.pc += 1
        elif values:
            thread.result = values[0]

    def _enter(self, thread: Thread, code: Code, values: Iterable[int]) -> None:
        stack = thread.frames[-1].top if thread.frames else STACK + STACK_BYTES * thread.number
        thread.frames.append(Frame(code, values, stack))


# ---- functions of C, and of the system
def _pthread_create(machine: Machine, thread: Thread, at: int, attributes: int, function: int, argument: int) -> int:
    if machine.watch:
        machine.watch.started(thread.number, len(machine.threads))
    machine.start(machine.program.code_at(function).name, argument)
    return 0


def _clock_gettime(machine: Machine, thread: Thread, which: int, at: int) -> int:
    """Every look takes a second: what was timed took long."""
    thread.clock += 1
    machine.store(at, thread.clock)
    machine.store(at + 8, 0)
    return 0


def _syscall(machine: Machine, thread: Thread, number: int, *values: int) -> object:
    return machine.program.functions[SYSCALLS[number]](machine, thread, *values)


def _futex(machine: Machine, thread: Thread, address: int, what: int, value: int, limit: int, *rest: int) -> object:
    if what == 129:
        woken = [t for t in machine.threads if t.asleep == address][:value]
        for sleeper in woken:
            machine.wake(sleeper)
        return len(woken)
    if machine.load(address, 32) != signed(value, 32):
        return -1
    thread.asleep, thread.may_time_out = address, limit != 0
    return BLOCKED


def _move(machine: Machine, thread: Thread, to: int, source: int, nbytes: int, volatile: int) -> None:
    for offset, word in enumerate([machine.load(source + n) for n in range(0, nbytes, 8)]):
        machine.store(to + 8 * offset, word)


def _fill(machine: Machine, thread: Thread, to: int, byte: int, nbytes: int, volatile: int) -> None:
    assert byte == 0
    for n in range(0, nbytes, 8):
        machine.store(to + n, 0)


def _memcmp(machine: Machine, thread: Thread, a: int, b: int, nbytes: int) -> int:
    return any(machine.load(a + n) != machine.load(b + n) for n in range(0, nbytes, 8))


FUNCTIONS = {
    "syscall": _syscall, "futex": _futex, "gettid": lambda machine, thread: thread.number + 1,
    "sched_yield": lambda machine, thread: 0, "rt_sigprocmask": lambda machine, thread, *values: 0,
    "sched_getaffinity": lambda machine, thread, *values: -1, "sched_setaffinity": lambda machine, thread, *values: 0,
    "pthread_create": _pthread_create, "pthread_detach": lambda machine, thread, number: 0,
    "clock_gettime": _clock_gettime, "sched_getcpu": lambda machine, thread: thread.number,
    "llvm.x86.sse2.pause": lambda machine, thread: None, "llvm.memcpy.p0.p0.i64": _move,
    "llvm.memmove.p0.p0.i64": _move, "llvm.memset.p0.i64": _fill, "memcmp": _memcmp}
