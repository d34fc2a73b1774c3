"""Programs that use a library, to begin with: C with its CMakeLists.txt, Rust, and Python with ctypes alone."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from graphc.doors.library.c_names import CParameter, parameters, size_names
from graphc.doors.library.library import Built, Library
from graphc.doors.library.programs import LibraryFunction
from graphc.ir.dim_binding import bind
from graphc.ir.dims import static_dim
from graphc.records import dataclass

USUAL = 4                       # a size to show, where its bounds leave it open

RUST = {"float": "f32", "double": "f64", **{f"{sign}int{bits}_t": f"{sign or 'i'}{bits}" for bits in (8, 16, 32, 64)
                                            for sign in ("", "u")}}
PYTHON = {"float": "c_float", "double": "c_double", **{f"{sign}int{bits}_t": f"c_{sign}int{bits}"
                                                       for bits in (8, 16, 32, 64) for sign in ("", "u")}}

C_TEXT = """/* Calls every function of {name} once, on zeros:  cc example.c lib{name}.a -lm -lpthread */
#include "{name}.h"

#include <stdio.h>

{arrays}

int main(void) {{
    {name} *instance = {name}_create({sizes}1);
    int status;
    if (!instance) {{
        fprintf(stderr, "no instance\\n");
        return 1;
    }}
{load}{calls}    {name}_free(instance);
    return 0;
}}
"""
C_LOAD = """    {{   /* the weights, which are not in the library */
        static unsigned char file[{bytes}];
        FILE *opened = fopen("{name}.safetensors", "rb");
        size_t n = opened ? fread(file, 1, sizeof file, opened) : 0;
        if (opened) fclose(opened);
        status = {name}_load(instance, file, (int64_t)n);
        if (status) {{
            fprintf(stderr, "{name}_load: %s\\n", {name}_message(instance));
            return status;
        }}
    }}
"""
C_CALL = """    status = {name}_{function}({arguments});
    if (status) {{
        fprintf(stderr, "{name}_{function}: %s\\n", {name}_message(instance));
        return status;
    }}
    printf("{function}: {result} begins with %g\\n", (double){array}[0]);
"""
CMAKE = """cmake_minimum_required(VERSION 3.10)
project({name}_example C)

add_library({name} STATIC IMPORTED)
set_target_properties({name} PROPERTIES
    IMPORTED_LOCATION ${{CMAKE_CURRENT_SOURCE_DIR}}/lib{name}.a
    INTERFACE_INCLUDE_DIRECTORIES ${{CMAKE_CURRENT_SOURCE_DIR}}
    INTERFACE_LINK_LIBRARIES "m;pthread")

add_executable(example example.c)
target_link_libraries(example {name})
"""
RUST_TEXT = """// What C calls, for Rust:  rustc example.rs -L . -l static={name}
use std::ffi::{{c_char, c_int, c_void, CStr}};

extern "C" {{
    fn {name}_create({rust_sizes}threads: c_int) -> *mut c_void;
    fn {name}_free(instance: *mut c_void);
    fn {name}_message(instance: *const c_void) -> *const c_char;
{declared}}}

fn main() {{
    unsafe {{
        let instance = {name}_create({sizes}1);
        assert!(!instance.is_null(), "no instance");
{calls}        {name}_free(instance);
    }}
}}
"""
RUST_CALL = """{arrays}        let status = {name}_{function}({arguments});
        println!("{function}: status {{}} {{}}", status, CStr::from_ptr({name}_message(instance)).to_string_lossy());
