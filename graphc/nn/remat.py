"""Layers whose inside is computed again in the backward pass."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any

from graphc.dsl.form import formed
from graphc.dsl.remat import rematerialized
from graphc.errors import GraphError
from graphc.ir.convert import shown
from graphc.ir.types import TensorType
from graphc.nn.module import Module


class Remat(Module):
    """The layer `body`, whose inside is computed again in the backward pass; its parameters have the names that they
    have without."""
    hands_on = True

    def __init__(self, body: Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, /, *arrays: Any, **options: Any) -> Any:
        return rematerialized(self.body, *arrays, **options)

    def takes(self) -> frozenset[str]:
        return self.body.takes()

    def declared_inputs(self) -> Mapping[str, TensorType]:
        return self.body.declared_inputs()

    def children(self) -> Iterator[tuple[str, Module]]:
        return iter((("", self.body),))


@formed
def remat(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f`, a function of arrays or a layer, of which nothing inside is kept for the gradient but the arrays that come
    in: the backward pass computes the rest again. Less memory for about the time of one more forward pass; dropout
    draws the same mask again, and results are the same. As jax.checkpoint and torch.utils.checkpoint.

    `gc.remat(block) ** 12`, or around the body of `gc.scan`. What is to be computed again can also be left to
    `memory=` of gc.train_step, which chooses it by the plan.
    """
    if isinstance(f, Module):
        return Remat(f)
    if not callable(f):
        raise GraphError(f"gc.remat takes a function of arrays or a layer, got {shown(f)}")

    @wraps(f)
    def call(*args: Any, **options: Any) -> Any:
        return rematerialized(f, *args, **options)
    return call
