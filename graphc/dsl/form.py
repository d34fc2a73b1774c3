"""How layers, optimizers and functions are called: where Python would raise a TypeError about arguments, a GraphError
says the right form."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from inspect import Parameter, Signature, signature
from types import FunctionType
from typing import Any, TypeVar, cast

import numpy as np

from graphc.dsl.context import user_loc
from graphc.dsl.foreign import ForeignCall, translated
from graphc.dsl.symbol import Symbol
from graphc.errors import GraphError
from graphc.ir.convert import shown

LONG = 40                           # letters of a value in a message; of a longer one its type
Formed = TypeVar("Formed", bound=Callable[..., Any])
Conversion = Callable[[tuple, dict[str, Any]], tuple[tuple, dict[str, Any]]]    # of positional and named arguments


def formed(made: Formed) -> Formed:
    """`made`, a function, method or class, whose wrong calls are GraphErrors that say the right one. Of a class the
    constructor, in place."""
    if not isinstance(made, type):
        return checked(made)
    cls: Any = made
    cls.__init__ = checked(cls.__init__)
    return made


def formed_methods(cls: type, called: str = "") -> None:
    """The same for what users call of objects of the class, which messages call by that name: its own public methods,
    in place. (Calling a layer says what is wrong with a call of its `forward`.)
    """
    for name, member in list(vars(cls).items()):
        public = isinstance(member, FunctionType) and not name.startswith("_") and name != "forward"
        if public and not hasattr(member, "formed"):
            setattr(cls, name, checked(member, called or cls.__name__))


def plain_signature(function: Callable) -> Signature:
    """The arguments of a function, as a message shows them: without annotations."""
    return Signature([p.replace(annotation=p.empty) for p in signature(function).parameters.values()])


def constructor(cls: Any) -> Signature:
    """The arguments of the class, also those that its constructor hands on to those of its bases by **options."""
    found: dict[str, Parameter] = {}
    for i, base in enumerate(c for c in cls.__mro__ if "__init__" in vars(c)):
        own = list(signature(base.__init__).parameters.values())[1:]
        for p in own:
            if p.kind is not p.VAR_KEYWORD:
                found.setdefault(p.name, p.replace(kind=Parameter.KEYWORD_ONLY if i else p.kind, annotation=p.empty))
        if not any(p.kind is p.VAR_KEYWORD for p in own):
            break
    return Signature(sorted(found.values(), key=lambda p: p.kind))


def refused(name: str, form: Signature, args: Sequence, options: Mapping) -> GraphError | None:
    """The error for such a call; None if it fits the form."""
    try:
        form.bind(*args, **options)
    except TypeError as error:
        call = ForeignCall(name, tuple(args), dict(options))
        return GraphError(f"{_text(call)}: {_advice(call, form) or error}; the form is {name}{form}", user_loc())
    return None


def checked(function: Formed, called: str = "", convert: Conversion | None = None) -> Formed:
    """`function` with its wrong calls as GraphErrors, and the user's line in others. `called`: what messages call the
    object that it is a method of. `convert(args, options)` gives those that it is called with.
    """
    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        try:
            if convert is None:
                return function(*args, **options)
            given, named = convert(args, options)
            return function(*given, **named)
        except GraphError as error:
            raise error.at(user_loc())
        except TypeError:
            described = _described(function, called, args)
            wrong = refused(*described, options) if described else None
            if wrong is None:               # a mistake in what was called, not in how
                raise
            raise wrong from None
    # its own attribute: what is formed is known by it
    call.formed = True          # type: ignore[attr-defined]
    return cast(Formed, call)


def _described(function: Callable, called: str, args: Sequence) -> tuple[str, Signature, Sequence] | None:
    """Name, form and arguments as the user gave them; None for a call that graphc itself makes inside of another."""
    form = plain_signature(function)
    if next(iter(form.parameters), "") != "self":
        return function.__name__, form, args
    if function.__name__ == "__init__":
        return _construction(function, args)
    return (f"{called or type(args[0]).__name__}.{function.__name__}",
            form.replace(parameters=list(form.parameters.values())[1:]), args[1:])


def _construction(function: Callable, args: Sequence) -> tuple[str, Signature, Sequence] | None:
    """Of the first constructor that is graphc's: a class of the user's may have its own, which calls it."""
    cls = type(args[0])
    while not hasattr(cls.__init__, "formed"):
        cls = cls.__mro__[1]
    return (cls.__name__, constructor(cls), args[1:]) if cls.__init__.__wrapped__ is function else None


def _advice(call: ForeignCall, form: Signature) -> str:
    """What the user's call is here, if it is one of torch's; else "" ."""
    for ours, without in translated(call, form.parameters):
        try:
            bound = form.bind(*ours.args, **ours.options)
        except TypeError:
            continue
        left = f" without {', '.join(without)}, which it does not have" if without else ""
        return f"here it is {_text(replace(ours, args=bound.args, options=bound.kwargs))}{left}"
    return ""


def _text(call: ForeignCall) -> str:
    given = [*map(_short, call.args), *(f"{k}={_short(v)}" for k, v in call.options.items())]
    return f"{call.name}({', '.join(given)})"


def _short(value: object) -> str:
    """Of arrays, and of what is long, the type alone: a call is to be read as one line."""
    text = shown(value, LONG)
    long = "\n" in text or len(text) == LONG or isinstance(value, (np.ndarray, Symbol))
    return f"<{type(value).__name__}>" if long else text
