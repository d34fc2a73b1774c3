"""What an array of a graph is without arithmetic: a value with a type, and no numbers. Whatever needs the numbers is
an error here."""
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from graphc.dsl.context import user_loc
from graphc.dsl.foreign import no_method, no_view, refuse
from graphc.errors import GraphError
from graphc.ir.dims import Dim
from graphc.ir.graph import Value
from graphc.ir.types import DType, TensorType

if TYPE_CHECKING:
    from graphc.dsl.trace import Trace


class NoSuchMethod(GraphError, AttributeError):
    """A method that arrays do not have; an AttributeError too, so that hasattr works."""


class Symbol:
    """A value of the graph that `trace` builds. `weak`: it is made of Python floats alone, which like themselves take
    the dtype of an array beside them: makes it in another.
    """
    __slots__ = ("value", "trace", "weak")

    def __init__(self, value: Value, trace: Trace, weak: Callable[[DType], Symbol] | None = None) -> None:
        self.value, self.trace, self.weak = value, trace, weak

    @property
    def type(self) -> TensorType:
        return self.value.type

    @property
    def shape(self) -> tuple[Dim, ...]:
        return self.value.type.shape

    @property
    def dtype(self) -> DType:
        return self.value.type.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Dim:
        return self.value.type.size

    def __repr__(self) -> str:
        return f"<{self.value.name or 'array'}: {self.type}>"

    __hash__ = object.__hash__

    def __len__(self) -> int:
        return self._static_length("len()")

    def _static_length(self, what: str) -> int:
        if not self.shape:
            raise GraphError(f"{what} of a scalar: the array has no axes")
        if not isinstance(self.shape[0], int):
            raise GraphError(f"{what} needs a size that is known, axis 0 is {self.shape[0]}: "
                             "use gc.scan for loops, or give the size as an int")
        return self.shape[0]

    def __bool__(self) -> bool:
        raise GraphError("the truth of a symbolic array is not known while the graph is traced: use "
                         "gc.where(condition, a, b) to choose elements, gc.cond(condition, f, g) to choose a branch, "
                         "& | ~ instead of and, or, not")

    def __float__(self) -> float:
        raise GraphError(_no_number("float"))

    def __int__(self) -> int:
        raise GraphError(_no_number("int"))

    def __index__(self) -> int:
        raise GraphError("a symbolic array is not a Python index or size: use gc.take, gc.dynamic_slice or gc.scan; "
                         "sizes of arrays are x.shape")

    def __complex__(self) -> complex:
        raise GraphError("a symbolic array has no complex value: graphc has no complex numbers")

    def item(self) -> NoReturn:
        raise GraphError(_no_number("item"))

    def view(self, *form: object, **named: object) -> NoReturn:
        """torch's and numpy's name for two things: other sizes, or the bits as another dtype."""
        raise GraphError(no_view((*form, *named.values())), user_loc())

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise NoSuchMethod(no_method(name), user_loc())

    def __setitem__(self, key: object, value: object) -> None:
        raise GraphError("arrays of a graph cannot be changed in place: use gc.dynamic_update_slice, gc.scatter_add "
                         "or gc.where, "
                         "which return a new array")

    def __array__(self, *args: object, **kwargs: object) -> np.ndarray:
        raise GraphError("a symbolic array has no numbers that numpy could read while the graph is traced: "
                         "use graphc's function "
                         "of the same name (np.f(x) is gc.f(x))")

    def __array_function__(self, function: Callable, types: object, args: object, kwargs: object) -> NoReturn:
        refuse(function.__name__)


def _no_number(what: str) -> str:
    return (f"{what}() needs a number, and a symbolic array has none while the graph is traced: stay with the array "
            "(x.astype converts the dtype, gc.where chooses), or return it and convert the result")
