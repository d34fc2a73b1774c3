"""Peers, each if it is installed."""
from __future__ import annotations

from contextlib import nullcontext

try:
    import torch
except ImportError:
    torch = None
try:
    from threadpoolctl import threadpool_limits
except ImportError:
    threadpool_limits = None


def torch_or_none(threads: int):
    """PyTorch, set to so many threads; None when it is not installed."""
    if torch is not None:
        torch.set_num_threads(threads)
    return torch


def numpy_threads(threads: int):
    """A context in which numpy's BLAS uses so many threads."""
    return threadpool_limits(threads) if threadpool_limits else nullcontext()
