"""A training step whose batch is cut into shards: one compiled function gives the gradients of each shard, a fixed
binary tree adds them, one update follows.

The tree belongs to the number of shards. Each of several ranks adds the subtrees of its shards, and all add what is
above together, so the bytes of the state depend neither on their number nor on that of threads.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.codegen.llvm.host import host_target
from graphc.compiler import Compilation
from graphc.config import config
from graphc.dsl.context import user_loc
from graphc.dsl.function import GraphFunction
from graphc.errors import GraphError, Unjoined
from graphc.execute import Runnable, on_state, sized_on_state
from graphc.ir.dims import Dim, static_dim
from graphc.ir.types import TensorType
from graphc.memory.budget import Budget
from graphc.memory.usage import Memory
from graphc.nn.network import network_name
from graphc.passes.join_shards import Shards, StateUpdate
from graphc.passes.winograd import any_faster_at_once
from graphc.ranks import ALONE, Ranks
from graphc.runtime.fork import renew_after_fork
from graphc.runtime.memory import round_up
from graphc.shard_batch import ShardedBatch
from graphc.shard_stages import ShardStage, stages
from graphc.shard_tree import (
    Span, Sums, added, additions, buffers_needed, leaves_below, rank_bounds, right_edge, shard_rows, subtrees,
    tree_sum)
from graphc.sharded_graph import (
    LOSS, STEPS, VALUE, ShardGraph, batch_dim, on_one_state, shard_graph, update_graph, with_rows)
from graphc.specialised import Specialised, SpecialisedGraph
from graphc.state import State
from graphc.training_graph import Recipe

if TYPE_CHECKING:
    from graphc.profile import Profile

Result = np.ndarray | dict[str, np.ndarray]
TRIES = 3                           # of a step whose state others write meanwhile


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
        low, high = rank_bounds(self.shards, ranks.count)[ranks.rank:][:2]
        self.own = range(low, high)                     # the shards of this rank
        self.name = "train_" + network_name(recipe.objective.root)
        self.types: Mapping[str, TensorType] = recipe.types         # of the rows of this rank
        if isinstance(self._batch, int):
            own = ranks.part(self._batch, self.shards)
            self.types = with_rows(recipe.types, own.stop - own.start)
        self._graphs: Specialised[ShardGraph] = Specialised(lambda rows: shard_graph(recipe, rows, whole))
        self._stages: Specialised[tuple[ShardStage, ...]] = Specialised(
            lambda rows: stages(self._graphs.at(rows=rows).function))
        self._parts: Specialised[tuple[SpecialisedGraph, ...]] = Specialised(self._native)
        self._joined: Specialised[tuple[Runnable, ...]] = Specialised(self._native_joined)
        self._whole_step: Specialised[tuple[Runnable, ...]] = Specialised(self._native_whole_step)
        self._update: Runnable | None = None
        self._free: list[Sums] = []
        self._nothing: Sums | None = None
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

    def _native(self, rows: Dim) -> tuple[SpecialisedGraph, ...]:
        cut = self._stages.at(rows=rows)
        functions = [self._graphs.at(rows=rows).function] if len(cut) == 1 else [stage.function for stage in cut]
        budget, shards = self._budget(), Shards(self.shards) if len(cut) == 1 < self.shards else None
        return tuple(SpecialisedGraph(f.graph, partial(on_state, f, self.state, self._threads, budget=budget,
                                                       shards=shards),
                                      make_sized=partial(sized_on_state, f, self.state, self._threads))
                     for f in functions)

    def _are_joined(self, rows: int) -> bool:
        """Whether some kernels of shards of so many rows take less time for several shards at once."""
        function, knobs = self.function(rows), config()
        possible = not (knobs.oracle or knobs.check_nan or self.recipe.memory or function.graph.dim_names)
        return (possible and knobs.winograd and len(self.stages(rows)) == 1
                and any_faster_at_once(function.graph, host_target(), self.shards))

    def _native_joined(self, rows: int, count: int) -> tuple[Runnable, ...]:
        """The native code of `count` shards of so many rows; none where they are computed one after the other."""
        if not self._are_joined(rows):
            return ()
        return self._with_shards(self.function(rows), Shards(self.shards, self.graph().summed, additions(0, count)))

    def _native_whole_step(self, rows: int) -> tuple[Runnable, ...]:
        """The native code of all shards, of so many rows each, and of the update; none where that is called apart."""
        if not self._are_joined(rows):
            return ()
        function, update = on_one_state(self.function(rows), update_graph(self.recipe, self.graph()))
        return self._with_shards(function, Shards(self.shards, self.graph().summed, additions(0, self.shards),
                                                  StateUpdate(update, tuple(right_edge(self.shards)))))

    def _with_shards(self, function: GraphFunction, shards: Shards) -> tuple[Runnable, ...]:
        try:
            return on_state(function, self.state, self._threads, function.graph, shards=shards),
        except Unjoined:
            return ()

    def whole_step(self, sizes: Sequence[int]) -> Runnable | None:
        """The native code of a whole step, of shards of these rows; None where this rank does not have them all, and
        where the update is called apart."""
        if len(self.own) < self.shards or not _are_equal(sizes):
            return None
        return next(iter(self._whole_step.at(rows=sizes[0])), None)

    def joined(self, sizes: Sequence[int]) -> Runnable | None:
        """The native code that gives the sum of the gradients of shards of these rows; None of a single one, and where
        each is computed by itself."""
        if not _are_equal(sizes):
            return None
        return next(iter(self._joined.at(rows=sizes[0], count=len(sizes))), None)

    def _leaves(self, sizes: Sequence[int]) -> tuple[list[Span], list[Span]]:
        """(the subtrees of which this rank makes sums, the nodes of the tree that one program computes)."""
        whole = (0, self.shards)
        if len(self.own) < self.shards:
            spans = subtrees((self.own.start, self.own.stop), whole)
        else:
            spans = [whole] if self.joined(sizes) else right_edge(self.shards)
        return spans, [leaf for span in spans
                       for leaf in leaves_below(*span, lambda s: self.joined(sizes[slice(*s)]) is not None)]

    def _budget(self) -> Budget | None:
        """What of `memory=` the gradients of one shard may take: all but what the update, the sums and the rest of the
        batch do. GraphError where that is not known."""
        budget, graph = self.recipe.memory, self.graph().function.graph
        if budget is None:
            return None
        if not isinstance(self._batch, int):
            raise GraphError(f"memory={budget.given!r} with shards= needs a batch of a known size, here it is "
                             f"{self._batch}: what the sums of the shards take would depend on it", user_loc())
        if len(self.stages()) > 1:
            raise GraphError(f"memory={budget.given!r}: a step that sums over the shards on its way (gc.shard_sum) "
                             "keeps what lives across in memory for all shards; take more shards, without memory=",
                             user_loc())
        shards = Shards(self.shards) if self.shards > 1 else None
        free, update = Compilation(graph, shards=shards).memory, self.update.memory
        if update is None:                              # of the oracle, which has no plan
            return budget
        whole = self._together([free], update)
        return replace(budget, beside=static_dim(whole.total) - static_dim(free.total))

    def function(self, rows: int | None = None) -> GraphFunction:
        """The graph of a shard of so many rows."""
        return self._graphs.at(rows=self._size(rows)).function

    def stages(self, rows: int | None = None) -> tuple[ShardStage, ...]:
        """Those of the graph of a shard: several where something is summed over the shards on the way."""
        return self._stages.at(rows=self._size(rows))

    def gradients(self, rows: int | None = None) -> tuple[SpecialisedGraph, ...]:
        """The native code that gives the gradients of a shard, one function for each stage."""
        return self._parts.at(rows=self._size(rows))

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
        if whole := self.whole_step(batch.sizes):
            return self._reported(batch, self._in_one_call(whole, batch))
        parts: dict[Span, Sums] = {}
        error: Exception | None = None
        try:
            parts = self._summed(batch)
        except Exception as wrong:      # of whatever kind: the other ranks wait for what this one found
            error = wrong
        graph = self.graph()
        with self.ranks.together():
            self.ranks.gathered((), "the sum of a step", error)
            edge = self._edge(parts)
            by_row = {name: self.ranks.joined(array) for name, array in zip(graph.rows, batch.by_row)}
        moved = 1 + len(graph.grads) + len(graph.moving)
        averaged = [added([sums.arrays[place] for sums in edge]) for place in (0, *range(moved, graph.summed))]
        found = dict(zip((LOSS, *graph.means), averaged)) | by_row
        norms: Any = self.update(*(array for sums in edge for array in sums.arrays[1:moved]))
        for sums in parts.values():
            self._give_back(sums)
        return self._reported(batch, found | {name: value for name, value in norms.items() if name != STEPS})

    def _in_one_call(self, whole: Runnable, batch: ShardedBatch) -> dict[str, np.ndarray]:
        """All that a step gives, by name."""
        given = whole(*batch.joined_inputs(0, self.shards))
        found = {name.removeprefix(VALUE): value for name, value in given.items() if name != STEPS}
        return found | {name: added([found[name]]) for name in (LOSS, *self.graph().means)}

    def _reported(self, batch: ShardedBatch, found: Mapping[str, np.ndarray]) -> Result:
        """What the step reports, of what it found."""
        self.weight = batch.weight
        return {name: found[name] for name in self._whole} if len(self._whole) > 1 else found[LOSS]

    def _edge(self, parts: Mapping[Span, Sums]) -> list[Sums]:
        """Sums whose sum is that over all shards: of the right edge of the tree, where this rank has all of it."""
        spans, whole = right_edge(self.shards), (0, self.shards)
        if len(self.own) == self.shards and whole not in parts:
            return [parts[span] for span in spans]
        total = parts[whole] if whole in parts else self.ranks.summed(parts, self.shards)
        return [total, *(self.nothing(total.types) for _ in spans[1:])]

    def _summed(self, batch: ShardedBatch) -> dict[Span, Sums]:
        """The sums over the shards of this rank, of each subtree of the tree that it has; of the whole tree those at
        its right edge."""
        spans, leaves = self._leaves(batch.sizes)
        staged = len(self.stages(batch.sizes[0])) > 1
        for _ in range(1 if staged else TRIES):         # stages cannot be done again without the other ranks
            version = self.state.lock.version
            if staged:
                batch.run_stages()
            leaf = partial(self._leaf, batch, dict(leaves))
            parts = {span: tree_sum(leaf, *span, self._give_back, leaves) for span in spans}
            if self.state.lock.version == version:
                return parts
            for sums in parts.values():
                self._give_back(sums)
        raise GraphError("the state was written again and again while a step with shards computed its gradients: let "
                         "other threads write it between two steps", user_loc())

    def subtree_sums(self, leaf: Callable[[int], Sums], done: Callable[[Sums], None]) -> dict[Span, Sums]:
        """The sums of what `leaf` gives for the shards of this rank, of each subtree that it has; `done` gets what is
        not needed any more."""
        spans = subtrees((self.own.start, self.own.stop), (0, self.shards))
        return {span: tree_sum(leaf, *span, done) for span in spans}

    def _leaf(self, batch: ShardedBatch, ends: Mapping[int, int], number: int) -> Sums:
        """The gradients of one shard, or the sum of those up to its end that one program computes."""
        if number in batch.done:
            return batch.done[number]
        sums = self._free.pop() if self._free and self._free[-1].types == batch.summed else Sums(batch.summed)
        batch.run((number, ends[number]), sums)
        return sums

    def nothing(self, types: tuple[TensorType, ...]) -> Sums:
        """The sum over no shards: zeros, which nobody writes to."""
        if self._nothing is None or self._nothing.types != types:
            self._nothing = Sums(types)
        return self._nothing

    def _give_back(self, sums: Sums) -> None:
        """For later use; those for other sizes go."""
        self._free = [known for known in self._free if known.types == sums.types] + [sums]

    # what can be told of it

    @property
    def _all(self) -> list[SpecialisedGraph | Runnable]:
        """All programs, the one that writes the state last."""
        if whole := self.whole_step(self._sizes):
            return [whole]
        joined = [self.joined(self._sizes[slice(*leaf)]) for leaf in self._leaves(self._sizes)[1]]
        programs: list[SpecialisedGraph | Runnable] = list(dict.fromkeys(run for run in joined if run is not None))
        return [*programs, *(self.gradients() if None in joined else ()), self.update]

    @property
    def _sizes(self) -> list[int]:
        """Rows of the shards of a whole batch, 0 where they are not known."""
        return shard_rows(self._batch, self.shards) if isinstance(self._batch, int) else [0] * self.shards

    @property
    def buffers(self) -> int:
        """Bytes of the sums: those of one shard, and of one subtree at each level."""
        if self.whole_step(self._sizes):
            return 0
        graph, count = self.graph(), buffers_needed(*self._leaves(self._sizes))
        return count * sum(round_up(static_dim(type.nbytes)) for type in graph.types[:graph.summed])

    @property
    def memory(self) -> Memory | None:
        """Bytes of both programs, and of the sums, which count as arena."""
        found = [part.memory for part in self._all]
        known = [memory for memory in found if memory is not None]
        if len(known) < len(found):                     # of the oracle
            return None
        return self._together(known[:-1], known[-1])

    def _together(self, parts: Sequence[Memory], update: Memory) -> Memory:
        """Of the programs of a shard, the update and the sums."""
        known = [*parts, update]
        return Memory(sum(m.arena for m in known) + self.buffers, sum(m.scratch for m in known),
                      sum(m.consts for m in known), self.state.nbytes, sum(t.nbytes for t in self.types.values()),
                      update.outputs, sum(m.derived for m in known))

    def dump(self, stage: str = "graph") -> str:
        """The text of a stage of both programs."""
        return "\n\n".join(part.dump(stage) for part in self._all)

    def explain(self) -> str:
        """As of compiled functions, of both."""
        return "\n\n".join(part.explain() for part in self._all)

    def profile(self, *arrays: np.ndarray, runs: int = 5) -> Profile:
        """Where the time of the gradients of the first shard goes, or of all those that its program computes; of
        stages, that of the first."""
        batch = ShardedBatch(self, arrays)
        if whole := self.whole_step(batch.sizes):
            return whole.profile(*batch.joined_inputs(0, self.shards), runs=runs)
        first_leaf = self._leaves(batch.sizes)[1][0]
        if joined := self.joined(batch.sizes[slice(*first_leaf)]):
            return joined.profile(*batch.joined_inputs(*first_leaf), runs=runs)
        first, taken = self.gradients(batch.sizes[0])[0], batch.inputs(self.own.start)
        if len(self.stages(batch.sizes[0])) > 1:
            values = dict(zip(self.graph().function.graph.inputs, taken))
            taken = [values[v] for v in self.stages(batch.sizes[0])[0].inputs]
        return first.profile(*taken, runs=runs)


def _are_equal(sizes: Sequence[int]) -> bool:
    """Whether these are rows of several shards, of each as many."""
    return len(sizes) > 1 and bool(sizes[0]) and len(set(sizes)) == 1


def step_program(recipe: Recipe, function: GraphFunction, state: State, threads: int,
                 ranks: Ranks = ALONE) -> SpecialisedGraph | ShardedProgram:
    """The native code of a step; `function` is its whole graph."""
    if recipe.shards is not None:
        outputs = function.graph.outputs
        whole = dict(zip(function.graph.output_names or (LOSS,), (v.type for v in outputs)))
        return ShardedProgram(recipe, whole, state, threads, ranks)
    return SpecialisedGraph(function.graph, partial(on_state, function, state, threads, budget=recipe.memory),
                            make_sized=partial(sized_on_state, function, state, threads, budget=recipe.memory))
