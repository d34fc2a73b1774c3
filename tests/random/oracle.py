"""What a graph computes, node by node in numpy, and how far rounding may move each element of it.

The graph is the one that the user declared (or differentiated), before any pass: fusion, layout, memory plan and code
have no part in this. Floats are computed in f64, whatever their type says; a value of type f32 that leaves the range
of f32 becomes infinite as it would there.

The error that is allowed follows from the program itself: the graph runs again and again with every result moved at
random by a few units in the last place of *its own type*, and rounded to it. (Sums are moved by units of what their
terms have without their signs, whatever order they are added in; operands of what contains sums, and inside of
composites every step, since cancellation comes from there.) What those runs differ by is how far rounding moves a
result: through divisions by small numbers, cancellation, comparisons, trip counts and sorts alike.
"""
from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from zlib import crc32

import numpy as np

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Value
from graphc.ir.image import SPATIAL_NAMES
from graphc.ir.op import Composite, as_tuple
from graphc.ir.ops.control import Cond, Scan, WhileLoop
from graphc.ir.types import TensorType, f32, f64
from tests.random.rounding import (
    CHOOSES, CORRECT, COUNTED, EXACT, ROUNDED_ONCE, RUNNING, SAME_WAY, SUMS, ULPS, exact_result, exact_sum, same_way, ulps)

# beyond, squares inside of operators leave the range of the type: nothing is said of such programs
LARGE = {f32: 1e12, f64: 1e100}
LOST = 0.3                          # of numbers below the unit of a sum: the share that is lost in it
TABLE = 1 << 16                     # numbers of repeatable noise
# operands which, multiplied by the zeros of a padding or left out there, make NaN or not: nothing is promised
CONVOLUTIONS = {
    name.format(axes): factors for axes in SPATIAL_NAMES
    for name, factors in {"conv{}d": slice(1, 2), "conv_transpose{}d": slice(1, 2), "conv{}d_input_grad": slice(0, 1),
                          "conv{}d_weight_grad": slice(None)}.items()}


