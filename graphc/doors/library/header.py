"""The header of a library: C99, and C++."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from textwrap import wrap

from graphc.doors.library.c_names import CParameter, macro_word, parameters, size_names
from graphc.doors.library.library import Built, Library
from graphc.doors.library.programs import LibraryFunction, LibraryProgram
from graphc.ir.open import MOST, Bounds
from graphc.runtime.instances.status import STATUSES

WIDTH = 100

BEGIN = """#ifndef {upper}_H
#define {upper}_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

typedef struct {name} {name};"""
END = """#ifdef __cplusplus
}}
#endif

#endif"""
ABOUT = """{name}: {functions}. Made by graphc.

    An instance holds the state and all memory that calls need. Different threads may use different instances at the
    same time; two calls with one instance at once are refused. Results must not overlap inputs, nor each other."""
STATUS = "What functions return; {name}_message says more."
MEMORY = """Bytes of an instance{for_sizes}; 0 where there can be none: a size out of bounds, or a CPU that lacks what
    the library needs. `threads`: how many take part in a call, the caller included{threads}."""
INIT = """Makes an instance in the caller's memory: `bytes` of it, from a multiple of 64 bytes on. Nothing else is ever
    allocated. Where it is less than {name}_memory says, this or a call that needs more returns {upper}_MEMORY."""
CREATE = """{name}_memory, posix_memalign and {name}_init in one: an instance, or a null pointer. {name}_free gives it
    back."""
LOAD = """Takes every array of the state from a safetensors file in memory: a checkpoint of {name}_state, a file of
    step.save in Python, or {name}.safetensors. {upper}_WEIGHTS, and nothing changed, where one is missing, has another
    type, or ends early.{before}"""
STATE = """The state: {upper}_STATE_BYTES bytes which, as they lie there, are a safetensors file. A checkpoint is one
    fwrite between two calls, and step.load in Python reads it. Macros say at which bytes its arrays begin.{writing}"""
WRITING = """ Whoever writes to its arrays calls this again afterwards, so that what was made from them is made anew."""
MESSAGE = """What was wrong with the last call, with the line that declared the operator; "" if nothing was."""
INDEX = """The index, label or position that the last {upper}_INDEX or {upper}_NAN was about."""
SET = "The instruction set that an instance uses: of those in the library the best that this CPU has."
LOOP = """A parallel loop of the caller's own, in place of {own}: it calls task(job, tile, worker) once for each tile
    from 0 to tiles - 1, in any order, on any threads, and returns when all are done. No two calls at the same time have
    the same worker, a number from 0 to threads - 1. A null pointer: as before."""


def header(built: Built) -> str:
    """The text of NAME.h."""
    library = built.library
    words = {"name": library.name, "upper": library.name.upper(), **_words(library)}
    parts = [_comment(ABOUT, words), BEGIN.format(**words), _statuses(words), _macros(library)]
    for comment, declaration in (*_making(), *_state(library)):
        parts.append(_comment(comment, words) + "\n" + declaration.format(**words))
    parts += [_function(library, program) for program in built.programs[0]]
    for comment, declaration in _telling():
        parts.append(_comment(comment, words) + "\n" + declaration.format(**words))
    return "\n\n".join([*filter(None, parts), END.format(**words)]) + "\n"


def _words(library: Library) -> dict[str, str]:
    """What the texts of the header say of this library."""
    sizes = size_names(library.sizes).values()
    return {
        "functions": ", ".join(f"{library.name}_{f.name}" for f in library.functions),
        "sizes": "".join(f"int64_t {word}, " for word in sizes),
        "for_sizes": f" for sizes up to these ({', '.join(sizes)})" if sizes else "",
        "threads": "; 0: as many as CPUs may be used" if library.threads else f", by {library.name}_parallel",
        "own": "the library's own threads" if library.threads else "the calling thread alone",
        "before": "" if library.embedded else f" Before it calls return {library.name.upper()}_UNLOADED.",
        "writing": WRITING if library.has_image else "",
        "const": "" if library.has_image else "const "}


