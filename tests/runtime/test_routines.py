"""The routine IR: what does not fit is refused when a body is made; records have the layout of C; native code and
`routine_machine` agree."""
from __future__ import annotations

import ctypes
import random
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pytest
from routine_machine import Machine, Program

from graphc.codegen.llvm.jit import compile_object, load_object
from graphc.codegen.routines.architecture import AARCH64, X86_64, architecture_of
from graphc.codegen.routines.routine import Routine, RoutineBody, routine
from graphc.codegen.routines.text import module_text
from graphc.codegen.routines.values import (
    ACQ_REL,
    I1,
    I32,
    I64,
    RELAXED,
    SEQ_CST,
    Cell,
    Elements,
    Extern,
    Field,
    FunctionPointer,
    Ptr,
    Records,
    Struct,
    elements_of,
    records_of,
)
from graphc.errors import InternalError
from graphc.runtime.native import runtime_target
from graphc.runtime.pool_ir import range_start
from graphc.runtime.preemption_ir import has_cpu
from graphc.runtime.share_ir import mark_share
from graphc.runtime.system import I64s


# ---- records
class Inner(Struct):
    small = Field(I32)
    large = Field(I64)


class Outer(Struct, line=True):
    flag = Field(I1)
    number = Field(I32)
    inner = Field(Inner)                    # a pointer
    inside = Field(Inner, 3)                # the structs themselves
    words = Field(I64, 2)
    hot = Field(I64, line=True)


class Longer(Inner):
    more = Field(Ptr)


def test_records_have_computed_offsets():
    assert {name: f.offset for name, f in Outer.fields.items()} == {
        "flag": 0, "number": 4, "inner": 8, "inside": 16, "words": 64, "hot": 128}
    assert (Inner.size, Outer.size, Longer.size, Longer.more.offset) == (16, 192, 24, 16)


def test_a_field_has_no_name_that_every_value_has():
    with pytest.raises(InternalError, match="Wrong.*text"):
        type("Wrong", (Struct,), {"text": Field(I64)})


# ---- mistakes
number_of = Extern("number_of", I64, Ptr)
TakesOne = FunctionPointer[I64, I64]


@routine
def one_more(f: RoutineBody, x: I64) -> I64:
    """Sound."""
    return x + 1


@routine
def two_sums(f: RoutineBody, x: I64, y: I64) -> I64:
    """Sound."""
    return x + y + y


def assign(cell: Cell, value: object) -> None:
    cell.value = value


def outside(f: RoutineBody, x: I64) -> I64:
    with f.if_(x > 0):
        inner = x + 1
    return inner + 1


def after_the_end(f: RoutineBody, x: I64) -> I64:
    f.return_(x)
    return x + 1


def alone(f: RoutineBody) -> None:
    x = f.variable(I64, 0)
    assign(x, 1)
    with f.else_():
        assign(x, 2)


def in_a_loop(f: RoutineBody, x: I64) -> None:
    with f.for_(x):
        f.array(I64, x)


def on_one_way(f: RoutineBody, x: I64) -> None:
    with f.if_(x > 0):
        f.return_(x)


MISTAKES = {
    "I32 given where I64": lambda f, x, small, o: assign(o.hot, small),
    "I64 given where I32": lambda f, x, small, o: assign(o.number, x),
    "I32 given where I64 ": lambda f, x, small, o: x + small,
    "I64 given where Ptr": lambda f, x, small, o: number_of(f, x),
    "Inner given where Outer": lambda f, x, small, o: Outer.of(o).body.given(o.inner.value, Outer),
    "one_more takes 1 values, the call gives 2": lambda f, x, small, o: one_more(f, x, x),
    "4294967296 is no I32": lambda f, x, small, o: assign(o.number, 1 << 32),
    "two_sums takes or gives something else": lambda f, x, small, o: TakesOne.constant(f, two_sums),
    "known when it runs": lambda f, x, small, o: x or small,
    "else_ stands directly after": lambda f, x, small, o: alone(f),
    "outside the block": lambda f, x, small, o: outside(f, x),
    "after the end": lambda f, x, small, o: after_the_end(f, x),
    "break outside a loop": lambda f, x, small, o: f.break_(),
    "grows in a loop": lambda f, x, small, o: in_a_loop(f, x),
    "does not return on every way": lambda f, x, small, o: on_one_way(f, x),
    "select of two constants": lambda f, x, small, o: f.select(x > 0, True, False),
}


def with_mistake(mistake: Callable) -> Routine:
    @routine
    def wrong(f: RoutineBody, x: I64, small: I32, o: Outer) -> I64:
        """Has one mistake; where it has another type than the result, that is not returned."""
        made = mistake(f, x, small, o)
        return made if isinstance(made, I64) else None
    return wrong


@pytest.mark.parametrize("text", MISTAKES)
def test_what_does_not_fit_is_refused(text):
    with pytest.raises(InternalError) as caught:
        RoutineBody(with_mistake(MISTAKES[text]), X86_64)
    assert "routine wrong: " in str(caught.value) and text.strip() in str(caught.value)


