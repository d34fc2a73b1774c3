"""How things are called and typed in C."""
from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain, count

from graphc.doors.library.programs import LibraryFunction
from graphc.errors import GraphError
from graphc.ir.dims import Poly
from graphc.ir.types import TensorType
from graphc.records import dataclass

TYPES = {
    "f32": "float", "f64": "double", "bool": "uint8_t", "f16": "uint16_t", "bf16": "uint16_t",
    **{f"{sign}{bits}": f"{word}{bits}_t" for bits in (8, 16, 32, 64) for sign, word in (("i", "int"), ("u", "uint"))}}
STORED = {"f16": "the bits of an f16", "bf16": "the bits of a bf16", "bool": "0 or 1"}
# of C, C++ and the header itself
KEYWORDS = frozenset("""
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t char32_t class compl
    concept const consteval constexpr constinit const_cast continue co_await co_return co_yield decltype default delete
    do double dynamic_cast else enum explicit export extern false float for friend goto if inline int long mutable
    namespace new noexcept not not_eq nullptr operator or or_eq private protected public register reinterpret_cast
    requires restrict return short signed sizeof static static_assert static_cast struct switch template this
    thread_local throw true try typedef typeid typename typeof union unsigned using virtual void volatile wchar_t while
    xor xor_eq errno stdin stdout stderr NULL EOF linux unix I""".split()) | set(TYPES.values())
IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z", re.ASCII)
# what the library itself has
OWN = frozenset(("memory", "init", "create", "free", "message", "index", "parallel", "state", "load", "task", "loop",
                 "instruction_set", "image", "cpuid", "xgetbv"))


@dataclass(frozen=True)
class CParameter:
    """An array of a call, as C has it."""
    name: str
    type: TensorType
    is_result: bool

    @property
    def element(self) -> str:
        return TYPES[self.type.dtype.name]

    @property
    def declared(self) -> str:
        """In the head of the function: how many elements, where that is a number."""
        const = "" if self.is_result else "const "
        shape = self.type.shape
        if not shape or any(isinstance(d, Poly) for d in shape):
            return f"{const}{self.element} *{self.name}"
        return f"{const}{self.element} {self.name}[{' * '.join(map(str, shape)) if 0 not in shape else 1}]"

    @property
    def described(self) -> str:
        """Shape and dtype in words."""
        shape = "".join(f"[{d}]" for d in self.type.shape) or "one number"
        stored = STORED.get(self.type.dtype.name)
        return f"{shape}, {self.type.dtype.name}" + (f" ({stored})" if stored else "")


def check_name(name: object, what: str) -> str:
    """A name that the user gives, as an identifier of C. GraphError if it is none."""
    if not isinstance(name, str) or not IDENTIFIER.match(name) or name in KEYWORDS:
        raise GraphError(f"{what} becomes a name in C: a letter, then letters, digits and _, and no word of C or C++; "
                         f"got {name!r}")
    return name


def macro_word(name: str, taken: Iterable[str]) -> str:
    """The end of a macro's name, which none of those taken have."""
    word = re.sub(r"[^A-Za-z0-9]+", "_", name).upper()
    return next(w for w in chain([word], (f"{word}_{n}" for n in count(1))) if w not in taken)


def identifier(name: str, taken: Iterable[str]) -> str:
    """A name in C for what is called so in the graph, which none of those taken have."""
    word = re.sub(r"[^A-Za-z0-9_]", "_", name)
    word = word if word[:1].isalpha() else f"a_{word.lstrip('_')}"
    others = KEYWORDS | set(taken)
    return next(w for w in chain([word], (f"{word}_{n}" for n in count(1))) if w not in others)


def size_names(names: Sequence[str]) -> dict[str, str]:
    """Of named sizes in C."""
    found: dict[str, str] = {}
    for name in names:
        found[name] = identifier(name, {*found.values(), "instance", "threads"})
    return found


def parameters(function: LibraryFunction, taken: Iterable[str]) -> list[CParameter]:
    """The arrays of a function: inputs, then results. `taken`: names of the parameters before."""
    graph, names = function.graph, set(taken)
    given = graph.output_names or function.results
    results = [(given[i] if i < len(given) and given[i] else _result(i, len(graph.outputs)), v)
               for i, v in enumerate(graph.outputs)]
    found = []
    for is_result, rows in ((False, [(v.name, v) for v in graph.inputs]), (True, results)):
        for name, value in rows:
            found.append(CParameter(identifier(name, names), value.type, is_result))
            names.add(found[-1].name)
    return found


def _result(number: int, count: int) -> str:
    return "result" if count == 1 else f"result{number}"
