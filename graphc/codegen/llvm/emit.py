"""Loop functions to LLVM IR text. `emit_module` is the entry; a `BodyEmitter` writes one LLVM function.

Text and not llvmlite.ir, which costs 15 µs an instruction.
"""
from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from graphc.codegen import abi
from graphc.codegen.llvm.body import BodyEmitter
from graphc.codegen.llvm.checks import finish_main
from graphc.codegen.llvm.control import run
from graphc.codegen.llvm.math import conversion_text, libm_repair_text, math_text
from graphc.codegen.llvm.types import REGISTER, function_symbol, mangled
from graphc.codegen.loops.loop_ir import FunctionIR, Root
from graphc.codegen.patience import Looks
from graphc.codegen.scratch_layout import callers_first, scratch_layout
from graphc.errors import InternalError
from graphc.ir.dims import Dim
from graphc.ir.types import DType
from graphc.records import dataclass
from graphc.schedule.target import Target

MONOTONIC = 1                       # the number of the clock on Linux


def emit_module(functions: Sequence[FunctionIR], main: FunctionIR | None, target: Target,
                prepare: FunctionIR | None = None) -> str:
    """LLVM IR text of the functions, all that they call, `main` as `gc_main` and, if given, `prepare` as `gc_prepare`.
    Without main, the functions are external.
    """
    return emit_for_sizes(functions, main, target, prepare)[0]


def emit_for_sizes(functions: Sequence[FunctionIR], main: FunctionIR | None, target: Target,
                   prepare: FunctionIR | None = None) -> tuple[str, tuple[Dim, ...]]:
    """The text of `emit_module`, and what the table of sizes that the code reads must hold."""
    module = ModuleText(functions, entries_of(main, prepare), target)
    module.emit(lambda symbol, made: None)
    return module.text(), module.sizes


def scratch_bytes(functions: Sequence[FunctionIR], main: FunctionIR | None = None,
                  prepare: FunctionIR | None = None) -> Dim:
    """Bytes of scratch that each thread needs."""
    return scratch_layout(callers_first([*entries_of(main, prepare), *functions]))[1]


def entries_of(main: FunctionIR | None, prepare: FunctionIR | None) -> dict[FunctionIR, str]:
    """The functions that are called from outside, and their symbols."""
    return {f: symbol for f, symbol in ((main, abi.MAIN), (prepare, abi.PREPARE)) if f is not None}


@dataclass(frozen=True)
class Definition:
    """The text of a function: `head` is what stands behind `define` and the linkage. `uses`: symbols that the text
    names, also of the tiles among them."""
    linkage: str
    head: str
    body: str
    uses: Mapping[str, None]


