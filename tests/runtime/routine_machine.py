"""Runs routines step by step: several threads, one memory, any order of their steps.

A step is one access that other threads can see, an atomic one or a system call, and all that its thread does before the next. Between steps a `Machine` can
be copied, compared and asked which threads could go on, so that a test can follow one schedule or all of them. Memory is sequentially consistent;
`HappensBefore` finds plain accesses that the memory orders of the atomic ones do not order.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from graphc.codegen.routines.architecture import X86_64, Extern
from graphc.codegen.routines.routine import Branch, Global, Instruction, Repeat, Routine, RoutineBody, StatementList
from graphc.codegen.routines.text import routine_bodies
from graphc.codegen.routines.values import VOLATILE, Ptr

SYSCALLS = {number: name for name, number in X86_64.syscalls.items()}
STACK, STACK_BYTES, CODE = 1 << 40, 1 << 20, 1 << 50        # where threads' stacks begin, and addresses of functions
ACQUIRES, RELEASES = ("acquire", "acq_rel", "seq_cst"), ("release", "acq_rel", "seq_cst")
BLOCKED = object()                                          # what a function of `Machine.functions` returns when its thread must wait


def signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 and bits > 1 else value


PURE = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "udiv": lambda a, b: a // b, "urem": lambda a, b: a % b,
    "and": lambda a, b: a & b, "or": lambda a, b: a | b, "xor": lambda a, b: a ^ b, "shl": lambda a, b: a << b, "smin": min, "smax": max,
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "slt": lambda a, b: a < b, "sle": lambda a, b: a <= b, "sgt": lambda a, b: a > b,
    "sge": lambda a, b: a >= b, "offset": lambda a, b: a + b, "select": lambda c, a, b: a if c else b, "sext": lambda a: a, "trunc": lambda a: a,
    "ptrtoint": lambda a: a}
UPDATES = {"xchg": lambda old, new: new, "add": PURE["add"], "sub": PURE["sub"], "and": PURE["and"]}


@dataclass(eq=False)
class Op:
    """An instruction of flat code: operands and result are numbers of registers."""
    kind: str
    result: int = -1
    operands: tuple[int, ...] = ()
    how: object = None
    function: Callable | None = None
    bits: int = 64


@dataclass(eq=False)
class Code:
    """A routine as a list with jumps. `registers`: how they are at its start; `live[pc]`: those that are read later."""
    name: str
    ops: list[Op] = field(default_factory=list)
    registers: list[int] = field(default_factory=list)
    live: list[tuple[int, ...]] = field(default_factory=list)


class Flatten:
    """Code of a routine's body."""

    def __init__(self, body: RoutineBody, addresses: Callable[[object], int]):
        self.code, self._numbers, self._breaks, self._addresses = Code(body.owner.name), {}, [], addresses
        for param in body.params:
            self._register(param.text)
        self._list(body.root)
        self.code.live = _live(self.code.ops)

    def _register(self, text: str, start: int = 0) -> int:
        if text not in self._numbers:
            self._numbers[text] = len(self.code.registers)
            self.code.registers.append(start)
        return self._numbers[text]

    def _operand(self, value) -> int:
        if value.text.startswith("@"):
            return self._register(value.text, self._addresses(value.text[1:]))
        return self._register(f"{value.llvm} {value.text}", value.const) if value.const is not None else self._numbers[value.text]

    def _list(self, block: StatementList) -> None:
        for statement in block.statements:
            {Branch: self._branch, Repeat: self._repeat, Instruction: self._instruction}[type(statement)](statement)

    def _branch(self, s: Branch) -> None:
        branch = self._add(Op("branch", operands=(self._operand(s.condition),)))
        self._list(s.then)
        over = self._add(Op("jump"))
        branch.how = len(self.code.ops)
        self._list(s.otherwise)
        over.how = len(self.code.ops)

    def _repeat(self, s: Repeat) -> None:
        start = len(self.code.ops)
        self._breaks.append([])
        self._list(s.body)
        self._add(Op("jump", how=start))
        for op in self._breaks.pop():
            op.how = len(self.code.ops)

    def _instruction(self, s: Instruction) -> None:
        if s.op == "break":
            self._breaks[-1].append(self._add(Op("jump")))
            return
        kind, _, update = s.op.partition(" ")
        operands = [self._operand(o) for o in s.operands]
        if kind == "call" and isinstance(s.how, Ptr):
            operands.insert(0, self._operand(s.how))
        width = s.operands[0] if kind == "lshr" or kind == "zext" else s.result if s.result is not None else s.operands[-1] if s.operands else None
        bits = 1 if width is not None and width.llvm == "i1" else 8 * width.bytes if width is not None else 64
        function = UPDATES[update] if update else PURE.get(kind) or _unsigned(kind, bits)
        result = -1 if s.result is None else self._register(s.result.text)
        self._add(Op(kind if kind not in PURE and kind not in ("lshr", "zext") else "pure", result, tuple(operands), s.how, function, bits))

    def _add(self, op: Op) -> Op:
        self.code.ops.append(op)
        return op


def _unsigned(kind: str, bits: int) -> Callable:
    mask = (1 << bits) - 1
    return {"lshr": lambda a, b: (a & mask) >> b, "zext": lambda a: a & mask}.get(kind)


