"""Arguments of what is called outside of a trace, such as constructors: converted as their annotations say, with the
user's line in the error."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import wraps
from typing import Any, TypeVar

from graphc.dsl.array import Array, as_array
from graphc.dsl.context import user_loc
from graphc.dsl.form import Conversion, Formed, checked
from graphc.dsl.literal import as_dtype
from graphc.errors import GraphError
from graphc.ir.convert import callable_, flag, integer, items, real, shown

Function = TypeVar("Function", bound=Callable[..., Any])

def converted(made: Formed) -> Formed:
    """As `formed`; and arguments that are annotated as int, float, bool, str or DType become that or a GraphError. A
    class is changed in place."""
    if not isinstance(made, type):
        return checked(made, convert=_conversion(made))
    cls: Any = made
    cls.__init__ = checked(cls.__init__, convert=_conversion(cls.__init__))
    return made


def _conversion(function: Callable) -> Conversion:
    code, kinds = function.__code__, function.__annotations__
    names = code.co_varnames[:code.co_argcount]

    def convert(args: tuple, named: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        given = [by_annotation(kinds.get(name), value, name) for name, value in zip(names, args)]
        options = {name: by_annotation(kinds.get(name), value, name) for name, value in named.items()}
        return (*given, *args[len(names):]), options
    return convert


def converted_options(function: Callable, options: Mapping) -> dict:
    """The options, by name, as the annotations of `function` say."""
    try:
        return {name: by_annotation(function.__annotations__.get(name), value, name) for name, value in options.items()}
    except GraphError as error:
        raise error.at(user_loc())


def of_array(forward: Function) -> Function:
    """The method `forward`, whose first argument, if given by position, becomes an array of the graph."""
    @wraps(forward)
    def call(self: Any, *arrays: Any, **options: Any) -> Any:
        return forward(self, *(as_array(a) if i == 0 else a for i, a in enumerate(arrays)), **options)
    return call                 # type: ignore[return-value]   # wraps: called as `forward`


class Converted:
    """Base of dataclasses whose fields become what they are annotated as, in the same way."""

    def __post_init__(self) -> None:
        try:
            for f in fields(self):      # type: ignore[arg-type]   # subclasses are dataclasses
                what = f"{type(self).__name__}: {f.name}"
                object.__setattr__(self, f.name, by_annotation(str(f.type), getattr(self, f.name), what))
        except GraphError as error:
            raise error.at(user_loc())


def by_annotation(annotation: str | None, value: object, what: str) -> Any:
    """`value` as the text of an annotation says, if that is one of CONVERSIONS, "… | None" or not; else as it is."""
    kind = (annotation or "").removesuffix(" | None")
    if kind not in CONVERSIONS or (value is None and kind != annotation):
        return value
    return CONVERSIONS[kind](value, what)


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise GraphError(f"{what} is a str, got {shown(value)}")
    return value


def _rate(value: object, what: str) -> Any:
    """A number, or what gives one."""
    return value if isinstance(value, Array) or callable(value) else real(value, what)


def _pair(value: object, what: str) -> tuple[float, float]:
    pair = items(value, what)
    if len(pair) != 2:
        raise GraphError(f"{what} are two numbers, got {shown(value)}")
    return real(pair[0], what), real(pair[1], what)


CONVERSIONS: Mapping[str, Callable] = {
    "float | Schedule": _rate, "tuple[float, float]": _pair,
    "int": integer, "float": real, "bool": flag, "str": _text, "DType": lambda value, what: as_dtype(value),
    "Initializer": callable_}