def test_a_kind_of_pointer_is_one_class():
    """What two files name is the same type, by which functions are compared."""
    assert Elements[I64] is elements_of(I64) and Records[Inner] is records_of(Inner)
    assert Elements[I64] is not Elements[I32] and Elements[Inner] is not Records[Inner]
    assert FunctionPointer[I64, I64] is TakesOne and FunctionPointer[None, I64] is not TakesOne
    assert (TakesOne.result, TakesOne.params) == (I64, (I64,))


def test_a_routine_of_another_object_file_takes_and_gives_the_same():
    there = one_more.elsewhere()
    assert (there.name, there.result, there.params) == ("one_more", I64, (I64,))
    assert TakesOne.constant(RoutineBody(one_more, X86_64), there).text == "@one_more"


def test_who_stands_for_another_takes_the_same():
    with pytest.raises(InternalError, match="two_sums cannot stand for one_more"):
        module_text([one_more], X86_64, {one_more: two_sums})


def test_two_routines_have_two_names():
    other = Routine(one_more.build)
    with pytest.raises(InternalError, match="two routines have the name one_more"):
        module_text([one_more, other], X86_64)


def test_architectures():
    assert architecture_of("x86_64-unknown-linux-gnu") is X86_64 and architecture_of("aarch64-linux") is AARCH64
    assert set(X86_64.syscalls) == set(AARCH64.syscalls)
    with pytest.raises(InternalError, match="s390x"):
        architecture_of("s390x-unknown-linux-gnu")


# ---- native code and the machine
@routine
def everything(f: RoutineBody, words: I64s, x: I64, y: I64) -> I64:
    """One of each operation."""
    low = x.trunc(I32)
    sum = f.variable(I64, low.sext(I64) + (x < y).zext(I64))
    with f.for_(y & 7) as i:
        with f.if_(i == 5):
            f.break_()
        with f.else_():
            sum.value += words[i & 3].value ^ i
    count = f.variable(I64, 0)
    with f.while_(lambda: (count.value < 10) & ~(count.value == x)):
        count.value += 3
    old = words[0].exchange(x, SEQ_CST) + words[1].add(y, RELAXED) + words[2].subtract(x, ACQ_REL)
    old += words[3].bitwise_and(y, SEQ_CST) * words[0].compare_exchange(x, y, ACQ_REL)
    low_word = Cell(words.plus(12), I32)
    low_word.store(low, SEQ_CST)
    positive = (y & 0xFFFF) + 1
    rest = (x & 0xFFFFFF) // positive + (x & 0xFFFFFF) % positive
    f.return_if(old == 0, -1)
    return f.select(old > y, sum.value | count.value, (rest << 3).at_most(old).at_least(x) - (x >> 5))


WORDS = 0x1000
ROUTINES = (everything, range_start, has_cpu, mark_share)
PROGRAM = Program(ROUTINES, {}, {})


@cache
def loaded():
    code = compile_object(module_text(ROUTINES, architecture_of(runtime_target().triple)), runtime_target())
    return load_object(code, tuple([r.name for r in ROUTINES]))


def natively(name: str, words: list[int], values: list[int]) -> tuple[int, list[int]]:
    """Result, and what the words are afterwards. Values that are None stand for the address of the words."""
    memory = np.array(words, np.int64)
    given = [memory.ctypes.data + 8 * (n > 0) * SECOND if v is None else v for n, v in enumerate(values)]
    bits = {r.name: r.result for r in ROUTINES}[name]
    result = ctypes.c_bool if bits is I1 else ctypes.c_int64
    function = ctypes.CFUNCTYPE(result, *[ctypes.c_int64] * len(values))(loaded().address(name))
    return int(function(*given)), memory.tolist()


def step_by_step(name: str, words: list[int], values: list[int]) -> tuple[int, list[int]]:
    machine = Machine(PROGRAM)
    for n, word in enumerate(words):
        machine.store(WORDS + 8 * n, word)
    thread = machine.start(name, *[WORDS + 8 * (n > 0) * SECOND if v is None else v for n, v in enumerate(values)])
    while not thread.is_done:
        machine.step(thread)
    return thread.result, [machine.load(WORDS + 8 * n) for n in range(len(words))]


SECOND = 4                      # where the second array begins, for routines that take two


def calls(order: random.Random) -> Iterator[tuple[str, list[int], list[int]]]:
    """Routines, memory and arguments."""
    words = [order.getrandbits(64) - (1 << 63) for _ in range(8)]
    x = order.choice((words[0], order.randrange(-1 << 40, 1 << 40)))
    yield "everything", words, [None, x, order.randrange(1 << 40)]
    yield "range_start", [0], [order.randrange(100), order.randrange(1, 100), order.randrange(10_000)]
    yield "has_cpu", words, [None, 32, order.randrange(-10, 300)]
    yield "mark_share", words, [None, 32, order.randrange(-1, 256), None, order.randrange(1, 9), order.randrange(9)]


@pytest.mark.parametrize("seed", range(20))
def test_native_code_and_the_machine_agree(seed):
    for name, words, values in calls(random.Random(seed)):
        assert natively(name, words, values) == step_by_step(name, words, values), (name, words, values)
