"""How near gradients in f32 are to those of f64: graphc's beside PyTorch's."""
from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn as tnn

import graphc as gc
from graphc import nn, optim
from graphc.doors.torch.read import TYPES

Gradients = dict[str, np.ndarray]


def gradients(module: tnn.Module, inputs: list[torch.Tensor], target: torch.Tensor) -> tuple[Gradients, Gradients]:
    """PyTorch's and graphc's, which an optimizer that sums them up keeps, by parameter."""
    module, y = copy.deepcopy(module).train(), TYPES[target.dtype][tuple(target.shape)]
    step = gc.train_step(gc.from_torch(module, *inputs), loss=nn.mse, optimizer=optim.SGD(1e-3, momentum=0.9),
                         threads=1, y=y)
    step(*[t.numpy() for t in inputs], target.numpy())
    tnn.functional.mse_loss(module(*inputs), target).backward()
    kept = {name.split(".", 2)[2]: g for name, g in step.state.copy().items() if name.startswith("optim.momentum.")}
    wanted = {name: p.grad.numpy() for name, p in module.named_parameters() if p.grad is not None and name in kept}
    return wanted, {name: kept[name] for name in wanted}


def further(eager: Gradients, ours: Gradients, exact: Gradients) -> float:
    """The error of graphc's gradients as a multiple of PyTorch's: the geometric mean over the parameters."""
    def error(g: np.ndarray, name: str) -> float:
        return float(np.linalg.norm(g - exact[name]) / (np.linalg.norm(exact[name]) or 1)) + 1e-9
    return float(np.exp(np.mean([np.log(error(ours[n], n) / error(eager[n], n)) for n in exact])))
