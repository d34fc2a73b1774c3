"""Rules of operators: Python functions whose signatures say how operands and attributes come to them."""
from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.doors.onnx.known import Known as Known
from graphc.doors.onnx.known import Unsupported as Unsupported
from graphc.dsl.array import Array
from graphc.errors import GraphError
from graphc.records import dataclass

if TYPE_CHECKING:
    from graphc.doors.onnx.call import Call

Ints = tuple[Any, ...]              # annotations of rules; what they mean says the folder's docstring
Int = Any                           # (an int, or a size with names in it)
Float = float
Numbers = np.ndarray
Operand = Any
Statistic = Array                   # a running statistic: never trained, written in training

RuleFunction = Callable[..., Any]
REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class RuleParameter:
    """One operand or attribute of a rule."""
    name: str
    kind: str
    default: Any
    many: bool = False

    @property
    def optional(self) -> bool:
        return self.default is not REQUIRED


@dataclass(frozen=True)
class ImportRule:
    """A function as the rule of an operator."""
    function: RuleFunction
    operands: tuple[RuleParameter, ...]
    attributes: Mapping[str, RuleParameter]
    wants_call: bool
    more: bool = False                  # it has **attributes: the others are read from the call

    def __call__(self, call: Call) -> Any:
        attributes = self._attributes(call)
        if self.wants_call:
            attributes["call"] = call
        return self.function(*self._operands(call), **attributes)

    def _operands(self, call: Call) -> list[Any]:
        """The operands in the order of the rule's parameters, each as its annotation says; defaults in the place of
        those left out."""
        found: list[Any] = []
        values = list(call.operands)
        for p in self.operands:
            if p.many:
                return found + [call.converted(v, p.kind, p.name) for v in values]
            value = values.pop(0) if values else None
            if value is None:
                value = call.attributes.get(p.name)     # an operand that was an attribute in older opsets
            if value is None and not p.optional:
                raise GraphError(f"{call.op} needs the operand {p.name}")
            found.append(p.default if value is None else call.converted(value, p.kind, p.name))
        if any(v is not None for v in values):
            raise Unsupported(f"{call.op} with {len(call.operands)} operands")
        return found

    def _attributes(self, call: Call) -> dict[str, Any]:
        given = {n: v for n, v in call.attributes.items() if n in self.attributes}
        others = call.attributes.keys() - given.keys() - {p.name for p in self.operands}
        if others and not self.more:
            raise Unsupported(f"{call.op} with the attribute {min(others)}")
        missing = [n for n, p in self.attributes.items() if not p.optional and n not in given]
        if missing:
            raise GraphError(f"{call.op} needs the attribute {missing[0]}")
        return {n: _fitting(call, self.attributes[n], v) for n, v in given.items()}


def _fitting(call: Call, parameter: RuleParameter, value: Any) -> Any:
    """An attribute's value, which must be of the kind of its default."""
    default = parameter.default
    if isinstance(default, float) and isinstance(value, int):
        return float(value)
    if default is None or default is REQUIRED or type(value) is type(default):
        return value
    raise GraphError(f"{call.op}: the attribute {parameter.name} is {value!r}")


@lru_cache(maxsize=None)
def rule_of(function: RuleFunction) -> ImportRule:
    """The rule that a function is, by its signature."""
    operands, attributes, wants_call, more = [], {}, False, False
    for p in inspect.signature(function).parameters.values():
        kind = str(p.annotation if isinstance(p.annotation, str) else getattr(p.annotation, "__name__", "Array"))
        default = None if p.default is REQUIRED and "None" in kind else p.default       # in the middle of operands
        made = RuleParameter(p.name, "Array" if p.annotation is REQUIRED else kind.split("|")[0].strip(), default,
                         p.kind is p.VAR_POSITIONAL)
        if p.kind is p.KEYWORD_ONLY and p.name == "call":
            wants_call = True
        elif p.kind is p.VAR_KEYWORD:
            more = True
        elif p.kind is p.KEYWORD_ONLY:
            attributes[p.name] = made
        else:
            operands.append(made)
    return ImportRule(function, tuple(operands), attributes, wants_call, more)


def arrays(function: RuleFunction, count: int = 1) -> RuleFunction:
    """A public function as a rule: so many operands, no attributes."""
    names: Sequence[str] = "xyz"[:count]

    def rule(*operands: Array) -> Any:
        return function(*operands)
    rule.__signature__ = inspect.Signature(         # type: ignore[attr-defined]
        [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in names])
    return rule