class ModuleText:
    """Collects the texts of a module: functions, outlined tiles, the mathematical functions that they use."""

    def __init__(self, functions: Sequence[FunctionIR], entries: dict[FunctionIR, str], target: Target) -> None:
        self.entries: Mapping[FunctionIR, str] = entries
        self.target = target
        self.functions = callers_first([*entries, *functions])
        self.offsets: Mapping[Root, Dim]
        self.offsets, self.scratch_bytes = scratch_layout(self.functions)
        self.looks = Looks(self.functions)
        self.definitions: dict[str, Definition] = {}        # of functions and tiles, by symbol
        self.helpers: dict[str, Definition] = {}            # of all else
        self._using: list[dict[str, None]] = [{}]           # what the texts that are being written use
        self._slots: dict[Dim, int] = {}
        self._tiles: dict[str, str] = {}                    # the text of each outlined body, and its name

    def emit(self, done: Callable[[str, Definition], None]) -> None:
        """Writes every function; each is `done` with its symbol then, callers first."""
        names = [f.name for f in self.functions]
        if len(set(names)) != len(names):
            raise InternalError(f"functions of equal name: {sorted(n for n in names if names.count(n) > 1)}", "llvm")
        for f in self.functions:
            self._using.append({})
            symbol, made = self._function(f)
            self.definitions[symbol] = made
            done(symbol, made)

    def text(self) -> str:
        """The whole module."""
        return self._module(self.helpers.values(),
                            [f"define {d.linkage}{d.head}{d.body}" for d in self.definitions.values()])

    def part(self, roots: Collection[str], elsewhere: Collection[str] = ()) -> str:
        """A module of these functions, which other modules see, and of all that they use; what is `elsewhere` is only
        declared."""
        reached = self.reached(roots, elsewhere)
        texts = [f"define {'hidden ' if s in roots and d.linkage else d.linkage}{d.head}{d.body}"
                 for s, d in self.definitions.items() if s in reached]
        outside = {s for symbol in reached for s in self.uses(symbol) if s in elsewhere}
        texts += [f"declare hidden {d.head}" for s, d in self.definitions.items() if s in outside]
        return self._module([d for s, d in self.helpers.items() if s in reached], texts)

    def reached(self, roots: Collection[str], elsewhere: Collection[str] = ()) -> set[str]:
        """What these functions use, and they themselves."""
        found, left = set(roots), list(roots)
        while left:
            new = [s for s in self.uses(left.pop()) if s not in found and s not in elsewhere]
            found.update(new)
            left += new
        return found

    def uses(self, symbol: str) -> Collection[str]:
        return self.defined(symbol).uses

    def defined(self, symbol: str) -> Definition:
        """A function, tile or helper."""
        return self.definitions[symbol] if symbol in self.definitions else self.helpers[symbol]

    def _module(self, helpers: Iterable[Definition], texts: Sequence[str]) -> str:
        head = f'target triple = "{self.target.triple}"\n'
        return "\n".join([head, *[h.body for h in helpers], *texts, "attributes #0 = { nounwind }",
                          "attributes #1 = { nounwind alwaysinline }",
                          f"attributes #2 = {{ nounwind noinline cold{self._whole_registers} }}", *METADATA, ""])

    @property
    def _whole_registers(self) -> str:
        """What functions that preserve all registers need where these have upper halves: LLVM clears those before it
        returns, restored or not."""
        return f' "target-features"="{self.target.features},-vzeroupper"' if "+avx" in self.target.features else ""

    def _function(self, f: FunctionIR) -> tuple[str, Definition]:
        body = BodyEmitter(self, f)
        if f in self.entries:
            body.start_main()
            run(body, f.body)
            finish_main(body)
            symbol = f"@{self.entries[f]}"
            return symbol, Definition("", f"i32 {symbol}(ptr %ctx) #0", body.text(""), self._using.pop())
        arguments = body.start_function(f)
        run(body, f.body)
        body.line("ret void")
        symbol = function_symbol(f.name)
        return symbol, Definition("internal " if self.entries else "", f"void {symbol}({arguments}) #0", body.text(""),
                                  self._using.pop())

    def function(self, f: FunctionIR) -> str:
        """The symbol of a function that is called."""
        return self._used(function_symbol(f.name))

    def _used(self, symbol: str) -> str:
        self._using[-1][symbol] = None
        return symbol

    def _helper(self, symbol: str, text: Callable[[], str]) -> str:
        """The symbol, whose text is added to the module once."""
        if symbol not in self.helpers:
            self.helpers[symbol] = Definition("", "", "", {})       # keeps its place: the text may need others
            self._using.append({})
            written = text()
            self.helpers[symbol] = Definition("", "", written, self._using.pop())
        return self._used(symbol)

    def size_slot(self, size: Dim) -> int:
        """The place of a size in the table."""
        return self._slots.setdefault(size, len(self._slots))

    @property
    def sizes(self) -> tuple[Dim, ...]:
        """The table, in order of first use."""
        return tuple(self._slots)

    def math(self, op: str, dtype: DType, lanes: int) -> str:
        """The name of the function that computes `op`."""
        name = f"@gc.{op}.{mangled(dtype, lanes)}"
        return self._helper(name, lambda: math_text(BodyEmitter(self), name, op, dtype, lanes, self.target))

    def conversion(self, op: str, stored: DType, lanes: int) -> str:
        """The name of the function that converts f16 or bf16 to f32 (`op` "widen") or back ("narrow")."""
        name = f"@gc.{op}.{stored}.{lanes}"
        return self._helper(name, lambda: conversion_text(BodyEmitter(self), name, op, stored, lanes, self.target))

    def libm_repair(self, function: str, dtype: DType, lanes: int, arity: int) -> str:
        """The name of the function that calls libm for the bad lanes."""
        name = f"@gc.repair.{function}.{mangled(dtype, lanes)}"
        return self._helper(name, lambda: libm_repair_text(BodyEmitter(self), name, function, dtype, lanes, arity))

    def tile(self, f: FunctionIR, label: str, body: BodyEmitter) -> str:
        """The name of the function that an outlined parallel body of `f` becomes; bodies of one text are one function,
        as of kernels that differ in how many tiles they have or in what follows."""
        text = body.text("")
        name = self._tiles.get(text)
        if name is None:
            name = self._tiles[text] = function_symbol(f"{f.name}.{label}.{len(self._tiles) + 1}")
            head = f"void {name}(ptr %ctx, ptr %frame, i64 %tile, ptr %scratch) #0"
            self.definitions[name] = Definition("internal ", head, text, {})
        return self._used(name)

    def clock(self) -> str:
        """The name of the function that gives nanoseconds of a clock that never goes back."""
        return self._helper("@gc.clock", lambda: CLOCK)

    def libm(self, function: str, dtype: DType, arity: int) -> str:
        """The libm symbol for a type, declared in the module: expf for exp of f32."""
        ty = REGISTER[dtype.name]
        name = "@" + function + LIBM_SUFFIX[dtype.name]
        return self._helper(name, lambda: f"declare {ty} {name}({', '.join([ty] * arity)}) #0")


METADATA = ("!0 = !{!\"llvm.loop.unroll.disable\"}", "!1 = !{!\"llvm.loop.vectorize.enable\", i1 false}",
            "!2 = !{!\"branch_weights\", i32 1048575, i32 1}", "!3 = !{i32 1}", "!4 = !{}",
            "!5 = distinct !{!5, !0, !1}")
CLOCK = f"""declare i32 @clock_gettime(i32, ptr)
define internal i64 @gc.clock() noinline nounwind {{
  %time = alloca [2 x i64]
  %r = call i32 @clock_gettime(i32 {MONOTONIC}, ptr %time)
  %seconds = load i64, ptr %time
  %rest.at = getelementptr i64, ptr %time, i64 1
  %rest = load i64, ptr %rest.at
  %whole = mul i64 %seconds, 1000000000
  %now = add i64 %whole, %rest
  ret i64 %now
}}"""
LIBM_SUFFIX = {"f32": "f", "f64": ""}
