"""PyTorch's own samples of its operators (torch.testing._internal) through `gc.from_torch`: results in f32, gradients
and second gradients in f64, each counted by sample.

Forward results come from native code; derivatives from numpy's reference of the same graph, whose kernels other tests
hold to it. Processes of their own, bounded in time and memory, each take some operators; one that ends counts as a
crash of the sample it was at.
"""
from __future__ import annotations

import argparse
import collections
import itertools
import json
import os
import resource
import selectors
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree as pytree

import graphc as gc
from benchmarks.deadline import deadline
from graphc.doors.torch.compiled import tensor_of
from graphc.errors import GraphError
from graphc.ir.interp import evaluate
from graphc.nn.network import entries, trace_network
from graphc.state import initial_values

KINDS = {"forward": torch.float32, "gradient": torch.float64, "second": torch.float64}
TOLERANCE = {torch.float32: dict(rtol=1e-4, atol=1e-4), torch.float64: dict(rtol=1e-6, atol=1e-6)}
# results that differ from call to call, or that are not defined
RANDOM = ("dropout", "rand", "bernoulli", "multinomial", "normal", "uniform", "exponential", "cauchy", "geometric",
          "empty", "gumbel", "rrelu", "log_normal", "fractional_max_pool", "lowrank")
SECONDS, MEMORY, AT_ONCE = 30, 12 << 30, 128        # of a sample; bytes of addresses, and operators, of a process