def _making() -> Iterator[tuple[str, str]]:
    yield MEMORY, "int64_t {name}_memory({sizes}int threads);"
    yield INIT, "int {name}_init({name} *instance, int64_t bytes, int threads);"
    yield CREATE, "{name} *{name}_create({sizes}int threads);\nvoid {name}_free({name} *instance);"


def _state(library: Library) -> Iterator[tuple[str, str]]:
    if library.has_image:
        yield LOAD, "int {name}_load({name} *instance, const void *file, int64_t bytes);"
    if library.image.arrays:
        yield STATE, "{const}void *{name}_state({name} *instance);"


def _telling() -> Iterator[tuple[str, str]]:
    yield MESSAGE, "const char *{name}_message(const {name} *instance);"
    yield INDEX, "int64_t {name}_index(const {name} *instance);"
    yield SET, "const char *{name}_instruction_set(const {name} *instance);"
    yield LOOP, ("typedef void {name}_task(void *job, int64_t tile, int worker);\n"
                 "typedef void {name}_loop(void *own, {name}_task *task, void *job, int64_t tiles);\n"
                 "int {name}_parallel({name} *instance, {name}_loop *loop, void *own);")


def _statuses(words: Mapping[str, str]) -> str:
    upper = words["upper"]
    rows = [f"#define {f'{upper}_{s.name}':<{len(upper) + 12}} {s.code:<4} /* {s.meaning} */" for s in STATUSES]
    return "\n".join([_comment(STATUS, words), *rows])


def _macros(library: Library) -> str:
    """Sizes as macros: bytes of the state, where its arrays are, and of each parameter the dimensions that are
    numbers."""
    upper, rows, taken = library.name.upper(), [], {"BYTES"}
    if library.image.arrays:
        rows.append(f"#define {upper}_STATE_BYTES {library.image.nbytes}")
    for array, offset in zip(library.image.arrays, library.image.offsets):
        word = macro_word(array.name, taken)
        taken.add(word)
        rows.append(f"#define {upper}_STATE_{word} {offset}    /* {comment_text(array.name)}: {array.type} */")
    for function in library.functions:
        for p in _parameters(function):
            for axis, size in enumerate(p.type.shape):
                if isinstance(size, int):
                    rows.append(f"#define {upper}_{function.name.upper()}_{p.name.upper()}_{axis} {size}")
    return "\n".join(rows)


def _parameters(function: LibraryFunction) -> list[CParameter]:
    return parameters(function, ("instance", *size_names(function.sizes).values()))


def _function(library: Library, program: LibraryProgram) -> str:
    function, bounds, upper = program.function, program.bounds, library.name.upper()
    names, arrays, writes = size_names(function.sizes), _parameters(function), function.graph.writes
    does = "changes the state" if writes else "reads the state" if function.state else "depends on its inputs alone"
    lines = [f"{library.name}_{function.name} {does}."]
    lines += [f"{names[size]}: {_bounds_text(bounds[size])}" for size in function.sizes]
    lines += [f"{p.name}: {'result ' if p.is_result else ''}{p.described}" for p in arrays]
    lines += dict.fromkeys(f"{upper}_NAN: {f.op} makes a NaN" if f.nan else
                           f"{upper}_INDEX: {f.op} finds {f.words[0]} out of range" for f in program.failures)
    head = f"int {library.name}_{function.name}("
    params = [f"{library.name} *instance", *(f"int64_t {n}" for n in names.values()), *(p.declared for p in arrays)]
    return _comment("\n\n".join(lines), {}) + "\n" + head + (",\n" + " " * len(head)).join(params) + ");"


def _bounds_text(bounds: Bounds) -> str:
    if bounds.high is None or bounds.high >= MOST:
        return f"a size from {bounds.low} on"
    return f"a size from {bounds.low} to {bounds.high}"


def comment_text(text: str) -> str:
    """What may stand in a comment."""
    return text.replace("*/", "* /").replace("/*", "/ *")


def _comment(text: str, words: Mapping[str, str]) -> str:
    """A comment of C: a paragraph for each of the text's."""
    lines = [" ".join(part.split()) for part in (text.format(**words) if words else text).split("\n\n")]
    rows = [row for line in lines for row in wrap(comment_text(line), WIDTH - 3, subsequent_indent="  ")]
    return "/* " + "\n   ".join(rows) + " */"
