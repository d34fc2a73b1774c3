"""The values of many sizes at once: their formulas as one Python function, as a call with new sizes needs hundreds of
them."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphc.errors import InternalError
from graphc.ir.dims import Dim
from graphc.ir.size_atoms import Atom, Largest, Named, Quotient, SizeName, Smallest

Formulas = Callable[[Mapping[str, int]], list[int]]


def formulas(dims: Sequence[Dim]) -> Formulas:
    """The function that gives the values of all where the names have given sizes."""
    writer = _Writer()
    values = ", ".join([writer.size(dim) for dim in dims])
    lines = ["def values(sizes):", *[f"  {line}" for line in writer.lines], f"  return [{values}]"]
    found: dict[str, Any] = {}
    exec("\n".join(lines), {}, found)
    made: Formulas = found["values"]
    return made


class _Writer:
    """Atoms become variables, each before what needs it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._variables: dict[Atom, str] = {}

    def size(self, dim: Dim) -> str:
        if isinstance(dim, int):
            return str(dim)
        return " + ".join(["*".join([str(int(c)), *map(self._atom, monomial)]) for monomial, c in dim.terms])

    def _atom(self, atom: str) -> str:
        if not isinstance(atom, Atom):
            raise InternalError(f"the size {atom} is not open", "sizes")
        if atom not in self._variables:
            text = VALUES[type(atom)](self, atom)
            self._variables[atom] = f"v{len(self._variables)}"
            self.lines.append(f"{self._variables[atom]} = {text}")
        return self._variables[atom]

    def _one_of(self, name: str, items: Sequence[Dim]) -> str:
        return f"{name}({', '.join(map(self.size, items))})"


# of an atom of the class of its key, which the type of a table cannot say
VALUES: dict[type[Atom], Callable[[_Writer, Any], str]] = {
    SizeName: lambda writer, atom: f"sizes[{str(atom)!r}]",
    Quotient: lambda writer, atom: f"({writer.size(atom.dividend)}) // {int(atom.divisor)}",
    Largest: lambda writer, atom: writer._one_of("max", atom.items),
    Smallest: lambda writer, atom: writer._one_of("min", atom.items),
    Named: lambda writer, atom: writer.size(atom.size)}
