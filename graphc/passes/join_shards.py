"""Several shards of a batch in one program, after fusion: each kernel once for each shard, so that a shard has the bits
that it has alone, and sums over the shards as soon as their terms are there.

Convolutions by tiles (Winograd) whose weights take longer to read for each shard than results take to be stored are
computed of all shards at once: a tile's bits do not depend on how many there are. Such a convolution waits for all
shards, and what it does not need waits for it: gradients towards its own weights, so that these have been read for the
last time when their sum is there, and can be updated. Between two of them a shard is done before the next begins, so
that what it computes stays in the caches.

The gradient towards the weights of such a convolution, both of whose images are there as a whole, is one kernel, too:
it makes the gradient of each shard and adds it while it is in the caches.

A program of all shards may end with the update of the state, each array of which is written as soon as its sum is there
and nobody reads the old one any more: gradients and their sums are gone then. Gradients that are one kernel never are
in memory: the update is its epilogue.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from graphc.ir.builder import Builder
from graphc.ir.digest import digest
from graphc.ir.dims import static_dim, static_shape
from graphc.ir.graph import Graph, Node, Value, users
from graphc.ir.ops.elementwise import ADD, COPY
from graphc.ir.ops.fused import Fused, core_of
from graphc.ir.ops.shape import BroadcastTo, Concat, Pad, Reshape, Slice
from graphc.ir.ops.winograd import WinogradConv2d, WinogradWeightGrad, WinogradWeights
from graphc.ir.types import TensorType
from graphc.passes.dce import EliminateDeadCode
from graphc.passes.order import Order
from graphc.passes.update_behind import updates_behind, with_update
from graphc.records import dataclass
from graphc.schedule.choose_winograd import ConvolutionSizes
from graphc.schedule.target import Target
from graphc.schedule.winograd_cost import faster_at_once, kernel_traffic

@dataclass(frozen=True)
class Joined:
    """The kernels of several shards; `stand`: which values stand for those of one; `prepare`: what is computed when the
    state has changed."""
    main: Graph
    stand: Mapping[Value, list[Value]]
    prepare: Graph | None = None


@dataclass(frozen=True)
class StateUpdate:
    """The update of the whole state, whose arrays are in the order of those of the graph of a shard. Its inputs are the
    sums over each of these spans, which together are all shards, of what follows the first output of a shard: all of
    one span, then all of the next."""
    graph: Graph
    spans: tuple[tuple[int, int], ...]

    @property
    def summed(self) -> int:
        """How many outputs of a shard it takes."""
        return len(self.graph.inputs) // len(self.spans)

    def parts(self) -> list[tuple[Value, ...]]:
        """For each output that it takes, the inputs that are sums of it."""
        inputs = self.graph.inputs
        return [inputs[number::self.summed] for number in range(self.summed)]


@dataclass(frozen=True)
class Shards:
    """A graph is that of one of `count` shards of a batch; its first `summed` outputs are summed over the shards, the
    others have a row for each example. A program of several of them adds as `additions` says, in this order: of the
    shards low … high - 1 the sums of those below and from `middle` on. A program of all may end with an update, in the
    place of the sums that this takes."""
    count: int
    summed: int = 0
    additions: tuple[tuple[int, int, int], ...] = ()        # low, middle, high
    update: StateUpdate | None = None

    @property
    def own(self) -> int:
        """Shards of the program."""
        return len(self.additions) + 1

    @property
    def key(self) -> tuple[object, ...]:
        """What tells programs apart, as a text."""
        update = (digest(self.update.graph), self.update.spans) if self.update else ()
        return replace(self, update=None), *update


def called_with(graph: Graph, shards: Shards) -> Graph:
    """The graph of the shards of a program, as it is called: rows of all of them, scalars as an array of one for
    each."""
    return _Joined(graph, shards, lambda node: False, {}).run()[0]


def join_shards(graph: Graph, prepare: Graph | None, shards: Shards, target: Target) -> Joined:
    """The same of fused nodes, those of an update too. Transforms of weights are made in each call, which is one in a
    step, and take memory only until they have been read."""
    convolutions = [node for node in graph.nodes if isinstance(core_of(node).op, WinogradConv2d)]
    traffic = kernel_traffic(True, sum(static_dim(node.inputs[1].type.nbytes) for node in convolutions),
                             target.machine)
    chosen = {node for node in convolutions if faster_at_once(
        _sizes(node), _core(node).tile, shards.own, target, traffic)}
    chosen |= _gradients(graph, shards, {node.inputs[0] for node in chosen})
    made = _transforms(graph, prepare) if prepare else {}
    main, stand = _Joined(graph, shards, chosen.__contains__, made).run()
    if shards.update:
        main = Order().run(main)        # new state is written behind its sum and the last reader of the old one
    return Joined(main, stand, _without(prepare, [v in made for v in graph.state]) if prepare else None)


def _gradients(graph: Graph, shards: Shards, images: set[Value]) -> set[Node]:
    """Gradients towards kernels, both of whose operands are among these images, and which nobody takes but the sum over
    the shards."""
    readers, results = users(graph), Counter(graph.outputs)
    return {v.node for v in graph.outputs[:shards.summed] if v.node and isinstance(v.node.op, WinogradWeightGrad)
            and images.issuperset(v.node.inputs) and not readers[v] and results[v] == 1}


def _transforms(graph: Graph, prepare: Graph) -> dict[Value, tuple[Node, Value]]:
    """The values among the derived state that are transforms of weights: what makes them, and of what in this graph."""
    own = dict(zip(prepare.state, graph.state))
    return {v: (new.node, own[new.node.inputs[0]]) for v, new in zip(graph.state, prepare.updates)
            if new and new.node and isinstance(new.node.op, WinogradWeights) and new.node.inputs[0] in own}


def _without(prepare: Graph, left: Sequence[bool]) -> Graph | None:
    """The graph without the updates of these states; None if it has no others."""
    kept = [pair for pair, gone in zip(zip(prepare.state, prepare.updates), left) if not gone]
    fewer = replace(prepare, state=tuple(v for v, _ in kept), updates=tuple(new for _, new in kept))
    return EliminateDeadCode().run(fewer) if fewer.writes else None


def _needed(node: Node, among: Sequence[Node]) -> set[Node]:
    """Those, in the order of the graph, that give what the node computes from."""
    wanted, found = set(node.inputs), set[Node]()
    for other in reversed(among):
        if not wanted.isdisjoint(other.outputs):
            wanted.update(other.inputs)
            found.add(other)
    return found


def _core(node: Node) -> WinogradConv2d:
    op = core_of(node).op
    assert isinstance(op, WinogradConv2d)
    return op


def _sizes(node: Node) -> ConvolutionSizes:
    x, (batch, features, height, width) = node.inputs[0].type, static_shape(core_of(node).outputs[0].type.shape)
    return ConvolutionSizes(static_dim(x.shape[1]), features, batch, height, width, x.dtype)


class _Joined:
    """The graph of several shards while it is built. `each`: for each of them what stands for the values of one."""

    def __init__(self, graph: Graph, shards: Shards, at_once: Callable[[Node], bool],
                 transforms: Mapping[Value, tuple[Node, Value]]):
        self.graph, self.shards, self.at_once, self.transforms = graph, shards, at_once, transforms
        self.b = Builder(graph.name)
        self.each: list[dict[Value, Value]] = [{} for _ in range(shards.own)]
        self.stand: dict[Value, list[Value]] = {}
        self.whole: dict[Value, Value] = {}
        # images that lie where others see to it: in a padded one, in a result
        self.placed = {*graph.outputs, *(v for node in graph.nodes if isinstance(node.op, (Concat, Pad))
                                         for v in node.inputs)}
        self.sums: dict[Value, dict[tuple[int, int], Value]] = {v: {} for v in graph.outputs[:shards.summed]}
        self.moved = graph.outputs[1:1 + shards.update.summed] if shards.update else ()     # what the update takes
        behind = updates_behind(shards.update.graph, shards.update.parts()) if shards.update else {}
        self.behind = {self.moved[number]: node for number, node in behind.items()}
        self.zeros: dict[TensorType, Value] = {}
        # gradients of all shards at once that the update makes: by which operator, of what
        self.unmade: dict[Value, tuple[WinogradWeightGrad, list[Value]]] = {}

    def run(self) -> tuple[Graph, Mapping[Value, list[Value]]]:
        graph, own = self.graph, range(self.shards.own)
        for v in (v for v in graph.state if v not in self.transforms):
            self._note(v, [self.b.state_input(v.name, v.type)] * len(own))
        for v in graph.inputs:
            self._note(v, self._parts_of_input(v))
        varying, waiting = set(graph.inputs), list[Node]()
        for node in graph.nodes:
            if varying.isdisjoint(node.inputs):
                new = self._copied(node, 0)
                for v, made in zip(node.outputs, new):
                    self._note(v, [made] * len(own))
                continue
            varying.update(node.outputs)
            if not self.at_once(node):
                waiting.append(node)
                continue
            before = _needed(node, waiting)
            self._flush([n for n in waiting if n in before])
            waiting = [n for n in waiting if n not in before]
            if isinstance(node.op, WinogradWeightGrad):
                self._sum_at_once(node, node.op)
                continue
            self._convolve(node)
            self._flush(waiting)
            waiting = []
        self._flush(waiting)
        return self._finished(), self.stand

    def _finished(self) -> Graph:
        graph, summed, update = self.graph, self.shards.summed, self.shards.update
        behind = 1 + len(self.moved)
        totals = [v for place, v in enumerate(graph.outputs[:summed]) if not 0 < place < behind]
        outputs = [*map(self._total, totals), *map(self._joined, graph.outputs[summed:])]
        if update is not None:
            names = graph.output_names or ()
            return self.b.finish([*outputs, *self._updated(update)],
                                 (*names[:1], *names[behind:], *(update.graph.output_names or ())))
        return self.b.finish(outputs, graph.output_names)

    def _updated(self, update: StateUpdate) -> list[Value]:
        """The nodes of the update; its outputs."""
        graph, states = update.graph, self.b.state[:len(update.graph.state)]
        known = dict(zip(graph.state, states, strict=True))
        unmade: dict[Node, tuple[Value, tuple[Value, ...]]] = {}
        for v, sums in zip(self.moved, update.parts(), strict=True):
            if v in self.unmade:
                unmade[self.behind[v]] = v, sums
            else:
                known.update(zip(sums, self._addends(v, update), strict=True))
        for node in graph.nodes:
            if node in unmade:
                v, sums = unmade[node]
                known.update(zip(node.outputs, with_update(self.b, *self.unmade[v], node, sums, known)))
                continue
            new = Node(node.op, tuple([known[v] for v in node.inputs]), [v.type for v in node.outputs], node.loc,
                       node.scope)
            self.b.nodes.append(new)
            known.update(zip(node.outputs, new.outputs))
        for state, new_state in zip(states, graph.updates):
            if new_state is not None:
                self.b.update(state, known[new_state])
        return [known[v] for v in graph.outputs]

    def _addends(self, v: Value, update: StateUpdate) -> list[Value]:
        """What the update adds: the sums over its spans, or that over all shards, and zeros."""
        sums, whole = self._sums(v), (0, self.shards.own)
        if whole not in sums:
            return [sums[span] for span in update.spans]
        return [sums[whole], *[self._zeros(sums[whole].type)] * (len(update.spans) - 1)]

    def _zeros(self, type: TensorType) -> Value:
        """An array of them, which lies as sums do."""
        if type not in self.zeros:
            zero = self.b.constant(0, type.dtype)
            self.zeros[type], = self.b.apply(COPY, self.b.apply(BroadcastTo(type.shape), (zero,)))
        return self.zeros[type]

    def _note(self, old: Value, new: Sequence[Value]) -> None:
        for mapping, v in zip(self.each, new, strict=True):
            mapping[old] = v
        self.stand.setdefault(old, []).extend(dict.fromkeys(new))

    def _parts_of_input(self, v: Value) -> list[Value]:
        own = self.shards.own
        shape = static_shape(v.type.shape)
        rows, rest = (shape[0], shape[1:]) if shape else (1, ())
        whole = self.b.input(v.name, v.type.with_shape((own * rows, *rest)))
        parts = [self._part(whole, shard, rows) for shard in range(own)]
        return parts if shape else [self.b.apply(Reshape(()), (part,))[0] for part in parts]

    def _part(self, whole: Value, shard: int, rows: int) -> Value:
        rest = whole.type.shape[1:]
        return self.b.apply(Slice((shard * rows, *[0] * len(rest)), ((shard + 1) * rows, *rest),
                                  (1,) * (len(rest) + 1)), (whole,))[0]

    def _copied(self, node: Node, shard: int) -> tuple[Value, ...]:
        mapping = self.each[shard]
        self._transform(node)
        new = Node(node.op, tuple([mapping[v] for v in node.inputs]), [v.type for v in node.outputs], node.loc,
                   node.scope)
        self.b.nodes.append(new)
        return new.outputs

    def _transform(self, node: Node) -> None:
        """Of weights that the node is the first to read."""
        for v in node.inputs:
            if v in self.transforms and v not in self.each[0]:
                maker, weights = self.transforms[v]
                with self.b.at(maker.loc, maker.scope):
                    self._note(v, list(self.b.apply(maker.op, (self.each[0][weights],))) * self.shards.own)

    def _flush(self, waiting: Sequence[Node]) -> None:
        """The nodes that wait, shard by shard."""
        for shard, mapping in enumerate(self.each):
            for node in waiting:
                for old, new in zip(node.outputs, self._copied(node, shard)):
                    mapping[old] = new
                    self.stand.setdefault(old, []).append(new)
            for v in dict.fromkeys(v for node in waiting for v in node.outputs):
                self._add(v, shard)

    def _add(self, v: Value, shard: int) -> None:
        """Of a value that is summed: that of one more shard, and all sums that are complete by it."""
        if v not in self.sums:
            return
        sums = self.sums[v]
        sums[shard, shard + 1] = self.each[shard][v]
        with self.b.at(*((v.node.loc, v.node.scope) if v.node else (None,))):
            for low, middle, high in self.shards.additions:
                if high == shard + 1 and self._is_added(v, low, high):
                    sums[low, high], = self.b.apply(ADD, (sums.pop((low, middle)), sums.pop((middle, high))))

    def _is_added(self, v: Value, low: int, high: int) -> bool:
        """Whether the sum over these shards is computed: the update adds what it takes of several spans itself."""
        update = self.shards.update
        return update is None or v not in self.moved or any(a <= low and high <= b for a, b in update.spans)

    def _sums(self, v: Value) -> dict[tuple[int, int], Value]:
        """Those that are left of a value, over all shards together."""
        if not self.sums[v]:                            # it depends on no input, or is one
            for shard in range(self.shards.own):
                self._add(v, shard)
        return self.sums[v]

    def _total(self, v: Value) -> Value:
        *before, total = [self._sums(v)[span] for span in sorted(self._sums(v))]
        for left in reversed(before):
            total, = self.b.apply(ADD, (left, total))
        return total

    def _joined(self, v: Value) -> Value:
        return self.b.apply(Concat(0), [mapping[v] for mapping in self.each])[0]

    # ---- all shards at once

    def _convolve(self, node: Node) -> None:
        """The convolution of all shards, and what follows it in its kernel for each."""
        image, (result, *_), core = self._whole(node.inputs[0]), node.outputs, core_of(node)
        self._transform(node)
        with self.b.at(node.loc, node.scope):
            whole, = self.b.apply(core.op, (image, self.each[0][node.inputs[1]]))
        self.stand.setdefault(result, []).append(whole)         # which lies as that does
        rows = static_dim(result.type.shape[0])
        for shard, mapping in enumerate(self.each):
            part = self._part(whole, shard, rows)
            for v, made in zip(node.outputs, self._behind(node, core, mapping, part)):
                mapping[v] = made
                if made is not part:
                    self.stand.setdefault(v, []).append(made)
            for v in node.outputs:
                self._add(v, shard)

    def _whole(self, image: Value) -> Value:
        """That of all shards."""
        if image not in self.whole:
            parts = [self._copied_from(image, mapping[image]) for mapping in self.each]
            self.whole[image], = self.b.apply(Concat(0), parts)
            self.stand.setdefault(image, []).append(self.whole[image])
        return self.whole[image]

    def _sum_at_once(self, node: Node, op: WinogradWeightGrad) -> None:
        """The sum of a gradient over all shards; where the update follows, that makes it."""
        v, images = node.outputs[0], [self._whole(image) for image in node.inputs]
        op = op.replace(additions=self.shards.additions)
        if v in self.behind:
            self.unmade[v] = op, images
            return
        with self.b.at(node.loc, node.scope):
            total, = self.b.apply(op, images)
        self.sums[v][0, self.shards.own] = total
        self.stand.setdefault(v, []).append(total)

    def _copied_from(self, v: Value, part: Value) -> Value:
        """What stands for `v` in one shard, in memory of its own, so that both lie as they should."""
        if v not in self.placed:
            return part
        copy, = self.b.apply(COPY, (part,))
        self.stand.setdefault(v, []).append(copy)
        return copy

    def _behind(self, node: Node, core: Node, mapping: Mapping[Value, Value], part: Value) -> list[Value]:
        """The results of the kernel of `node`, for one shard, from that of its convolution."""
        if core is node:
            return [self._copied_from(node.outputs[0], part)]
        assert isinstance(node.op, Fused)
        made, body = core.outputs[0], node.op.body
        outer = {made: part, **{inner: mapping[v] for inner, v in zip(body.inputs, node.inputs)}}
        rest = [n for n in body.nodes if n is not core]
        wanted = [v for v in dict.fromkeys(body.outputs) if v is not made]
        if not wanted:
            return [part] * len(body.outputs)
        read = {v for n in rest for v in n.inputs}
        inner = Builder(body.name)
        known = {v: inner.input(f"x{i}", v.type) for i, v in enumerate(v for v in outer if v in read)}
        for n in rest:
            known.update(zip(n.outputs, inner.copy(n, known)))
        op = Fused(inner.finish([known[v] for v in wanted], ("",) * len(wanted)), "nest")
        with self.b.at(node.loc, node.scope):
            outs = self.b.apply(op, [outer[v] for v in outer if v in read])
        found = {made: part, **dict(zip(wanted, outs))}
        return [found[v] for v in body.outputs]
