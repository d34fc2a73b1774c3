"""How layers, optimizers and functions are called: where Python would raise a TypeError about arguments, a GraphError says the right form."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, TypeVar

from graphc.dsl.context import user_loc
from graphc.dsl.foreign import ForeignCall, translated
from graphc.errors import GraphError

Made = TypeVar("Made", bound=Callable[..., Any])
SHOWN = 40                          # letters of a value in a message; of a longer one its type


def formed(made: Made) -> Made:
    """`made`, a class or a function, whose wrong calls are GraphErrors that say the right one. A class is changed in place."""
    if not isinstance(made, type):
        return _checked(made, lambda args: (made.__name__, plain_signature(made), args))
    cls: Any = made
    own = cls.__init__
    cls.__init__ = _checked(own, lambda args: _construction(own, args))
    return made


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


def _checked(function: Made, describe: Callable[[tuple], tuple[str, Signature, tuple] | None]) -> Made:
    """`describe(args)`: name, form and arguments as the user gave them; None for a call that graphc itself makes inside of another."""
    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except TypeError:
            described = describe(args)
            error = refused(*described, options) if described else None
            if error is None:               # a mistake in what was called, not in how
                raise
            raise error from None
    call.formed = True          # type: ignore[attr-defined]   # a function's own attribute: graphc's constructors are known by it
    return call                 # type: ignore[return-value]   # wraps: called as `function`


def _construction(function: Callable, args: tuple) -> tuple[str, Signature, tuple] | None:
    """Of the first constructor that is graphc's: a class of the user's may have its own, which calls it."""
    cls = type(args[0])
    while not hasattr(cls.__init__, "formed"):
        cls = cls.__mro__[1]
    return (cls.__name__, constructor(cls), args[1:]) if cls.__init__.__wrapped__ is function else None


def _advice(call: ForeignCall, form: Signature) -> str:
    """What the user's call is here, if it is one of torch's; else "" ."""
    for ours, without in translated(call):
        try:
            bound = form.bind(*ours.args, **ours.options)
        except TypeError:
            continue
        left = f" without {', '.join(without)}, which it does not have" if without else ""
        return f"here it is {_text(replace(ours, args=bound.args, options=bound.kwargs))}{left}"
    return ""


def _text(call: ForeignCall) -> str:
    return f"{call.name}({', '.join([*map(_shown, call.args), *(f'{k}={_shown(v)}' for k, v in call.options.items())])})"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN and "\n" not in text and not hasattr(value, "shape") else f"<{type(value).__name__}>"
