"""Functions of PyTorch that torch.export does not read, since their C++ looks at numbers or has no form without them,
in what it does read."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from graphc.doors.torch.rules.losses import HOW


def _declared() -> torch.library.Library:
    """The loss of connectionist temporal classification as one operator."""
    library = torch.library.Library("graphc", "FRAGMENT")
    library.define("ctc_loss(Tensor x, Tensor targets, Tensor steps, Tensor lengths, int blank, int reduction, bool "
                   "zero_infinity) -> Tensor")
    library.impl("ctc_loss", torch.ctc_loss, "CPU")
    torch.library.register_fake("graphc::ctc_loss", lambda x, targets, *rest: x.new_empty(
        () if x.ndim == 2 or rest[3] else x.shape[1:2]), lib=library)
    return library


LIBRARY = _declared()


def _ctc_loss(log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any, blank: int = 0,
              reduction: int | str = "mean", zero_infinity: bool = False) -> Tensor:
    how = HOW.index(reduction) if isinstance(reduction, str) else reduction
    lengths = [n if isinstance(n, Tensor) else torch.tensor(n) for n in (input_lengths, target_lengths)]
    found: Tensor = torch.ops.graphc.ctc_loss(log_probs, targets, *lengths, blank, how, zero_infinity)
    return found


def _cov(x: Tensor, *, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None) -> Tensor:
    """Rows are variables, columns samples, which count as often as fweights and as much as aweights say."""
    rows = x.reshape(1, -1) if x.ndim < 2 else x
    given = [w for w in (fweights, aweights) if w is not None]
    weights = given[0] * given[1] if len(given) == 2 else given[0] if given else torch.ones_like(rows[0].real)
    total = weights.sum()
    mean = (rows * weights).sum(1) / total
    spent = correction if aweights is None or not correction else correction * (weights * aweights).sum() / total
    apart = rows - mean[:, None]
    found = (apart * weights) @ apart.mT.conj() / (total - spent).clamp(min=0)
    return found.squeeze()


def _corrcoef(x: Tensor) -> Tensor:
    found = _cov(x)
    if not found.ndim:                              # of one variable with itself
        return found / found
    size = found.diagonal().real.sqrt()
    found = found / size[:, None] / size
    return torch.complex(found.real.clip(-1, 1), found.imag.clip(-1, 1)) if found.is_complex() else found.clip(-1, 1)


def _gaussian_nll(x: Tensor, target: Tensor, var: Tensor | float, full: bool = False, eps: float = 1e-6,
                  reduction: str = "mean") -> Tensor:
    """Without the look at whether a variance is below 0. Its gradient passes the bound `eps`."""
    spread = var if isinstance(var, Tensor) else torch.full_like(x, var)
    if spread.shape == x.shape[:-1] and spread.shape != x.shape:
        spread = spread.unsqueeze(-1)
    elif spread.ndim != x.ndim or sum(m for n, m in zip(x.shape, spread.shape) if n != m) > 1:
        raise ValueError("var is of incorrect size")
    spread = spread + (spread.clamp(min=eps) - spread).detach()
    loss = 0.5 * (spread.log() + (x - target) ** 2 / spread) + (0.5 * math.log(2 * math.pi) if full else 0.0)
    return (loss, loss.mean(), loss.sum())[HOW.index(reduction)]


SPELLED: dict[Any, Callable[..., Any]] = {
    torch.nn.functional.gaussian_nll_loss: _gaussian_nll,
    **{f: _ctc_loss for f in (torch.ctc_loss, torch.nn.functional.ctc_loss)},
    **{f: _cov for f in (torch.cov, Tensor.cov)}, **{f: _corrcoef for f in (torch.corrcoef, Tensor.corrcoef)}}
