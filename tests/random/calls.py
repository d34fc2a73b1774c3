"""Every way to call native code, with what must hold whatever it computes."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import graphc as gc
from graphc.ir.graph import Graph

FENCE = 64                          # bytes on each side of an output that must stay as they were


class Wrong(Exception):
    """Native code does not compute what the graph says."""


class Calls:
    """The code of a graph, with a state that starts as `start`. Each way of calling gives the outputs, then the new
    state."""

    def __init__(self, graph: Graph, start: Sequence[np.ndarray]):
        self.graph, self.start = graph, start
        function = gc.GraphFunction(graph, keys=tuple(v.name for v in graph.state))
        given = {"state": {v.name: x for v, x in zip(graph.state, start)}} if graph.state else {}
        self.run = gc.compile(function, threads=1, **given)

    @property
    def state(self) -> list[np.ndarray]:
        """What the state is now."""
        if not self.graph.writes:
            return list(self.start)
        return [x.copy() for x in self.run.executable.state.arrays[:len(self.start)]]

    def _new_state(self) -> list[np.ndarray]:
        return [x for x, new in zip(self.state, self.graph.updates) if new is not None]

    def _reset(self) -> None:
        if self.graph.writes:
            for x, value in zip(self.run.executable.state.arrays, self.start):
                x[...] = value
            self.run.executable.renew()

    def plain(self, inputs, again: bool = False) -> list[np.ndarray]:
        """A call, which must leave its arguments alone and give memory of its own; `again`: with the state of the
        start."""
        if again:
            self._reset()
        before = [x.copy() for x in inputs]
        outputs = as_list(self.run(*inputs))
        same(inputs, before, "as an argument, which the call has changed:")
        for i, y in enumerate(outputs):
            if any(np.shares_memory(y, other) for other in [*inputs, *outputs[:i]]):
                raise Wrong(f"output {i} shares memory with an argument or another output")
        return outputs + self._new_state()

    def by_threads(self, inputs, like, threads: int) -> list[np.ndarray]:
        self._reset()
        outputs = [np.full_like(y, 77) for y in like[:len(self.graph.outputs)]]
        self.run.executable.run(list(inputs), outputs, threads=threads)
        return outputs + self._new_state()

    def fenced(self, inputs, like) -> list[np.ndarray]:
        """With out=: arrays of the caller's, and around each a fence that must stand."""
        self._reset()
        fenced = [_fenced(y) for y in like[:len(self.graph.outputs)]]
        outputs = [y for _, y in fenced]
        self._given(inputs, outputs)
        for i, (memory, y) in enumerate(fenced):
            if (memory[:FENCE] != 0xA5).any() or (memory[FENCE + y.nbytes:] != 0xA5).any():
                raise Wrong(f"output {i} is written outside of its array")
        return outputs + self._new_state()

    def over_arguments(self, inputs, like) -> list[np.ndarray]:
        """With out=: arguments themselves, where the types are equal."""
        self._reset()
        mine = [x.copy() for x in inputs]
        free, outputs = list(mine), []
        for y in like[:len(self.graph.outputs)]:
            taken = next((x for x in free if x.dtype == y.dtype and x.shape == y.shape), None)
            free = [x for x in free if x is not taken]
            outputs.append(np.empty_like(y) if taken is None else taken)
        self._given(mine, outputs)
        return outputs + self._new_state()

    def overlapping(self, inputs, like) -> list[np.ndarray]:
        """With out=: the first output begins in the middle of an argument of its dtype and ends behind it."""
        self._reset()
        mine, outputs = list(inputs), [np.empty_like(y) for y in like[:len(self.graph.outputs)]]
        i = next((i for i, x in enumerate(mine) if x.dtype == outputs[0].dtype and x.size), None)
        if i is not None:
            memory = np.empty(mine[i].size + outputs[0].size, outputs[0].dtype)
            x, y = memory[:mine[i].size], memory[mine[i].size // 2:][:outputs[0].size]
            x[:] = mine[i].ravel()
            mine[i], outputs[0] = x.reshape(mine[i].shape), y.reshape(outputs[0].shape)
        self._given(mine, outputs)
        return outputs + self._new_state()

    def _given(self, inputs, outputs) -> None:
        self.run(*inputs, out=outputs[0] if self.graph.output_names is None else tuple(outputs))


def _fenced(like: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    memory = np.full(like.nbytes + 2 * FENCE, 0xA5, np.uint8)
    return memory, memory[FENCE:FENCE + like.nbytes].view(like.dtype).reshape(like.shape)


def strided(x: np.ndarray) -> np.ndarray:
    """The same numbers in memory that is not contiguous."""
    wide = np.zeros((*x.shape, 2), x.dtype)
    wide[..., 0] = x
    return wide[..., 0]


def same(actual, wanted, when: str) -> None:
    """Wrong unless all arrays have the same bits."""
    for i, (a, b) in enumerate(zip(actual, wanted, strict=True)):
        if a.shape != b.shape or a.tobytes() != b.tobytes():
            raise Wrong(f"array {i} has other bits {when}\n    {a.ravel()[:12]}\n    {b.ravel()[:12]}")


def as_list(result) -> list[np.ndarray]:
    """What a call returned, one after another."""
    return list(result.values()) if isinstance(result,
                                               dict) else list(result) if isinstance(result, tuple) else [result]
