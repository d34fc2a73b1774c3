"""Kernels for all sizes: a graph as one kernel, compiled once, run for any sizes; and the table of what is tested."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from codegen.loop_run import ForSizes

from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.verify import verify
from graphc.codegen.lower import lower
from graphc.codegen.lower.request import KernelRequest
from graphc.ir.builder import Builder, bind_graph
from graphc.ir.dim_binding import bind
from graphc.ir.dims import Dim, Dims, evaluate, size_name
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.open import MOST
from graphc.ir.ops.fused import Fused
from graphc.ir.types import TensorType, bool_
from graphc.passes.cse import EliminateCommonSubexpressions
from graphc.passes.dce import EliminateDeadCode
from graphc.passes.decompose import Decompose
from graphc.passes.pipeline import apply
from graphc.schedule.attention_support import is_whole
from graphc.schedule.choose import schedule_node
from graphc.schedule.target import AVX2, Target
from graphc.schedule.view import ViewType, contiguous_strides

Build = Callable[..., Value | tuple[Value, ...]]


@dataclass(frozen=True)
class Case:
    """A graph of named sizes that becomes one kernel: `build(builder, *inputs)` of inputs of these types.

    least: the sizes from which on it is defined. positions: of an integer input, the size below which its elements are.
    orders: of an input, in which order its axes lie in memory. usual: the typical value of all names. most: elements of
    the largest input that is tried. greatest: what is known to be the greatest size. also: names that no input has. early: sizes are bound before it is built, because
    names alone do not say enough.
    """
    name: str
    build: Build
    types: tuple[TensorType, ...]
    least: Mapping[str, int] = field(default_factory=dict)
    positions: Mapping[int, Dim] = field(default_factory=dict)
    orders: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    usual: int = 64
    most: int = 1 << 17
    greatest: int | None = MOST
    also: tuple[str, ...] = ()
    early: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.also).union(*(t.names for t in self.types))))

    def graph(self, sizes: Mapping[str, Dim]) -> Graph:
        b = Builder(self.name)
        ins = [b.input(f"x{k}", t.bind(sizes) if self.early else t) for k, t in enumerate(self.types)]
        outs = self.build(b, *ins)
        outs = outs if isinstance(outs, (tuple, list)) else (outs,)
        return bind_graph(b.finish(list(outs), ("",) * len(outs)), sizes)

    def open(self) -> Graph:
        graph = self.graph({n: size_name(n, self.least.get(n, 1), self.greatest, self.usual) for n in self.names})
        for each in (Decompose(lambda op, types, beside: is_whole(op, types)), EliminateCommonSubexpressions(), EliminateDeadCode()):
            graph = apply(each, graph)
        return graph

    def arrays(self, sizes: Mapping[str, int], seed: int = 0) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        return [self._array(rng, k, t.bind(sizes), sizes) for k, t in enumerate(self.types)]

    def _array(self, rng: np.random.Generator, k: int, t: TensorType, sizes: Mapping[str, int]) -> np.ndarray:
        if k in self.positions:
            return rng.integers(0, bind(self.positions[k], sizes), t.shape).astype(t.dtype.np)
        if t.dtype.is_float:
            return rng.standard_normal(t.shape).astype(t.dtype.np)
        return rng.integers(0, 2, t.shape).astype(bool) if t.dtype is bool_ else rng.integers(-9, 9, t.shape).astype(
            t.dtype.np)


class Lowered:
    """A case as one loop function for all sizes; `read`: the inputs that it takes. strides: of all results."""

    def __init__(self, case: Case, target: Target, strides: Dims | None = None):
        self.case, graph = case, case.open()
        node = _one_node(graph)
        self.read = [k for k, v in enumerate(graph.inputs) if v.name in {x.name for x in node.inputs}]
        self.ins = tuple(ViewType(v.type.dtype, v.type.shape, contiguous_strides(v.type.shape, case.orders.get(k)))
                         for k, v in zip(self.read, node.inputs))
        self.outs = tuple(ViewType(v.type.dtype, v.type.shape, strides or contiguous_strides(v.type.shape))
                          for v in node.outputs)
        self.schedule = schedule_node(node, self.ins, self.outs, target)
        self.function = lower(KernelRequest(node, self.ins, self.outs, self.schedule, target))


def verified(case: Case, target: Target) -> LoopFunction:
    function = Lowered(case, target).function
    verify(function)
    return function


class OpenKernel(Lowered):
    """The same as native code."""

    def __init__(self, case: Case, target: Target = AVX2):
        super().__init__(case, target)
        self.native = ForSizes(self.function, len(self.ins), target, [0] * len(self.function.params))

    def run(self, sizes: Mapping[str, int], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The results; memory around them is looked after."""
        laid = [_laid(arrays[k], self.case.orders.get(k)) for k in self.read]
        outs, shared = ([Guarded(TensorType(v.dtype, tuple(evaluate(n, sizes) for n in v.shape))) for v in views]
                        for views in (self.outs, self.function.views[len(laid) + len(self.outs):]))
        assert self.native.run(dict(sizes), laid, *[g.array for g in outs + shared]) == 0
        assert self.native.compiled.failure is None
        for g in outs + shared:
            g.check()
        return [g.array for g in outs]


class Guarded:
    """An array, and memory around it that nobody may write."""

    def __init__(self, t: TensorType):
        nbytes = int(np.prod(t.shape, dtype=int)) * t.dtype.itemsize
        self.memory = np.full(nbytes + 256 + 64, 0xA5, np.uint8)
        start = -self.memory.ctypes.data % 64 + 64
        self.array = self.memory[start:start + nbytes].view(t.dtype.np).reshape(t.shape)
        self.around = self.memory[:start], self.memory[start + nbytes:]

    def check(self) -> None:
        assert all((part == 0xA5).all() for part in self.around), "memory outside of a result was written"


def _laid(array: np.ndarray, order: tuple[int, ...] | None) -> np.ndarray:
    """The elements as they lie in memory."""
    return np.ascontiguousarray(array if order is None else array.transpose(order))


def _one_node(graph: Graph) -> Node:
    """The graph as one node: its only one, or a cluster."""
    if len(graph.nodes) == 1:
        return graph.nodes[0]
    b = Builder()
    return b.apply(Fused(graph, "nest"), [b.input(v.name, v.type) for v in graph.inputs])[0].node
