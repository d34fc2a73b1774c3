"""Loop functions to LLVM IR text. `emit_module` is the entry; a `BodyEmitter` writes one LLVM function.

Text and not llvmlite.ir, which costs 15 µs an instruction.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from graphc.codegen import abi
from graphc.codegen.llvm import subnormals
from graphc.codegen.llvm.bf16_rounding import rounding_text
from graphc.codegen.llvm.body import BodyEmitter
from graphc.codegen.llvm.checks import finish_main
from graphc.codegen.llvm.control import run
from graphc.codegen.llvm.math import conversion_text, libm_repair_text, math_text
from graphc.codegen.llvm.share import shared
from graphc.codegen.llvm.types import REGISTER, function_symbol, mangled
from graphc.codegen.loops.loop_ir import FunctionIR, Root
from graphc.codegen.patience import Looks
from graphc.codegen.scratch_layout import callers_first, scratch_layout
from graphc.errors import InternalError
from graphc.ir.dims import Dim
from graphc.ir.types import DType, bf16
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
    module = written(functions, main, target, prepare)
    return module.text(), module.sizes


def written(functions: Sequence[FunctionIR], main: FunctionIR | None, target: Target,
            prepare: FunctionIR | None = None, flush: bool = False) -> ModuleText:
    """The module with the texts of all functions, those of one form as one function. flush: subnormal numbers are taken
    for 0, where the CPU has a mode for it."""
    module = ModuleText(functions, _entries(main, prepare), target, flush)
    module.write()
    return module


def scratch_bytes(functions: Sequence[FunctionIR], main: FunctionIR | None = None,
                  prepare: FunctionIR | None = None) -> Dim:
    """Bytes of scratch that each thread needs."""
    return scratch_layout(callers_first([*_entries(main, prepare), *functions]))[1]


def _entries(main: FunctionIR | None, prepare: FunctionIR | None) -> dict[FunctionIR, str]:
    """The functions that are called from outside, and their symbols."""
    return {f: symbol for f, symbol in ((main, abi.MAIN), (prepare, abi.PREPARE)) if f is not None}


class ModuleText:
    """Collects the texts of a module: functions, outlined tiles, the mathematical functions that they use."""

    def __init__(self, functions: Sequence[FunctionIR], entries: dict[FunctionIR, str], target: Target,
                 flush: bool = False) -> None:
        self.entries: Mapping[FunctionIR, str] = entries
        self.flushes = flush and subnormals.has_mode(target)
        self.target = target
        self.functions = callers_first([*entries, *functions])
        self.offsets: Mapping[Root, Dim]
        self.offsets, self.scratch_bytes = scratch_layout(self.functions)
        self.looks = Looks(self.functions)
        self.texts: list[str] = []                          # of functions and tiles
        self.helpers: dict[str, str] = {}                   # of all else, by symbol
        self._slots: dict[Dim, int] = {}
        self._tiles: dict[str, str] = {}                    # the text of each outlined body, and its name

    def write(self) -> None:
        names = [f.name for f in self.functions]
        if len(set(names)) != len(names):
            raise InternalError(f"functions of equal name: {sorted(n for n in names if names.count(n) > 1)}", "llvm")
        for f in self.functions:
            self._function(f)
        self.texts = shared(self.texts, f"i{self.target.pointer_bits}")

    def text(self) -> str:
        """The whole module."""
        return self.part(self.helpers.values(), self.texts)

    def part(self, helpers: Iterable[str], texts: Iterable[str]) -> str:
        """A module of these texts."""
        head = f'target triple = "{self.target.triple}"\n'
        return "\n".join([head, *helpers, *texts, "attributes #0 = { nounwind }",
                          "attributes #1 = { nounwind alwaysinline }",
                          f"attributes #2 = {{ nounwind noinline cold{self._whole_registers} }}", *METADATA, ""])

    @property
    def _whole_registers(self) -> str:
        """What functions that preserve all registers need where these have upper halves: LLVM clears those before it
        returns, restored or not."""
        return f' "target-features"="{self.target.features},-vzeroupper"' if "+avx" in self.target.features else ""

    def _function(self, f: FunctionIR) -> None:
        body = BodyEmitter(self, f)
        if f in self.entries:
            body.start_main()
            run(body, f.body)
            finish_main(body)
            self.texts.append(body.text(f"define i32 @{self.entries[f]}(ptr %ctx) #0"))
            return
        arguments = body.start_function(f)
        run(body, f.body)
        body.line("ret void")
        linkage = "internal " if self.entries else ""
        self.texts.append(body.text(f"define {linkage}void {function_symbol(f.name)}({arguments}) #0"))

    def size_slot(self, size: Dim) -> int:
        """The place of a size in the table."""
        return self._slots.setdefault(size, len(self._slots))

    @property
    def sizes(self) -> tuple[Dim, ...]:
        """The table, in order of first use."""
        return tuple(self._slots)

    def math(self, op: str, dtype: DType, lanes: int) -> str:
        """The name of the function that computes `op`; its text is added to the module once."""
        name = f"@gc.{op}.{mangled(dtype, lanes)}"
        if name not in self.helpers:
            self.helpers[name] = ""                          # keeps its place: the text may need others
            self.helpers[name] = math_text(BodyEmitter(self), name, op, dtype, lanes, self.target)
        return name

    def conversion(self, op: str, stored: DType, lanes: int) -> str:
        """The name of the function that converts f16 or bf16 to f32 (`op` "widen") or back ("narrow")."""
        name = f"@gc.{op}.{stored}.{lanes}"
        if name not in self.helpers:
            is_rounded = (op, stored) == ("narrow", bf16) and self.target.rounds_to_bf16(lanes)
            body = BodyEmitter(self)
            self.helpers[name] = (rounding_text(body, name, lanes) if is_rounded else
                                  conversion_text(body, name, op, stored, lanes, self.target))
        return name

    def careful_rounding(self, lanes: int) -> str:
        """The name of the function that rounds f32 to bf16, subnormal ones too."""
        name = f"@gc.careful.bf16.{lanes}"
        if name not in self.helpers:
            self.helpers[name] = conversion_text(BodyEmitter(self), name, "narrow", bf16, lanes, self.target, rare=True)
        return name

    def libm_repair(self, function: str, dtype: DType, lanes: int, arity: int) -> str:
        """The name of the function that calls libm for the bad lanes."""
        name = f"@gc.repair.{function}.{mangled(dtype, lanes)}"
        if name not in self.helpers:
            self.helpers[name] = libm_repair_text(BodyEmitter(self), name, function, dtype, lanes, arity)
        return name

    def tile(self, f: FunctionIR, label: str, body: BodyEmitter) -> str:
        """The name of the function that an outlined parallel body of `f` becomes; bodies of one text are one function,
        as of kernels that differ in how many tiles they have or in what follows."""
        text = body.text("")
        name = self._tiles.get(text)
        if name is None:
            name = self._tiles[text] = function_symbol(f"{f.name}.{label}.{len(self._tiles) + 1}")
            self.texts.append(f"define internal void {name}(ptr %ctx, ptr %frame, i64 %tile, ptr %scratch) #0{text}")
        return name

    def clock(self) -> str:
        """The name of the function that gives nanoseconds of a clock that never goes back."""
        self.helpers.setdefault("@gc.clock", CLOCK)
        return "@gc.clock"

    def mode(self, symbol: str) -> str:
        """The name of a function of `subnormals`, with its text and those that it needs in the module."""
        if symbol not in self.helpers:
            for other in subnormals.USES.get(symbol, ()):
                self.mode(other)
            self.helpers[symbol] = subnormals.text(symbol, self.target)
        return symbol

    def libm(self, function: str, dtype: DType, arity: int) -> str:
        """The libm symbol for a type, declared in the module: expf for exp of f32."""
        ty = REGISTER[dtype.name]
        name = "@" + function + LIBM_SUFFIX[dtype.name]
        self.helpers.setdefault(name, f"declare {ty} {name}({', '.join([ty] * arity)}) #0")
        return name


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
