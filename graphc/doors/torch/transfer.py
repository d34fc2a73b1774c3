"""What was trained here, back into PyTorch's module."""
from __future__ import annotations

import torch

from graphc.doors.torch.entry import ModuleReader
from graphc.doors.torch.network import TorchNetwork
from graphc.dsl.context import user_loc
from graphc.errors import GraphError
from graphc.train import TrainStep


def to_torch(step: TrainStep, module: torch.nn.Module) -> None:
    """Copies parameters and buffers of the network that `gc.from_torch` made of `module`, as `step` has them, into the
    module: `step.to_torch(module)`. Names are those of `state_dict`; what the step does not use stays as it is.

    Raises GraphError where the step has no such network, or several that may be meant.
    """
    found = [part for _, part in step.function[0].named_modules() if isinstance(part, TorchNetwork)]
    of_module = [net for net in found if isinstance(net.program, ModuleReader) and net.program.module is module]
    nets = of_module or found
    if len(nets) != 1:
        raise GraphError(f"step.to_torch: the step trains {len(nets)} networks of gc.from_torch; give the module that "
                         "one of them was made of", user_loc())
    tensors = dict(module.named_buffers(remove_duplicate=False)) | module.state_dict(keep_vars=True)
    values = {name: step.state.name(parameter) for name, parameter in nets[0].names().items()}
    if missing := [name for name in values if name not in tensors and values[name] is not None]:
        raise GraphError(f"the module has no {missing[0]}, which the step has: it is not the one that was read",
                         user_loc())
    state = step.state.copy()
    with torch.no_grad():
        for name, own in values.items():
            if own is not None:
                tensors[name].copy_(torch.from_numpy(state[own]))
