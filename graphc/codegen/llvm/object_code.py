"""LLVM text to object code, with llvmlite and the smallest part of Python: in this process, and as a program that
compiles what others send it (`workers` starts it), which must be ready within some milliseconds.

The text is already explicit SIMD with explicit fma, so a few passes are enough to clean it up;
LLVM's own O1 takes ten times as long for code of the same speed. The only gain of O1 over these passes was the inlining
of micro-kernels that are called in one place; that is done here by name. No fast-math and no contraction: a product and
a sum are fused only where the text says `llvm.fma`.
"""
from __future__ import annotations

import os
import re
import sys
from functools import cache
from importlib import import_module

TYPE_CHECKING = False           # typing's takes as long to load as all else here
if TYPE_CHECKING:
    from typing import Any

PASSES = (
    "always_inliner",           # first: constants of the only call reach the body
    "ipsccp",                   # arguments that are equal in all calls become constants
    "dead_arg_elimination",
    "sroa",
    "simplify_cfg",
    "instruction_combine",
)
# LLVM's options of the process, which concern this architecture alone. LLVM 22 takes a load of three single registers
# of a vector for one of four when it joins it with the step of its address (ARMLoadStoreOptimizer).
OPTIONS = {"armv7": ("-arm-load-store-opt=0",), "thumbv7em": ("-arm-load-store-opt=0",)}
OPT = 2                         # of the back end, where addressing modes and the order of instructions are chosen
NAME = re.compile(r'@("[^"]*"|[-\w$.]+)')
COUNT_BYTES = 8                 # before each block of bytes between processes

Machine = tuple[str, str, str, str, str, int]       # triple, CPU, features, ABI, relocation, OPT


@cache
def made(llvm: Any, machine: Machine) -> Any:
    """LLVM's own of a machine. `llvm`: llvmlite.binding, with the targets initialised."""
    triple, cpu, features, abi, relocation, opt = machine
    for option in OPTIONS.get(triple.split("-")[0], ()):
        llvm.set_option("graphc", option)
    return llvm.Target.from_triple(triple).create_target_machine(
        cpu=cpu, features=features, opt=opt, reloc=relocation, codemodel="small", abiname=abi)


def optimise(llvm: Any, text: str, machine: Machine, entries: tuple[str, ...]) -> Any:
    """The module of the text after the passes. RuntimeError when LLVM rejects it. `entries`: functions that nothing is
    inlined into."""
    module = llvm.parse_assembly(text)
    module.triple = machine[0]
    module.data_layout = str(made(llvm, machine).target_data)
    module.verify()
    inlined = _called_once(text, entries)
    for function in module.functions:
        if function.name in inlined and not function.is_declaration:
            function.add_function_attribute("alwaysinline")
    passes = llvm.create_new_module_pass_manager()
    for name in PASSES:
        getattr(passes, f"add_{name}_pass")()
    passes.run(module, llvm.create_pass_builder(made(llvm, machine),
                                                llvm.create_pipeline_tuning_options(speed_level=OPT)))
    return module


def _called_once(text: str, entries: tuple[str, ...]) -> frozenset[str]:
    """Internal functions mentioned in one place, which is not an entry: that would grow with the depth of a network."""
    mentioned: dict[str, list[str]] = {}
    internal, function = set(), ""
    for line in text.splitlines():
        names = [name.strip('"') for name in NAME.findall(line)]
        if line.startswith("define"):
            function = names[0]
            # those stay out of line
            if line.startswith("define internal") and not line.endswith("#2 {"):
                internal.add(function)
        else:
            for name in names:
                mentioned.setdefault(name, []).append(function)
    return frozenset(name for name in internal if len(mentioned.get(name, ())) == 1
                     and mentioned[name][0] not in entries)


# ---- between processes
def hello(version: str) -> bytes:
    """What a worker says first. `version`: of llvmlite."""
    return f"graphc's LLVM {version}, Python {sys.version}\n".encode()


def request(text: str, machine: Machine, entries: tuple[str, ...]) -> bytes:
    """What a worker is sent: numbers and names, and then the text."""
    *names, opt = machine
    return "\0".join((*names, str(opt), str(len(entries)), *entries, text)).encode()


def _requested(data: bytes) -> tuple[str, Machine, tuple[str, ...]]:
    triple, cpu, features, abi, relocation, opt, count, rest = data.decode().split("\0", 7)
    *entries, text = rest.split("\0", int(count))
    return text, (triple, cpu, features, abi, relocation, int(opt)), tuple(entries)


def block(data: bytes) -> bytes:
    """As it is sent, with its size."""
    return len(data).to_bytes(COUNT_BYTES, "little") + data


def write(handle: int, data: bytes) -> None:
    """A block of bytes into a pipe. OSError when nobody reads it any more."""
    left = memoryview(block(data))
    while left:
        left = left[os.write(handle, left):]


def read(handle: int) -> bytes:
    """The next block of bytes of a pipe. EOFError when there is none."""
    return _exactly(handle, int.from_bytes(_exactly(handle, COUNT_BYTES), "little"))


def some(handle: int, most: int) -> bytes:
    """What there is to be read, when there is something. EOFError when there will be nothing any more."""
    found = os.read(handle, most)
    if not found:
        raise EOFError
    return found


def _exactly(handle: int, count: int) -> bytes:
    parts = []
    while count:
        parts.append(some(handle, count))
        count -= len(parts[-1])
    return b"".join(parts)


def _serve(folder: str) -> None:
    """Compiles what comes from the standard input, until that ends. `folder`: where llvmlite is."""
    os.closerange(3, 1 << 20)                           # what foreign libraries of the parent have left open
    sys.path.append(folder)
    llvm = import_module("llvmlite.binding")
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    write(1, hello(import_module("llvmlite").__version__))
    while True:
        text, machine, entries = _requested(read(0))
        try:
            write(1, made(llvm, machine).emit_object(optimise(llvm, text, machine, entries)))
        except RuntimeError:
            write(1, b"")                               # whoever asked compiles it again, and words the error


if __name__ == "__main__":
    try:
        _serve(sys.argv[1])
    except (EOFError, OSError):
        os._exit(0)                                     # nobody wants anything any more, but waits for the end
