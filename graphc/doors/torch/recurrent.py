"""Recurrent layers as one operator each while a module is read, and in graphs of torch.compile. PyTorch's own are
unrolled when torch.export or AOTAutograd call them with symbolic tensors: slow for long sequences, and the length could
not be a name."""
from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.overrides import TorchFunctionMode

from graphc.doors.torch.spelled import SPELLED

ARGUMENTS = ("Tensor[] params, bool has_biases, int layers, float dropout, bool train, bool bidirectional, "
             "bool batch_first")
NAMES = {"lstm": "Tensor[] hx", "gru": "Tensor hx", "rnn_tanh": "Tensor hx", "rnn_relu": "Tensor hx"}


def _declared() -> dict[str, Any]:
    """The operators, each with the shapes of its results, PyTorch's own kernel, and a gradient that is an operator too.
    """
    library = torch.library.Library("graphc", "FRAGMENT")
    for name, state in NAMES.items():
        results = "(Tensor, Tensor, Tensor)" if name == "lstm" else "(Tensor, Tensor)"
        library.define(f"{name}(Tensor x, {state}, {ARGUMENTS}) -> {results}")
        library.define(f"{name}_backward(Tensor?[] grads, Tensor x, {state}, {ARGUMENTS}) -> Tensor[]")
        library.impl(name, getattr(torch._C._VariableFunctions, name), "CPU")
        torch.library.register_fake(f"graphc::{name}", _shapes_of(name), lib=library)
        torch.library.register_fake(f"graphc::{name}_backward", _gradient_shapes, lib=library)
        torch.library.register_autograd(f"graphc::{name}", _gradient_of(name), setup_context=_kept, lib=library)
    return {"library": library, **{name: getattr(torch.ops.graphc, name).default for name in NAMES}}


def _states(hx: Any) -> list[torch.Tensor]:
    return list(hx) if isinstance(hx, list | tuple) else [hx]


def _gradient_shapes(grads: Any, x: torch.Tensor, hx: Any, params: Sequence[torch.Tensor],
                     *_: Any) -> list[torch.Tensor]:
    return [t.new_empty(t.shape) for t in (x, *_states(hx), *params)]


def _kept(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """The layer is run again in its backward pass: its arguments are all that is kept."""
    x, hx, params, *ctx.options = inputs
    states = _states(hx)
    ctx.counts = len(states)
    ctx.save_for_backward(x, *states, *params)


def _gradient_of(name: str) -> Callable[..., Any]:
    def gradient(ctx: Any, *grads: torch.Tensor | None) -> tuple[Any, ...]:
        x, *rest = ctx.saved_tensors
        states, params = rest[:ctx.counts], rest[ctx.counts:]
        backward = getattr(torch.ops.graphc, f"{name}_backward").default
        dx, *more = backward(list(grads), x, states if name == "lstm" else states[0], params, *ctx.options)
        towards = more[:ctx.counts]
        return dx, towards if name == "lstm" else towards[0], more[ctx.counts:], *(None for _ in ctx.options)
    return gradient


def _shapes_of(name: str) -> Callable[..., Any]:
    def shapes(x: torch.Tensor, hx: Any, params: Iterable[torch.Tensor], has_biases: bool, layers: int,
               dropout: float, train: bool, bidirectional: bool, batch_first: bool) -> tuple[torch.Tensor, ...]:
        states = list(hx) if name == "lstm" else [hx]
        width = states[0].shape[-1] * (2 if bidirectional else 1)
        return x.new_empty((*x.shape[:-1], width)), *(x.new_empty(s.shape) for s in states)
    return shapes


class WholeLayers(TorchFunctionMode):
    """`with WholeLayers():` recurrent layers that are called are single operators, `.data` is what it means, and so is
    what torch.export does not read. Layers of packed sequences, whose sizes depend on values, stay PyTorch's."""

    def __torch_function__(self, function: Any, types: Any, args: tuple[Any, ...] = (),
                           kwargs: Mapping[str, Any] | None = None) -> Any:
        name = getattr(function, "__name__", "")
        if name == "__get__" and getattr(function, "__self__", None) is torch.Tensor.data:
            return args[0].detach()                 # the same numbers without a gradient, which a program can say
        if name in NAMES and function is getattr(torch._C._VariableFunctions, name) and _is_padded(name, args):
            return OPERATORS[name](*args, **(kwargs or {}))
        return SPELLED.get(function, function)(*args, **(kwargs or {}))


def _is_padded(name: str, args: tuple[Any, ...]) -> bool:
    return isinstance(args[1 if name == "lstm" else 2], list | tuple)


def with_whole_layers(module: GraphModule) -> GraphModule:
    """The same graph of TorchDynamo with its recurrent layers as single operators. Those that drop numbers between
    layers become one for each layer, so that the masks are known in the backward pass."""
    for node in list(module.graph.nodes):
        name = CALLS.get(node.target) if node.op == "call_function" else None
        if name is None or node.kwargs or len(node.args) != 9 or not _is_padded(name, node.args):
            continue
        layers, dropout, train = node.args[4:7]
        if not (dropout and train and layers > 1):
            node.target = OPERATORS[name]
        elif all(user.target is operator.getitem for user in node.users):
            _split_by_layer(name, node)
    module.recompile()
    return module


def _split_by_layer(name: str, node: Node) -> None:
    """Puts an operator for each layer, with dropout between, in the place of one for all."""
    x, hx, params, biased, layers, dropout, train, both, batch_first = node.args
    states, count = list(hx) if name == "lstm" else [hx], 2 if both else 1
    finals: list[list[Node]] = [[] for _ in states]

    def call(target: Any, *args: Any) -> Node:
        made = node.graph.call_function(target, args)
        made.meta = {key: value for key, value in node.meta.items() if key in ("stack_trace", "nn_module_stack")}
        return made
    with node.graph.inserting_before(node):
        for i in range(layers):
            own = [call(operator.getitem, s, slice(i * count, (i + 1) * count)) for s in states]
            run = params[i * len(params) // layers:(i + 1) * len(params) // layers]
            found = call(OPERATORS[name], x, own if name == "lstm" else own[0], run, biased, 1, 0.0, train, both,
                         batch_first)
            x = call(operator.getitem, found, 0)
            if i < layers - 1:
                x = call(torch.nn.functional.dropout, x, dropout, True)
            for k, parts in enumerate(finals):
                parts.append(call(operator.getitem, found, k + 1))
        results = [x, *(call(torch.cat, parts) for parts in finals)]
    for user in list(node.users):
        user.replace_all_uses_with(results[user.args[1]])
        node.graph.erase_node(user)
    node.graph.erase_node(node)


OPERATORS = _declared()
CALLS = {getattr(torch._C._VariableFunctions, name): name for name in NAMES}
