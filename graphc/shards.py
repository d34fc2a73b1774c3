"""A training step whose batch is cut into shards: one compiled function gives the gradients of each shard, a fixed
binary tree adds them, one update follows.

The tree belongs to the number of shards. Several ranks compute subtrees of it and add what is above together, so the
bytes of the state depend neither on their number nor on that of threads.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from threading import Lock, get_ident
from typing import Any, Protocol, TypeVar

import numpy as np

from graphc.dsl.context import user_loc
from graphc.dsl.function import GraphFunction
from graphc.dsl.inline import solve_dims
from graphc.errors import GraphError
from graphc.execute import Runnable, on_state, sized_on_state
from graphc.ir.dims import Dim, static_dim
from graphc.ir.types import TensorType, dtype_of
from graphc.memory.usage import Memory
from graphc.profile import Profile
from graphc.runtime.arguments import bind_argument
from graphc.runtime.fork import renew_after_fork
from graphc.runtime.memory import aligned_empty, round_up
from graphc.runtime.signature import ArraySpec
from graphc.nn.network import network_name
from graphc.sharded_graph import LOSS, STEPS, ShardGraph, batch_dim, shard_graph, update_graph, with_rows
from graphc.specialised import Specialised, SpecialisedGraph
from graphc.state import State
from graphc.training_graph import Recipe

T = TypeVar("T")
Result = np.ndarray | dict[str, np.ndarray]
TRIES = 3                           # of a step whose state others write meanwhile


class Ranks(Protocol):
    """Those who share the shards of a step: `rank` of `count`, a power of two, has a block of the shards that is a
    subtree."""
    rank: int
    count: int
    origin: int                     # the version that the state had when they came together

    def gathered(self, numbers: Sequence[float], what: str, error: Exception | None = None) -> np.ndarray:
        """f64 [count, n]: the numbers of all ranks, which all do `what`. Raises on all of them what went wrong on any
        of them."""

    def reduced(self, flats: Sequence[np.ndarray]) -> None:
        """Each becomes its sum over the ranks, added as the tree does."""

    def part(self, rows: int, shards: int) -> slice:
        """The rows of a batch of so many that this rank has."""

    def joined(self, array: np.ndarray) -> np.ndarray:
        """The arrays of all ranks, one behind the other along the first axis."""

    def from_first(self, make: Callable[[], T], what: str) -> T:
        """What `make` gives on rank 0, on all ranks."""

    def dealt(self, arrays: Sequence[Any], shards: int) -> Sequence[Any]:
        """Rank 0 has a batch; each rank gets the rows of its shards."""


class Alone:
    """One rank that has all shards."""
    rank, count, origin = 0, 1, 0

    def gathered(self, numbers: Sequence[float], what: str, error: Exception | None = None) -> np.ndarray:
        if error is not None:
            raise error
        return np.array([numbers], np.float64)

    def reduced(self, flats: Sequence[np.ndarray]) -> None:
        """They are the sums."""

    def part(self, rows: int, shards: int) -> slice:
        return slice(0, rows)

    def joined(self, array: np.ndarray) -> np.ndarray:
        return array

    def from_first(self, make: Callable[[], T], what: str) -> T:
        return make()

    def dealt(self, arrays: Sequence[Any], shards: int) -> Sequence[Any]:
        return arrays


ALONE = Alone()


def middle(low: int, high: int) -> int:
    """Where the tree over the shards low … high - 1 divides."""
    return low + (high - low + 1) // 2


def shard_rows(rows: int, shards: int) -> list[int]:
    """The rows of each shard: as equal as they can be, the larger ones first."""
    return [rows // shards + (number < rows % shards) for number in range(shards)]


def rank_ends(rows: int, shards: int, count: int) -> list[int]:
    """Where the rows of each rank end in a batch of so many."""
    sizes = shard_rows(rows, shards)
    own = shards // count
    return list(accumulate(sum(sizes[start:start + own]) for start in range(0, shards, own)))


class Sums:
    """Arrays of these types in one flat block for each dtype, so that they can be added, and sent, as a whole."""

    def __init__(self, types: Sequence[TensorType]):
        ends: dict[np.dtype, int] = {}
        places = []
        for type in types:
            dtype = np.dtype(type.dtype.np)
            places.append((dtype, ends.get(dtype, 0)))
            ends[dtype] = ends.get(dtype, 0) + round_up(static_dim(type.nbytes)) // dtype.itemsize
        self.types = tuple(types)
        self.flats = {dtype: aligned_empty(end, dtype) for dtype, end in ends.items()}
        self.clear()
        self.arrays = [self.flats[dtype][start:start + static_dim(type.size)].reshape(type.shape)
                       for type, (dtype, start) in zip(types, places)]

    def clear(self) -> None:
        """All zeros, also between the arrays."""
        for flat in self.flats.values():
            flat[:] = 0

    def add(self, other: "Sums") -> None:
        """Adds those of the subtree to the right."""
        for dtype, flat in self.flats.items():
            with np.errstate(all="ignore"):             # what is infinite says so by itself
                np.add(flat, other.flats[dtype], out=flat)


class ShardedProgram:
    """The native code of a step of `recipe`, which has shards, on the state; called with the rows of this rank, of all
    batches or of batches of the declared size."""
    static = True                   # it is asked for once, and serves all sizes

    def __init__(self, recipe: Recipe, whole: Mapping[str, TensorType], state: State, threads: int,
                 ranks: Ranks = ALONE):
        """`whole`: what the step reports of a whole batch, by name."""
        self.recipe, self.state, self.ranks = recipe, state, ranks
        self.shards = recipe.shards or 1
        self._whole, self._threads, self._batch = whole, threads, batch_dim(recipe.types)
        self.own = self.shards // ranks.count           # the number of shards of this rank, and the first of them
        self.first = self.own * ranks.rank
        self.name = "train_" + network_name(recipe.objective.root)
        self.types: Mapping[str, TensorType] = recipe.types         # of the rows of this rank
        if isinstance(self._batch, int):
            own = ranks.part(self._batch, self.shards)
            self.types = with_rows(recipe.types, own.stop - own.start)
        self._graphs: Specialised[ShardGraph] = Specialised(lambda rows: shard_graph(recipe, rows, whole))
        self._programs: Specialised[SpecialisedGraph] = Specialised(self._native)
        self._update: Runnable | None = None
        self._free: list[Sums] = []
        self.after_fork()
        renew_after_fork(self)
        self.weight = 0.0           # of the last batch: its rows, or the sum of their weights

    def after_fork(self) -> None:
        self._lock, self._owner = Lock(), 0

    # the two graphs

    def _size(self, rows: int | None) -> Dim:
        """The first axis that the graph of a shard of so many rows has; None: of the first shard."""
        if not isinstance(self._batch, int):
            return self._batch
        return shard_rows(self._batch, self.shards)[0] if rows is None else rows

    def graph(self) -> ShardGraph:
        """That of the first shard."""
        return self._graphs.at(rows=self._size(None))

    def _native(self, rows: Dim) -> SpecialisedGraph:
        function = self._graphs.at(rows=rows).function
        return SpecialisedGraph(function.graph, partial(on_state, function, self.state, self._threads),
                                make_sized=partial(sized_on_state, function, self.state, self._threads))

    def gradients(self, rows: int | None = None) -> SpecialisedGraph:
        """The native code that gives the gradients of a shard."""
        return self._programs.at(rows=self._size(rows))

    @property
    def update(self) -> Runnable:
        """The native code of the update."""
        if self._update is None:
            function = update_graph(self.recipe, self.graph())
            self._update = on_state(function, self.state, self._threads, function.graph)
        return self._update

    # a step

    def serving(self, arrays: Sequence[np.ndarray]) -> "ShardedProgram":
        """The native code for these arrays."""
        return self

    def __call__(self, *arrays: np.ndarray) -> Result:
        """One step; what it reports."""
        if self._owner == get_ident():
            raise GraphError("a step with shards was called from within itself, by a signal handler or a finalizer",
                             user_loc())
        with self._lock:
            self._owner = get_ident()
            try:
                return self._step(arrays)
            finally:
                self._owner = 0

    def _step(self, arrays: Sequence[np.ndarray]) -> Result:
        batch = ShardedBatch(self, arrays)
        total: Sums | None = None
        error: Exception | None = None
        try:
            total = self._summed(batch)
        except Exception as wrong:      # of whatever kind: the other ranks wait for what this one found
            error = wrong
        self.ranks.gathered((), "the sum of a step", error)
        assert total is not None
        self.ranks.reduced(list(total.flats.values()))
        graph = self.graph()
        moved = 1 + len(graph.grads) + len(graph.moving)
        averaged = dict(zip((LOSS, *graph.means), (total.arrays[0], *total.arrays[moved:])))
        found = {name: np.array(value) for name, value in averaged.items()}
        found |= {name: self.ranks.joined(array) for name, array in zip(graph.rows, batch.by_row)}
        norms: Any = self.update(*total.arrays[1:moved])
        self._give_back(total)
        self.weight = batch.weight
        found |= {name: value for name, value in norms.items() if name != STEPS}
        return {name: found[name] for name in self._whole} if len(self._whole) > 1 else found[LOSS]

    def _summed(self, batch: "ShardedBatch") -> Sums:
        """The sums over the shards of this rank."""
        for _ in range(TRIES):
            version = self.state.lock.version
            total = self._tree(batch, self.first, self.first + self.own)
            if self.state.lock.version == version:
                return total
            self._give_back(total)
        raise GraphError("the state was written again and again while a step with shards computed its gradients: let "
                         "other threads write it between two steps", user_loc())

    def _tree(self, batch: "ShardedBatch", low: int, high: int) -> Sums:
        """The sums over the shards low … high - 1."""
        if high - low == 1:
            sums = self._free.pop() if self._free and self._free[-1].types == batch.summed else Sums(batch.summed)
            batch.run(low, sums)
            return sums
        left, right = self._tree(batch, low, middle(low, high)), self._tree(batch, middle(low, high), high)
        left.add(right)
        self._give_back(right)
        return left

    def _give_back(self, sums: Sums) -> None:
        """For later use; those for other sizes go."""
        self._free = [known for known in self._free if known.types == sums.types] + [sums]

    # what can be told of it

    @property
    def buffers(self) -> int:
        """Bytes of the sums: those of one shard, and of one subtree at each level."""
        graph, levels, shards = self.graph(), 1, self.own
        while shards > 1:
            levels, shards = levels + 1, middle(0, shards)
        return levels * sum(round_up(static_dim(type.nbytes)) for type in graph.types[:graph.summed])

    @property
    def memory(self) -> Memory | None:
        """Bytes of both programs, and of the sums, which count as arena."""
        first, second = self.gradients().memory, self.update.memory
        if first is None or second is None:             # of the oracle
            return None
        return Memory(first.arena + second.arena + self.buffers, first.scratch + second.scratch,
                      first.consts + second.consts, self.state.nbytes, first.inputs * self.own, second.outputs,
                      first.derived + second.derived)

    def dump(self, stage: str = "graph") -> str:
        """The text of a stage of both programs."""
        return "\n\n".join(part.dump(stage) for part in (self.gradients(), self.update))

    def explain(self) -> str:
        """As of compiled functions, of both."""
        return "\n\n".join(part.explain() for part in (self.gradients(), self.update))

    def profile(self, *arrays: np.ndarray, runs: int = 5) -> Profile:
        """Where the time of the gradients of the first shard goes."""
        batch = ShardedBatch(self, arrays)
        return self.gradients(batch.sizes[0]).profile(*batch.inputs(self.first), runs=runs)


class ShardedBatch:
    """One batch: the rows that this rank has of it, cut into shards."""

    def __init__(self, program: ShardedProgram, arrays: Sequence[np.ndarray]):
        self.program = program
        rows, error = 0, None
        try:
            self.arrays = self._checked(arrays)
            rows = next(len(a) for a in self.arrays if a.ndim)
        except GraphError as wrong:
            error = wrong
        written = program.state.lock.version - program.ranks.origin
        header = program.ranks.gathered((rows, written), "a step", error)
        every, versions = header[:, 0].astype(int).tolist(), header[:, 1]
        if odd := next((rank for rank, version in enumerate(versions) if version != versions[0]), 0):
            raise GraphError(f"the state was written {int(versions[odd])} times on rank {odd}, and {int(versions[0])} "
                             "times on rank 0: what is written on one rank (an array, a hyperparameter) is to be "
                             "written on all", user_loc())
        self.sizes = shard_rows(sum(every), program.shards)
        ends = rank_ends(sum(every), program.shards, program.ranks.count)
        own = [end - start for start, end in zip([0, *ends], ends)]
        if every != own:
            raise GraphError(f"the ranks gave batches of {', '.join(map(str, every))} rows; of {sum(every)} rows in "
                             f"{program.shards} shards they have {', '.join(map(str, own))}", user_loc())
        self.starts = list(accumulate(self.sizes, initial=0))
        self.weight, self.shares = self._shares()
        types, summed = self._types(), program.graph().summed
        self.summed = tuple(types[:summed])
        self.by_row = [np.empty((rows, *type.shape[1:]), type.dtype.np) for type in types[summed:]]

    def _checked(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What came, as arrays of the types of the inputs. GraphError where they are not."""
        program, types = self.program, self.program.types
        found = [bind_argument(ArraySpec(name, type if type.is_static else TensorType(type.dtype, np.shape(a))), a,
                               program.name) for (name, type), a in zip(types.items(), arrays, strict=True)]
        try:
            solve_dims([(name, type, TensorType(dtype_of(a), a.shape))
                        for (name, type), a in zip(types.items(), found)])
        except GraphError as error:
            raise error.at(user_loc()) from None
        return found

    def _types(self) -> list[TensorType]:
        """Of what the first shard gives."""
        program = self.program
        types, size = program.graph().types, self.sizes[0]
        if all(type.is_static for type in types):
            return list(types)
        dims = solve_dims([(name, type, TensorType(type.dtype, (size, *a.shape[1:]) if a.ndim else ()))
                           for (name, type), a in zip(program.recipe.types.items(), self.arrays)])
        return [type.bind(dims) for type in types]

    def _shares(self) -> tuple[float, list[float]]:
        """The weight of the batch, and the share of it that each shard has."""
        weights: list[float] = [float(n) for n in self.sizes]
        if self.program.recipe.weighted:
            first = self.program.first
            own = [float(self._part(self.arrays[-1], number).sum(dtype=np.float64))
                   for number in range(first, first + self.program.own)]
            weights = self.program.ranks.gathered(own, "the weights of a step").reshape(-1).tolist()
        total = sum(weights)
        return total, [weight / total if total else 0.0 for weight in weights]

    def _part(self, array: np.ndarray, number: int) -> np.ndarray:
        """The rows of a shard."""
        start = self.starts[number] - self.starts[self.program.first]
        return array[start:start + self.sizes[number]] if array.ndim else array

    def inputs(self, number: int) -> list[np.ndarray]:
        """What a shard takes."""
        return [*(self._part(a, number) for a in self.arrays), np.array(self.shares[number]), np.array(number)]

    def run(self, number: int, sums: Sums) -> None:
        """The gradients of a shard, each times its share, into `sums`."""
        if not self.sizes[number]:
            return sums.clear()
        inputs = self.inputs(number)
        native = self.program.gradients(self.sizes[number]).serving(inputs)
        native.into(inputs, [*sums.arrays, *(self._part(a, number) for a in self.by_row)])


def step_program(recipe: Recipe, function: GraphFunction, state: State, threads: int,
                 ranks: Ranks = ALONE) -> SpecialisedGraph | ShardedProgram:
    """The native code of a step; `function` is its whole graph."""
    if recipe.shards is not None:
        outputs = function.graph.outputs
        whole = dict(zip(function.graph.output_names or (LOSS,), (v.type for v in outputs)))
        return ShardedProgram(recipe, whole, state, threads, ranks)
    return SpecialisedGraph(function.graph, partial(on_state, function, state, threads),
                            make_sized=partial(sized_on_state, function, state, threads))
