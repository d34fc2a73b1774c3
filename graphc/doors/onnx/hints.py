"""What sizes could make a node fit whose operands do not, as far as their names tell."""
from __future__ import annotations

import re
from collections.abc import Sequence
from math import lcm

from graphc.doors.onnx.call import Item, plain
from graphc.dsl.array import Array
from graphc.ir.dims import Dim, Poly
from graphc.ir.size_atoms import Quotient


def size_hint(text: str, operands: Sequence[Item]) -> str:
    """Of an error with this text: which size is a multiple of which number, or which two are one; "" where nothing says
    so. A file knows of two sizes that they are the same only if it gives them one name."""
    shapes = [value.shape for value in map(plain, operands) if isinstance(value, Array)]
    if multiple := multiple_hint(shapes):
        return multiple
    alone = [_names(shape) for shape in shapes]
    known = set[str]().union(*alone)
    said = [word for word in re.findall(r"\w+", text) if word in known][-2:]
    if len(said) == 2 and said[0] != said[1] and not any({*said} <= names for names in alone):
        return f"; where they are always the same, say so: sizes={{{said[1]!r}: {said[0]!r}}}"
    return ""


def multiple_hint(shapes: Sequence[Sequence[Dim]]) -> str:
    """Which name that is a size of its own is divided in others."""
    for name in sorted(set[str]().union(*map(_names, shapes))):
        multiple = lcm(*[_divisor(d, name) for shape in shapes for d in shape])
        if multiple > 1:
            return f"; where {name} is always a multiple of {multiple}, say so: sizes={{{name!r}: '{multiple}*n'}}"
    return ""


def _names(shape: Sequence[Dim]) -> set[str]:
    return {str(d) for d in shape if _is_name(d)}


def _is_name(dim: Dim) -> bool:
    return isinstance(dim, Poly) and dim.names == {str(dim)}


def _divisor(dim: Dim, name: str) -> int:
    """By what a name is divided with a rest in a size."""
    atoms = () if isinstance(dim, int) else dim.atoms
    return lcm(*[a.divisor for a in atoms if isinstance(a, Quotient) and name in a.dividend.names])
