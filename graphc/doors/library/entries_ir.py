"""The functions that C calls, as routines made for one library."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, overload

from graphc.codegen.routines.routine import Routine, RoutineBody
from graphc.codegen.routines.values import I32, I64, Extern, Global, Int, Ptr, Typed, Value
from graphc.doors.library.formulas_ir import formulas
from graphc.doors.library.library import Built
from graphc.doors.library.programs import LibraryFunction
from graphc.runtime.entry_layout import ProgramFunction
from graphc.runtime.instances.calls_ir import call_function, check_instance, fits_sizes, run_by_caller
from graphc.runtime.instances.cpu_ir import chosen_set
from graphc.runtime.instances.instance_memory import (
    ForFunction, FormulaFunction, FunctionRecord, FunctionRecords, InstanceMemory, ProgramFacts, Tensors, Texts)
from graphc.runtime.instances.making_ir import (
    MAX_THREADS, allocated, allocated_by_windows, begin_instance, bytes_needed, c_free, lay_out, load_image, own_cpus,
    start_pool, windows_free)
from graphc.runtime.instances.status import CPU, OK
from graphc.runtime.instances.texts_ir import text
from graphc.runtime.pool_ir import gc_parallel, run_alone
from graphc.runtime.system import I64s, Pointers, memcpy, memset

if TYPE_CHECKING:
    from graphc.codegen.routines.values import Given

Kinds = Sequence[type[Typed]]


@overload
def made(name: str, doc: str, params: Kinds, result: type[Value], build: Callable[..., Value]) -> Routine[Value]: ...


@overload
def made(name: str, doc: str, params: Kinds, result: None, build: Callable[..., None]) -> Routine[None]: ...


def made(name: str, doc: str, params: Kinds, result: type[Typed] | None,
         build: Callable[..., Typed | None]) -> Routine[Any]:
    """A routine of this name and these types."""
    def body(f: RoutineBody, *values: Typed) -> Typed | None:
        return build(f, *values)
    body.__name__, body.__doc__ = name, doc
    body.__annotations__ = {f"p{n}": kind for n, kind in enumerate(params)} | {"return": result}
    return Routine(body)


def constant(content: bytes) -> Global:
    """Bytes under a name that they have alone."""
    return Global(f"data.{sha256(content).hexdigest()}", content)


class Entries:
    """The routines of one library for one platform."""

    def __init__(self, built: Built):
        self.built, self.library = built, built.library
        self.formulas = {p: formulas(p) for programs in built.programs for p in programs if p.function.sizes}
        self.select = made(self._name("select"), "Notes in the records which programs this CPU runs.",
                           (InstanceMemory, I64), None, self._select)
        self.sized = made(self._name("note_sizes"), "The bytes of an instance for these sizes, or 0.",
                          (InstanceMemory, I64s, I64), I64, self._bytes_for_sizes)

        words = [I64] * len(self.library.sizes)
        self.memory = made(self._name("memory"), "Bytes of an instance.", (*words, I32), I64, self._memory)
        self.init = made(self._name("init"), "Makes an instance in the caller's memory.", (InstanceMemory, I64, I32),
                         I32, self._init)

    def routines(self) -> list[Routine[Any]]:
        """All that C may call."""
        name = self._name
        found = [
            self.memory, self.init,
            made(name("message"), "About the last mistake.", (InstanceMemory,), Ptr, self._message),
            made(name("instruction_set"), "Which one an instance uses.", (InstanceMemory,), Ptr, self._instruction_set),
            made(name("index"), "That the last failed check found.", (InstanceMemory,), I64, self._index),
            made(name("parallel"), "The caller's own parallel loops.", (InstanceMemory, ForFunction, Ptr), I32,
                 self._parallel)]
        if self.library.image.arrays:
            found.append(made(name("state"), "The state as a safetensors file.", (InstanceMemory,), Ptr, self._state))
        if self.library.has_image:
            found.append(made(name("load"), "Takes the state from a safetensors file.", (InstanceMemory, Texts, I64),
                              I32, self._load))
        return found + [self._function(n, function) for n, function in enumerate(self.library.functions)]

    def allocating(self) -> list[Routine[Any]]:
        """Those of them that take memory of the C library."""
        words = [I64] * len(self.library.sizes)
        return [made(self._name("create"), "Makes an instance in memory of the C library.", (*words, I32), Ptr,
                     self._create),
                made(self._name("free"), "Gives back what create took.", (Ptr,), None, lambda f, n: self._frees(f, n))]

    def _name(self, what: str) -> str:
        return self.library.symbol(what)

    # ---- making instances
    def _record(self, n: InstanceMemory, number: int) -> FunctionRecord:
        return FunctionRecord.of(n.plus(InstanceMemory.size + number * FunctionRecord.size))

    def _records(self, n: InstanceMemory) -> FunctionRecords:
        return FunctionRecords.of(n.plus(InstanceMemory.size))

    def _program(self, name: str) -> Extern[Any]:
        """A function of another object file; linkers of WebAssembly hold functions and memory apart."""
        return Extern(name, ProgramFunction.result, *ProgramFunction.params)

    def _select(self, f: RoutineBody, n: InstanceMemory, number: I64) -> None:
        n.chosen.value = number
        offsets = self.library.image.offsets
        for i, programs in enumerate(self.built.programs):
            with f.if_(number == i):
                for k, program in enumerate(programs):
                    r = self._record(n, k)
                    r.facts.value = ProgramFacts.of(f.address(constant(program.facts(offsets))))
                    r.main.value = ProgramFunction.of(f.address(self._program(program.symbol)))
                    r.messages.value = I64s.of(f.address(constant(program.messages())))
                    if program.prepares:
                        r.prepare.value = ProgramFunction.of(f.address(self._program(f"{program.symbol}_prepare")))
                    if program.consts:
                        r.consts.value = f.address(Global(self.consts(program.consts)))
                    if program in self.formulas:
                        r.formulas.value = FormulaFunction.of(f.address(self.formulas[program]))
        for k, (state, known, sizes) in enumerate(self.built.tables):
            r = self._record(n, k)
            r.state.value, r.known.value = Pointers.of(n.plus(state)), I64s.of(n.plus(known))
            r.sizes.value = I64s.of(n.plus(sizes))

    def consts(self, content: bytes) -> str:
        """The symbol of constants that programs read."""
        return self._name(f"consts_{sha256(content).hexdigest()[:16]}")

    def _threads(self, f: RoutineBody, asked: I32) -> I64:
        """As many as were asked for; 0: as the CPUs that this thread may use."""
        number = f.variable(I64, asked.sext(I64))
        with f.if_(number.value <= 0):
            number.value = own_cpus(f) if self.library.threads else 1
        return number.value.at_most(MAX_THREADS)

    def _memory(self, f: RoutineBody, *given: Int) -> I64:
        *sizes, asked = given
        scratch = InstanceMemory.of(f.array(I64, self.built.image_offset // 8))
        memset(f, scratch, 0, self.built.image_offset, False)
        number = chosen_set(f, self.library.name, self.built.platform.instruction_sets)
        f.return_if(number < 0, 0)
        self.select(f, scratch, number)
        return self.sized(f, scratch, self._sizes(f, sizes), self._threads(f, f.given(asked, I32)))

    def _bytes_for_sizes(self, f: RoutineBody, n: InstanceMemory, table: I64s, threads: I64) -> I64:
        names = self.library.sizes
        for k, function in enumerate(self.library.functions):
            r = self._record(n, k)
            mine = self._sizes(f, [table[names.index(name)].value for name in function.sizes])
            f.return_if(~fits_sizes(f, r, mine, len(function.sizes)), 0)
        count = len(self.library.functions)
        return bytes_needed(f, self._records(n), count, self.built.fixed_bytes, threads)

    def _sizes(self, f: RoutineBody, values: Sequence[Given]) -> I64s:
        table = f.array(I64, max(1, len(values)))
        for n, value in enumerate(values):
            table[n].value = value
        return table

    def _init(self, f: RoutineBody, n: InstanceMemory, nbytes: I64, asked: I32) -> I32:
        built, library = self.built, self.library
        code = begin_instance(f, n, nbytes, built.image_offset)
        f.return_if(code != OK.code, code)
        number = chosen_set(f, library.name, built.platform.instruction_sets)
        f.return_if(number < 0, CPU.code)
        self.select(f, n, number)
        n.threads.value = self._threads(f, asked)
        count, records = len(library.functions), self._records(n)
        content = f.address(Global(self._name("image"))) if library.image.arrays else f.given(None, Ptr)
        image = Ptr.of(n.plus(built.image_offset)) if library.has_image else content
        code = lay_out(f, n, records, count, image, built.fixed_bytes, nbytes)
        f.return_if(code != OK.code, code)
        if library.has_image:
            kept = library.image.nbytes if library.embedded else len(library.image.header)
            memcpy(f, image, content, kept, False)
        n.loaded.value = int(library.embedded or not library.image.arrays)
        self._use_own_loops(f, n)
        return f.given(OK.code, I32)

    def _use_own_loops(self, f: RoutineBody, n: InstanceMemory) -> None:
        n.parallel.value = f.address(run_alone)
        if self.library.threads:
            with f.if_(n.threads.value > 1):
                n.parallel.value = f.address(gc_parallel)
                n.context[0].pool.value = start_pool(f)

    def _create(self, f: RoutineBody, *given: Int) -> Ptr:
        memory, init = self.memory.elsewhere(), self.init.elsewhere()
        nbytes = memory(f, *given)
        n = (allocated_by_windows if self._is_windows else allocated)(f, nbytes)
        f.return_if(n.is_null(), None)
        with f.if_(init(f, InstanceMemory.of(n), nbytes, given[-1]) != OK.code):
            self._frees(f, n)
            f.return_(None)
        return n

    @property
    def _is_windows(self) -> bool:
        return self.built.platform.object_format == "coff"

    @property
    def _frees(self) -> Extern[None]:
        """What gives back memory that `create` took."""
        return windows_free if self._is_windows else c_free

    # ---- what an instance tells and takes
    def _message(self, f: RoutineBody, n: InstanceMemory) -> Ptr:
        f.return_if(check_instance(f, n) != OK.code, text("there is no instance"))
        return n.message

    def _instruction_set(self, f: RoutineBody, n: InstanceMemory) -> Ptr:
        f.return_if(check_instance(f, n) != OK.code, text(""))
        first, *others = self.built.platform.instruction_sets
        found = f.variable(Ptr, text(first.name))
        for number, target in enumerate(others, 1):
            with f.if_(n.chosen.value == number):
                found.value = text(target.name)
        return found.value

    def _index(self, f: RoutineBody, n: InstanceMemory) -> I64:
        f.return_if(check_instance(f, n) != OK.code, -1)
        return n.index.value

    def _parallel(self, f: RoutineBody, n: InstanceMemory, run: ForFunction, given: Ptr) -> I32:
        code = check_instance(f, n)
        f.return_if(code != OK.code, code)
        n.run_tiles.value, n.run_with.value = run, given
        with f.if_(run.is_null()):
            self._use_own_loops(f, n)
        with f.else_():
            n.parallel.value = f.address(run_by_caller)
            n.context[0].pool.value = n
        return f.given(OK.code, I32)

    def _state(self, f: RoutineBody, n: InstanceMemory) -> Ptr:
        f.return_if(check_instance(f, n) != OK.code, None)
        n.version.value += 1
        return n.image.value

    def _load(self, f: RoutineBody, n: InstanceMemory, data: Texts, nbytes: I64) -> I32:
        code = check_instance(f, n)
        f.return_if(code != OK.code, code)
        n.message[0].value = 0
        facts = Tensors.of(f.address(constant(self.library.image.facts())))
        return load_image(f, n, facts, len(self.library.image.arrays), data, nbytes)

    # ---- the functions
    def _function(self, number: int, function: LibraryFunction) -> Routine[Any]:
        graph, names = function.graph, function.sizes
        arrays = len(graph.inputs) + len(graph.outputs)

        def build(f: RoutineBody, n: InstanceMemory, *given: Typed) -> I32:
            code = check_instance(f, n)
            f.return_if(code != OK.code, code)
            table = f.array(Ptr, max(1, arrays))
            for i, array in enumerate(given[len(names):]):
                table[i].value = array
            r = self._record(n, number)
            outputs = Pointers.of(table.plus(8 * len(graph.inputs)))
            return call_function(f, n, r, table, outputs, self._sizes(f, given[:len(names)]))
        params = (InstanceMemory, *[I64] * len(names), *[Ptr] * arrays)
        return made(self._name(function.name), f"The function {function.name}.", params, I32, build)

