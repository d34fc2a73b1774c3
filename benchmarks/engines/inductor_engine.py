"""PyTorch, compiled by Inductor (needs g++)."""
from __future__ import annotations

import torch
import torch._dynamo
import torch._inductor.config

from benchmarks.engines.case import Case
from benchmarks.engines.torch_engine import Eager
from benchmarks.operators import FAMILIES
from benchmarks.workloads import INFER

CONFIGURATION = "torch.compile, frozen weights for inference, static shapes; otherwise as PyTorch eager"


class Inductor(Eager):
    def __init__(self, case: Case):
        # operators have no weights to freeze, and the cache on disk takes nothing frozen
        if case.workload.mode == INFER and case.workload.network not in FAMILIES:
            torch._inductor.config.freezing = True
        super().__init__(case, lambda f: torch.compile(f, dynamic=False))


make = Inductor
