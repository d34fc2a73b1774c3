"""One program against the oracle: native code must compute what the graph says, for every way to call it."""
from __future__ import annotations

import os
import re
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import graphc as gc
from graphc.codegen.llvm import jit
from graphc.codegen.llvm.host import can_run
from graphc.errors import GraphError
from graphc.ir.graph import Graph
from graphc.ir.printer import print_graph
from graphc.runtime import frame
from graphc.schedule.target import TARGETS, Target
from tests.random.calls import Calls, Wrong, as_list, same, strided
from tests.random.generator import Program, Refused, program
from tests.random.oracle import Expected, Oracle

ROUNDING = 1e-9                     # of differences and of gradients that cancel
COMPILE_OBJECT = jit.compile_object
STEPS = (1e-4, 1e-5)                # of differences, which must agree with each other before they judge a gradient


@dataclass(frozen=True)
class Outcome:
    """What became of a program. `kind`: "ok", "wrong" (other numbers), "crashed" (an exception that is no GraphError,
    a signal), "refused" (a GraphError) or "unbounded" (ran alike in every way, but all its numbers leave the range of
    f32, or nothing is promised of them). `where` tells findings of one cause from others.
    """
    kind: str
    text: str = ""
    where: str = ""


def poison_memory() -> None:
    """Arenas and scratch begin as NaN instead of 0, in this process: what a kernel reads before it is written shows."""
    mapped = frame.mapped

    def poisoned(nbytes):
        memory = mapped(nbytes)
        memory[:] = 0xFF
        return memory
    frame.mapped = poisoned


def outcome(seed: int, index: int) -> Outcome:
    """Makes the program, compiles it and runs it in every way."""
    return judged(lambda: check(program(seed, index)))


def judged(work) -> Outcome:
    """The outcome of `work`, which returns the kind of success, or raises."""
    try:
        return Outcome(work())
    except Refused as error:
        return Outcome("refused", str(error), str(error).splitlines()[0])
    except GraphError as error:
        return Outcome("refused", str(error), str(error).splitlines()[0])
    except Wrong as error:
        return Outcome("wrong", str(error), str(error).splitlines()[0].split(",")[0])
    except Exception as error:      # a fault of graphc, whatever its type
        return Outcome("crashed", "".join(traceback.format_exception(error)[-4:]), _origin(error))


def check(p: Program) -> str:
    """"ok" or "unbounded"; raises what `judged` names."""
    choose(p.special, p.target, p.quick)
    kind = check_calls(p.graph, [p.inputs(0), p.inputs(1)], p.seed[1])
    if p.named is not None:
        found = Expected(p.graph, p.inputs(0), p.seed[1]).wrong(as_list(gc.compile(gc.GraphFunction(p.named))(*p.inputs(0))))
        if found:               # its sums may be cut elsewhere than those of the program for one size
            raise Wrong(f"with named dimensions {found}")
    if p.mode in ("value_and_grad", "grad") and kind == "ok" and not p.special and not p.graph.state:
        _slopes(p)
    return kind


def quickly(text: str, target: Target, opt: int = 0) -> bytes:
    """Object code as it comes."""
    return COMPILE_OBJECT(text, target, 0)


def choose(special: bool, target: str, quick: bool = False) -> None:
    """Sets how programs are compiled from here on. Winograd's form makes NaN of infinity. `quick`: LLVM's back end,
    which takes two fifths of the time of a program, looks for no better code.
    """
    jit.compile_object = quickly if quick else COMPILE_OBJECT
    os.environ["GRAPHC_WINOGRAD"] = "01"[not special]
    os.environ["GRAPHC_TARGET"] = target if target and can_run(TARGETS[target]) else ""


def check_calls(graph: Graph, draws: Sequence[Sequence[np.ndarray]], seed: int) -> str:
    """Compiles the graph and calls it in all ways, with two sets of arguments (inputs, then state)."""
    calls, n = Calls(graph, draws[0][len(graph.inputs):]), len(graph.inputs)
    inputs, others = draws[0][:n], draws[1][:n]
    expected = [Expected(graph, draws[0], seed)]
    first = calls.plain(inputs)
    expected.append(Expected(graph, [*others, *calls.state], seed + 1))
    second = calls.plain([strided(x) for x in others])
    for i, (e, ys) in enumerate(zip(expected, (first, second))):
        found = e.wrong(ys)
        if found:
            raise Wrong(f"{found}\n    in call {i + 1}")
    same(calls.plain(inputs, again=True), first, "when called again")
    for threads in (2, 3):
        same(calls.by_threads(inputs, first, threads), first, f"with {threads} threads")
    same(calls.fenced(inputs, first), first, "with out=")
    same(calls.over_arguments(inputs, first), first, "with arguments as out=")
    same(calls.overlapping(inputs, first), first, "with out= that overlaps an argument")
    return "unbounded" if all(all(e.doubtful) for e in expected) else "ok"


def _slopes(p: Program) -> None:
    """The gradient by the oracle is the slope by differences, where these have converged: not at kinks and jumps, nor
    at round numbers, where ties are, nor where rounding decides on the gradient (of the standard deviation of numbers
    that are equal but for rounding).
    """
    rng, declared = np.random.default_rng(p.seed[1]), p.declared
    xs = [x + 0.01 * rng.standard_normal(x.shape) if x.dtype.kind == "f" else x for x in p.inputs(0)]
    if "stop_gradient(" in print_graph(declared) or len(declared.inputs) != len(p.graph.inputs):
        return
    wrt = p.wrt
    names = [v.name for v in declared.inputs]
    moves = [rng.standard_normal(x.shape) if n in wrt else np.zeros(x.shape) for x, n in zip(xs, names)]

    def value(step: float) -> float:
        return float(Oracle().run(declared, [x + step * m if x.dtype.kind == "f" else x for x, m in zip(xs, moves)])[0])
    with np.errstate(all="ignore"):
        grads = Oracle().run(p.graph, xs)[-len(wrt):]
        analytic = sum(float((g * moves[names.index(n)]).sum()) for g, n in zip(grads, wrt))
        moved = Oracle(rng).run(p.graph, xs)[-len(wrt):]
        unsure = abs(sum(float((g * moves[names.index(n)]).sum()) for g, n in zip(moved, wrt)) - analytic)
        middle = value(0.0)
        slopes = [(value(s * h) - middle) / (s * h) for h in STEPS for s in (1, -1)]
    gap = np.ptp(slopes)
    scale = max(map(abs, (*slopes, analytic, middle)))
    open_by = gap + unsure
    apart = abs(slopes[-1] - analytic) > 20 * open_by + 1e-4 * scale + ROUNDING
    if np.isfinite(open_by) and open_by <= 1e-2 * scale and apart:
        raise Wrong(f"the gradient is {analytic!r} along a direction, differences say {slopes}")


def _origin(error: Exception) -> str:
    """The type, place and beginning of an exception."""
    tb = traceback.extract_tb(error.__traceback__)[-1]
    text = re.sub(r"\[[^]]*\]|\d+", "#", " ".join(str(error).split()))[:70]
    return f"{type(error).__name__} in {tb.filename.rsplit('/', 1)[-1]}:{tb.name}: {text}"
