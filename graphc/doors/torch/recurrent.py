"""Recurrent layers as one operator each while a module is read. PyTorch's own are unrolled when torch.export calls them
with symbolic tensors: slow for long sequences, and the length could not be a name."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

ARGUMENTS = ("Tensor[] params, bool has_biases, int layers, float dropout, bool train, bool bidirectional, "
             "bool batch_first")
NAMES = {"lstm": "Tensor[] hx", "gru": "Tensor hx", "rnn_tanh": "Tensor hx", "rnn_relu": "Tensor hx"}


def _declared() -> dict[str, Any]:
    """The operators, each with the shapes of its results."""
    library = torch.library.Library("graphc", "FRAGMENT")
    for name, state in NAMES.items():
        results = "(Tensor, Tensor, Tensor)" if name == "lstm" else "(Tensor, Tensor)"
        library.define(f"{name}(Tensor x, {state}, {ARGUMENTS}) -> {results}")
        torch.library.register_fake(f"graphc::{name}", _shapes_of(name), lib=library)
    return {"library": library, **{name: getattr(torch.ops.graphc, name).default for name in NAMES}}


def _shapes_of(name: str) -> Callable[..., Any]:
    def shapes(x: torch.Tensor, hx: Any, params: Iterable[torch.Tensor], has_biases: bool, layers: int,
               dropout: float, train: bool, bidirectional: bool, batch_first: bool) -> tuple[torch.Tensor, ...]:
        states = list(hx) if name == "lstm" else [hx]
        width = states[0].shape[-1] * (2 if bidirectional else 1)
        return x.new_empty((*x.shape[:-1], width)), *(x.new_empty(s.shape) for s in states)
    return shapes


class WholeLayers(TorchFunctionMode):
    """`with WholeLayers():` recurrent layers that are called are single operators. Those of packed sequences, whose
    sizes depend on values, stay PyTorch's."""

    def __torch_function__(self, function: Any, types: Any, args: tuple[Any, ...] = (),
                           kwargs: Mapping[str, Any] | None = None) -> Any:
        name = getattr(function, "__name__", "")
        if name in NAMES and function is getattr(torch._C._VariableFunctions, name) and _is_padded(name, args):
            return OPERATORS[name](*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def _is_padded(name: str, args: tuple[Any, ...]) -> bool:
    return isinstance(args[1 if name == "lstm" else 2], list | tuple)


OPERATORS = _declared()
