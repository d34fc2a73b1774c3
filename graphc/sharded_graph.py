"""The two graphs of a training step whose batch is cut into shards: the gradients of one shard, and the update.

What a shard gives is a function of the state, of the rows of the shard, of its number and of its share of the batch
alone, so that it does not matter who computes it, nor what else he computes.
"""
from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

from graphc.contained import contained
from graphc.dsl.array import Array
from graphc.dsl.context import user_loc
from graphc.dsl.elementwise import isnan, where
from graphc.dsl.function import GraphFunction, finish
from graphc.dsl.inline import inline
from graphc.dsl.outputs import with_outputs
from graphc.dsl.trace import RANDOM_KEY, Trace
from graphc.errors import GraphError
from graphc.ir.dims import Dim
from graphc.ir.graph import Graph, Value
from graphc.ir.types import TensorType, f32, f64, i64
from graphc.nn.network import inputs, network_name
from graphc.nn.parameter import Parameter
from graphc.nn.path import rooted
from graphc.once import once_property
from graphc.product_types import training_in
from graphc.records import dataclass
from graphc.shard_tree import right_edge
from graphc.training_graph import Chosen, Recipe

LOSS, SHARE, SHARD, STEPS = "loss", "share", "shard", "steps"
GRAD, NEW, VALUE = "grad/", "new/", "value/"        # begin the names of what a shard gives


Moved = tuple[Hashable, str, TensorType]                # state that a step changes: its owner, name and type


@dataclass(frozen=True)
class ShardGraph:
    """The gradients of one shard: `function` takes the rows of the shard, then its share of the batch, f64, and its
    number, i64. It gives, in this order,

    the loss, the gradients `grads`, statistics that become the state of `moving`, and the values `means`, each times
        the share, so that the sum over the shards is the mean over the batch;
    the values `rows`, which have a row for each example.

    `kept` gives the new values of state that no batch changes, such as counters, from the state alone.
    """
    function: GraphFunction
    grads: tuple[tuple[Parameter, str], ...]
    moving: tuple[Moved, ...]
    means: tuple[str, ...]
    rows: tuple[str, ...]
    kept: GraphFunction | None
    kept_state: tuple[Moved, ...]

    @once_property
    def types(self) -> tuple[TensorType, ...]:
        """Of all outputs."""
        return tuple(v.type for v in self.function.graph.outputs)

    @once_property
    def static(self) -> bool:
        """Whether the types of all outputs are known before a batch comes."""
        return all(type.is_static for type in self.types)

    @property
    def summed(self) -> int:
        """The number of outputs that are summed."""
        return 1 + len(self.grads) + len(self.moving) + len(self.means)


def batch_dim(types: Mapping[str, TensorType]) -> Dim:
    """The rows of a batch: the first axis of all inputs that have one. GraphError where they differ."""
    firsts = {name: type.shape[0] for name, type in types.items() if type.rank}
    if len(set(firsts.values())) != 1:
        shown = ", ".join(f"{name}: {type}" for name, type in types.items())
        raise GraphError("shards= cuts a batch along the first axis of its arrays, which must be the examples in all "
                         f"of them; got {shown}", user_loc())
    return next(iter(firsts.values()))


def with_rows(types: Mapping[str, TensorType], rows: Dim) -> dict[str, TensorType]:
    """The types of a batch of so many rows."""
    return {name: type.with_shape((rows, *type.shape[1:])) if type.rank else type for name, type in types.items()}


