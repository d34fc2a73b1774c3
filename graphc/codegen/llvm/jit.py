"""LLVM text to object code (`object_code`), and object code into this process."""
from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from functools import cache as once
from itertools import count
from types import MappingProxyType
from typing import Any

from graphc.codegen.abi import ENTRIES, MAIN
from graphc.codegen.llvm import cache, elf
from graphc.codegen.llvm.lazy import gives_back, llvm, llvm_all_targets
from graphc.codegen.llvm.object_code import OPT, PASSES, Machine, made, optimise
from graphc.errors import InternalError
from graphc.records import dataclass
from graphc.schedule.target import Target

ELF = b"\x7fELF"                # how object code begins


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
    module = _optimise(text, target, opt)
    for old, new in names.items():
        function = module.get_function(old)
        function.name, function.visibility = new, "hidden"
    return bytes(made(llvm(), machine_of(target, opt)).emit_object(module))


def cached(text: str, target: Target) -> bytes | None:
    """The object code of a text that the disk cache has."""
    store = cache.default()
    return store.get(_key(text, target), _object_code) if store else None


def compile_cached(text: str, target: Target, make: Callable[[], bytes] | None = None) -> bytes:
    """`compile_object` through the disk cache. make: gives the same bytes."""
    found = cached(text, target)
    if found is None:
        found = make() if make else compile_object(text, target)
        if store := cache.default():
            store.put(_key(text, target), found)
    return found


def _key(text: str, target: Target) -> str:
    return cache.code_key(text, target, f"{PASSES} {OPT}")


def load_cached(text: str, target: Target, names: tuple[str, ...],
                imports: Mapping[str, int] = MappingProxyType({}), make: Callable[[], bytes] | None = None) -> Loaded:
    """`load_object` of `compile_cached`; what does not load counts as missing."""
    try:
        return load_object(compile_cached(text, target, make), names, imports)
    except InternalError:
        return load_object(compile_object(text, target), names, imports)


@gives_back
def optimised(text: str, target: Target, opt: int = OPT) -> str:
    """The LLVM text after the passes."""
    return str(_optimise(text, target, opt))


@gives_back
def assembly(text: str, target: Target, opt: int = OPT) -> str:
    """Assembly of `target`."""
    module = _optimise(text, target, opt)
    return str(made(llvm(), machine_of(target, opt)).emit_assembly(module))


@gives_back
def load_object(code: bytes, names: tuple[str, ...] = (MAIN,), imports: Mapping[str, int] = MappingProxyType({}),
                kernels: tuple[bytes, ...] = ()) -> Loaded:
    """Link object code into this process, with that of the `kernels` that it calls; `imports` are addresses of symbols,
    all others are libc's and libm's. No code is generated here. LLVM links what is not of x86-64 (see `elf`)."""
    if elf.is_loadable(code):
        return Loaded(*elf.load((code, *kernels), names, imports))
    builder = llvm().JITLibraryBuilder().add_current_process()
    for each in (code, *kernels):
        builder.add_object_img(each)
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


def machine_of(target: Target, opt: int = OPT) -> Machine:
    """What LLVM is told of the target."""
    return target.triple, target.least_cpu, target.features, target.abi, target.relocation, opt


def _optimise(text: str, target: Target, opt: int) -> Any:
    try:
        return optimise(llvm_all_targets(), text, machine_of(target, opt), ENTRIES)
    except RuntimeError as error:
        raise InternalError(str(error), "llvm", _excerpt(text, str(error))) from error


def _excerpt(text: str, message: str) -> str:
    """The ten lines around the line that LLVM's message names."""
    head = message.split("<string>:")[-1].split(":")[0]
    if not head.isdigit():
        return ""
    line = int(head)
    lines = text.splitlines()
    return "\n".join(f"{n:6} {lines[n - 1]}" for n in range(max(1, line - 5), min(len(lines), line + 5) + 1))
