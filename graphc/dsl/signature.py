"""Reads the annotations of a traced function: which arguments are arrays of which type, which are Python constants."""
from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from graphc.dsl.context import user_loc
from graphc.errors import GraphError, Loc
from graphc.ir.types import DType, TensorType
from graphc.records import dataclass


@dataclass(frozen=True)
class Argument:
    """An argument of a traced function: an array of `type`, or (type None) the Python constant `value`."""
    name: str
    type: TensorType | None
    value: object = None


def arguments(f: Callable, frame: FrameType | None) -> tuple[Argument, ...]:
    """The arguments of `f`; annotations that are text are evaluated with the names that `frame`, where `f` is
    defined, can see."""
    return tuple(_argument(p, f, frame) for p in parameters(f))


def parameters(f: Callable) -> tuple[inspect.Parameter, ...]:
    """The parameters of `f`; GraphError for *args and **kwargs."""
    try:
        found = tuple(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        raise GraphError(f"a graph is traced from a Python function, got {type(f).__name__}", user_loc()) from None
    for p in found:
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            raise GraphError(f"{_name(f)}: a graph has a fixed list of arguments, {p} is not possible", location(f))
    return found


def location(f: Callable) -> Loc | None:
    """Where `f` is defined."""
    code = getattr(f, "__code__", None)
    return Loc(code.co_filename, code.co_firstlineno, f"def {code.co_name}") if code else None


def typed(f: Callable, types: Mapping[str, TensorType]) -> tuple[Argument, ...]:
    """The arguments of `f` with the types given by name instead of by annotation."""
    found = parameters(f)
    unknown = types.keys() - {p.name for p in found}
    if unknown:
        raise GraphError(f"{_name(f)} has no argument {min(unknown)!r}; its arguments: "
                         f"{', '.join(p.name for p in found)}", location(f))
    missing = [p.name for p in found if p.name not in types and p.default is p.empty]
    if missing:
        raise GraphError(f"{_name(f)}: the type of argument {missing[0]!r} is not given: "
                         f"{missing[0]}=gc.f32[...]", location(f))
    return tuple(Argument(p.name, types.get(p.name), None if p.name in types else p.default) for p in found)


def _argument(p: inspect.Parameter, f: Callable, frame: FrameType | None) -> Argument:
    annotation = _evaluated(p, f, frame)
    if isinstance(annotation, TensorType):
        return Argument(p.name, annotation)
    if isinstance(annotation, DType):
        raise GraphError(f"argument {p.name!r} of {_name(f)}: {annotation} is an element type; "
                         f"write gc.{annotation}[()] for a scalar, "
                         f"gc.{annotation}[2, 3] for an array", location(f))
    if p.default is p.empty:
        raise GraphError(f"argument {p.name!r} of {_name(f)} needs an array type, for example {p.name}: gc.f32[2, 3], "
                         "or a default value, which makes it a Python constant", location(f))
    return Argument(p.name, None, p.default)


def _evaluated(p: inspect.Parameter, f: Callable, frame: FrameType | None) -> Any:
    """The annotation of `p`; text is evaluated, and may name nothing only where a default makes the argument a
    constant."""
    if not isinstance(p.annotation, str):
        return p.annotation
    names = dict(frame.f_locals) if frame else {}
    names |= inspect.getclosurevars(f).nonlocals if hasattr(f, "__code__") else {}
    try:
        return eval(p.annotation, getattr(f, "__globals__", {}), names)
    except GraphError as error:
        raise error.at(location(f)) from None
    except Exception as error:
        if p.default is not p.empty:
            return None
        raise GraphError(f"the annotation {p.annotation!r} of argument {p.name!r} of {_name(f)} cannot be evaluated "
                         "where the function "
                         f"is defined: {error}", location(f)) from None


def _name(f: Callable) -> str:
    return getattr(f, "__name__", type(f).__name__)