@contained
def shard_graph(recipe: Recipe, rows: Dim, whole: Mapping[str, TensorType]) -> ShardGraph:
    """The gradients of a shard of so many rows, in training mode. `whole`: what the step reports of a whole batch."""
    root, types = recipe.objective.root, with_rows(recipe.types, rows)
    with Trace("shard_" + network_name(root), training=True) as trace, rooted(root):
        chosen = Chosen.by(recipe.trainable)
        trace.trains = None if recipe.trainable is None else chosen.layer
        arrays = inputs(trace, types)
        share = trace.input(_free(SHARE, types), f64[()])
        trace.shard = trace.input(_free(SHARD, types), i64[()])
        loss, values = recipe.loss(arrays)
        if recipe.outputs:
            values |= _intermediate(trace, recipe.outputs, {LOSS: loss, **values})
        new = [(key, v, Array(trace.builder.updates[v], trace)) for key, v in trace.state_values.items()
               if v in trace.builder.updates and key != RANDOM_KEY]
        factor = share.astype(loss.dtype)
        grads = recipe.gradients(trace, loss, chosen, factor)
        moving, kept = _sorted_states(trace, new)
        means, by_row = _sorted_values(values, (rows, batch_dim(recipe.types)), whole)
        averaged = {NEW + v.name: value for _, v, value in moving} | {VALUE + n: value for n, value in means.items()}
        outputs = {LOSS: loss * factor, **{GRAD + name: _wide(g) for _, name, g in grads},
                   **{name: _wide(value) * share.astype(_wide(value).dtype) for name, value in averaged.items()},
                   **{VALUE + name: value for name, value in by_row.items()}}
        function = training_in(_reading(finish(trace, outputs, user_loc())), recipe.compute)
        after = {NEW + v.name: value for _, v, value in kept}
        alone = _without_inputs(_reading(finish(trace, after, user_loc()))) if after else None
    return ShardGraph(function, tuple((key, name) for key, name, _ in grads), _moved(moving), tuple(means),
                      tuple(by_row), alone, _moved(kept))


def _reading(function: GraphFunction) -> GraphFunction:
    """The function without what it writes."""
    return replace(function, graph=replace(function.graph, updates=(None,) * len(function.graph.state)))


def _without_inputs(function: GraphFunction) -> GraphFunction:
    """The part that its outputs need; nothing in it depends on the inputs."""
    graph, needed, nodes = function.graph, set(function.graph.outputs), []
    for node in reversed(graph.nodes):
        if not needed.isdisjoint(node.outputs):
            needed.update(node.inputs)
            nodes.append(node)
    return replace(function, graph=replace(graph, inputs=(), nodes=tuple(reversed(nodes))), calls=(), orders=None)


def _intermediate(trace: Trace, names: Sequence[str], own: dict[str, Array]) -> dict[str, Array]:
    """Values of the names that `outputs=` asks for."""
    made = with_outputs(finish(trace, own, user_loc()), names)
    return {name: Array(v, trace) for name, v in zip(made.graph.output_names or (), made.graph.outputs)
            if name not in own}


State = tuple[Hashable, Value, Array]                   # owner, value before, value after
Owned = tuple[Value, Value | None]                      # of one owner: value before, value after


def _moved(states: Sequence[State]) -> tuple[Moved, ...]:
    return tuple((key, v.name, v.type) for key, v, _ in states)


def _sorted_states(trace: Trace, new: Sequence[State]) -> tuple[list[State], list[State]]:
    """(those that depend on the batch, the others). GraphError for one of integers that depends on it."""
    batch = _descend(trace, trace.builder.inputs)
    moving = [state for state in new if trace.value(state[2]) in batch]
    wrong = next((v for _, v, _ in moving if not v.type.dtype.is_float), None)
    if wrong is not None:
        raise GraphError(f"{wrong.name}: {wrong.type} changes with the data of a batch, and of shards only means can "
                         "be taken: keep it as f32, or make the step without shards=", user_loc())
    return moving, [state for state in new if trace.value(state[2]) not in batch]


