"""PyTorch with other roundings: how far rounding alone moves what it computes."""
from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only


class LastBits(TorchDispatchMode):
    """Each number that an operator of PyTorch makes, forward and backward, is up to one unit of its last place off:
    what another order of a sum may do (Monte Carlo arithmetic; Parker 1997, UCLA CSD-970002)."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        if any(result.alias_info is not None for result in function._schema.returns):
            return found                        # a view, or what was written
        return tree_map_only(torch.Tensor, self._moved, found)

    @staticmethod
    def _moved(made: torch.Tensor) -> torch.Tensor:
        if not made.is_floating_point():
            return made
        return made * (1 + torch.finfo(made.dtype).eps * (2 * torch.rand(made.shape, dtype=made.dtype) - 1))
