"""`torch.compile(model, backend="graphc")`: the graphs that TorchDynamo and AOTAutograd make, as native programs."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._decomp import core_aten_decompositions
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.backends.registry import register_backend
from torch._functorch.aot_autograd import make_boxed_func
from torch.fx import GraphModule

from graphc.doors.torch.compiled import CompiledPart, PerSizePart
from graphc.doors.torch.partition import Leftovers, NotCompiled, parted
from graphc.doors.torch.read import target_name
from graphc.doors.torch.recurrent import with_whole_layers
from graphc.doors.torch.rules.table import RULES

Compiled = Callable[..., Any]


def graphc(module: GraphModule, example_inputs: Sequence[Any]) -> Compiled:
    """The backend: a captured graph, and tensors as those that it will be called with -> what runs it.

    Inference, and both passes of training, come from one table of operators (docs/pytorch.md). What is not in it runs
    eagerly, and one warning for each captured graph lists it. Parameters of an inference graph are read where they lie;
    what is derived from them (packed weights) is made anew when PyTorch's version counter of one has moved.
    """
    leftovers = Leftovers()
    compiled: Compiled = aot_autograd(
        fw_compiler=_compiler(leftovers, "forward"), bw_compiler=_compiler(leftovers, "backward"),
        inference_compiler=_compiler(leftovers, "inference"), decompositions=decompositions())(
            with_whole_layers(module), example_inputs)
    leftovers.tell()
    return compiled


def decompositions() -> dict[Any, Callable[..., Any]]:
    """PyTorch's own, without those of operators that have rules."""
    return {op: rule for op, rule in core_aten_decompositions().items() if target_name(op) not in RULES}


def _compiler(leftovers: Leftovers, phase: str) -> Compiled:
    """What AOTAutograd calls with the graph of a phase."""
    def compiled(module: GraphModule, example_inputs: Sequence[Any]) -> Compiled:
        context = torch._guards.TracingContext.try_get()
        metadata = None if context is None else context.fw_metadata
        fixed = metadata.static_input_indices if metadata is not None and phase == "inference" else ()
        try:
            part = CompiledPart(module, frozenset(fixed))
        except NotCompiled as reason:
            try:
                return make_boxed_func(PerSizePart(module, frozenset(fixed)))
            except NotCompiled:             # the sizes are not to blame
                pass
            run = parted(module, reason.problems, leftovers, lambda inner: CompiledPart(inner, frozenset()))
            leftovers.found()
            return make_boxed_func(run)
        return make_boxed_func(part)
    return compiled


register_backend(graphc, "graphc")
# TorchDynamo leaves functions with recurrent layers out, silently and before it asks a backend, unless this says that
# they can be taken. It has no such setting for one backend: the context of a backend (`backend_ctx_ctor`) is not asked
# for by torch.compile, and by the time that a backend is called the layer has been left out.
torch._dynamo.config.allow_rnn = True
