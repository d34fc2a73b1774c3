"""PyTorch's own samples of its operators (torch.testing._internal) through `gc.from_torch`: results in f32, gradients
and second gradients in f64, each counted by sample.

Forward results come from native code; derivatives from numpy's reference of the same graph, whose kernels other tests
hold to it.
"""
from __future__ import annotations

import argparse
import collections
import itertools
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree as pytree

import graphc as gc
from graphc.errors import GraphError
from graphc.ir.interp import evaluate
from graphc.nn.network import entries, trace_network
from graphc.state import initial_values

KINDS = {"forward": torch.float32, "gradient": torch.float64, "second": torch.float64}
TOLERANCE = {torch.float32: dict(rtol=1e-4, atol=1e-4), torch.float64: dict(rtol=1e-6, atol=1e-6)}
# results that differ from call to call, or that are not defined
RANDOM = ("dropout", "rand", "bernoulli", "multinomial", "normal", "uniform", "exponential", "cauchy", "geometric",
          "empty", "gumbel", "rrelu", "log_normal")


class Called(torch.nn.Module):
    """One operator with its arguments, of which the float and integer tensors are inputs."""

    def __init__(self, function: Any, leaves: list[Any], spec: Any):
        super().__init__()
        self.function, self.leaves, self.spec = function, leaves, spec

    def forward(self, *tensors: torch.Tensor) -> Any:
        given = iter(tensors)
        leaves = [next(given) if isinstance(leaf, torch.Tensor) else leaf for leaf in self.leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        result = self.function(*args, **kwargs)
        return tuple(t for t in pytree.tree_leaves(result) if isinstance(t, torch.Tensor))


@dataclass
class Counts:
    """Of one operator: samples by outcome, with the reasons."""
    outcome: collections.Counter[str] = field(default_factory=collections.Counter)
    reasons: list[str] = field(default_factory=list)

    def add(self, outcome: str, reason: str = "") -> None:
        self.outcome[outcome] += 1
        if reason and len(self.reasons) < 2:
            self.reasons.append(reason.replace("\n", " ")[:400])


def modules(op: Any, dtype: torch.dtype, gradient: bool, most: int) -> Iterator[tuple[Called, list[torch.Tensor]]]:
    """The first samples of an operator."""
    for sample in itertools.islice(op.sample_inputs("cpu", dtype, requires_grad=gradient), most):
        leaves, spec = pytree.tree_flatten(((sample.input, *sample.args), dict(sample.kwargs)))
        tensors = [leaf.detach().clone().contiguous() for leaf in leaves if isinstance(leaf, torch.Tensor)]
        wanted = [leaf.requires_grad for leaf in leaves if isinstance(leaf, torch.Tensor)]
        for tensor, wants in zip(tensors, wanted):
            tensor.requires_grad_(wants and gradient)
        yield Called(op.op, leaves, spec), tensors


def compare(kind: str, module: Called, tensors: list[torch.Tensor]) -> None:
    """AssertionError where graphc and PyTorch differ."""
    net = gc.from_torch(module.eval(), *tensors)
    inputs = [t.detach().numpy() for t in tensors]
    if kind == "forward":
        agree(gc.compile(net)(*inputs), module(*tensors), torch.float32)
        return
    function = trace_network(net, False, **net.declared_inputs())
    wrt = [(name, t) for name, t in zip(net.declared_inputs(), tensors) if t.requires_grad]
    outputs = [y for y in module(*tensors) if y.requires_grad]
    if not outputs or not wrt:
        return
    rng = np.random.default_rng(0)
    seeds = [rng.standard_normal(tuple(y.shape)) for y in module(*tensors) if y.is_floating_point()]
    weights = [torch.from_numpy(s) for s in seeds]
    loss = sum((y * w).sum() for y, w in zip([y for y in module(*tensors) if y.is_floating_point()], weights))
    names = [name for name, _ in wrt]
    first = torch.autograd.grad(loss, [t for _, t in wrt], create_graph=kind == "second", allow_unused=True,
                                materialize_grads=True)
    graph = gc.vjp(function, tuple(names))
    arguments = [*inputs, *seeds]
    if kind == "second":
        direction = [rng.standard_normal(tuple(g.shape)) for g in first]
        live = [(g, torch.from_numpy(d)) for g, d in zip(first, direction) if g.requires_grad]
        if not live:
            return
        again = torch.autograd.grad(sum((g * d).sum() for g, d in live), [t for _, t in wrt], allow_unused=True,
                                    materialize_grads=True)
        graph, first = gc.vjp(graph, tuple(names)), again
        arguments += [d if g.requires_grad else np.zeros_like(d) for g, d in zip(first, direction)] \
            if False else direction
    state = initial_values(entries(function), 0, None, "")
    agree(evaluate(graph.graph, [*arguments, *state])[:len(wrt)], first, torch.float64)


def agree(found: Any, wanted: Any, dtype: torch.dtype) -> None:
    """All results within the tolerance."""
    found = found if isinstance(found, tuple) else (found,)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    assert len(found) == len(wanted), f"{len(found)} results, {len(wanted)} wanted"
    for a, b in zip(found, wanted):
        torch.testing.assert_close(torch.from_numpy(np.array(a)), b.detach(), equal_nan=True, **TOLERANCE[dtype])


def try_op(op: Any, kind: str, most: int) -> Counts:
    """All samples of an operator."""
    counts = Counts()
    try:
        samples = list(modules(op, KINDS[kind], kind != "forward", most))
    except Exception as error:
        counts.add("no sample", str(error))
        return counts
    for module, tensors in samples:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                compare(kind, module, tensors)
            counts.add("agrees")
        except GraphError as error:
            unreadable = "torch.export cannot read" in str(error)
            counts.add("not exported" if unreadable else "refused", str(error))
        except AssertionError as error:
            counts.add("differs", str(error))
        except Exception as error:
            counts.add("crashes", f"{type(error).__name__}: {error}")
    return counts


def chosen(kind: str) -> list[Any]:
    """The operators that have real samples of the type."""
    def takes(op: Any) -> bool:
        if kind != "forward" and not op.supports_autograd or kind == "second" and not op.supports_gradgrad:
            return False
        return op.supports_dtype(KINDS[kind], "cpu") and not any(word in op.name for word in RANDOM)
    return [op for op in op_db if takes(op)]


def main(arguments: list[str]) -> None:
    """Prints what does not agree, then the shares."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks torch opinfo")
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--only", action="append", help="operators whose name contains it")
    parser.add_argument("--samples", type=int, default=6, help="of each operator, at most")
    parser.add_argument("--part", default="0/1", help="i/n: the i-th of n parts")
    options = parser.parse_args(arguments)
    part, parts = map(int, options.part.split("/"))
    for kind in options.kind or KINDS:
        total: collections.Counter[str] = collections.Counter()
        start = time.perf_counter()
        for op in chosen(kind)[part::parts]:
            if options.only and not any(word in op.name for word in options.only):
                continue
            counts = try_op(op, kind, options.samples)
            total += counts.outcome
            if bad := {k: n for k, n in counts.outcome.items() if k != "agrees"}:
                print(f"{kind} {op.name}{' ' + op.variant_test_name if op.variant_test_name else ''}: {bad}")
                for reason in counts.reasons:
                    print("    ", reason)
                sys.stdout.flush()
        tried = sum(total.values()) - total["no sample"]
        print(f"{kind}: {total['agrees']} of {tried} samples agree ({100 * total['agrees'] / max(tried, 1):.1f} %), "
              f"{dict(total)}, {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
