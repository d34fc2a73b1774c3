"""Matrix registers in loop functions: the part of the builder that uses them, and what holds of every use.

A register is named by its number, not by a value, since the instructions have it in their text. A function sets the
shapes of all registers, and gives them back before it ends: no other function finds them in use.
"""
from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.loops.index import Ix, as_ix
from graphc.codegen.loops.loop_ir import Body, MatrixDot, MatrixMove, MatrixShapes, MatrixZero, Root, View
from graphc.errors import InternalError
from graphc.ir.dims import Dim
from graphc.ir.ops.packed import SUMS
from graphc.ir.types import DType

REGISTERS = 8
Shape = tuple[Ix, Ix]               # rows, and elements of 32 bits in each


class Matrices:
    """The builder's methods. `shapes`: of the registers, as they were set last in the text."""
    block: Body
    written: set[Root]
    shapes: tuple[Shape, ...] = ()

    def matrix_shapes(self, *shapes: tuple[Ix | Dim, Ix | Dim]) -> None:
        """Sets the shapes of registers 0, 1, …; what they held is lost. None: gives them back."""
        self.shapes = tuple([(as_ix(rows), as_ix(columns)) for rows, columns in shapes])
        self.block.append(MatrixShapes(*(tuple(each) for each in zip(*self.shapes))))

    def matrix_load(self, number: int, view: View, index: Ix | Dim, step: int) -> None:
        """Rows from `index` of a flat view on, `step` elements apart."""
        self.block.append(MatrixMove(number, view, as_ix(index), step, shape_of(self.shapes, number), False))

    def matrix_store(self, number: int, view: View, index: Ix | Dim, step: int) -> None:
        """The other way."""
        self.written.add(view.root)
        self.block.append(MatrixMove(number, view, as_ix(index), step, shape_of(self.shapes, number), True))

    def matrix_zero(self, number: int) -> None:
        self.block.append(MatrixZero(number))

    def matrix_dot(self, c: int, a: int, b: int, types: tuple[DType, DType]) -> None:
        """c += a b, where columns of a and rows of b are packed along the sum."""
        self.block.append(MatrixDot(c, a, b, types))


def shape_of(shapes: Sequence[Shape], number: int) -> Shape:
    if number >= len(shapes):
        raise InternalError(f"m{number} is used before its shape is set", "loops")
    return shapes[number]


class MatrixState:
    """What the verifier knows of the registers: their shapes."""

    def __init__(self) -> None:
        self.shapes: tuple[Shape, ...] = ()

    def set(self, s: MatrixShapes) -> None:
        if len(s.rows) > REGISTERS:
            raise InternalError(f"there are {REGISTERS} matrix registers, not {len(s.rows)}")
        self.shapes = tuple(zip(s.rows, s.columns))

    def move(self, s: MatrixMove) -> None:
        if shape_of(self.shapes, s.number) != (s.rows, s.columns):
            raise InternalError(f"m{s.number} has another shape than {s.rows}×{s.columns}")
        if s.view.dtype.itemsize != 4 or s.view.strides != (1,) or s.step < 0:
            raise InternalError(f"m{s.number} moves rows of elements of 32 bits, side by side, not of {s.view.name}")

    def zero(self, s: MatrixZero) -> None:
        shape_of(self.shapes, s.number)

    def dot(self, s: MatrixDot) -> None:
        c, a, b = (shape_of(self.shapes, number) for number in (s.c, s.a, s.b))
        if s.types not in SUMS or len({s.c, s.a, s.b}) < 3:
            raise InternalError(f"no product of matrices m{s.c} += m{s.a} m{s.b} of {s.types}")
        if (c[0], c[1], a[1]) != (a[0], b[1], b[0]):
            raise InternalError(f"the shapes of m{s.c} += m{s.a} m{s.b} do not fit each other")


def same_everywhere(states: Sequence[tuple[Shape, ...]]) -> None:
    """Of the ends of branches, or of a loop's trip and what is before it."""
    if any(state != states[0] for state in states):
        raise InternalError("matrix registers have other shapes where branches or trips meet")
