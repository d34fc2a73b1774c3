"""Formulas in named sizes as a routine: what a program needs of the sizes that come with a call."""
from __future__ import annotations

from collections.abc import Mapping

from graphc.codegen.routines.routine import Routine, RoutineBody
from graphc.codegen.routines.values import I32, I64
from graphc.doors.library.programs import LibraryProgram
from graphc.errors import InternalError
from graphc.ir.dims import Dim
from graphc.ir.size_atoms import Atom, OneOf, Largest, Named, Quotient
from graphc.runtime.instances.arithmetic_ir import rounded_down, times
from graphc.runtime.instances.instance_memory import FormulaFunction
from graphc.runtime.system import I64s

MOST_BYTES = 1 << 48            # of arena or scratch: times the threads they still fit


class FormulaText:
    """Values of formulas inside a routine; what they share is computed once."""

    def __init__(self, f: RoutineBody, sizes: Mapping[str, I64], small: I64s):
        self.f, self.sizes, self.small = f, sizes, small
        self.atoms: dict[Atom, I64] = {}

    def value(self, dim: Dim) -> I64:
        if isinstance(dim, int):
            return self.f.given(dim, I64)
        total: I64 | None = None
        for monomial, coefficient in dim.terms:
            term: I64 | None = None
            for name in monomial:
                factor = self.atom(name)
                term = factor if term is None else times(self.f, term, factor, self.small)
            if term is None:
                term = self.f.given(coefficient, I64)
            elif coefficient != 1:
                size = times(self.f, term, abs(coefficient), self.small)
                term = size if coefficient > 0 else size * -1
            total = term if total is None else total + term
        return self.f.given(0, I64) if total is None else total

    def atom(self, atom: str) -> I64:
        if str(atom) in self.sizes and not isinstance(atom, (Quotient, OneOf, Named)):
            return self.sizes[str(atom)]
        if not isinstance(atom, Atom):
            raise InternalError(f"a formula has the unknown size {atom}", "export")
        if atom not in self.atoms:
            self.atoms[atom] = self._made(atom)
        return self.atoms[atom]

    def _made(self, atom: Atom) -> I64:
        if isinstance(atom, Quotient):
            return rounded_down(self.f, self.value(atom.dividend), atom.divisor)
        if isinstance(atom, Named):
            return self.value(atom.size)
        if isinstance(atom, OneOf):
            first, *rest = [self.value(item) for item in atom.items]
            for other in rest:
                first = first.at_least(other) if isinstance(atom, Largest) else first.at_most(other)
            return first
        raise InternalError(f"a formula has a size of the unknown kind {type(atom).__name__}", "export")


def formulas(program: LibraryProgram) -> Routine[I32]:
    """The routine of a program: whether it serves the sizes; then arena, scratch and the table of sizes."""
    def build(f: RoutineBody, given: I64s, out: I64s) -> I32:
        sizes = {}
        for n, name in enumerate(program.function.sizes):
            sizes[name] = given[n].value
            bounds = program.bounds[name]
            f.return_if(sizes[name] < bounds.low, 0)
            if bounds.high is not None:
                f.return_if(sizes[name] > bounds.high, 0)
        small = f.array(I64, 1)
        small[0].value = 1
        text = FormulaText(f, sizes, small)
        for condition in program.conditions:
            f.return_if(text.value(condition) < 0, 0)
        for n, dim in enumerate((program.arena, program.scratch, *program.emitted.sizes)):
            out[n].value = text.value(dim)
        for n in range(2):
            f.return_if(out[n].value > MOST_BYTES, 0)
        return small[0].value.trunc(I32)
    build.__name__ = f"{program.symbol}_sizes"
    build.__doc__ = f"The sizes of {program.function.name}."
    build.__annotations__ = dict(given=I64s, out=I64s) | {"return": FormulaFunction.result}
    return Routine(build)
