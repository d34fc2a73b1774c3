"""A random program from a seed: a graph of public functions, and what is compiled of it (itself, or one of its
derivatives)."""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

import graphc as gc
from graphc.dsl.array import Array
from graphc.dsl.trace import Trace
from graphc.errors import GraphError
from graphc.ir.builder import Rewriter, bind_graph
from graphc.ir.graph import Graph
from tests.random import steps_control, steps_images, steps_motifs, steps_move, steps_rows
from tests.random.scope import MANY, MOST, Scope, Skip

STEPS = {**steps_move.STEPS, **steps_rows.STEPS, **steps_images.STEPS, **steps_control.STEPS, **steps_motifs.STEPS}
NAMES, WEIGHTS = list(STEPS), np.array(list(STEPS.values()), float)
MODES = {"forward": 0.42, "value_and_grad": 0.2, "vjp": 0.12, "hvp": 0.1, "grad_grad": 0.08, "jvp": 0.04, "grad": 0.04}
OTHER_TARGETS = {0: "sse2", 1: "avx2", 2: "avx2"}      # of eight programs, where this CPU can run them
NODES = 900                         # of the graph that is compiled, bodies included: what takes longer is left out


@dataclass
class Program:
    """`graph` is what is compiled, at sizes; `named` the same with named dimensions, if there are any. `declared` is
    what `mode` was made of."""
    seed: tuple[int, int]
    mode: str
    graph: Graph
    declared: Graph
    named: Graph | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    special: bool = False           # whether inputs hold NaN and infinity
    wrt: tuple[str, ...] = ()       # the inputs that it is differentiated by, in order

    @property
    def target(self) -> str:
        """What it is compiled for; "": this CPU."""
        return OTHER_TARGETS.get(self.seed[1] % 8, "")

    @property
    def quick(self) -> bool:
        """Whether LLVM's back end is told to be quick: of four programs three, so that more are run."""
        return self.seed[1] % 4 != 3

    def inputs(self, draw: int) -> list[np.ndarray]:
        """Numbers for a call, and for the state; other ones for each `draw`."""
        rng = np.random.default_rng([*self.seed, draw])
        return [numbers(rng, v.type, self.special) for v in self.graph.arguments]


class Refused(Exception):
    """graphc says that the program is none: the text of its GraphError."""


def program(seed: int, index: int, refusals: Counter | None = None) -> Program:
    """Program number `index` of `seed`. Raises Refused where graphc refuses its derivative; other exceptions are
    faults."""
    rng = np.random.default_rng([seed, index])
    mode = str(rng.choice(list(MODES), p=list(MODES.values())))
    declared, sizes, special = _declared(rng, mode, refusals if refusals is not None else Counter())
    try:
        made, wrt = _derived(rng, gc.GraphFunction(declared), mode)
    except GraphError as error:
        raise Refused(f"{mode}: {error}") from None
    graph = bind_graph(made, sizes)
    if not sizes and rng.random() < 0.12:
        graph = _with_state(rng, graph, mode, wrt)
    if _size(graph) > NODES:
        raise Refused("large: more nodes than are compiled here")
    return Program((seed, index), mode, graph, bind_graph(declared, sizes), made if sizes else None, sizes, special,
                   wrt)


def _declared(rng, mode: str, refusals: Counter) -> tuple[Graph, dict[str, int], bool]:
    dtype = gc.f32 if rng.random() < 0.75 else gc.f64
    sizes = {"B": int(rng.integers(1, 5))} if rng.random() < 0.08 else {}
    large = not sizes and rng.random() < 0.04
    types = _large_types(rng, dtype) if large else _input_types(rng, dtype, sizes)
    with Trace("program") as trace:
        scope = Growing(rng, [trace.input(f"x{i}", t) for i, t in enumerate(types)], dtype, sizes,
                        MANY if large else MOST)
        scope.refusals = refusals
        scope.grow(int(rng.integers(1, 12)))
        values = [trace.value(x) for x in _outputs(scope, mode)]
        graph = trace.builder.finish(values, ("",) * len(values) if mode in ("forward", "vjp", "jvp") else None)
    return _pruned(graph), sizes, bool(rng.random() < 0.1)


class Growing(Scope):
    """A scope that grows by random steps. What graphc refuses is counted in `refusals` by its text."""
    refusals: Counter

    def grow(self, steps: int) -> None:
        weights = WEIGHTS / WEIGHTS.sum()
        self.follow([NAMES[int(self.rng.choice(len(NAMES), p=weights))] for _ in range(steps)])

    def follow(self, steps: Sequence[Callable]) -> None:
        """These steps, one after another."""
        for step in steps:
            try:
                self.add(step(self))
            except Skip:
                continue
            except GraphError as error:
                self.refusals[f"{step.__name__}: {str(error).splitlines()[0]}"] += 1
            except TypeError:
                if not self.sizes:              # Python's arithmetic with a named dimension
                    raise


def _input_types(rng, dtype, sizes) -> list:
    """Of small arrays: few sizes, so that shapes meet; images often, larger ones and empty ones sometimes."""
    few = [int(n) for n in rng.integers(1, 6, 2)]
    way = rng.random()
    if way < 0.06:
        few.append(0)
    if 0.06 < way < 0.12:
        few = [int(rng.choice([17, 33, 40])), few[0]]

    def shape(rank):
        dims = [int(rng.choice(few)) if rng.random() < 0.8 else int(rng.integers(1, 4)) for _ in range(rank)]
        if sizes and dims and rng.random() < 0.8:
            dims[int(rng.integers(rank))] = "B"
        return tuple(dims) if np.prod([d for d in dims if d != "B"]) <= 500 else tuple(dims[-1:])
    types = [dtype[shape(int(rng.integers(0, 4)))] for _ in range(int(rng.integers(1, 4)))]
    if rng.random() < 0.4:
        types.append(dtype[shape(4)])
    if rng.random() < 0.3:
        types.append((gc.i32 if rng.random() < 0.4 else gc.i64)[shape(int(rng.integers(0, 3)))])
    if rng.random() < 0.2:
        types.append(gc.bool_[shape(int(rng.integers(0, 3)))])
    return types