"""
PYTHON_TEXT = '''"""The library {name} in Python, by ctypes alone. Arrays are those of ctypes: (ctypes.c_float * 784)();
what has a writable buffer becomes one by (ctypes.c_float * 784).from_buffer(it)."""
import ctypes
from pathlib import Path

LIBRARY = ctypes.CDLL(str(Path(__file__).resolve().with_name("lib{name}.so")))
LIBRARY.{name}_create.restype = ctypes.c_void_p
LIBRARY.{name}_message.restype = ctypes.c_char_p


class {title}:
    """An instance."""

    def __init__(self{size_parameters}, threads=1):
        self.instance = ctypes.c_void_p(LIBRARY.{name}_create({size_words}ctypes.c_int(threads)))
        if not self.instance:
            raise MemoryError("no instance")

    def __del__(self):
        LIBRARY.{name}_free(self.instance)

    def _checked(self, status):
        if status:
            raise RuntimeError(LIBRARY.{name}_message(self.instance).decode() or f"status {{status}}")
{methods}'''
PYTHON_METHOD = '''
    def {function}(self{parameters}):
        """{arrays}."""
        self._checked(LIBRARY.{name}_{function}(self.instance{arguments}))
'''


@dataclass(frozen=True)
class SampleCall:
    """A function as the samples call it: at sizes to show."""
    function: LibraryFunction
    sizes: Mapping[str, int]

    @property
    def arrays(self) -> list[CParameter]:
        return parameters(self.function, ("instance", *size_names(self.function.sizes).values()))

    def count(self, array: CParameter) -> int:
        """Its elements."""
        return max(1, prod(static_dim(bind(d, self.sizes)) for d in array.type.shape))

    @property
    def numbers(self) -> list[str]:
        """The sizes, as arguments."""
        return [str(self.sizes[name]) for name in self.function.sizes]

    def variable(self, array: CParameter) -> str:
        """The name of an array that no other has."""
        return f"{self.function.name}_{array.name}"


def sizes_to_show(built: Built) -> dict[str, int]:
    """A size of each name."""
    found: dict[str, int] = {}
    for program in built.programs[0]:
        for name, bounds in program.bounds.items():
            most = USUAL if bounds.high is None else min(USUAL, bounds.high)
            found[name] = max(found.get(name, 0), bounds.low, most)
    return found


def samples(built: Built) -> dict[str, str]:
    """Files by their names."""
    library, shown = built.library, sizes_to_show(built)
    calls = [SampleCall(f, {name: shown[name] for name in f.sizes}) for f in library.functions]
    sizes = "".join(f"{shown[name]}, " for name in library.sizes)
    return {"example.c": _c(library, calls, sizes), "CMakeLists.txt": CMAKE.format(name=library.name),
            "example.rs": _rust(library, calls, sizes), f"{library.name}.py": _python(library, calls)}


def _c(library: Library, calls: Sequence[SampleCall], sizes: str) -> str:
    arrays, texts = [], []
    for call in calls:
        arrays += [f"static {a.element} {call.variable(a)}[{call.count(a)}];" for a in call.arrays]
        first = next(a for a in call.arrays if a.is_result)
        texts.append(C_CALL.format(
            name=library.name, function=call.function.name, result=first.name, array=call.variable(first),
            arguments=", ".join(["instance", *call.numbers, *map(call.variable, call.arrays)])))
    load = "" if library.embedded or not library.image.arrays else C_LOAD.format(name=library.name,
                                                                                bytes=library.image.nbytes)
    return C_TEXT.format(name=library.name, arrays="\n".join(arrays), sizes=sizes, load=load, calls="".join(texts))


def _rust(library: Library, calls: Sequence[SampleCall], sizes: str) -> str:
    declared, texts = [], []
    for call in calls:
        arrays, names = call.arrays, size_names(call.function.sizes)
        kinds = [f"{n}: i64" for n in names.values()]
        kinds += [f"{a.name}_: *{'mut' if a.is_result else 'const'} {RUST[a.element]}" for a in arrays]
        declared.append(f"    fn {library.name}_{call.function.name}({', '.join(['instance: *mut c_void', *kinds])}) "
                        "-> c_int;\n")
        made = "".join(f"        let {'mut ' * a.is_result}{call.variable(a)} = vec![0 as {RUST[a.element]}; "
                       f"{call.count(a)}];\n" for a in arrays)
        given = [f"{call.variable(a)}.{'as_mut_ptr' if a.is_result else 'as_ptr'}()" for a in arrays]
        texts.append(RUST_CALL.format(name=library.name, function=call.function.name, arrays=made,
                                      arguments=", ".join(["instance", *call.numbers, *given])))
    rust_sizes = "".join(f"{n}: i64, " for n in size_names(library.sizes).values())
    return RUST_TEXT.format(name=library.name, rust_sizes=rust_sizes, declared="".join(declared), sizes=sizes,
                            calls="".join(texts))


def _python(library: Library, calls: Sequence[SampleCall]) -> str:
    methods = []
    for call in calls:
        names, arrays = list(size_names(call.function.sizes).values()), call.arrays
        words = [*(f"ctypes.c_int64({n})" for n in names), *(f"{a.name}_" for a in arrays)]
        methods.append(PYTHON_METHOD.format(
            name=library.name, function=call.function.name, arguments="".join(f", {w}" for w in words),
            parameters="".join(f", {w}" for w in (*names, *(f"{a.name}_" for a in arrays))),
            arrays="; ".join(f"{a.name}_: {'result ' * a.is_result}{a.described} ({PYTHON[a.element]})"
                             for a in arrays)))
    sizes = size_names(library.sizes).values()
    return PYTHON_TEXT.format(
        name=library.name, title=library.name.title(), methods="".join(methods),
        size_parameters="".join(f", {n}" for n in sizes), size_words="".join(f"ctypes.c_int64({n}), " for n in sizes))
