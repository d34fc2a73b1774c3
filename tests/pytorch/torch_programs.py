"""Programs of PyTorch written by hand, and rules on numpy arrays: no test here needs PyTorch."""
from __future__ import annotations

import numpy as np

from graphc.doors.torch.interpret import interpret
from graphc.doors.torch.program import OwnTensor, TorchProgram, Ref, Step
from graphc.doors.torch.rules.complex_numbers import Complex
from graphc.doors.torch.rules.table import RULES
from graphc.dsl.function import finish
from graphc.dsl.trace import Trace
from graphc.dsl.tree import flatten
from graphc.ir.interp import evaluate
from graphc.ir.types import TensorType, dtype_of

__all__ = ["TorchProgram", "Ref", "Step", "applied", "interpret", "own"]


def applied(target, *args, rules=RULES, **kwargs):
    """The results of a rule on numpy arrays, by numpy's reference of the graph that it builds."""
    inputs = []
    with Trace("rule") as trace:
        def lifted(value):
            if isinstance(value, np.ndarray):
                inputs.append(value)
                return trace.input(f"x{len(inputs)}", TensorType(dtype_of(value), value.shape))
            if isinstance(value, Complex):
                return Complex(lifted(value.real), lifted(value.imag))
            return tuple(map(lifted, value)) if isinstance(value, tuple) else value
        args = [lifted(a) for a in args]
        kwargs = {name: lifted(a) for name, a in kwargs.items()}
        found = rules[target](*args, **kwargs)
        found = (found.real, found.imag) if isinstance(found, Complex) else found
        results = [r for r in flatten(found)[0] if r is not None]
        function = finish(trace, tuple(results))
    found = evaluate(function.graph, inputs)
    return found[0] if len(found) == 1 else found


class Held:
    """Numbers that stay as they are."""

    def __init__(self, value):
        self.value = value

    def array(self):
        return self.value

    def address(self):
        return 0


def own(name, ref, value, trained=True):
    """A parameter or buffer with this value."""
    return OwnTensor(name, ref, TensorType(dtype_of(value), value.shape), Held(value), trained, id(value))
