"""The iteration space of a cluster: which loop dimensions every axis of every value runs over.

A cluster is one loop nest over the dims of its `Space`. A value of the cluster maps each of its axes to a row-major
tuple of dims (the empty tuple for an axis of size 1). A reshape that cuts an axis splits a dim everywhere; nothing is
ever merged here (`schedule.loop_nest` merges dims that are contiguous in memory). Reductions of a cluster reduce the
same dims; besides, reductions over exactly the other dims may end in it ("crossing": column sums next to row sums, or
the total of a row's results). Values computed from those ("late") are computed when all rows are done, so that nothing
else in the cluster may read them. Linear recurrences of a cluster run along one dim, in one direction: their rows are
steps, one after another, each with all that is not reduced in it.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any, TypeVar

from graphc.errors import InternalError
from graphc.ir.dims import Dim, exact_quotient
from graphc.ir.graph import Graph, Node, NodeOf, Value
from graphc.ir.op import Op
from graphc.ir.ops import constant, elementwise, embedding_gradients, random, reduce, scan_ops, shape
from graphc.ir.ops.packed import PackFour, PackPair

Map = tuple[tuple[int, ...], ...]
Use = tuple[Node, int]                  # operand number k of a node
Place = TypeVar("Place", Value, Use)    # what has a map


class Misfit(Exception):
    """A node cannot join the space; the text says why."""


class Space:
    """Grows node by node. Operands that no added node makes are leaves: inputs, scalar constants, counting arrays.

    `extents`: size of each dim, in order of creation. `maps`: axes of the values made by added nodes; `uses`: axes of
    leaves, per use. `reduced`: the dims that the reductions reduce (None: no reduction yet); a reduction over axes of
    size 1 only is none of `reductions`. `running`: the dim along which recurrences run; None: there are none.
    """
    __slots__ = ("extents", "maps", "ghosts", "uses", "reduced", "reductions", "crossed", "crossing", "late", "read",
                 "running", "backward", "number")

    def __init__(self) -> None:
        self.extents: dict[int, Dim] = {}
        self.maps: dict[Value, Map] = {}
        self.ghosts: dict[Value, Map] = {}      # dims that a size-1 axis had before its reduction
        self.uses: dict[Use, Map] = {}
        self.reduced: tuple[int, ...] | None = None
        self.reductions: frozenset[Node] = frozenset()
        self.crossed: tuple[int, ...] | None = None
        self.crossing: frozenset[Node] = frozenset()
        self.late: set[Value] = set()           # results of crossing reductions, and values made from them
        self.read: set[Value] = set()           # results of reductions that added nodes read
        self.running: int | None = None
        self.backward = False                   # whether recurrences run from the last index to the first
        self.number = 0

    def copy(self) -> "Space":
        new = Space()
        new.extents, new.maps, new.ghosts, new.uses = (dict(self.extents), dict(self.maps), dict(self.ghosts),
                                                       dict(self.uses))
        new.reduced, new.reductions, new.number = self.reduced, self.reductions, self.number
        new.crossed, new.crossing, new.late, new.read = self.crossed, self.crossing, set(self.late), set(self.read)
        new.running, new.backward = self.running, self.backward
        return new

    def add(self, node: Node) -> None:
        """The node joins. Misfit if it cannot; the space is then spoilt (work on a copy)."""
        rule = RULES.get(type(node.op))
        if rule is None:
            raise Misfit(f"{node.op.name} does not run in a loop nest with others")
        self.read.update(v for v in node.inputs if v.node in self.reductions)
        late = any(v in self.late for v in node.inputs)
        rule(self, node)
        if late:
            self._postpone(node)

    @property
    def kept(self) -> tuple[int, ...]:
        """The dims that are not reduced."""
        return tuple(d for d in self.extents if d not in (self.reduced or ()))

    def size(self, dims: Iterable[int]) -> Dim:
        return prod(self.extents[d] for d in dims)

    def dims_of(self, v: Value) -> frozenset[int]:
        """The dims that the axes of `v` run over."""
        return frozenset(d for dims in self.maps[v] for d in dims)

    def stores_once(self, v: Value) -> bool:
        """Whether no loop that stores `v` leaves its elements where they are: it runs over all dims, or over those that
        are not reduced, or is made after all rows, as a number or over those that are.
        """
        dims = self.dims_of(v)
        if v in self.late:
            return not dims or dims == set(self.reduced or ())
        return len(dims) == len(self.extents) or self.reduced is not None and dims == set(self.kept)

    # ---- rules
    def broadcast(self, node: Node) -> None:
        """Elementwise operators and broadcast_to: numpy alignment of the operands with the result."""
        result = node.outputs[0].type.shape
        axes: list[tuple[int, ...] | None] = [() if n == 1 else None for n in result]
        hints: list[tuple[int, ...]] = [()] * len(result)
        for v in node.inputs:
            if v in self.maps:
                self._merge(axes, hints, v, len(result))
        if all(a is None or a == () for a in axes) and not any(hints):
            done = self.place(result)
        else:
            done = self._complete(axes, hints, result)
        for k, v in enumerate(node.inputs):
            if v not in self.maps:
                last = done[len(result) - v.type.rank:]
                self.uses[node, k] = tuple(() if n == 1 else dims for n, dims in zip(v.type.shape, last))
        self.maps[node.outputs[0]] = done

    def recur(self, node: NodeOf[scan_ops.LinearScan]) -> None:
        """A linear recurrence along an axis: otherwise elementwise in both operands."""
        if any(v in self.late for v in node.inputs):
            raise Misfit("a recurrence does not begin when all rows are done")
        self.broadcast(node)
        dims = self.maps[node.outputs[0]][node.op.axis]
        if not dims:
            return
        if len(dims) > 1 or self.crossed is not None or dims[0] in (self.reduced or ()):
            raise Misfit("the loop along the axis of a recurrence is another one")
        if self.running not in (None, dims[0]) or self.running is not None and self.backward != node.op.reverse:
            raise Misfit("two recurrences run along different axes or directions")
        self.running, self.backward = dims[0], node.op.reverse

    def reduce(self, node: NodeOf[reduce.Reduction] | NodeOf[reduce.ArgExtremum]) -> None:
        axes = node.op.reduced_axes
        source = self._operand(node)
        gone = tuple(d for a in axes for d in source[a])
        if self.running in gone:
            raise Misfit("it reduces the axis of a recurrence")
        mine = {d for dims in source for d in dims}
        if gone and mine != set(self.extents) and (set(gone) == set(self.reduced or gone) or mine != set(gone)):
            raise Misfit("it would be reduced again and again along the other axes")
        if gone:
            reduced = self.reduced = self.reduced or gone
            if set(gone) == set(reduced):
                self.reductions |= {node}
            else:
                lies = next((d for dims in reversed(source) for d in reversed(dims)), None)
                self._cross(node, gone, mine, reduced, lies in gone)
        keep = node.op.keepdims
        self.maps[node.outputs[0]] = tuple(() if i in axes else dims for i, dims in enumerate(source) if keep
                                           or i not in axes)
        if keep:
            self.ghosts[node.outputs[0]] = tuple(dims if i in axes else () for i, dims in enumerate(source))

    def _cross(self, node: Node, gone: tuple[int, ...], mine: set[int], reduced: tuple[int, ...], along: bool) -> None:
        """A reduction over all the dims that are not `reduced`; or one that makes crossing those of which nobody has
        read a result yet. along: it reduces the innermost dim, so that what crosses it is added row by row."""
        whole = set(self.extents)
        if self.running is not None:
            raise Misfit("the steps of a recurrence are not rows whose sums cross")
        if set(gone) | set(reduced) != whole or set(gone) & set(reduced):
            raise Misfit("they reduce different axes")
        if self.crossed is None and not self.read and mine == whole and along:
            self.crossed, self.crossing = reduced, self.reductions
            self.reduced, self.reductions = gone, frozenset((node,))
        else:
            self.crossed = gone
            self.crossing |= {node}
        self.late |= {v for n in self.crossing for v in n.outputs}

    def _postpone(self, node: Node) -> None:
        """The node reads late values, so it is late."""
        early = any(v in self.maps and v not in self.late for v in node.inputs)
        crosses = any(self.dims_of(v) & set(self.crossed or ()) for v in node.outputs)
        if early or crosses or node in self.reductions | self.crossing:
            raise Misfit("a sum across rows is not ready before all rows are done")
        self.late.update(node.outputs)

    def transpose(self, node: NodeOf[shape.Transpose]) -> None:
        source = self._operand(node)
        self.maps[node.outputs[0]] = tuple(source[p] for p in node.op.perm)

    def reshape(self, node: Node) -> None:
        flat = [d for dims in self._operand(node) for d in dims]
        result = self._regroup(flat, node.outputs[0].type.shape)
        if result is None:
            raise Misfit("the reshape mixes axes")
        self.maps[node.outputs[0]] = result

    def leaf(self, node: Node) -> None:
        """Scalar constants, sizes and counting arrays take their place where they are used."""

    def generate(self, node: Node) -> None:
        """An operator whose result has a value at every element: random numbers."""
        if any(v in self.maps for v in node.inputs):
            raise Misfit("its operand is needed whole")
        self.maps[node.outputs[0]] = self.place(node.outputs[0].type.shape)

    def pick(self, node: Node) -> None:
        """Rows of an array that lies in memory: no dim runs along its first axis."""
        x, at = node.inputs
        if x in self.maps:
            raise Misfit("rows are picked from an array that must be there whole")
        axes: list[tuple[int, ...] | None] = [() if n == 1 else None for n in node.outputs[0].type.shape]
        if at in self.maps:
            axes[0] = self.maps[at][0]
        done = self._complete(axes, [()] * len(axes), node.outputs[0].type.shape)
        self.uses[node, 0] = ((), *done[1:])
        if at not in self.maps:
            self.uses[node, 1] = done[:1]
        self.maps[node.outputs[0]] = done

    # ---- placing
    def place(self, result: Sequence[Dim]) -> Map:
        """Dims for the axes of an array that nothing ties to the others: fitting ones in order, else new ones."""
        if not self.extents:
            return tuple(() if n == 1 else (self.new(n),) for n in result)
        if prod(result) == self.size(self.extents):
            whole = self._regroup(list(self.extents), result)
            if whole is not None:
                return whole
        return self._complete([() if n == 1 else None for n in result], [()] * len(result), result)

    def _operand(self, node: Node) -> Map:
        """The map of the only operand, placed if it is a leaf."""
        v = node.inputs[0]
        if v not in self.maps:
            before = next((m for (n, k), m in self.uses.items() if n.inputs[k] is v), None)
            self.uses[node, 0] = before or self.place(v.type.shape)
            return self.uses[node, 0]
        return self.maps[v]

    def _merge(self, axes: list[tuple[int, ...] | None], hints: list[tuple[int, ...]], v: Value, rank: int) -> None:
        """Takes over what the map of `v` says about the last axes of a result of `rank` axes."""
        offset = rank - v.type.rank
        for i, dims in enumerate(self.maps[v]):
            axis = offset + i
            if not dims:
                ghosts = self.ghosts.get(v)
                hints[axis] = hints[axis] or (ghosts[i] if ghosts else ())
            elif not axes[axis]:
                axes[axis] = dims
            elif axes[axis] != dims:
                raise Misfit("they run over different dims")

    def _complete(self, axes: Sequence[tuple[int, ...] | None], hints: Sequence[tuple[int, ...]],
                  result: Sequence[Dim]) -> Map:
        """Chooses dims for the axes that are still None."""
        fixed = [d for a in axes if a for d in a]
        used = set(fixed)
        if len(used) != len(fixed):
            raise Misfit("one dim would run along two axes")
        done: list[tuple[int, ...]] = []
        for n, given, hint in zip(result, axes, hints, strict=True):
            dims = self._choose(n, used, hint) if given is None else given
            used.update(dims)
            done.append(dims)
        return tuple(done)

    def _choose(self, n: Dim, used: set[int], hint: tuple[int, ...]) -> tuple[int, ...]:
        if hint and self.size(hint) == n and not used.intersection(hint):
            return hint
        free = [d for d in self.extents if d not in used and self.extents[d] != 1]
        for start in range(len(free)):
            size: Dim = 1
            for end in range(start, len(free)):
                size = size * self.extents[free[end]]
                if size == n:
                    return tuple(free[start:end + 1])
        return (self.new(n),)

    def new(self, n: Dim) -> int:
        """A fresh dim of size n."""
        if self.reduced is not None:
            raise Misfit("the result has an axis that the reduction does not run over")
        self.number += 1
        self.extents[self.number] = n
        return self.number

    def _regroup(self, dims: list[int], result: Sequence[Dim]) -> Map | None:
        """The row-major sequence `dims` cut into axes of the sizes `result`, dims split where need be; None if sizes do
        not divide.
        """
        groups = _cut([self.extents[d] for d in dims], result)
        if groups is None:
            return None
        pieces: dict[int, list[Dim]] = {i: [] for i in range(len(dims))}
        for group in groups:
            for i, size in group:
                pieces[i].append(size)
        parts = [iter(self._split(d, pieces[i])) for i, d in enumerate(dims)]
        return tuple(tuple(next(parts[i]) for i, _ in group) for group in groups)

    def _split(self, dim: int, sizes: list[Dim]) -> tuple[int, ...]:
        """Replaces `dim` by dims of these sizes, outermost first, everywhere."""
        if len(sizes) <= 1:
            return (dim,)
        if dim == self.running:
            raise Misfit("the axis of a recurrence would be cut")
        new = tuple(range(self.number + 1, self.number + 1 + len(sizes)))
        self.number += len(sizes)
        order = [(d, n) for d, n in self.extents.items()]
        at = [d for d, _ in order].index(dim)
        self.extents = dict(order[:at] + list(zip(new, sizes)) + order[at + 1:])
        _substitute_all(self.maps, dim, new)
        _substitute_all(self.ghosts, dim, new)
        _substitute_all(self.uses, dim, new)
        if self.reduced is not None:
            self.reduced = _substitute(self.reduced, dim, new)
        if self.crossed is not None:
            self.crossed = _substitute(self.crossed, dim, new)
        return new


def space_of(body: Graph) -> Space:
    """The space of a finished cluster. InternalError if its nodes do not fit together."""
    space = Space()
    try:
        for node in body.nodes:
            space.add(node)
    except Misfit as error:
        raise InternalError(f"the nodes of a cluster do not share a loop nest: {error}", "fuse") from error
    for v in body.outputs:
        if v not in space.maps:
            space.maps[v] = space.place(v.type.shape)
    return space


def _cut(extents: list[Dim], result: Sequence[Dim]) -> list[list[tuple[int, Dim]]] | None:
    """Per axis of `result`, the (position, size) pieces of `extents` that it is made of, outermost first."""
    if 0 in extents or 0 in result:
        return None
    groups: list[list[tuple[int, Dim]]] = []
    i = -1
    rest: Dim = 1
    for n in result:
        group: list[tuple[int, Dim]] = []
        while n != 1:
            if rest == 1:
                i += 1
                rest = extents[i]
                continue
            inside = exact_quotient(n, rest)
            take = n if inside is None else rest
            outside = exact_quotient(rest, take)
            if outside is None:
                return None
            group.append((i, take))
            n, rest = 1 if inside is None else inside, outside
        groups.append(group)
    return groups


def _substitute(dims: tuple[int, ...], dim: int, new: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(e for d in dims for e in (new if d == dim else (d,)))


def _substitute_all(table: dict[Place, Map], dim: int, new: tuple[int, ...]) -> None:
    for key, m in table.items():
        if any(dim in dims for dims in m):
            table[key] = tuple(_substitute(dims, dim, new) for dims in m)


# each takes nodes of its operator (`NodeOf`), which the type of a table cannot say
RULES: dict[type[Op], Callable[[Space, Any], None]] = {
    elementwise.Elementwise: Space.broadcast, elementwise.Cast: Space.broadcast,
    elementwise.BitCast: Space.broadcast, elementwise.StopGradient: Space.broadcast,
    elementwise.ShardSum: Space.broadcast,
    PackFour: Space.broadcast, PackPair: Space.broadcast,
    shape.BroadcastTo: Space.broadcast, shape.Transpose: Space.transpose, shape.Reshape: Space.reshape,
    **dict.fromkeys((reduce.Sum, reduce.Prod, reduce.Max, reduce.Min, reduce.ArgMax, reduce.ArgMin), Space.reduce),
    **dict.fromkeys((constant.Constant, constant.Iota, constant.Dimension), Space.leaf),
    random.RandomBits: Space.generate, embedding_gradients.PickRows: Space.pick, scan_ops.LinearScan: Space.recur,
}
