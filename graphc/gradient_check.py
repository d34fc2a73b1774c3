"""`gc.check_gradients`: the derivatives of a graph or a layer against central differences in double precision."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

import numpy as np

from graphc.api import compile, traced
from graphc.autodiff.backward import backward
from graphc.differences import Tolerance, Verdict, direction, elements
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed
from graphc.dsl.function import GraphFunction
from graphc.dsl.inline import solve_dims
from graphc.dsl.literal import array_of
from graphc.errors import GraphError
from graphc.ir.builder import Builder, bind_graph
from graphc.ir.convert import items, shown
from graphc.ir.dims import Dim
from graphc.ir.graph import Graph, Value
from graphc.ir.ops.constant import full
from graphc.ir.shown import Pictured
from graphc.ir.types import DType, TensorType, dtype_of
from graphc.nn.entry import RANDOM_KEY
from graphc.nn.network import entries, sorted_out
from graphc.passes.widen import widened
from graphc.records import dataclass
from graphc.report import aligned
from graphc.state import Model

SHAKE = 0.1                         # added to drawn parameters: biases of 0 and scales of 1 would hide mistakes


@dataclass(frozen=True)
class ArgumentCheck:
    """The derivatives with respect to one argument: what was tried, and each verdict."""
    name: str
    type: TensorType
    tried: str
    verdicts: tuple[Verdict, ...]

    @property
    def ok(self) -> bool:
        return all(v.ok for v in self.verdicts)

    def __bool__(self) -> bool:
        return self.ok

    @property
    def kinks(self) -> int:
        """How many derivatives were taken where the function has a kink, and lie between its one-sided slopes or not.
        """
        return sum(v.kink for v in self.verdicts)

    @property
    def worst(self) -> Verdict | None:
        """The verdict that is furthest from what is tolerated; None for an argument without elements."""
        return max(self.verdicts, key=lambda v: v.excess, default=None)


@dataclass(frozen=True)
class GradientReport(Pictured):
    """What `gc.check_gradients` found. `ok`, also its truth: every derivative agrees with differences. Printed, a
    line for each argument."""
    name: str
    arguments: tuple[ArgumentCheck, ...]
    tolerance: Tolerance

    @property
    def ok(self) -> bool:
        return all(a.ok for a in self.arguments)

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        good, kinks = sum(a.ok for a in self.arguments), sum(a.kinks for a in self.arguments)
        head = (f"gradients of {self.name}: {good} of {len(self.arguments)} arguments agree with central differences "
                f"(f64, step {self.tolerance.step:g})")
        lines = [("", "argument", "type", "tried", "largest error", "at", "gradient", "differences"),
                 *map(_cells, self.arguments)]
        tail = f"\n{kinks} at a kink, where any slope between the two one-sided ones is right" if kinks else ""
        return f"{head}\n{aligned(lines, left=6)}{tail}"


@formed
def check_gradients(f: GraphFunction | Graph | Callable[..., Any], /, *, samples: int = 20, directions: int = 3,
                    step: float = 1e-5, rtol: float = 1e-5,
                    atol: float = 1e-8, wrt: Sequence[str] | None = None, training: bool = False, seed: int = 0,
                    state: Mapping[str, np.ndarray] | None = None, raises: bool = False,
                    **inputs: Any) -> GradientReport:
    """Compares the gradients of `f` with central differences, both computed natively in f64 whatever the dtypes of `f`.

    `f`: a graph, or a layer or network with the types of its inputs, `x=gc.f32[4, 8]`, or arrays. Float arrays that
    are not given are drawn (normal); integers and bools must be given. Parameters come from `state` (or are those of
    `step.model`), else from `seed`, shaken a little. Checked is the gradient of the sum of all float results, each
    times a fixed random number, towards each float argument and parameter, or `wrt`.

    For each argument: `samples` elements (all, if it has no more), and `directions` in which all elements move. Where
    these disagree, smaller steps are tried. A point at which the slopes on both sides differ is a kink; there every
    slope between them is right, and the report counts it; a gradient outside of them is wrong. The report is true if
    all agree; `raises`: GraphError with the report unless they do. Raises GraphError for a result that is not finite,
    and where there is nothing to check.

    Examples:
        >>> bool(gc.check_gradients(nn.Linear(2) >> nn.tanh, x=gc.f32[4, 3]))
        True
    """
    given = {"samples": samples, "directions": directions, "step": step, "rtol": rtol, "atol": atol, "wrt": wrt,
             "training": training, "seed": seed, "state": state, "raises": raises}
    return _reported(f, *sorted_out(f, check_gradients, given, inputs, (TensorType, DType, np.ndarray)))


def _reported(f: object, options: Mapping[str, Any], inputs: Mapping[str, Any]) -> GradientReport:
    """What `check_gradients` gives."""
    samples, directions, step, rtol, atol, wrt, training, seed, state, raises = options.values()
    if min(samples, directions, seed) < 0 or not 0 < step < inf:
        raise GraphError(f"check_gradients takes samples, directions and a seed >= 0 and a step > 0, got {samples}, "
                         f"{directions}, {seed} and {step}")
    wrt = None if wrt is None else items(wrt, "wrt")
    if not all(isinstance(n, str) for n in wrt or ()):
        raise GraphError(f"wrt= takes a list of names, got {shown(wrt)}")
    problem = _problem(f, training, seed, state, inputs)
    tolerance, random = Tolerance(step, rtol, atol), np.random.default_rng(seed)
    rows = tuple(_checked(problem, name, random, samples, directions, tolerance) for name in problem.chosen(wrt))
    report = GradientReport(problem.name, rows, tolerance)
    if raises and not report.ok:
        raise GraphError(str(report), user_loc())
    return report


@dataclass(frozen=True)
class _Problem:
    """A scalar function of arrays, in f64: native code for it and for its gradient, and the point at which both are
    taken."""
    name: str
    arrays: dict[str, np.ndarray]
    types: Mapping[str, TensorType]
    weights: tuple[np.ndarray, ...]
    value: Callable[..., Any]
    gradients: dict[str, np.ndarray]

    def chosen(self, wrt: Sequence[str] | None) -> list[str]:
        unknown = [n for n in wrt or () if n not in self.gradients]
        if unknown:
            raise GraphError(f"{self.name} has no float argument {unknown[0]!r}; "
                             f"it has {', '.join(self.gradients)}", user_loc())
        chosen = list(self.gradients) if wrt is None else list(wrt)
        if not chosen:
            known = ", ".join(self.gradients) or "none"
            raise GraphError(f"{self.name}: there is no argument to check the gradient of; float arguments: "
                             f"{known}", user_loc())
        return chosen

    def of(self, name: str) -> Callable[[np.ndarray], tuple[float, float]]:
        """The value, and how large what it is summed from is, as a function of one argument."""
        def value(x: np.ndarray) -> tuple[float, float]:
            total, spread = self.value(*(self.arrays | {name: x}).values(), *self.weights)
            return float(total), float(spread)
        return value


def _checked(problem: _Problem, name: str, random: np.random.Generator, samples: int, directions: int,
             tolerance: Tolerance) -> ArgumentCheck:
    at, gradient, value = problem.arrays[name], problem.gradients[name], problem.of(name)
    every = at.size <= samples
    picked = np.arange(at.size) if every else np.sort(random.choice(at.size, samples, replace=False))
    verdicts = elements(value, at, gradient, picked, tolerance)
    for i in range(0 if every else directions):
        verdicts += direction(value, at, gradient, random, tolerance, f"direction {i + 1}")
    tried = f"all {at.size}" if every else f"{samples} of {at.size:,}, {directions} directions"
    return ArgumentCheck(name, problem.types[name], tried, tuple(verdicts))


def _problem(f: object, training: bool, seed: int, state: Mapping[str, np.ndarray] | None,
             inputs: Mapping[str, Any]) -> _Problem:
    function, sizes, given = _declared(f, training, inputs)
    state = f.state if isinstance(f, Model) and state is None else state
    graph = bind_graph(function.graph, sizes)
    if graph.dim_names:
        raise GraphError(f"check_gradients needs the sizes of {', '.join(sorted(graph.dim_names))}, "
                         f"for example {min(graph.dim_names)}=4", user_loc())
    random = np.random.default_rng(seed)
    arrays = {v.name: _input(graph, v, given, random)
              for v in graph.inputs} | _parameters(function, graph, seed, state, random)
    wide = widened(graph)
    floats = [v.name for v in wide.arguments if v.type.dtype.is_float]
    weights = tuple(random.standard_normal(y.type.shape) for y in wide.outputs if y.type.dtype.is_float)
    if not weights:
        raise GraphError(f"{graph.name} returns no float array, so it has no gradient", user_loc())
    value = compile(_contracted(wide, ()))
    total = float(value(*arrays.values(), *weights)[0])
    if not np.isfinite(total):
        raise GraphError(f"{graph.name} has results that are not finite at the point of the check: "
                         "give arrays that are in its domain", user_loc())
    gradients = compile(_contracted(wide, floats))(*arrays.values(), *weights) if floats else ()
    return _Problem(graph.name, arrays, {v.name: v.type for v in graph.arguments}, weights, value,
                    dict(zip(floats, gradients)))


def _declared(f: object, training: bool,
              inputs: Mapping[str, Any]) -> tuple[GraphFunction, dict[str, Dim], dict[str, np.ndarray]]:
    """The traced function, the sizes of named dimensions, and the arrays among `inputs`."""
    given = {n: array_of(a) for n, a in inputs.items() if not isinstance(a, (TensorType, int))}
    if isinstance(f, (GraphFunction, Graph)):
        source = traced(f, training, {n: v for n, v in inputs.items() if n not in given})
    else:
        source = traced(f, training, {n: TensorType(dtype_of(given[n]), given[n].shape) if n in given else t
                                      for n, t in inputs.items()})
    function = source.function
    known = {v.name: v.type for v in function.graph.inputs}
    unknown = [n for n in given if n not in known]
    if unknown:
        raise GraphError(f"{function.name} has no argument {unknown[0]!r}; it takes {', '.join(known)}", user_loc())
    return function, {**source.sizes, **_solved(known, given)}, given


def _solved(known: Mapping[str, TensorType], given: Mapping[str, np.ndarray]) -> dict[str, Dim]:
    """Sizes of named dimensions from arrays; floats of either width will do."""
    try:
        types = {n: TensorType(known[n].dtype if known[n].dtype.is_float else dtype_of(a), a.shape)
                 for n, a in given.items()}
        return solve_dims([(n, known[n], t) for n, t in types.items()])
    except GraphError as error:
        raise error.at(user_loc()) from None


def _input(graph: Graph, v: Value, given: Mapping[str, np.ndarray], random: np.random.Generator) -> np.ndarray:
    if v.name in given:
        return np.array(given[v.name], np.float64 if v.type.dtype.is_float else v.type.dtype.np, order="C")
    if not v.type.dtype.is_float:
        raise GraphError(f"{v.name} of {graph.name} is {v.type}, which is not drawn: give an array, "
                         f"{v.name}=…", user_loc())
    return random.standard_normal(v.type.shape)


def _parameters(function: GraphFunction, graph: Graph, seed: int, state: Mapping[str, np.ndarray] | None,
                random: np.random.Generator) -> dict[str, np.ndarray]:
    """The state as arguments: given, or drawn and shaken."""
    found: dict[str, np.ndarray] = {}
    for entry in entries(function):
        if state is not None and entry.name != RANDOM_KEY:
            if entry.name not in state or np.shape(state[entry.name]) != entry.type.shape:
                raise GraphError(f"state has no {entry.name}: {entry.type}", user_loc())
            found[entry.name] = np.array(state[entry.name],
                                         np.float64 if entry.type.dtype.is_float else entry.type.dtype.np)
        elif entry.type.dtype.is_float:
            found[entry.name] = entry.initial(seed) + SHAKE * random.standard_normal(entry.type.shape)
        else:
            found[entry.name] = entry.initial(seed)
    return found


def _contracted(graph: Graph, wrt: Sequence[str]) -> Graph:
    """The graph of the sum of all float results times weights, given as further arguments: with `wrt` its gradient
    towards these, else (the sum, the root of the sum of the squares of its terms)."""
    b = Builder(f"check_{graph.name}")
    arguments = {v.name: b.input(v.name, v.type) for v in graph.arguments}
    outs = [y for y in b.inline(graph, list(arguments.values())) if y.type.dtype.is_float]
    terms = [b.mul(y, b.input(f"weight of result {i}", y.type)) for i, y in enumerate(outs)]
    total = _sum(b, terms)
    if not wrt:
        return b.finish((total, b.sqrt(_sum(b, [b.mul(t, t) for t in terms]))), ("", ""))
    targets = [arguments[name] for name in wrt]
    try:
        found = backward(b, tuple(b.nodes), {total: b.constant(1, total.type.dtype)}, targets)
    except GraphError as error:
        raise error.at(user_loc()) from None
    return b.finish([full(b, 0, v.type) if g is None else g for v, g in zip(targets, found)], ("",) * len(targets))


def _sum(b: Builder, terms: Sequence[Value]) -> Value:
    first, *rest = [b.sum(t, axes=tuple(range(t.type.rank))) if t.type.rank else t for t in terms]
    for t in rest:
        first = b.add(first, t)
    return first


def _cells(row: ArgumentCheck) -> tuple[str, ...]:
    mark, worst = "ok" if row.ok else "WRONG", row.worst
    if worst is None:
        return mark, row.name, str(row.type), "it is empty", "", "", "", ""
    kinks = f" ({row.kinks} at kinks)" if row.kinks else ""
    return (mark, row.name, str(row.type), row.tried + kinks, f"{worst.error:.1e}", worst.where,
            f"{worst.analytic:.6g}", f"{worst.numeric:.6g}")
