"""`torch.compile(model, backend="graphc")`: the graphs that TorchDynamo and AOTAutograd make, as native programs."""
from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

import torch
from torch._decomp import core_aten_decompositions
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch._functorch.partitioners import default_partition
from torch.fx import GraphModule

from graphc.doors.torch.compiled import CompiledPart, PerSizePart, Weights
from graphc.doors.torch.partition import Leftovers, NotCompiled, parted
from graphc.doors.torch.read import target_name
from graphc.doors.torch.recurrent import with_whole_layers
from graphc.doors.torch.rules.table import RULES
from graphc.dsl.context import user_loc
from graphc.errors import GraphError

Compiled = Callable[..., Any]


def graphc(module: GraphModule, example_inputs: Sequence[Any], *, mode: str | None = None,
           options: Mapping[str, Any] = MappingProxyType({})) -> Compiled:
    """The backend: a captured graph, and tensors as those that it will be called with -> what runs it.

    Inference, and both passes of training, come from one table of operators (docs/pytorch.md). What is not in it runs
    eagerly, and one warning for each captured graph lists it. Parameters are read where they lie, in each call.
    `options={"freezing": True}`, Inductor's name: inference keeps packed forms of them, which are made anew when
    PyTorch's version counter of one has moved. Other options, and modes of Inductor's, are a GraphError.
    """
    freezing = _freezing(mode, options)
    leftovers, backward = Leftovers(), list[GraphModule]()

    def partition(*joint: Any, **about: Any) -> tuple[GraphModule, GraphModule]:
        forward, behind = default_partition(*joint, **about)
        backward.append(behind)
        return forward, behind
    compiled: Compiled = aot_autograd(
        fw_compiler=_compiler(leftovers, _weights_known), bw_compiler=_compiler(leftovers, frozenset),
        inference_compiler=_compiler(leftovers, _weights_known, freezing), decompositions=decompositions(),
        partition_fn=partition)(with_whole_layers(module), example_inputs)
    if leftovers.problems:
        for behind in backward:             # which PyTorch may have compiled only when it is first run
            _compiled(copy.deepcopy(behind), Weights(), leftovers)
    leftovers.tell()
    return compiled


@cache
def decompositions() -> dict[Any, Callable[..., Any]]:
    """PyTorch's own, without those of operators that have rules."""
    return {op: rule for op, rule in core_aten_decompositions().items() if target_name(op) not in RULES}


def _freezing(mode: str | None, options: Mapping[str, Any]) -> bool:
    """What the options ask for."""
    if mode is not None or (unknown := sorted(options.keys() - {"freezing"})):
        what = f"mode={mode!r}" if mode is not None else f"the option {unknown[0]!r}"
        raise GraphError(f'torch.compile: {what} is not one of graphc\'s, whose only option is "freezing"', user_loc())
    return bool(options.get("freezing", False))


def _weights_known() -> frozenset[int]:
    """The numbers of the inputs of the forward pass that are parameters and buffers."""
    context = torch._guards.TracingContext.try_get()
    metadata = None if context is None else context.fw_metadata
    return frozenset() if metadata is None else frozenset(metadata.static_input_indices)


def _compiler(leftovers: Leftovers, known: Callable[[], frozenset[int]], freezing: bool = False) -> Compiled:
    """What AOTAutograd calls with the graph of a phase. `known`: gives the numbers of its inputs that are weights."""
    def compiled(module: GraphModule, example_inputs: Sequence[Any]) -> Compiled:
        run = _compiled(module, Weights(known(), freezing), leftovers)
        leftovers.found()
        return make_boxed_func(run)
    return compiled


def _compiled(module: GraphModule, weights: Weights, leftovers: Leftovers) -> Compiled:
    """The graph of a phase; in parts where graphc cannot take all of it."""
    try:
        return CompiledPart(module, weights)
    except NotCompiled as reason:
        try:
            return PerSizePart(module, weights)
        except NotCompiled:             # the sizes are not to blame
            pass
        return parted(module, reason.problems, leftovers, lambda inner: CompiledPart(inner, Weights()))


# PyTorch registers the function itself when it loads the entry point, and takes no name twice.
# TorchDynamo leaves functions with recurrent layers out, silently and before it asks a backend, unless this says that
# they can be taken. It has no such setting for one backend: the context of a backend (`backend_ctx_ctor`) is not asked
# for by torch.compile, and by the time that a backend is called the layer has been left out.
torch._dynamo.config.allow_rnn = True