def _large_types(rng, dtype) -> list:
    """Of arrays that are worth several tiles: images, matrices and rows."""
    n, k = int(rng.choice([8, 16, 31, 48])), int(rng.choice([3, 12, 16, 33]))
    shapes = [(n, k), (k, n), (4, n, k), (2, k, 12, 12), (k, k, 3, 3), (n,), (n * 40,), (1, 16, 20, 20)]
    return [dtype[shapes[i]] for i in rng.choice(len(shapes), int(rng.integers(2, 5)), replace=False)]


def _outputs(s: Scope, mode: str) -> list[Array]:
    """What the program returns: of what nobody reads, of what is read again, inputs, the same twice. For a gradient
    one scalar."""
    fits = [x for x in s.arrays if mode == "forward" or x.dtype.is_float]
    if not fits:
        raise Refused("nothing: no float to differentiate")
    late = fits[-6:]
    found = [s.one(late) if s.chance(0.75) else s.one(fits) for _ in range(s.whole(1, 4))] + [fits[-1]]
    if s.chance(0.15):
        found.append(found[0])
    if mode in ("forward", "vjp", "jvp"):
        return found
    scale = [s.one([lambda x: gc.mean(gc.tanh(x)), lambda x: gc.sum(x * x) * 0.1,
                    lambda x: gc.sum(gc.sin(x))])(x.astype(s.dtype)) for x in found]
    total = scale[0]
    for x in scale[1:]:
        total = total + x * 0.5
    return [total]


def _derived(rng, f: gc.GraphFunction, mode: str) -> tuple[Graph, tuple[str, ...]]:
    """The graph of the derivative, and by which inputs."""
    floats = tuple(n for n, t in f.inputs.items() if t.dtype.is_float)
    if mode == "forward":
        return f.graph, ()
    if not floats:
        raise GraphError("no float input")
    wrt = floats if rng.random() < 0.7 else tuple(n for n in floats if rng.random() < 0.6) or floats[:1]
    if mode != "grad_grad":
        return getattr(gc, mode)(f, wrt).graph, wrt
    inner, wrt = gc.grad(f, wrt), str(rng.choice(floats))

    with Trace("grad_twice") as trace:
        inputs = [trace.input(n, t) for n, t in f.inputs.items()]
        grads = inner(*inputs)
        total = 0.0
        for i, g in enumerate(grads if isinstance(grads, tuple) else (grads,)):
            total = gc.sum(gc.sin(g) if i % 2 else g * g).astype(gc.f64) + total
        graph = trace.builder.finish([trace.value(total)])
    return gc.value_and_grad(gc.GraphFunction(graph), wrt).graph, (wrt,)


def _with_state(rng, graph: Graph, mode: str, wrt: tuple[str, ...]) -> Graph:
    """Some of the inputs as state: what a network is served with, or what a call changes, as by a step of training."""
    moved = {v for v in graph.inputs if rng.random() < 0.5}
    kept = tuple(v for v in graph.inputs if v not in moved)
    state = tuple(v for v in graph.inputs if v in moved)
    w = Rewriter(Graph(graph.name, kept, graph.nodes, graph.outputs, graph.output_names, state, (None,) * len(state)))
    for node in graph.nodes:
        w.keep(node)
    if rng.random() < 0.5:
        made = [v for node in graph.nodes for v in node.outputs]
        for v in state:
            fits = [u for u in [*made, *state] if u.type == v.type and u is not v]
            if mode == "value_and_grad" and v.name in wrt:
                w.update(w[v], w.sub(w[v], w.mul(w[graph.outputs[1 + wrt.index(v.name)]], 0.1)))
            elif fits and rng.random() < 0.6:
                w.update(w[v], w[fits[int(rng.integers(len(fits)))]])
    return w.done() if not w.updates else w.finish([w[v] for v in graph.outputs], graph.output_names)


def _pruned(graph: Graph) -> Graph:
    """Without the nodes and inputs that nothing needs; one input stays."""
    live, kept = set(graph.outputs), []
    for node in reversed(graph.nodes):
        if any(v in live for v in node.outputs):
            live.update(node.inputs)
            kept.append(node)
    inputs = tuple(v for v in graph.inputs if v in live) or graph.inputs[:1]
    return Graph(graph.name, inputs, tuple(reversed(kept)), graph.outputs, graph.output_names)


def _size(graph: Graph) -> int:
    bodies = (body for node in graph.nodes for body in (getattr(node.op, name) for name in node.op.REGIONS))
    return len(graph.nodes) + sum(map(_size, bodies))


def numbers(rng: np.random.Generator, t, special: bool) -> np.ndarray:
    """An argument: normal numbers, some of them equal; with NaN, infinities and zeros of both signs if `special`."""
    if t.dtype.kind == "bool":
        return np.asarray(rng.random(t.shape) < 0.5)
    if t.dtype.is_int:
        return np.asarray(rng.integers(-4, 8, t.shape), t.dtype.np)
    x = np.asarray(rng.standard_normal(t.shape))
    if rng.random() < 0.25:
        x = np.round(x * 2) / 2
    x = x.astype(t.dtype.np)
    if special:
        at = rng.random(t.shape) < 0.15
        x = np.where(at, rng.choice(np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40], t.dtype.np), t.shape), x)
    return np.ascontiguousarray(x).reshape(t.shape)