def _live(ops: list[Op]) -> list[tuple[int, ...]]:
    """By going backwards until nothing changes."""
    live: list[set[int]] = [set() for _ in range(len(ops) + 1)]
    changed = True
    while changed:
        changed = False
        for pc in reversed(range(len(ops))):
            op = ops[pc]
            after = {"jump": [op.how], "branch": [pc + 1, op.how], "ret": []}.get(op.kind, [pc + 1])
            now = set().union(*(live[n] for n in after)) - {op.result} | set(op.operands)
            if now != live[pc]:
                live[pc], changed = now, True
    return [tuple(sorted(s)) for s in live]


class Frame:
    """A call in flight. Calls of other routines leave `pc` at the call until they are back."""

    def __init__(self, code: Code, values: Iterable[int], stack: int):
        self.code, self.pc, self.stack, self.top = code, 0, stack, stack
        self.registers = code.registers.copy()
        for n, value in enumerate(values):
            self.registers[n] = value

    def copy(self) -> Frame:
        new = object.__new__(Frame)
        new.code, new.pc, new.stack, new.top, new.registers = self.code, self.pc, self.stack, self.top, self.registers.copy()
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

    def copy(self) -> Thread:
        return Thread(self.number, [f.copy() for f in self.frames], self.asleep, self.may_time_out, self.clock)

    @property
    def is_done(self) -> bool:
        return not self.frames


class Program:
    """Routines as code. `functions`: (machine, thread, *values) -> result in the place of functions of C."""

    def __init__(self, routines: Iterable[Routine], replaced: Mapping[Routine, Routine], functions: Mapping[str, Callable]):
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
        assert isinstance(how, (Routine, Extern)) and not isinstance(how, Global)
        return self.functions[how.name] if isinstance(how, Extern) else self.codes[self.replaced.get(how, how).name], values


class Machine:
    """Memory and threads. `watch` is told of every access (None: of none)."""

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
        for sleeper in [t for t in machine.threads if t.asleep == address][:value]:
            machine.wake(sleeper)
        return 0
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
    "pthread_create": _pthread_create, "pthread_detach": lambda machine, thread, number: 0, "clock_gettime": _clock_gettime,
    "sched_getcpu": lambda machine, thread: thread.number, "llvm.x86.sse2.pause": lambda machine, thread: None, "syscall": _syscall,
    "llvm.memcpy.p0.p0.i64": _move, "llvm.memmove.p0.p0.i64": _move, "llvm.memset.p0.i64": _fill, "memcmp": _memcmp, "futex": _futex,
    "gettid": lambda machine, thread: thread.number + 1, "sched_yield": lambda machine, thread: 0,
    "rt_sigprocmask": lambda machine, thread, *values: 0, "sched_getaffinity": lambda machine, thread, *values: -1,
    "sched_setaffinity": lambda machine, thread, *values: 0}


class HappensBefore:
    """Vector clocks: of threads, and of what was released at addresses. AssertionError for two accesses of one word by two threads, not both atomic
    and one a write, that are not ordered."""

    def __init__(self):
        self._clocks: dict[int, dict[int, int]] = {}
        self._released: dict[int, dict[int, int]] = {}
        self._seen: dict[int, dict[int, int]] = {}          # what a thread would acquire with a fence
        self._accesses: dict[int, dict[tuple[int, bool, bool], int]] = {}       # (thread, whether it wrote, whether atomically) -> its clock

    def started(self, parent: int, child: int) -> None:
        _join(self._clock(child), self._clock(parent))
        self._tick(parent)

    def fence(self, thread: int) -> None:
        _join(self._clock(thread), self._seen.get(thread, {}))

    def read(self, thread: int, address: int, order: str | None) -> None:
        if order is not None:
            released = self._released.get(address, {})
            _join(self._clock(thread) if order in ACQUIRES else self._seen.setdefault(thread, {}), released)
        self._check(thread, address, False, order is not None)

    def write(self, thread: int, address: int, order: str | None) -> None:
        self._check(thread, address, True, order is not None)
        if order is not None:
            self._released[address] = dict(self._clock(thread)) if order in RELEASES else {}
            self._tick(thread)

    def update(self, thread: int, address: int, order: str) -> None:
        """A read and a write at once: what was released before stays released."""
        before = self._released.get(address, {})
        self.read(thread, address, order)
        self.write(thread, address, order)
        _join(self._released[address], before)

    def _check(self, thread: int, address: int, writes: bool, atomic: bool) -> None:
        clock, accesses = self._clock(thread), self._accesses.setdefault(address & ~3, {})
        for (other, wrote, atomically), when in accesses.items():
            if other != thread and (writes or wrote) and not (atomic and atomically) and clock.get(other, 0) < when:
                raise AssertionError(f"threads {other} and {thread} race for the word at {address}")
        accesses[thread, writes, atomic] = clock[thread]

    def _clock(self, thread: int) -> dict[int, int]:
        return self._clocks.setdefault(thread, {thread: 1})

    def _tick(self, thread: int) -> None:
        self._clock(thread)[thread] += 1


def _join(clock: dict[int, int], other: Mapping[int, int]) -> None:
    for thread, time in other.items():
        clock[thread] = max(clock.get(thread, 0), time)
