"""Layers around layers: x + f(x), with and without a norm. Options such as `lengths` go on to f."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.dsl.array import Array
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.nn.module import Module, as_module
from graphc.nn.norm import Dropout, LayerNorm, RMSNorm

NORMS = {"layer": LayerNorm, "rms": RMSNorm}


class Residual(Module):
    """x + body(x)."""

    def __init__(self, body: Callable[..., Any]) -> None:
        super().__init__()
        self.body = as_module(body)

    def forward(self, x: Array, *rest: Any, **options: Any) -> Array:
        return added(x, self.body(x, *rest, **options))

    def takes(self) -> frozenset[str]:
        return self.body.takes()


@formed
def residual(body: Callable[..., Any]) -> Residual:
    """The layer x + body(x).

    Examples:
        >>> block = nn.LayerNorm() >> nn.Linear(8) >> nn.relu
        >>> run = gc.compile(nn.residual(block), x=gc.f32[2, 8], seed=0)
        >>> run(np.zeros((2, 8), np.float32)).shape
        (2, 8)
    """
    return Residual(body)


class AddNorm(Module):
    """norm(x + dropout(body(x))), post-norm (Vaswani et al. 2017), or x + dropout(body(norm(x))) with `pre_norm`
    (Xiong et al. 2020).

    The lecture's AddNorm(f, x) is `nn.AddNorm(f)(x)`. `norm`: "layer", "rms", or a function that makes a norm layer.
    body keeps the shape of x.
    """

    def __init__(self, body: Callable[..., Any], *, pre_norm: bool = False,
                 norm: Callable[..., Any] | str = "layer", dropout: float = 0.0) -> None:
        super().__init__()
        self.body, self.norm = as_module(body), norm_named(norm)
        self.dropout, self.pre_norm = Dropout(dropout), pre_norm

    def forward(self, x: Array, *rest: Any, **options: Any) -> Array:
        return add_norm(self.norm, x, lambda h: self.dropout(self.body(h, *rest, **options)), self.pre_norm)

    def takes(self) -> frozenset[str]:
        return self.body.takes()


def add_norm(norm: Module, x: Array, f: Callable[..., Any], pre_norm: bool) -> Array:
    """The residual x + f(x), with the norm before f or after the sum."""
    return added(x, f(norm(x))) if pre_norm else norm(added(x, f(x)))


def added(x: Array, change: Array) -> Array:
    """x + f(x); GraphError if f changed the shape."""
    if change.shape != x.shape:
        raise GraphError(f"x + f(x): f made {list(change.shape)} of {list(x.shape)}; both must agree")
    return x + change


def norm_named(norm: Callable[..., Any] | str) -> Module:
    """A new norm layer, by name or by a function that makes one; GraphError for anything else."""
    if callable(norm) and not isinstance(norm, Module):
        return norm()
    if not isinstance(norm, str) or norm not in NORMS:
        raise GraphError(f"norm is one of {', '.join(NORMS)}, or a function that makes a norm layer, got {norm!r}")
    return NORMS[norm]()