@dataclass
class Oracle:
    """Evaluates graphs. `noise` moves results by rounding; None computes as exactly as f64 can. `apart`: composites
    are what their decompositions give, which differs from their references where infinities meet. `repeatable`: a
    value that is computed twice is moved by the same noise, as by the same code.

    `doubtful`: for each result of the last graph that ran whether nothing is promised of it, because it depends on a
    value above `LARGE`, where the range of a type may have been left inside of an operator, or on a product that met
    infinities of which docs/numerics.md promises nothing.
    `in_loop`: the graph that runs is the body of a loop. `finite`: no value was NaN or infinite. `looks_up`: there is
    a one_hot, products with which need not look at rows that are not asked for.
    """
    noise: np.random.Generator | None = None
    apart: bool = False
    repeatable: bool = False
    doubtful: list[bool] = field(default_factory=list)
    finite: bool = True
    looks_up: bool = False
    in_loop: bool = False
    _doubt: bool = False            # met in the node that runs, by it or by a region of it
    _table: np.ndarray | None = None

    def run(self, graph: Graph, arguments: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs, then the new state, for the inputs of the graph, then its state; floats as f64."""
        env = self._values(graph, arguments)
        return [env[v] for v in graph.results]

    def _values(self, graph: Graph, arguments: Sequence[np.ndarray]) -> dict[Value, np.ndarray]:
        """All values of the graph."""
        env: dict[Value, np.ndarray] = dict(zip(graph.arguments, arguments, strict=True))
        doubted: set[Value] = set()
        outside = self._doubt
        for node in graph.nodes:
            self._doubt = any(v in doubted for v in node.inputs)
            results = self._node(node.op, [env[v] for v in node.inputs], [v.type for v in node.inputs],
                                 [v.type for v in node.outputs])
            for v, array in zip(node.outputs, results, strict=True):
                env[v] = self._stored(array, v.type, node.op.name)
            if self._doubt:
                doubted.update(node.outputs)
        self._doubt = outside or bool(doubted)
        self.doubtful = [v in doubted for v in graph.results]
        return env

    def _node(self, op, ins, in_types, out_types) -> Sequence[np.ndarray]:
        if isinstance(op, (Scan, Cond, WhileLoop)):
            return _CONTROL[type(op)](self, op, ins)
        self.looks_up = self.looks_up or op.name == "one_hot"
        self._doubt = self._doubt or _nothing_is_said(op, ins)
        if self.apart and isinstance(op, Composite):
            return self.run(_decomposed(op, tuple(in_types)), ins)
        if self.noise is None or op.name in EXACT:
            return as_tuple(op.reference(*ins))
        if op.name in CORRECT:
            y, t = np.asarray(op.reference(*ins)), out_types[0]
            return [np.where(exact_result(op.name, ins, y, t.dtype), y,
                             self._moved(y, t, units=ulps(op.name, 1, self.in_loop))) if t.dtype.is_float else y]
        errors, sizes, units = self._inside(op, ins, in_types), itertools.repeat(None), ULPS
        if op.name in SUMS:
            units = ulps(op.name, _terms(op, ins), self.in_loop)
            sizes = [self._sum_sizes(op, ins, out_types[0].dtype)]
            if op.name in RUNNING and out_types[0].dtype.is_float:
                errors = [self._same_way(op, ins, sizes[0], out_types[0].dtype)]
        elif op.name not in ROUNDED_ONCE:
            ins = [self._moved(x, t) for x, t in zip(ins, in_types)]
        results = as_tuple(op.reference(*ins))
        return [self._moved(np.asarray(y), t, size, units) + e if t.dtype.is_float else y for y, t, size,
                e in zip(results, out_types, sizes, errors)]

    def _sum_sizes(self, op, ins, dtype) -> np.ndarray:
        """Of what size the rounding errors of a sum are units: 0 where there are none."""
        size = np.asarray(op.reference(*(x if op.name in CHOOSES and i == 0 else np.abs(x) for i, x in enumerate(ins))))
        return np.where(dtype.is_float and exact_sum(op.name, ins, size, dtype), 0, size)

    def _same_way(self, op, ins, size, dtype) -> np.ndarray:
        """What the roundings of a running sum make together if all of a line go one way: one draw for each line."""
        line = tuple(1 if axis == op.axis else n for axis, n in enumerate(size.shape))
        far = same_way(op, ins, size) * np.finfo(dtype.np).eps
        return np.where(np.isfinite(far), far, 0) * self.noise.uniform(-1, 1, line)

    def _inside(self, op, ins, in_types) -> Sequence:
        """What rounding inside of a composite does to its results: its decomposition with noise, less that without."""
        if not isinstance(op, Composite) or op.name in ROUNDED_ONCE or op.REGIONS:
            return itertools.repeat(0)
        inner = _decomposed(op, tuple(in_types))
        pairs = zip(Oracle(self.noise, repeatable=self.repeatable, _table=self._table).run(inner, ins),
                    Oracle().run(inner, ins))
        return [np.nan_to_num(y - exact, nan=0, posinf=0, neginf=0) if exact.dtype.kind == "f" else 0 for y,
                exact in pairs]

    def _moved(self, x: np.ndarray, t: TensorType, size: np.ndarray | None = None, units: float = ULPS) -> np.ndarray:
        """x with each element off by a few units in the last place, of its own or of `size`; what is below one of
        these may be lost in a sum."""
        if not t.dtype.is_float or not x.size:
            return x
        info = np.finfo(t.dtype.np)
        size = np.abs(x if size is None else size)
        # what is 0 whatever the order stays 0
        unit = size * info.eps + np.where(size > 0, info.smallest_subnormal, 0)
        unit, moves = np.where(np.isfinite(unit), unit, 0), self._draw(x)
        return np.where((np.abs(x) < unit) & (np.abs(moves) < LOST), 0, x + unit * units * moves)

    def _draw(self, x: np.ndarray) -> np.ndarray:
        """Numbers in [-1, 1) for each element of x; if `repeatable`, the same whenever these numbers come out of an
        operator."""
        if not self.repeatable:
            return self.noise.uniform(-1, 1, x.shape)
        if self._table is None:
            self._table = self.noise.uniform(-1, 1, TABLE)
        first = crc32(x.tobytes())
        return self._table[(first + np.arange(x.size)) % TABLE].reshape(x.shape)

    def _stored(self, array, t: TensorType, what: str) -> np.ndarray:
        array = np.asarray(array)
        kind, wanted = array.dtype.kind, t.dtype.np
        if array.shape != t.shape or kind != wanted.kind or kind != "f" and array.dtype != wanted:
            raise AssertionError(f"reference of {what} made {array.dtype}{list(array.shape)}, its type says {t}")
        if array.dtype.kind != "f" or not array.size:
            return array
        array = array.astype(np.float64)
        size = np.abs(array)
        if t.dtype is f32:
            rounded = array.astype(np.float32).astype(np.float64)
            array = np.where(np.isinf(rounded), rounded, array) if self.noise is None else rounded
        finite = size[np.isfinite(size)]
        self.finite = self.finite and finite.size == size.size
        self._doubt = self._doubt or float(finite.max(initial=0)) > LARGE[t.dtype]
        return array

    def _scan(self, op: Scan, ins):
        n, last = op.carries, op.carries + op.xs
        carries, xs, captured = ins[:n], ins[n:last], ins[last:]
        ys = [np.zeros((op.length, *v.type.shape), np.float64 if v.type.dtype.is_float else v.type.dtype.np)
              for v in op.body.outputs[n:]]
        terms = _sums(op) if self.noise is not None else {}
        sizes = {i: np.abs(carries[i]) for i in terms}
        partial = {i: 0 for i in terms}
        outside, self.in_loop = self.in_loop, True
        for t in reversed(range(op.length)) if op.reverse else range(op.length):
            env = self._values(op.body, (*carries, *(x[t] for x in xs), *captured))
            results = [env[v] for v in op.body.outputs]
            for i, added in terms.items():
                sizes[i] = sum((np.abs(env[v]) for v in added), sizes[i])
                partial[i] = partial[i] + sizes[i]
            carries = results[:n]
            for y, step in zip(ys, results[n:]):
                y[t] = step
        self.in_loop = outside
        for i, size in sizes.items():
            type = op.body.outputs[i].type
            far = SAME_WAY * np.finfo(type.dtype.np).eps * partial[i]
            carries[i] = self._moved(carries[i], type, size, ulps("sum", op.length, False))
            carries[i] = carries[i] + np.where(np.isfinite(far), far, 0) * self.noise.uniform(-1, 1, type.shape)
        return (*carries, *ys)

    def _cond(self, op: Cond, ins):
        return self.run(op.then_body if ins[0] else op.else_body, ins[1:])

    def _while(self, op: WhileLoop, ins):
        carries, captured, count = ins[:op.carries], ins[op.carries:], 0
        while count < op.max_trips and self.run(op.cond_body, (*carries, *captured))[0]:
            carries = self.run(op.body, (*carries, *captured))
            count += 1
        return (np.asarray(count, np.int64), *carries)


def _sums(op: Scan) -> dict[int, list[Value]]:
    """Carries of floats that only add up, and what a step adds to each: one sum of all steps may stand for them, or one
    for each term, whose partial sums can be what the magnitudes of terms add up to. Steps that add the same round the
    same way."""
    body = op.body
    made = {v: node for node in body.nodes for v in node.outputs}

    def added(v: Value, carry: Value) -> list[Value]:
        """The terms of a tree of additions, without the carry."""
        if v is carry:
            return []
        if v in made and made[v].op.name in ("add", "sub") and all(u.type.shape == v.type.shape for u in made[v].inputs):
            return [term for u in made[v].inputs for term in added(u, carry)]
        return [v]
    return {i: added(new, old) for i, (old, new) in enumerate(zip(body.inputs, body.outputs[:op.carries]))
            if new in made and made[new].op.name in ("add", "sub") and old in made[new].inputs
            and new.type.dtype.is_float}


def _nothing_is_said(op, ins) -> bool:
    """Whether infinities or NaN meet zeros of a padding, or are added up along an axis of one operand of a product,
    before it or after."""
    if op.name == "einsum":
        left, right, out = re.split(",|->", op.equation)
        return bool((set(left) ^ set(right)) - set(out)) and not all(np.isfinite(x).all() for x in ins)
    return op.name in CONVOLUTIONS and not all(np.isfinite(x).all() for x in ins[CONVOLUTIONS[op.name]])


def _terms(op, ins) -> float:
    """How many terms each sum of the operator has."""
    counts = np.asarray(op.reference(*(np.ones_like(x) for x in ins))) if op.name in COUNTED - {"mean"} else np.ones(())
    return float(counts.max(initial=0)) if op.name != "mean" else ins[0].size / max(op.reference(ins[0]).size, 1)


@lru_cache(maxsize=512)
def _decomposed(op: Composite, types: tuple[TensorType, ...]) -> Graph:
    b = Builder("inside")
    results = op.decompose(b, *(b.input(f"x{i}", t) for i, t in enumerate(types)))
    return b.finish(as_tuple(results))


_CONTROL = {Scan: Oracle._scan, Cond: Oracle._cond, WhileLoop: Oracle._while}

FIRST, MORE = 2, 40                 # runs with noise: always, and where the first make a result look wrong
# an element is wrong when it is this many times further away than noise ever moved it
FACTOR = 4


class Expected:
    """The outputs of a graph for some inputs, and what else rounding may make of them. Of those that are `doubtful`
    nothing is said."""

    def __init__(self, graph: Graph, inputs: Sequence[np.ndarray], seed: int):
        self.graph = graph
        self.inputs = [x.astype(np.float64) if x.dtype.kind == "f" else x for x in inputs]
        self._rng = np.random.default_rng(seed)
        exact = Oracle()
        with np.errstate(all="ignore"):
            self.outputs = exact.run(graph, self.inputs)
        self.doubtful = [True] * len(self.outputs) if exact.looks_up and not exact.finite else exact.doubtful
        self._finite = exact.finite
        self._spread = [_Spread(y) for y in self.outputs]
        self._runs = 0

    def wrong(self, actual: Sequence[np.ndarray]) -> str:
        """Why `actual` cannot be the outputs, or "" if rounding explains what is different."""
        for runs in (FIRST, MORE):
            while self._runs < runs:
                self._run_with_noise()
            found = self._compared(actual)
            if not found:
                return ""
        return found

    def _run_with_noise(self) -> None:
        apart = not self._finite and self._runs % 2 == 0
        with np.errstate(all="ignore"):
            moved = Oracle(self._rng, apart, self._runs % 4 < 2).run(self.graph, self.inputs)
            for spread, y in zip(self._spread, moved):
                spread.add(y)
        self._runs += 1

    def _compared(self, actual) -> str:
        for i, (y, v, spread) in enumerate(zip(actual, self.graph.results, self._spread, strict=True)):
            bad = spread.outside(y, v.type)
            if not self.doubtful[i] and bad.any():
                where = tuple(int(n) for n in np.argwhere(bad)[0])
                wanted = np.asarray(self.outputs[i])
                return (f"output {i}, {v.type}: {int(bad.sum())} of {bad.size} elements are wrong, "
                        f"first {list(where)}: {y[where]!r}, "
                        f"the oracle says {wanted[where]!r} ± {spread.allowed(v.type)[where]:.1e}\n"
                        f"    native {_short(y)}\n    oracle {_short(wanted)}")
        return ""


class _Spread:
    """What runs with noise made of one output."""

    def __init__(self, exact: np.ndarray):
        self.exact, self.distance = exact, np.zeros(exact.shape)
        self.low, self.high = exact, exact
        # where any run had one
        self.nan, self.inf, self.neg_inf = np.isnan(exact), exact == np.inf, exact == -np.inf
        self.finite = np.isfinite(exact)

    def add(self, y: np.ndarray) -> None:
        with np.errstate(all="ignore"):
            apart = np.abs(y.astype(np.float64) - self.exact)
        self.distance = np.maximum(self.distance, np.where(np.isfinite(apart), apart, 0))
        self.low, self.high = np.fmin(self.low, y), np.fmax(self.high, y)
        self.nan, self.inf = self.nan | np.isnan(y), self.inf | (y == np.inf)
        self.neg_inf = self.neg_inf | (y == -np.inf)
        self.finite = self.finite | np.isfinite(y)

    def allowed(self, t: TensorType) -> np.ndarray:
        if not t.dtype.is_float:
            return np.zeros(self.exact.shape)
        info = np.finfo(t.dtype.np)
        size = np.where(np.isfinite(self.exact), np.abs(self.exact), 0)
        return FACTOR * self.distance + 2 * info.eps * size + float(info.smallest_normal)

    def outside(self, y: np.ndarray, t: TensorType) -> np.ndarray:
        """bool, where `y` is none of what rounding explains."""
        if not t.dtype.is_float:
            return (y < self.low) | (y > self.high)
        y = y.astype(np.float64)
        with np.errstate(all="ignore"):
            near = (np.abs(y - self.exact) <= self.allowed(t)) | (y >= self.low) & (y <= self.high)
        special = np.isnan(y) & self.nan | (y == np.inf) & self.inf | (y == -np.inf) & self.neg_inf
        return ~(special | np.isfinite(y) & self.finite & near)


def _short(array: np.ndarray) -> str:
    return np.array2string(np.asarray(array), precision=5, threshold=24, separator=", ").replace("\n", "")
