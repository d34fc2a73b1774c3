"""`dataclass` as of the standard library, which compiles no method before it is used.

The standard library's writes the source text of up to six methods of each class, and compiles it when the class is
made: a third of a millisecond. A first compile imports some 300 such classes and uses few of their methods. Here a
class gets descriptors: the first look at `__init__`, `__eq__` or `__hash__` compiles it, and puts it in the
descriptor's place. Most classes have few objects, though, and the first ones are made without. `fields`, `replace`,
`field`, KW_ONLY and the rest of `dataclasses` work as with any dataclass; `order`, `slots` and InitVar are the standard
library's alone.
"""
from __future__ import annotations

import dataclasses
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, FrozenInstanceError
from functools import partial
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

Method = Callable[..., Any]


class _MadeAnew:
    """What a constructor's parameter is when it is not given and the field has a factory."""

    def __repr__(self) -> str:
        return "<factory>"


MADE_ANEW = _MadeAnew()
# What a constructor's text may name: how to set what nobody else may, and that default.
KNOWN = {"__set": object.__setattr__, "__made_anew": MADE_ANEW}


FEW = 8                         # objects of a class that take as long to make without a constructor as to compile one


class _CompiledLater:
    """A method that `compiled(cls)` gives at the first look at it, on the class or on an object; then the class has the
    method itself."""

    def __init__(self, cls: type, compiled: Callable[[type], Method]) -> None:
        self.cls, self.compiled = cls, compiled

    def __get__(self, instance: object, owner: type | None = None) -> Method:
        method = self.compiled(self.cls)
        setattr(self.cls, method.__name__, method)
        bound: Method = method.__get__(instance, owner)
        return bound


class _ConstructorLater(_CompiledLater):
    """`__init__`: of the first few objects every field is set by name, of others by the compiled method."""

    def __init__(self, cls: Any, compiled: Callable[[type], Method], assign: Method) -> None:
        super().__init__(cls, compiled)
        self.assign, self.left = assign, FEW

    def __get__(self, instance: object, owner: type | None = None) -> Method:
        if self.left <= 0 or not isinstance(instance, self.cls):       # inspect gives the class itself
            return super().__get__(instance, owner)
        self.left -= 1
        return partial(self.fill, instance)

    def fill(self, made: Any, /, *values: object, **named: object) -> None:
        """What the compiled method does; where there is something to refuse, it is asked for its words."""
        fields = dataclasses.fields(self.cls)
        given = {**dict(zip([f.name for f in fields if not f.kw_only], values)), **named}
        fits = len(given) == len(values) + len(named) and given.keys() <= {f.name for f in fields if f.init}
        for f in fields:
            if f.name not in given and f.default_factory is not MISSING:
                given[f.name] = f.default_factory()
            elif f.init:
                fits = fits and given.setdefault(f.name, f.default) is not MISSING
        if not fits:
            return self.compiled(self.cls)(made, *values, **named)
        for f in fields:
            if f.name in given:
                self.assign(made, f.name, given[f.name])
        if hasattr(made, "__post_init__"):
            made.__post_init__()


MAKING = threading.local()          # `fields`: whether this thread asks the standard library for fields alone


class _Parameters:
    """`__dataclass_params__`. A class is frozen for the standard library's decorator too, which may derive from it; not
    while it only collects fields, else it would compile `__setattr__` of each class."""

    def __init__(self, given: object, frozen: bool, eq: bool) -> None:
        self._given, self._frozen, self.eq = given, frozen, eq

    @property
    def frozen(self) -> bool:
        return self._frozen and not getattr(MAKING, "fields", False)

    def __getattr__(self, name: str) -> object:
        return getattr(self._given, name)


