"""LLVM text to object code, and object code into this process.

The text is already explicit SIMD with explicit fma, so a few passes are enough to clean it up;
LLVM's own O1 takes ten times as long for code of the same speed. The only gain of O1 over these passes was the inlining
of micro-kernels that are called in one place; that is done here by name. No fast-math and no contraction: a product and
a sum are fused only where the text says `llvm.fma`.
"""
from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping
from functools import cache as once
from itertools import count
from types import MappingProxyType
from typing import Any

from graphc.codegen.abi import ENTRIES, MAIN
from graphc.codegen.llvm import cache, elf
from graphc.codegen.llvm.lazy import gives_back, llvm, llvm_all_targets
from graphc.errors import InternalError
from graphc.records import dataclass
from graphc.schedule.target import Target

PASSES = (
    "always_inliner",           # first: constants of the only call reach the body
    "ipsccp",                   # arguments that are equal in all calls become constants
    "dead_arg_elimination",
    "sroa",
    "simplify_cfg",
    "instruction_combine",
)
ELF = b"\x7fELF"                # how object code begins
# LLVM's options of the process, which concern this architecture alone. LLVM 22 takes a load of three single registers
# of a vector for one of four when it joins it with the step of its address (ARMLoadStoreOptimizer).
OPTIONS = {"armv7": ("-arm-load-store-opt=0",), "thumbv7em": ("-arm-load-store-opt=0",)}
OPT = 2                         # of the back end, where addressing modes and the order of instructions are chosen


@dataclass(frozen=True)
class Loaded:
    """Code in this process; it is unmapped when the last reference to this object goes."""
    tracker: object
    addresses: dict[str, int]

    def address(self, name: str) -> int:
        return self.addresses[name]


@gives_back
def compile_object(text: str, target: Target, opt: int = OPT, names: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """Relocatable object code for `target`, which need not be this machine. InternalError if LLVM rejects the
    text. `names`: what functions of the text are called in the code, where only the parts of one library see them."""
    machine = _machine(target, opt)
    module = _optimise(text, target, machine)
    for old, new in names.items():
        function = module.get_function(old)
        function.name, function.visibility = new, "hidden"
    return machine.emit_object(module)


def compile_cached(text: str, target: Target, opt: int = OPT) -> bytes:
    """`compile_object` through the disk cache."""
    store = cache.default()
    if store is None:
        return compile_object(text, target, opt)
    key = cache.code_key(text, target, f"{PASSES} {opt}")
    found = store.get(key, _object_code)
    if found is None:
        found = compile_object(text, target, opt)
        store.put(key, found)
    return found


def load_cached(text: str, target: Target, names: tuple[str, ...],
                imports: Mapping[str, int] = MappingProxyType({})) -> Loaded:
    """`load_object` of `compile_cached`; what does not load counts as missing."""
    try:
        return load_object(compile_cached(text, target), names, imports)
    except InternalError:
        return load_object(compile_object(text, target), names, imports)


@gives_back
def optimised(text: str, target: Target, opt: int = OPT) -> str:
    """The LLVM text after the passes."""
    return str(_optimise(text, target, _machine(target, opt)))


@gives_back
def assembly(text: str, target: Target, opt: int = OPT) -> str:
    """Assembly of `target`."""
    machine = _machine(target, opt)
    return machine.emit_assembly(_optimise(text, target, machine))


@gives_back
def load_object(code: bytes, names: tuple[str, ...] = (MAIN,),
                imports: Mapping[str, int] = MappingProxyType({})) -> Loaded:
    """Link object code into this process; `imports` are addresses of symbols, all others are libc's and libm's. No code
    is generated here. LLVM links what is not of x86-64 (see `elf`)."""
    if elf.is_loadable(code):
        return Loaded(*elf.load(code, names, imports))
    builder = llvm().JITLibraryBuilder().add_object_img(code).add_current_process()
    for name in names:
        builder.export_symbol(name)
    for name, address in imports.items():
        builder.import_symbol(name, address)
    try:
        tracker = builder.link(_linker(), f"graphc.{next(_NUMBERS)}")
    except RuntimeError as error:
        raise InternalError(str(error), "load") from error
    return Loaded(tracker, {name: tracker[name] for name in names})


def _object_code(entry: memoryview) -> bytes:
    """Of an entry of the cache. ValueError when it is something else."""
    if entry[:len(ELF)] != ELF:
        raise ValueError("no object code")
    return bytes(entry)


_NUMBERS = count()


@once
def _linker() -> Any:
    """One linker per process. It is never freed: pool threads may still run its code while the interpreter shuts
    down."""
    host = llvm().Target.from_triple(llvm().get_process_triple())
    engine = llvm().create_lljit_compiler(host.create_target_machine(reloc="pic", codemodel="small", jit=True))
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))
    return engine


def _machine(target: Target, opt: int) -> Any:
    return _made(target.triple, target.least_cpu, target.features, target.abi, target.relocation, opt)


@once
def _made(triple: str, cpu: str, features: str, abi: str, relocation: str, opt: int) -> Any:
    for option in OPTIONS.get(triple.split("-")[0], ()):
        llvm().set_option("graphc", option)
    return llvm_all_targets().Target.from_triple(triple).create_target_machine(
        cpu=cpu, features=features, opt=opt, reloc=relocation, codemodel="small", abiname=abi)


def _parse(text: str, target: Target) -> Any:
    try:
        module = llvm().parse_assembly(text)
        module.triple = target.triple
        module.data_layout = str(_machine(target, OPT).target_data)
        module.verify()
    except RuntimeError as error:
        raise InternalError(str(error), "llvm", _excerpt(text, str(error))) from error
    return module


def _optimise(text: str, target: Target, machine: Any) -> Any:
    module = _parse(text, target)
    inlined = _called_once(text)
    for function in module.functions:
        if function.name in inlined and not function.is_declaration:
            function.add_function_attribute("alwaysinline")
    passes = llvm().create_new_module_pass_manager()
    for name in PASSES:
        getattr(passes, f"add_{name}_pass")()
    passes.run(module, llvm().create_pass_builder(machine, llvm().create_pipeline_tuning_options(speed_level=OPT)))
    return module


_NAME = re.compile(r'@("[^"]*"|[-\w$.]+)')


def _called_once(text: str) -> frozenset[str]:
    """Internal functions mentioned in one place, which is not an entry: that would grow with the depth of a network."""
    mentioned: dict[str, list[str]] = {}
    internal, function = set(), ""
    for line in text.splitlines():
        names = [name.strip('"') for name in _NAME.findall(line)]
        if line.startswith("define"):
            function = names[0]
            # those stay out of line
            if line.startswith("define internal") and not line.endswith("#2 {"):
                internal.add(function)
        else:
            for name in names:
                mentioned.setdefault(name, []).append(function)
    return frozenset(name for name in internal if len(mentioned.get(name, ())) == 1
                     and mentioned[name][0] not in ENTRIES)


def _excerpt(text: str, message: str) -> str:
    """The ten lines around the line that LLVM's message names."""
    head = message.split("<string>:")[-1].split(":")[0]
    if not head.isdigit():
        return ""
    line = int(head)
    lines = text.splitlines()
    return "\n".join(f"{n:6} {lines[n - 1]}" for n in range(max(1, line - 5), min(len(lines), line + 5) + 1))