def _sorted_values(values: Mapping[str, Array], dims: tuple[Dim, Dim],
                   whole: Mapping[str, TensorType]) -> tuple[dict[str, Array], dict[str, Array]]:
    """(means over the examples, those with a row for each). `dims`: rows of the shard and of the batch. GraphError for
    integers, which are neither."""
    by_row = {name: v for name, v in values.items()
              if v.shape[:1] == dims[:1] and whole[name].shape[:1] == dims[1:]}
    means = {name: v for name, v in values.items() if name not in by_row}
    wrong = next((name for name, v in means.items() if not v.dtype.is_float or v.shape != whole[name].shape), None)
    if wrong is not None:
        raise GraphError(f"the step reports {wrong!r}, {means[wrong].type} of a shard: floats are taken as means over "
                         "the examples, and averaged; arrays with a row for each example are joined", user_loc())
    return means, by_row


def _descend(trace: Trace, values: Sequence[Value]) -> set[Value]:
    """The values, and all that is computed from them."""
    found = set(values)
    for node in trace.builder.nodes:
        if any(v in found for v in node.inputs):
            found.update(node.outputs)
    return found


def _wide(value: Array) -> Array:
    """In a type that is summed in: f16 and bf16 only store."""
    return value.astype(f32) if value.dtype.is_storage else value


def _added(sums: Sequence[Array]) -> Array:
    """The sum a + (b + c) of sums; of a sum and zeros the same bits. So there is one zero, and one NaN: which of two
    NaN stays depends on the order in which an instruction takes them."""
    total = sums[-1]
    for left in reversed(sums[:-1]):
        total = left + total
    total = total + 0.0
    return where(isnan(total), float("nan"), total)


def _free(name: str, types: Mapping[str, TensorType]) -> str:
    """`name`, or one like it that no input has."""
    while name in types:
        name += "_"
    return name


@contained
def update_graph(recipe: Recipe, shard: ShardGraph) -> GraphFunction:
    """The update of the whole state from sums whose sum is that over all shards (`right_edge`), of gradients and
    statistics: first all of one, then all of the next. It gives the number of steps done, and what `report` asks for.
    """
    graph = shard.function.graph
    types = {name: v.type for name, v in zip(graph.output_names or (), graph.outputs)}
    with Trace("update_" + network_name(recipe.objective.root), training=True) as trace:
        names = [*(GRAD + name for _, name in shard.grads), *(NEW + name for _, name, _ in shard.moving)]
        parts = [[trace.input(f"{number}/{name}", types[name]) for name in names]
                 for number in range(len(right_edge(recipe.shards or 1)))]
        sums = [_added(each) for each in zip(*parts)]
        grads = [(key, name, total.astype(key.type.dtype)) for (key, name), total in zip(shard.grads, sums)]
        new = sums[len(grads):]
        norms = recipe.descend(trace, grads)
        if any(key == RANDOM_KEY for key in shard.function.keys):
            trace.random_key()                          # counts the steps
        kept = inline(trace, shard.kept.graph, shard.kept.keys, ()) if shard.kept else []
        for (key, name, type), value in zip((*shard.moving, *shard.kept_state), (*new, *kept), strict=True):
            trace.state(key, name, type)
            trace.update_state(key, value.astype(type.dtype))
        return finish(trace, {STEPS: trace.keys[recipe.counter], **norms}, user_loc())


def on_one_state(shard: GraphFunction, update: GraphFunction) -> tuple[GraphFunction, Graph]:
    """(the function of a shard, the graph of the update), both with all state that either has, in one order."""
    keys = tuple(dict.fromkeys((*shard.keys, *update.keys)))
    first, second = (dict(zip(f.keys, zip(f.graph.state, f.graph.updates))) for f in (shard, update))

    def every(graph: Graph, own: Mapping[Hashable, Owned], other: Mapping[Hashable, Owned]) -> Graph:
        """The graph, with new values for the state that only the other one has."""
        rows = [own.get(key) or (Value(other[key][0].type, other[key][0].name), None) for key in keys]
        return replace(graph, state=tuple(v for v, _ in rows), updates=tuple(new for _, new in rows))
    function = replace(shard, graph=every(shard.graph, first, second), keys=keys)
    return function, every(update.graph, second, first)