def _dataclass(cls: Any = None, /, *, frozen: bool = False, eq: bool = True, repr: bool = True) -> Any:
    """Decorator: the class with the methods of a dataclass, but for those that it defines itself."""
    if cls is None:
        return lambda cls: _dataclass(cls, frozen=frozen, eq=eq, repr=repr)
    mixed = [b for b in _dataclasses(cls) if b.__dataclass_params__.frozen is not frozen]
    if mixed:
        raise TypeError(f"{cls.__name__} and {mixed[0].__name__}: frozen and other dataclasses do not derive from each "
                        "other")
    own = dict(vars(cls))
    if own.get("__hash__") is None and "__eq__" in own:
        own.pop("__hash__", None)       # Python's None for a class that defines `__eq__` is not the class's own word
    cls.__doc__ = cls.__doc__ or cls.__name__       # the standard library would write the constructor's signature
    of_others = any(type(b.__dataclass_params__) is not _Parameters for b in _dataclasses(cls))
    MAKING.fields = not of_others
    try:
        made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, frozen=frozen and of_others)(cls)
    finally:
        MAKING.fields = False
    made.__dataclass_params__ = _Parameters(made.__dataclass_params__, frozen, eq)
    init = (_frozen_init, object.__setattr__) if frozen else (_init, setattr)
    methods: dict[str, Any] = {"__init__": _ConstructorLater(made, *init)}
    if repr:
        methods["__repr__"] = _repr
    if eq:
        methods["__eq__"] = _CompiledLater(made, _eq)
        methods["__hash__"] = _CompiledLater(made, _hash) if frozen else None
    if frozen:
        methods["__setattr__"], methods["__delattr__"] = _refusing(made)
    for name in methods.keys() - own:
        setattr(made, name, methods[name])
    return made


def _dataclasses(cls: type) -> list[Any]:
    """Those that the class derives from."""
    return [b for b in cls.__mro__[1:] if "__dataclass_params__" in vars(b)]


def _refusing(cls: Any) -> tuple[Method, Method]:
    """`__setattr__` and `__delattr__` of a frozen dataclass; a subclass that is none may have attributes of its own."""
    names = frozenset(f.name for f in dataclasses.fields(cls))

    def set_attribute(self: object, name: str, value: object) -> None:
        if type(self) is cls or name in names:
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        super(cls, self).__setattr__(name, value)

    def delete_attribute(self: object, name: str) -> None:
        if type(self) is cls or name in names:
            raise FrozenInstanceError(f"cannot delete field {name!r}")
        super(cls, self).__delattr__(name)
    return set_attribute, delete_attribute


@recursive_repr()
def _repr(self: Any) -> str:
    shown = [f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self) if f.repr]
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _eq(cls: Any) -> Method:
    names = [f.name for f in dataclasses.fields(cls) if f.compare]
    return _compiled(cls, "__eq__", "self, other", (
        f"return {_tuple('self', names)} == {_tuple('other', names)} if other.__class__ is self.__class__ "
        "else NotImplemented",))


def _hash(cls: Any) -> Method:
    names = [f.name for f in dataclasses.fields(cls) if (f.compare if f.hash is None else f.hash)]
    return _compiled(cls, "__hash__", "self", (f"return hash({_tuple('self', names)})",))


def _tuple(owner: str, names: Sequence[str]) -> str:
    return f"({''.join(f'{owner}.{n}, ' for n in names)})"


def _init(cls: type) -> Method:
    return _constructor(cls, "self.{} = {}")


def _frozen_init(cls: type) -> Method:
    return _constructor(cls, "__set(self, '{}', {})")


def _constructor(cls: Any, assignment: str) -> Method:
    """`__init__`, which takes the fields and sets each by a statement of this form."""
    known = dict(KNOWN)
    by_place, by_name, body = ["self"], list[str](), list[str]()
    for f in dataclasses.fields(cls):
        value, default = f.name, f.default
        if f.default_factory is not MISSING:
            known[f"__new_{f.name}"], default = f.default_factory, MADE_ANEW
            value = f"__new_{f.name}() if {f.name} is __made_anew else {f.name}" if f.init else f"__new_{f.name}()"
        if f.init:
            known[f"__default_{f.name}"] = default
            parameter = f.name if default is MISSING else f"{f.name}=__default_{f.name}"
            (by_name if f.kw_only else by_place).append(parameter)
        if f.init or f.default_factory is not MISSING:
            body.append(assignment.format(f.name, value))
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    parameters = ", ".join((*by_place, "*", *by_name) if by_name else by_place)
    init = _compiled(cls, "__init__", parameters, body or ["pass"], known)
    init.__annotations__ = {**{f.name: f.type for f in dataclasses.fields(cls) if f.init}, "return": None}
    return init


def _compiled(cls: type, name: str, parameters: str, body: Sequence[str],
              known: Mapping[str, object] = KNOWN) -> Method:
    """The function of this text in the class's module, which besides may name what is `known`."""
    lines = [f"def made({', '.join(known)}):", f"  def {name}({parameters}):", *(f"    {line}" for line in body),
             f"  return {name}"]
    found: dict[str, Any] = {}
    exec("\n".join(lines), vars(sys.modules[cls.__module__]), found)
    method: Method = found["made"](**known)
    method.__qualname__ = f"{cls.__qualname__}.{name}"
    return method


if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:
    dataclass = _dataclass
