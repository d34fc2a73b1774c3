"""Memory plans of whole programs, run on tags: what each kernel reads is what the graph says, in loops of 0, 1 and 2 trips and in either branch."""
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from plan_tags import Wrong, run_all
from hypothesis import HealthCheck, given, settings, strategies as st

sys.path.append(str(Path(__file__).resolve().parent.parent / "dsl"))

import graphc as gc
from graphc.compiler import Compilation
from graphc.ir.builder import Builder
from graphc.ir.target import AVX2, AVX512
from graphc.ir.types import f32


def checked(graph, target=AVX2):
    plan = Compilation(graph, target).plan
    run_all(plan)
    return plan
