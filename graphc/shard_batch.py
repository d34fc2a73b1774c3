"""One batch of a step with shards, as far as this rank has it."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from graphc.dsl.context import user_loc
from graphc.dsl.inline import solve_dims
from graphc.errors import GraphError
from graphc.ir.graph import Value
from graphc.ir.types import TensorType, dtype_of
from graphc.runtime.arguments import bind_argument
from graphc.runtime.signature import ArraySpec
from graphc.shard_stages import ShardStage
from graphc.shard_tree import Span, Sums, rank_bounds, rank_ends, shard_rows

if TYPE_CHECKING:
    from graphc.shards import ShardedProgram

Known = dict[Value, np.ndarray]         # values of the graph of a shard that have been computed


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
        header = program.ranks.gathered((rows, written, program.state.written or 0), "a step", error)
        every, versions, values = header[:, 0].astype(int).tolist(), header[:, 1], header[:, 2]
        if odd := int(np.argmax(versions != versions[0])):
            raise GraphError(f"the state was written {int(versions[odd])} times on rank {odd}, and {int(versions[0])} "
                             "times on rank 0: what is written on one rank (an array, a hyperparameter) is to be "
                             "written on all", user_loc())
        if odd := int(np.argmax(values != values[0])):
            raise GraphError(f"what was written to the state on rank {odd} (an array, a hyperparameter) is not what "
                             "was written on rank 0: all ranks write the same", user_loc())
        if not sum(every):
            raise GraphError("this batch has no rows, of which a step with shards could take means", user_loc())
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
        self.done: dict[int, Sums] = {}         # the gradients of shards that are there already
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
        if program.graph().static:
            return list(types)
        dims = solve_dims([(name, type, TensorType(type.dtype, (size, *a.shape[1:]) if a.ndim else ()))
                           for (name, type), a in zip(program.recipe.types.items(), self.arrays)])
        return [type.bind(dims) for type in types]

    def _shares(self) -> tuple[float, list[float]]:
        """The weight of the batch, and the share of it that each shard has."""
        weights: list[float] = [float(n) for n in self.sizes]
        if self.program.recipe.weighted:
            program = self.program
            bounds = rank_bounds(program.shards, program.ranks.count)
            counts = [high - low for low, high in zip(bounds, bounds[1:])]      # of each rank's shards
            own = [float(self._part(self.arrays[-1], number, number + 1).sum(dtype=np.float64))
                   for number in program.own]
            own += [0.0] * (max(counts) - len(own))
            every = program.ranks.gathered(own, "the weights of a step").tolist()
            weights = [weight for row, count in zip(every, counts) for weight in row[:count]]
        total = sum(weights)
        return total, [weight / total if total else 0.0 for weight in weights]

    def _part(self, array: np.ndarray, low: int, high: int) -> np.ndarray:
        """The rows of some shards."""
        before = self.starts[self.program.own.start]
        return array[self.starts[low] - before:self.starts[high] - before] if array.ndim else array

    def inputs(self, number: int) -> list[np.ndarray]:
        """What a shard takes."""
        return [*(self._part(a, number, number + 1) for a in self.arrays), np.array(self.shares[number]),
                np.array(number)]

    def joined_inputs(self, low: int, high: int) -> list[np.ndarray]:
        """What the program of some shards takes."""
        arrays = [self._part(a, low, high) if a.ndim else np.full(high - low, a) for a in self.arrays]
        return [*arrays, np.array(self.shares[low:high]), np.arange(low, high)]

    def run(self, span: Span, sums: Sums) -> None:
        """The gradients of a shard, each times its share, or the sum of those of several, into `sums`."""
        number, end = span
        if joined := self.program.joined(self.sizes[number:end]):
            return joined.into(self.joined_inputs(*span), [*sums.arrays, *(self._part(a, *span) for a in self.by_row)])
        if not self.sizes[number]:
            return sums.clear()
        inputs = self.inputs(number)
        native = self.program.gradients(self.sizes[number])[0].serving(inputs)
        native.into(inputs, [*sums.arrays, *(self._part(a, *span) for a in self.by_row)])

    # where something is summed over the shards on the way

    def run_stages(self) -> None:
        """The gradients of all shards of this rank, into `done`, stage by stage: after each of them the shards, and the
        ranks, put their sums together."""
        program = self.program
        own = program.own
        known: dict[int, Known] = {}
        for number in own:
            self.done[number] = Sums(self.summed)
            graph = program.function(self.sizes[number] or None).graph
            known[number] = dict(zip(graph.inputs, self.inputs(number)))
        for place, stage in enumerate(program.stages(self.sizes[own[0]] or None)):
            parts: dict[int, Sums] = {}
            error: Exception | None = None
            try:
                for number in own:
                    parts[number] = self._run_stage(number, place, known[number])
                if stage.sums:
                    _check_alike(parts[number].types for number in own)
            except Exception as wrong:      # of whatever kind: the other ranks wait for what this one found
                error = wrong
            if not stage.sums:
                if error is not None:
                    raise error
                continue
            shapes = crc32(repr(parts[own.start].types).encode()) if parts else 0
            with program.ranks.together():
                _check_alike(program.ranks.gathered((shapes,), "a sum over the shards", error)[:, 0].tolist())
                total = program.ranks.summed(program.subtree_sums(parts.__getitem__, lambda sums: None),
                                             program.shards)
            for number in own:
                sums = program.stages(self.sizes[number] or None)[place].sums
                known[number].update(zip(sums, total.arrays))

    def _run_stage(self, number: int, place: int, known: Known) -> Sums:
        """One stage of one shard: `known` gets what it gives. The operands of its sums, zeros of a shard without rows.
        """
        rows = self.sizes[number]
        stage = self.program.stages(rows or None)[place]
        types = self._bound(stage, known) if rows else [v.type for v in stage.outputs]
        given = len(stage.outputs) - len(stage.sums)
        operands = Sums(types[given:])
        if not rows:
            return operands
        results = self.program.function(rows).graph.outputs
        arrays = [*self.done[number].arrays, *(self._part(a, number, number + 1) for a in self.by_row)]
        places = dict(reversed(list(zip(results, arrays))))
        outputs = [places[v] if v in places else np.empty(type.shape, type.dtype.np)
                   for v, type in zip(stage.outputs[:given], types)]
        inputs = [known[v] for v in stage.inputs]
        self.program.gradients(rows)[place].serving(inputs).into(inputs, [*outputs, *operands.arrays])
        known.update(zip(stage.outputs[:given], outputs))
        for v, array in zip(results, arrays):               # one value may be several results
            if v in known and array is not places[v] and v in stage.outputs[:given]:
                array[...] = known[v]
        return operands

    def _bound(self, stage: ShardStage, known: Known) -> list[TensorType]:
        """The types of what a stage gives."""
        types = [v.type for v in stage.outputs]
        if all(type.is_static for type in types):
            return types
        dims = solve_dims([(v.name, v.type, TensorType(dtype_of(known[v]), known[v].shape)) for v in stage.inputs])
        return [type.bind(dims) for type in types]


def _check_alike(types: Iterable[object]) -> None:
    """GraphError where what is summed over the shards is not of the same types in all of them."""
    if len(set(types)) > 1:
        raise GraphError("gc.shard_sum takes arrays that have the same shape in all shards: take sums over the "
                         "examples first", user_loc())
