"""Activations: functions of arrays that can stand in `>>`; those with options are called first:
`nn.leaky_relu(slope=0.2)`."""
from __future__ import annotations

from collections.abc import Callable
from functools import cache
from inspect import Signature
from typing import Any

import graphc as gc
from graphc.dsl.array import Array
from graphc.dsl.context import user_loc
from graphc.dsl.form import plain_signature, refused
from graphc.errors import GraphError
from graphc.nn.module import Module, as_module
from graphc.nn.path import is_part


class Activation(Module):
    """An elementwise or row function. `nn.gelu(x)` applies it; `nn.gelu(approximate="tanh")` gives it with options.

    Where it is a part of a layer (in a chain, or as an attribute) it has a name like other layers, else it is a plain
    function.
    """

    def __init__(self, name: str, options: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.name, self.options = name, options or {}
        self._declared = None       # these exist before any line of the user's

    def __call__(self, *arrays: Any, **options: Any) -> Any:
        form = _form(self.name)
        named = [p.replace(kind=p.KEYWORD_ONLY) for p in list(form.parameters.values())[1:]]
        if named and arrays and isinstance(arrays[0], (int, float, str)):
            raise GraphError(f"{self.name}({arrays[0]!r}): options are given by name: "
                             f"nn.{self.name}({named[0].name}={arrays[0]!r})", user_loc())
        error = refused(self.name, form if arrays else Signature(named), arrays, options)
        if error is not None:
            raise error
        if not arrays:
            return Activation(self.name, self.options | options)
        options |= {p.name: value for p, value in zip(named, arrays[1:])}
        return super().__call__(arrays[0], **options) if is_part(self) else self.forward(arrays[0], **options)

    @property
    def kind(self) -> str:
        return self.name

    def forward(self, x: Array, **options: Any) -> Array:
        return getattr(gc, self.name)(x, **(self.options | options))

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={v!r}" for k, v in self.options.items())
        return f"{self.name}({options})" if options else self.name


relu = Activation("relu")
relu6 = Activation("relu6")
leaky_relu = Activation("leaky_relu")
elu = Activation("elu")
celu = Activation("celu")
selu = Activation("selu")
gelu = Activation("gelu")
silu = Activation("silu")
mish = Activation("mish")
softplus = Activation("softplus")
logsigmoid = Activation("logsigmoid")
softsign = Activation("softsign")
tanhshrink = Activation("tanhshrink")
softshrink = Activation("softshrink")
hardshrink = Activation("hardshrink")
hardtanh = Activation("hardtanh")
hardsigmoid = Activation("hardsigmoid")
hardswish = Activation("hardswish")
threshold = Activation("threshold")
sigmoid = Activation("sigmoid")
tanh = Activation("tanh")
glu = Activation("glu")
softmax = Activation("softmax")
softmin = Activation("softmin")
log_softmax = Activation("log_softmax")

NAMED: dict[str, Module] = {a.name: a for a in (
    relu, relu6, leaky_relu, elu, celu, selu, gelu, silu, mish, softplus, logsigmoid, softsign, tanhshrink, softshrink,
    hardshrink, hardtanh, hardsigmoid, hardswish, sigmoid, tanh)}
"""Activations that a layer may be told by name."""


@cache
def _form(name: str) -> Signature:
    """The arguments of the function of this name."""
    return plain_signature(getattr(gc, name))


def activation_named(activation: Callable[..., Any] | str) -> Module:
    """The activation of this name, or a function of one array as a layer; GraphError for anything else."""
    if isinstance(activation, str) and activation in NAMED:
        return NAMED[activation]
    if isinstance(activation, str) or not callable(activation):
        raise GraphError(f"activation is one of {', '.join(NAMED)}, or a function of one array, got {activation!r}")
    return as_module(activation)
