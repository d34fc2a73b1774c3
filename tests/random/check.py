"""One program against the oracle: native code must compute what the graph says, for every way to call it."""
from __future__ import annotations

import os
import re
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import graphc as gc
from graphc.errors import GraphError
from graphc.ir.graph import Graph
from graphc.ir.printer import print_graph
from graphc.runtime import frame
from tests.random.generator import Program, Refused, program
from tests.random.oracle import Expected, Oracle

FENCE = 64                          # bytes on each side of an output that must stay as they were
STEPS = (1e-4, 1e-5)                # of differences, which must agree with each other before they judge a gradient


@dataclass(frozen=True)
class Outcome:
    """What became of a program. `kind`: "ok", "wrong" (other numbers), "crashed" (an exception that is no GraphError, a signal), "refused"
    (a GraphError) or "unbounded" (ran alike in every way, but its numbers leave
    the range of f32, or nothing is promised of them). `where` tells findings of one cause from others."""
    kind: str
    text: str = ""
    where: str = ""


class Wrong(Exception):
    """Native code does not compute what the graph says."""


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
    os.environ["GRAPHC_WINOGRAD"] = "01"[not p.special]             # Winograd's form makes NaN of infinity
    run = gc.compile(gc.GraphFunction(p.graph), threads=1)
    if p.named is not None:
        polymorphic = gc.compile(gc.GraphFunction(p.named), threads=1)
        _same(_list(polymorphic(*p.inputs(0))), _list(run(*p.inputs(0))), "with named dimensions")
    kind = check_calls(run, p.graph, [p.inputs(0), p.inputs(1)], p.seed[1])
    if p.mode in ("value_and_grad", "grad") and kind == "ok" and not p.special:
        _slopes(p)
    return kind


def check_calls(run, graph: Graph, draws: Sequence[Sequence[np.ndarray]], seed: int) -> str:
    """All ways to call `run`, the code of `graph`, with two sets of arguments."""
    expected = [Expected(graph, xs, seed + i) for i, xs in enumerate(draws)]
    first = _called(run, draws[0])
    second = _called(run, [_strided(x) for x in draws[1]])
    if not any(e.unbounded for e in expected):
        for i, (e, ys) in enumerate(zip(expected, (first, second))):
            found = e.wrong(ys)
            if found:
                raise Wrong(f"{found}\n    in call {i + 1}")
    _same(_called(run, draws[0]), first, "when called again")
    for threads in (2, 3):
        outputs = [np.full_like(y, 77) for y in first]
        run.executable.run(list(draws[0]), outputs, threads=threads)
        _same(outputs, first, f"with {threads} threads")
    _out(run, graph, draws[0], first)
    return "unbounded" if any(e.unbounded for e in expected) else "ok"


def _called(run, inputs) -> list[np.ndarray]:
    """The outputs of a call, which must leave its arguments alone and give memory of its own."""
    before = [x.copy() for x in inputs]
    outputs = _list(run(*inputs))
    _same(inputs, before, "as an argument, which the call has changed:")
    for i, y in enumerate(outputs):
        if any(np.shares_memory(y, other) for other in [*inputs, *outputs[:i]]):
            raise Wrong(f"output {i} shares memory with an argument or another output")
    return outputs


def _out(run, graph: Graph, inputs, wanted) -> None:
    """`out=`: arrays of the caller's with a fence around, then arguments themselves where the types are equal."""
    fenced = [_fenced(y) for y in wanted]
    _given(run, graph, inputs, [y for _, y in fenced])
    _same([y for _, y in fenced], wanted, "with out=")
    for i, (memory, y) in enumerate(fenced):
        if (memory[:FENCE] != 0xA5).any() or (memory[FENCE + y.nbytes:] != 0xA5).any():
            raise Wrong(f"output {i} is written outside of its array")
    mine = [x.copy() for x in inputs]
    free = list(mine)
    outputs = []
    for y in wanted:
        same = next((x for x in free if x.dtype == y.dtype and x.shape == y.shape), None)
        free = [x for x in free if x is not same]
        outputs.append(np.empty_like(y) if same is None else same)
    if len(free) < len(mine):
        _given(run, graph, mine, outputs)
        _same(outputs, wanted, "with arguments as out=")


def _given(run, graph: Graph, inputs, outputs) -> None:
    run(*inputs, out=outputs[0] if graph.output_names is None else tuple(outputs))


def _fenced(like: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    memory = np.full(like.nbytes + 2 * FENCE, 0xA5, np.uint8)
    return memory, memory[FENCE:FENCE + like.nbytes].view(like.dtype).reshape(like.shape)


def _strided(x: np.ndarray) -> np.ndarray:
    """The same numbers in memory that is not contiguous."""
    wide = np.zeros((*x.shape, 2), x.dtype)
    wide[..., 0] = x
    return wide[..., 0]


def _same(actual, wanted, when: str) -> None:
    for i, (a, b) in enumerate(zip(actual, wanted, strict=True)):
        if a.shape != b.shape or a.tobytes() != b.tobytes():
            raise Wrong(f"array {i} has other bits {when}\n    {a.ravel()[:12]}\n    {b.ravel()[:12]}")


def _list(result) -> list[np.ndarray]:
    return list(result.values()) if isinstance(result, dict) else list(result) if isinstance(result, tuple) else [result]


def _slopes(p: Program) -> None:
    """The gradient by the oracle is the slope by differences, where these have converged: not at kinks, jumps and ties."""
    declared, xs = p.declared, [x.astype(np.float64) if x.dtype.kind == "f" else x for x in p.inputs(0)]
    if "stop_gradient(" in print_graph(declared) or len(declared.inputs) != len(p.graph.inputs):
        return
    rng = np.random.default_rng(p.seed[1])
    wrt = p.wrt
    names = [v.name for v in declared.inputs]
    moves = [rng.standard_normal(x.shape) if n in wrt else np.zeros(x.shape) for x, n in zip(xs, names)]

    def value(step: float) -> float:
        return float(Oracle().run(declared, [x + step * m if x.dtype.kind == "f" else x for x, m in zip(xs, moves)])[0])
    with np.errstate(all="ignore"):
        grads = Oracle().run(p.graph, xs)[-len(wrt):]
        analytic = sum(float((g * moves[names.index(n)]).sum()) for g, n in zip(grads, wrt))
        middle = value(0.0)
        slopes = [(value(s * h) - middle) / (s * h) for h in STEPS for s in (1, -1)]
    gap = np.ptp(slopes)
    scale = max(map(abs, (*slopes, analytic, middle)))
    if np.isfinite(gap) and gap <= 1e-2 * scale and abs(slopes[-1] - analytic) > 20 * gap + 1e-4 * scale:
        raise Wrong(f"the gradient is {analytic!r} along a direction, differences say {slopes}")


def _origin(error: Exception) -> str:
    """The type, place and beginning of an exception."""
    tb = traceback.extract_tb(error.__traceback__)[-1]
    text = re.sub(r"\[[^]]*\]|\d+", "#", " ".join(str(error).split()))[:70]
    return f"{type(error).__name__} in {tb.filename.rsplit('/', 1)[-1]}:{tb.name}: {text}"
