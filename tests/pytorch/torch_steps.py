"""Steps of graphc beside PyTorch's."""
from __future__ import annotations

import numpy as np
import torch


def trained_alike(step, module, other, x, y, rate, **tolerances):
    """Three steps of SGD on the mean squared error, of `step` and of PyTorch's `other`: losses, and the state that `step` gives back to `module`."""
    optimizer = torch.optim.SGD(other.parameters(), rate)
    for _ in range(3):
        loss = torch.nn.functional.mse_loss(other(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        np.testing.assert_allclose(step(x, y), loss.detach(), rtol=1e-4)
    step.to_torch(module)
    for name, value in other.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], value, **tolerances)
