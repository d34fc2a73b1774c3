"""The header of a library: C99, and C++."""
from __future__ import annotations

from collections.abc import Mapping
from textwrap import wrap

from graphc.doors.library.c_names import parameters, size_names
from graphc.doors.library.library import Built, Library
from graphc.doors.library.programs import LibraryFunction
from graphc.doors.library.status import STATUSES
from graphc.ir.open import MOST, Bounds

WIDTH = 100


def header(built: Built) -> str:
    """The text of NAME.h."""
    library = built.library
    name, upper = library.name, library.name.upper()
    sizes = size_names(library.sizes)
    words = "".join(f"int64_t {word}, " for word in sizes.values())
    parts = [
        _comment(_about(library)),
        f"#ifndef {upper}_H\n#define {upper}_H\n\n#include <stdint.h>\n\n#ifdef __cplusplus\nextern \"C\" {{\n#endif",
        f"typedef struct {name} {name};",
        _comment([f"What functions return. {name}_message says more."]) + "\n" + "\n".join(
            f"#define {f'{upper}_{s.name}':<{len(upper) + 12}} {s.code:<4} /* {s.meaning} */" for s in STATUSES),
        _macros(library),
        _comment(_of_memory(library)) + f"\nint64_t {name}_memory({words}int threads);",
        _comment([f"Makes an instance in memory of the caller's, `bytes` of it, which starts at a multiple of 64 bytes "
                  f"({upper}_UNALIGNED). Nothing else is ever allocated."])
        + f"\nint {name}_init({name} *instance, int64_t bytes, int threads);",
        _comment([f"{name}_memory, posix_memalign and {name}_init in one: an instance, or a null pointer. {name}_free gives "
                  "it back."])
        + f"\n{name} *{name}_create({words}int threads);\nvoid {name}_free({name} *instance);",
        *_of_state(library),
        *[_function(library, f, built.programs[0][n].bounds) for n, f in enumerate(library.functions)],
        _comment(["What was wrong with the last call, with the line that declared the operator; \"\" if nothing was."])
        + f"\nconst char *{name}_message(const {name} *instance);\n"
        + _comment([f"The index, label or position that the last {upper}_INDEX or {upper}_NAN was about."])
        + f"\nint64_t {name}_index(const {name} *instance);\n"
        + _comment(["The instruction set that this CPU has and an instance uses."])
        + f"\nconst char *{name}_instruction_set(const {name} *instance);",
        _comment(_of_loops(library))
        + f"\ntypedef void {name}_task(void *job, int64_t tile, int worker);\n"
        f"typedef void {name}_loop(void *own, {name}_task *task, void *job, int64_t tiles);\n"
        f"int {name}_parallel({name} *instance, {name}_loop *loop, void *own);",
        "#ifdef __cplusplus\n}\n#endif\n\n#endif"]
    return "\n\n".join(parts) + "\n"


def _about(library: Library) -> list[str]:
    functions = ", ".join(f"{library.name}_{f.name}" for f in library.functions)
    return [f"{library.name}: {functions}. Made by graphc.",
            "An instance holds the state and all memory that calls need. Different threads may use different instances at "
            "the same time; two calls with one instance at once are refused. Results must not overlap inputs."]


def _macros(library: Library) -> str:
    upper, rows = library.name.upper(), []
    if library.image.arrays:
        rows.append((f"{upper}_STATE_BYTES", library.image.nbytes, "of the state, which is a safetensors file"))
    for function in library.functions:
        for p in parameters(function, size_names(function.sizes).values()):
            for axis, size in enumerate(p.type.shape):
                if isinstance(size, int):
                    rows.append((f"{upper}_{function.name.upper()}_{p.name.upper()}_{axis}", size, ""))
    return "\n".join(f"#define {macro} {value}" + (f"    /* bytes {why} */" if why else "") for macro, value, why in rows)


def _of_memory(library: Library) -> list[str]:
    sizes = f" for sizes up to these ({', '.join(library.sizes)})" if library.sizes else ""
    return [f"Bytes of an instance{sizes}; 0 where no instance can be made (a size out of bounds, a CPU that lacks what the "
            "library needs). `threads`: how many take part in a call, the caller included"
            + ("; 0: as many as CPUs may be used." if library.threads else f", by {library.name}_parallel.")]


def _of_state(library: Library) -> list[str]:
    name, upper, parts = library.name, library.name.upper(), []
    if library.has_image:
        first = "" if library.embedded else f" Before it calls return {upper}_UNLOADED."
        parts.append(_comment([
            f"Takes every array of the state from a safetensors file in memory, such as a checkpoint of {name}_state, one of "
            f"graphc's step.save, or {name}.safetensors. {upper}_WEIGHTS, and nothing changed, where one is missing or has "
            f"another type.{first}"]) + f"\nint {name}_load({name} *instance, const void *file, int64_t bytes);")
    if library.image.arrays:
        const = "" if library.has_image else "const "
        writing = (" Whoever writes to its arrays calls this again afterwards, so that what was made from them is made "
                   "anew." if library.has_image else "")
        parts.append(_comment([
            f"The state: {upper}_STATE_BYTES bytes that are a safetensors file as they lie there. A checkpoint is one fwrite "
            f"between two calls, and step.load in Python reads it.{writing}"])
            + f"\n{const}void *{name}_state({name} *instance);")
    return parts


def _function(library: Library, function: LibraryFunction, bounds: Mapping[str, Bounds]) -> str:
    names = size_names(function.sizes)
    arrays = parameters(function, ("instance", *names.values()))
    lines = [f"{function.name}: " + ("reads and changes the state." if function.graph.writes else
                                     "reads the state." if function.state else "a function of its inputs alone.")]
    lines += [f"{names[size]}: {_bounds_text(bounds[size])}" for size in function.sizes]
    lines += [f"{p.name}: {'result, ' if p.is_result else ''}{p.described}" for p in arrays]
    head = f"int {library.name}_{function.name}("
    params = [f"{library.name} *instance", *(f"int64_t {n}" for n in names.values()), *(p.declared for p in arrays)]
    return _comment(lines) + "\n" + head + (",\n" + " " * len(head)).join(params) + ");"


def _bounds_text(bounds: Bounds) -> str:
    if bounds.high is None or bounds.high >= MOST:
        return f"a size from {bounds.low} on"
    return f"a size from {bounds.low} to {bounds.high}"


def _of_loops(library: Library) -> list[str]:
    own = "the library's own threads" if library.threads else "the calling thread alone"
    return [f"A parallel loop of the caller's own, in place of {own}: it calls task(job, tile, worker) once for each tile from "
            "0 to tiles - 1, in any order, on any threads, and returns when all are done. No two calls at once have the same "
            "worker, a number from 0 to threads - 1. A null pointer: as before."]


def _comment(lines: list[str]) -> str:
    rows = [row for line in lines for row in wrap(line.replace("*/", "* /"), WIDTH - 3, subsequent_indent="  ")]
    return "/* " + "\n   ".join(rows) + " */"

