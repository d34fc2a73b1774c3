"""The object files of a library."""
from __future__ import annotations

from collections.abc import Iterator

from graphc.codegen.llvm.jit import compile_object
from graphc.codegen.routines.architecture import architecture_of
from graphc.codegen.routines.text import bytes_text, module_text
from graphc.doors.library.archive import ObjectFile
from graphc.doors.library.entries_ir import Entries
from graphc.doors.library.library import Built
from graphc.runtime.instances.cpu_ir import CPUID_NAME, XGETBV_NAME, machine_code
from graphc.runtime.preemption_ir import PREEMPTION
from graphc.schedule.platforms import PLATFORMS


def object_files(built: Built) -> Iterator[ObjectFile]:
    """One for each program, one for constants, one for what C calls, and one for what needs its memory functions, which
    not every system has: a linker takes it only where it is wanted."""
    entries, target = Entries(built), PLATFORMS[built.platform.name].baseline      # what runs before the CPU is asked
    for programs in built.programs:
        for p in programs:
            code = compile_object(p.emitted.llvm, p.emitted.target, names=p.symbols)
            yield ObjectFile(f"{p.function.name}.{p.emitted.target.name}.o", code, tuple(p.symbols.values()))
    constants = dict(_constants(built, entries))
    text, symbols = _data_text(built, constants)
    yield ObjectFile("data.o", compile_object(text, target), symbols)
    for name, routines in (("library.o", entries.routines()), ("create.o", entries.allocating())):
        glue = module_text(routines, architecture_of(target.triple), PREEMPTION if built.library.threads else {})
        yield ObjectFile(name, compile_object(glue, target), tuple(r.name for r in routines))


def _constants(built: Built, entries: Entries) -> Iterator[tuple[str, bytes]]:
    """Large ones, by their symbols."""
    for programs in built.programs:
        for p in programs:
            if p.consts:
                yield entries.consts(p.consts), p.consts
    image = built.library.image
    if image.arrays:
        yield built.library.symbol("image"), image.content() if built.library.embedded else image.header


def _data_text(built: Built, constants: dict[str, bytes]) -> tuple[str, tuple[str, ...]]:
    """LLVM text of the constants and of what asks the CPU; its symbols."""
    library, asks = built.library, built.platform.baseline.triple.startswith("x86_64")
    text = "".join(f"@{symbol} = hidden constant {bytes_text(content)}, align 64\n"
                   for symbol, content in constants.items())
    if not asks:
        return text, tuple(constants)
    asked = (library.symbol(CPUID_NAME), library.symbol(XGETBV_NAME))
    code = machine_code(library.name, built.platform.object_format == "coff")
    return text + code, (*constants, *asked)
