"""The loop nest of a cluster in memory: loop dims merged where every operand is contiguous, strides of every operand,
stages of reductions.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import permutations
from math import prod

from graphc.ir.dims import Dim, Dims, Poly, upper
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.ops.constant import Iota
from graphc.ir.ops.reduce import ArgExtremum
from graphc.ir.ops.scan_ops import LinearScan
from graphc.ir.types import DType, i32, i64
from graphc.records import dataclass
from graphc.schedule.iteration_space import Map, Space, Use, space_of
from graphc.schedule.view import ViewType, contiguous_strides

Strides = Dims                          # elements per step of each dim of the nest
ROW_END, AFTER = 1 << 30, 1 << 31       # when outputs are stored that no stage stores: later than any stage


@dataclass(frozen=True, eq=False)
class Nest:
    """The loop nest of a cluster.

    `extents`: size of each dim. `reduced`: dims that the `reductions` reduce. `leaves`: strides of the operands that
    are inputs or counting arrays, per use. `crossing` reductions reduce all other dims, `crossed`; those are `wide`
    whose result is a row and not one number. `counters`: for nodes that need an element number (random numbers: of the
    element; argmax: along its axis), its strides. `outputs`: strides of each output (0 along dims that it does not
    have). `deps`: dims that each value changes with. `running`: the dim along which recurrences run, from its end if
    `backward`; -1: there are none.
    """
    body: Graph
    extents: Dims
    reduced: frozenset[int]
    reductions: frozenset[Node]
    crossed: frozenset[int]
    crossing: frozenset[Node]
    wide: frozenset[Node]
    leaves: Mapping[Use, Strides]
    counters: Mapping[Node, Strides]
    outputs: tuple[Strides, ...]
    spans: tuple[frozenset[int], ...]   # dims that each output has
    deps: Mapping[Value, frozenset[int]]
    running: int = -1
    backward: bool = False

    def size(self, dims: Iterable[int]) -> Dim:
        return prod(self.extents[d] for d in dims)

    @property
    def kept(self) -> tuple[int, ...]:
        return tuple(d for d in range(len(self.extents)) if d not in self.reduced)

    @property
    def is_open(self) -> bool:
        """Whether some extents come with the call."""
        return any(isinstance(n, Poly) for n in self.extents)

    def runs_together(self, strides: Strides) -> bool:
        """Whether all operands have these strides along as many last dims, or none: then these may be taken as one."""
        return all(s[-len(strides):] in (strides, (0,) * len(strides))
                   for s in (*self.leaves.values(), *self.counters.values()))

    def counter(self, dims: Iterable[int]) -> DType:
        """The type of element numbers along the dims."""
        most = upper(self.size(dims))
        return i32 if most is not None and most < 1 << 31 else i64


@lru_cache(maxsize=4096)
def nest_of(body: Graph, ins: tuple[ViewType, ...], outs: tuple[ViewType, ...]) -> Nest:
    """The nest of the cluster `body` when its inputs and outputs lie in memory as these views say."""
    space = space_of(body)
    space.uses |= {(v.maker, -1): space.maps[v] for v in body.outputs if v.maker.op.is_leaf}
    dims = tuple(d for d, n in space.extents.items() if n != 1)
    views = dict(zip(body.inputs, ins, strict=True))
    leaves = {use: _strides(m, _leaf_strides(leaf_of(use), views), space, dims) for use, m in space.uses.items()}
    counters = {node: _counter(node, space, dims) for node in body.nodes if node.op.is_generator
                or isinstance(node.op, ArgExtremum)}
    outputs = tuple(_strides(space.maps[v], t.strides, space, dims) for v, t in zip(body.outputs, outs, strict=True))
    spans = tuple(space.dims_of(v) for v in body.outputs)
    groups = _merged(dims, space, [*leaves.values(), *counters.values(), *outputs], spans)
    return _build(body, space, dims, groups, leaves, counters, outputs, spans)


@lru_cache(maxsize=4096)
def nest_of_epilogue(body: Graph, given: tuple[Value, ...], nodes: tuple[Node, ...], ins: tuple[ViewType, ...]) -> Nest:
    """Those `nodes` of the cluster `body` that make values, of one shape, from the `given` ones of that shape: dim k is
    axis k, nothing merged.
    """
    space, shape = Space(), given[0].type.shape
    place = tuple((space.new(n),) for n in shape)
    space.maps |= dict.fromkeys(given, place)
    dims = tuple(space.extents)
    for node in nodes:
        space.add(node)
    views = dict(zip(body.inputs, ins, strict=True))
    leaves = {use: _strides(m, _leaf_strides(leaf_of(use), views), space, dims) for use, m in space.uses.items()}
    counters = {node: _counter(node, space, dims) for node in nodes if node.op.is_generator}
    return Nest(body, shape, frozenset(), frozenset(), frozenset(), frozenset(), frozenset(), leaves, counters, (), (),
                {})


def _build(body: Graph, space: Space, dims: Sequence[int], groups: Sequence[Sequence[int]],
           leaves: Mapping[Use, Strides], counters: Mapping[Node, Strides], outputs: Iterable[Strides],
           spans: Iterable[frozenset[int]]) -> Nest:
    """`groups`: positions in `dims` merged into one dim each, outermost first."""
    last = [g[-1] for g in groups]

    def pick(strides: Strides) -> Strides:
        return tuple(strides[i] for i in last)
    reduced = frozenset(k for k, i in enumerate(last) if dims[i] in (space.reduced or ()))
    crossed = frozenset(k for k, i in enumerate(last) if dims[i] in (space.crossed or ()))
    number = {dims[i]: k for k, group in enumerate(groups) for i in group}
    merged = {use: pick(s) for use, s in leaves.items()}
    running = number.get(space.running, -1) if space.running is not None else -1
    gone = dict.fromkeys(space.reductions, reduced) | dict.fromkeys(space.crossing, crossed)
    return Nest(body, tuple(prod(space.extents[dims[i]] for i in g) for g in groups), reduced, space.reductions,
                crossed, space.crossing,
                frozenset(n for n in space.crossing if space.dims_of(n.outputs[0])), merged,
                {node: pick(s) for node, s in counters.items()}, tuple(map(pick, outputs)),
                tuple(frozenset(number[d] for d in span if d in number) for span in spans),
                _deps(body, merged, counters, last, gone, running), running, space.backward)


def _strides(m: Map, strides: Sequence[Dim], space: Space, dims: Sequence[int]) -> Strides:
    """Strides per dim of a tensor with these strides per axis."""
    table: dict[int, Dim] = {}
    for axis, step in zip(m, strides, strict=True):
        for d in reversed(axis):
            table[d] = step
            step = step * space.extents[d]
    return tuple(table.get(d, 0) for d in dims)


def leaf_of(use: Use) -> Value:
    """The value that a use reads; use -1 of a constant or counting array is itself, as an output of the cluster."""
    node, k = use
    return node.outputs[0] if k < 0 else node.inputs[k]


def _leaf_strides(v: Value, views: Mapping[Value, ViewType]) -> Sequence[Dim]:
    if v in views:
        return views[v].strides
    op = v.maker.op
    return [int(i == op.axis) for i in range(v.type.rank)] if isinstance(op, Iota) else [0] * v.type.rank


def _counter(node: Node, space: Space, dims: Sequence[int]) -> Strides:
    """Element number (generators), or number along the reduced axis (argmax), as strides over dims."""
    if not isinstance(node.op, ArgExtremum):
        shape = node.outputs[0].type.shape
        return _strides(space.maps[node.outputs[0]], contiguous_strides(shape), space, dims)
    v = node.inputs[0]
    m = space.maps[v] if v in space.maps else space.uses[node, 0]
    return _strides(m, [int(i == node.op.axis) for i in range(len(m))], space, dims)


def _merged(dims: Sequence[int], space: Space, rows: Sequence[Strides],
            spans: Sequence[frozenset[int]]) -> list[list[int]]:
    """Merges dims (positions) of one class that every row of strides walks through in one step."""
    reduced = set(space.reduced or ())
    classes = [(d in reduced, d == space.running, tuple(d in span for span in spans)) for d in dims]
    groups = [[i] for i in range(len(dims))]
    sizes = [space.extents[d] for d in dims]
    merged = True
    while merged:
        merged = False
        for a, b in permutations(groups, 2):
            inner = prod(sizes[i] for i in b)
            if classes[a[0]] == classes[b[0]] and all(r[a[-1]] == r[b[-1]] * inner for r in rows):
                groups[groups.index(a)] = a + b
                groups.remove(b)
                merged = True
                break
    return groups


def _deps(body: Graph, leaves: Mapping[Use, Strides], counters: Mapping[Node, Strides], last: Sequence[int],
          gone: Mapping[Node, frozenset[int]], running: int) -> dict[Value, frozenset[int]]:
    """`gone`: the dims that a reduction reduces."""
    deps: dict[Value, frozenset[int]] = {}
    for node in body.nodes:
        found: set[int] = set()
        if node.op.is_leaf:
            if (node, -1) in leaves:
                deps[node.outputs[0]] = frozenset(d for d, s in enumerate(leaves[node, -1]) if s != 0)
            continue
        if node.op.is_generator:
            found |= {d for d, i in enumerate(last) if counters[node][i] != 0}
        if isinstance(node.op, LinearScan):
            found |= {running} - {-1}
        for k, v in enumerate(node.inputs):
            if v in deps or (node, k) in leaves:
                found |= deps[v] if v in deps else {d for d, s in enumerate(leaves[node, k]) if s != 0}
        for v in node.outputs:
            deps[v] = frozenset(found - gone.get(node, frozenset()))
    return deps


def crosswise(nest: Nest) -> Nest:
    """The same nest with its reductions, of which no inner value reads a result, as crossing ones."""
    return replace(nest, reduced=frozenset(), reductions=frozenset(), crossed=nest.reduced, crossing=nest.reductions,
                   wide=nest.reductions)


@dataclass(frozen=True, eq=False)
class Stages:
    """When each value of a nest is made: every reduction closes a stage; `inner` values change with an inner dim.

    `home`: the stage in which a value is first at hand; a reduction's result is at hand from the stage after it on.
    """
    inner: frozenset[Value]
    home: Mapping[Value, int]
    count: int


def stages_of(nest: Nest, inner_dims: Iterable[int]) -> Stages:
    """The stages when `inner_dims` are looped over inside, once per stage."""
    dims = frozenset(inner_dims)
    home: dict[Value, int] = {}
    for node in nest.body.nodes:
        ready = max([home.get(v, 0) for v in node.inputs], default=0)
        for v in node.outputs:
            home[v] = ready + (node in nest.reductions)
    inner = frozenset(v for v, deps in nest.deps.items() if deps & dims)
    full = [home[v] + 1 for v, span in zip(nest.body.outputs, nest.spans) if span & dims and v in home]
    loops = [home[n.outputs[0]] for n in nest.reductions]
    return Stages(inner, home, max(full + loops, default=0))


def stages_evaluating(nest: Nest) -> dict[Node, int]:
    """In how many stages, of loops over what is reduced, each node is evaluated when nothing is kept between them."""
    if not nest.reductions or nest.crossing or nest.running >= 0:
        return {}
    stages, needed = stages_of(nest, nest.reduced), dict[Node, set[int]]()
    for k, v in enumerate(nest.body.outputs):
        stage = written_in(nest, stages, nest.reduced, k)
        if v.node is not None and stage >= 0:
            needed.setdefault(v.node, set()).add(stage)
    for node in reversed(nest.body.nodes):
        if node in nest.reductions:
            needed[node] = {stages.home[node.outputs[0]] - 1}
        for v in node.inputs:
            if v.node is not None and v.node not in nest.reductions and v in stages.inner:
                needed.setdefault(v.node, set()).update(needed.get(node, ()))
    return {node: max(1, len(found)) for node, found in needed.items()}


def written_in(nest: Nest, stages: Stages, inner: Iterable[int], k: int) -> int:
    """The stage whose loop stores output k; ROW_END: at the end of each row, AFTER: when all rows are done."""
    span = nest.spans[k]
    if nest.crossing and not span & nest.crossed:
        return AFTER
    return stages.home.get(nest.body.outputs[k], 0) if span & set(inner) else ROW_END


def producer(v: Value) -> Node | None:
    """The node that computes `v`, looking through reshapes, transposes and broadcasts; None for leaves."""
    while v.node is not None and v.node.op.is_whole_view:
        v = v.node.inputs[0]
    return None if v.node is None or v.node.op.is_leaf else v.node