class Called(torch.nn.Module):
    """One operator with its arguments, of which the float and integer tensors are inputs. `told`: what PyTorch's own
    tests make of its result, where only that is defined (an eigenvector has a sign of its own). Complex
    results are compared as pairs."""

    def __init__(self, function: Any, leaves: list[Any], spec: Any, told: Callable[[Any], Any]):
        super().__init__()
        self.function, self.leaves, self.spec, self.told = function, leaves, spec, told

    def forward(self, *tensors: torch.Tensor) -> Any:
        given = iter(tensors)
        leaves = [next(given) if isinstance(leaf, torch.Tensor) else leaf for leaf in self.leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        result = self.told(self.function(*args, **kwargs))
        found = [t for t in pytree.tree_leaves(result) if isinstance(t, torch.Tensor)]
        return tuple(torch.view_as_real(t.resolve_conj()) if t.is_complex() else t for t in found)


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
        yield Called(op.op, leaves, spec, sample.output_process_fn_grad), tensors


class Unanswered(Exception):
    """PyTorch itself has no derivative of a sample."""


def derivatives(y: Any, xs: list[torch.Tensor], again: bool) -> tuple[torch.Tensor, ...]:
    """PyTorch's gradients; with `again` those that can be differentiated."""
    try:
        return torch.autograd.grad(y, xs, create_graph=again, allow_unused=True, materialize_grads=True)
    except RuntimeError as error:
        raise Unanswered(str(error)) from error


def compare(kind: str, module: Called, tensors: list[torch.Tensor]) -> None:
    """AssertionError where graphc and PyTorch differ."""
    net = gc.from_torch(module.eval(), *tensors)
    inputs = [t.detach().numpy() for t in tensors]
    if kind == "forward":
        agree(gc.compile(net, threads=1)(*inputs), module(*tensors), torch.float32)
        return
    function = trace_network(net, False, **net.declared_inputs())
    wrt = [(name, t) for name, t in zip(net.declared_inputs(), tensors) if t.requires_grad]
    outputs = [y for y in module(*tensors) if y.requires_grad]
    if not outputs or not wrt:
        raise Unanswered("nothing to differentiate")
    rng = np.random.default_rng(0)
    weights = [torch.as_tensor(rng.standard_normal(tuple(y.shape)) * y.requires_grad).to(y.dtype)
               for y in module(*tensors) if y.is_floating_point()]
    seeds = [w.numpy() if w.dtype is torch.float32 else w.double().numpy() for w in weights]
    loss = sum((y * w).sum() for y, w in zip([y for y in module(*tensors) if y.is_floating_point()], weights))
    names = [name for name, _ in wrt]
    first = derivatives(loss, [t for _, t in wrt], kind == "second")
    graph = gc.vjp(function, tuple(names))
    arguments = [*inputs, *seeds]
    if kind == "second":
        direction = [rng.standard_normal(tuple(g.shape)).astype(np.float32 if g.dtype is torch.float32 else np.float64)
                     for g in first]
        live = [(g, torch.from_numpy(d)) for g, d in zip(first, direction) if g.requires_grad]
        towards = [t for _, t in wrt]
        first = (derivatives(sum((g * d).sum() for g, d in live), towards, False) if live
                 else tuple(map(torch.zeros_like, towards)))        # of what is linear
        graph = gc.vjp(graph, tuple(names))
        arguments += direction
    state = initial_values(entries(function), 0, None, "")
    agree(evaluate(graph.graph, [*arguments, *state])[:len(wrt)], first, torch.float64)


def agree(found: Any, wanted: Any, dtype: torch.dtype) -> None:
    """All results within the tolerance."""
    found = found if isinstance(found, tuple) else (found,)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    assert len(found) == len(wanted), f"{len(found)} results, {len(wanted)} wanted"
    for a, b in zip(found, wanted):
        made = tensor_of(a) if b.dtype is torch.bfloat16 else torch.from_numpy(np.array(a))
        torch.testing.assert_close(made, b.detach(), equal_nan=True, **TOLERANCE[dtype])


def outcome_of(kind: str, module: Called, tensors: list[torch.Tensor]) -> tuple[str, str]:
    """How a sample ends, and why. What PyTorch cannot run on tensors of their own memory, gives no tensor for, or
    draws at random, is no sample."""
    try:
        first, *others = (_seeded(seed, module, tensors) for seed in range(4))
        if not first:
            return "no sample", "its result is no tensor"
        if not all(torch.equal(a.nan_to_num(), b.nan_to_num()) for again in others for a, b in zip(first, again)):
            return "no sample", "it is drawn at random"
    except Exception as error:
        return "no sample", str(error)
    try:
        with warnings.catch_warnings(), deadline(SECONDS):
            warnings.simplefilter("ignore")
            compare(kind, module, tensors)
        return "agrees", ""
    except GraphError as error:
        return "not exported" if "torch.export cannot read" in str(error) else "refused", str(error)
    except AssertionError as error:
        return "differs", str(error)
    except Unanswered as error:
        return "no sample", str(error)
    except TimeoutError:
        return "too long", f"more than {SECONDS} s"
    except Exception as error:
        return "crashes", f"{type(error).__name__}: {error}"


def _seeded(seed: int, module: Called, tensors: list[torch.Tensor]) -> Any:
    """A call with this seed, also of what sets one itself (PyTorch's samples of what draws)."""
    torch.manual_seed(seed)
    with mock.patch("torch.manual_seed"):
        return module(*tensors)


def try_op(op: Any, kind: str, most: int, started: Callable[[int], None] = lambda at: None) -> Counts:
    """All samples of an operator; `started` hears of each before it is tried."""
    counts = Counts()
    try:
        samples = list(modules(op, KINDS[kind], kind != "forward", most))
    except Exception as error:
        counts.add("no sample", str(error))
        return counts
    for at, (module, tensors) in enumerate(samples):
        started(at)
        counts.add(*outcome_of(kind, module, tensors))
    return counts


def chosen(kind: str) -> list[Any]:
    """The operators that have real samples of the type."""
    def takes(op: Any) -> bool:
        if kind != "forward" and not op.supports_autograd or kind == "second" and not op.supports_gradgrad:
            return False
        return op.supports_dtype(KINDS[kind], "cpu") and not any(word in op.name for word in RANDOM)
    return [op for op in op_db if takes(op)]


def title(op: Any) -> str:
    """The operator's name with that of its variant."""
    return f"{op.name} {op.variant_test_name}".strip()


def work(kind: str, names: Sequence[str], most: int) -> None:
    """What a process of its own does: a line of JSON as a sample begins, and one with the counts of an operator."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    ops = {title(op): op for op in chosen(kind)}
    for name in names:
        def started(at: int, name: str = name) -> None:
            print(json.dumps([name, at]), flush=True)
        started(-1)
        counts = try_op(ops[name], kind, most, started)
        print(json.dumps([name, counts.outcome, counts.reasons]), flush=True)


def worked(kind: str, names: Sequence[str], most: int, end: float) -> Iterator[tuple[str, Counts]]:
    """The counts of operators, from processes that are begun anew after one that ended or hung. `end`: when the last
    operator may begin."""
    left = list(names)
    while left and time.perf_counter() < end:
        command = [sys.executable, "-m", "benchmarks.torch_opinfo", "--kind", kind, "--samples", str(most), "--work",
                   json.dumps(left[:AT_ONCE])]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        at, done = -1, 0
        for line in _lines(process):
            found = json.loads(line)
            if len(found) == 2:
                at = found[1]
            else:
                done += 1
                yield found[0], Counts(collections.Counter(found[1]), found[2])
                if time.perf_counter() > end:
                    process.kill()
                    process.wait()
                    return
        process.wait()
        if done < len(left[:AT_ONCE]):
            reason = f"the process ended with {process.returncode} at sample {at}"
            yield left[done], Counts(collections.Counter({"crashes": 1}), [reason])
            done += 1
        left = left[done:]


def _lines(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """What it writes, line by line; it is ended when it says nothing for far more than the time of a sample."""
    assert process.stdout is not None
    held = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(20 * SECONDS):
            more = os.read(process.stdout.fileno(), 1 << 16)
            if not more:
                return
            *lines, held = (held + more).split(b"\n")
            yield from lines
    process.kill()


def main(arguments: list[str]) -> None:
    """Prints what does not agree, then the shares."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks torch opinfo")
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--only", action="append", help="operators whose name contains it")
    parser.add_argument("--samples", type=int, default=6, help="of each operator, at most")
    parser.add_argument("--part", default="0/1", help="i/n: the i-th of n parts")
    parser.add_argument("--out", help="a file of counts: operators that are in it are not tried again, others added")
    parser.add_argument("--minutes", type=float, default=1e9, help="no new operators after so long")
    parser.add_argument("--work", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.work is not None:
        work(options.kind[0], options.work, options.samples)
        return
    part, parts = map(int, options.part.split("/"))
    end = time.perf_counter() + 60 * options.minutes
    for kind in options.kind or KINDS:
        names = [title(op) for op in chosen(kind)][part::parts]
        names = [n for n in names if not options.only or any(word in n for word in options.only)]
        done = _kept(options.out, kind)
        for name, counts in worked(kind, [n for n in names if n not in done], options.samples, end):
            done[name] = counts
            if options.out:
                with open(options.out, "a") as file:
                    file.write(json.dumps([kind, name, counts.outcome, counts.reasons]) + "\n")
            if bad := {k: n for k, n in counts.outcome.items() if k != "agrees"}:
                print(f"{kind} {name}: {bad}")
                for reason in counts.reasons:
                    print("    ", reason)
                sys.stdout.flush()
        total = sum((done[n].outcome for n in names if n in done), collections.Counter[str]())
        tried = sum(total.values()) - total["no sample"]
        print(f"{kind}: {total['agrees']} of {tried} samples agree ({100 * total['agrees'] / max(tried, 1):.1f} %), "
              f"{dict(total)}, of {sum(n in done for n in names)} of {len(names)} operators", flush=True)


def _kept(path: str | None, kind: str) -> dict[str, Counts]:
    """What a file of an earlier run says of a kind."""
    if path is None or not os.path.exists(path):
        return {}
    with open(path) as file:
        rows = [json.loads(line) for line in file]
    return {name: Counts(collections.Counter(outcome), reasons) for of, name, outcome, reasons in rows if of == kind}


if __name__ == "__main__":
    main(sys.argv[1:])
