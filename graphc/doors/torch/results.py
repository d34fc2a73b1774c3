"""How the tensors that a compiled graph returns lie in memory: as PyTorch says that they do.

A result that is an input is that tensor; one that shares the memory of an input, or of another result, is a view of it;
one that lies in another order than row by row (channels last) does so too. AOTAutograd and what follows a graph rely on
each of the three: a write into one of two results that share memory is seen in the other, and a tensor that is kept for
the backward pass is the one whose version counter says that it has changed.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch.fx import Node
from torch.multiprocessing.reductions import StorageWeakRef

from graphc.doors.torch.interpret import Problem
from graphc.doors.torch.partition import NotCompiled
from graphc.errors import GraphError
from graphc.ir.dim_binding import bind
from graphc.ir.dims import Dim
from graphc.records import dataclass

Sizes = Mapping[str, int]
ToDim = Callable[[Any], Dim]


@dataclass(frozen=True)
class TensorLayout:
    """Sizes, steps and first place of a tensor in its memory, in elements; they may depend on PyTorch's symbols."""
    shape: tuple[Dim, ...]
    strides: tuple[Dim, ...]
    start: Dim

    @staticmethod
    def of(fake: torch.Tensor, dim: ToDim) -> TensorLayout | None:
        """Of a tensor that AOTAutograd has captured; None where it depends on more than sizes."""
        try:
            return TensorLayout(tuple(map(dim, fake.shape)), tuple(map(dim, fake.stride())), dim(fake.storage_offset()))
        except GraphError:
            return None

    def known(self, sizes: Sizes) -> TensorLayout:
        """With these sizes for the symbols."""
        return self if self.is_static else TensorLayout(tuple(bind(d, sizes) for d in self.shape),
                                                  tuple(bind(d, sizes) for d in self.strides), bind(self.start, sizes))

    @property
    def is_static(self) -> bool:
        return all(isinstance(d, int) for d in (*self.shape, *self.strides, self.start))


@dataclass(frozen=True)
class PartResult:
    """One result. `value`: what is no tensor (nothing, a number, a size). Else the number of an input (`of`: how it
    lies) or of an array that the program makes (`of` is None), and the view of it that is returned; None: it itself."""
    value: Any = None
    source: int | None = None
    of: TensorLayout | None = None
    view: TensorLayout | None = None

    def made(self, arrays: Sequence[torch.Tensor], inputs: Sequence[Any], sizes: Sizes) -> Any:
        """The result of a call."""
        if self.source is None:
            return bind(self.value, sizes) if self.needs_sizes else self.value
        tensor = arrays[self.source] if self.of is None else inputs[self.source]
        if self.view is None:
            return tensor
        view, first = self.view.known(sizes), 0
        if self.of is not None:
            tensor, first = _lying(tensor, self.of.known(sizes))
        return tensor.as_strided(view.shape, view.strides, view.start + first)

    @property
    def needs_sizes(self) -> bool:
        """Whether it depends on sizes of the call."""
        if self.source is None:
            return not isinstance(self.value, bool | int | float | None)
        return any(layout is not None and not layout.is_static for layout in (self.view, self.of))


def _lying(tensor: torch.Tensor, layout: TensorLayout) -> tuple[torch.Tensor, int]:
    """An input that lies as was said when the graph was captured, and by how much later it starts. What lies otherwise
    is copied."""
    if any(a != b for a, b, n in zip(tensor.stride(), layout.strides, tensor.shape) if n != 1):
        tensor = torch.empty_strided(layout.shape, layout.strides, dtype=tensor.dtype).copy_(tensor)
    return tensor, tensor.storage_offset() - layout.start


@dataclass(frozen=True)
class PartResults:
    """All results of a graph. `arrays`: the nodes whose arrays the program has to give, each with the order of its axes
    in memory."""
    results: tuple[PartResult, ...]
    arrays: tuple[tuple[Node, tuple[int, ...]], ...]


def planned(nodes: Sequence[Node], dim: ToDim, values: Mapping[str, Any]) -> PartResults:
    """For the nodes of a graph. `values`: its results that are no tensors, by node."""
    plan = _ResultPlanner(nodes, dim)
    output = next(n for n in nodes if n.op == "output").args[0]
    results = output if isinstance(output, tuple | list) else (output,)
    plan.wanted = {n for n in results if isinstance(n, Node)}
    found = tuple(plan.result(n, values) if isinstance(n, Node) else PartResult(n) for n in results)
    return PartResults(found, tuple((node, order_of(tensor_at(node), dim) or tuple(range(tensor_at(node).ndim)))
                             for node in plan.arrays))


class _ResultPlanner:
    """Where results come from. `wanted`: the nodes that are results."""

    def __init__(self, nodes: Sequence[Node], dim: ToDim):
        self.dim = dim
        self.wanted: set[Node] = set()
        self.arrays: dict[Node, int] = {}
        self.inputs = {node: i for i, node in enumerate(n for n in nodes if n.op == "placeholder")}
        self.by_memory: dict[Any, list[Node]] = {}
        for node in nodes:
            if (memory := _memory(node)) is not None:
                self.by_memory.setdefault(memory, []).append(node)

    def result(self, node: Node, values: Mapping[str, Any]) -> PartResult:
        """One of the graph's results."""
        if node in self.inputs:
            return PartResult(source=self.inputs[node], of=NOWHERE)
        if not isinstance(node.meta.get("val"), torch.Tensor):
            return PartResult(values[node.name])
        sharing = self.by_memory.get(_memory(node), [node])
        return self._of_input(node, sharing) or self._of_another(node, sharing) or self._own(node)

    def _of_input(self, node: Node, sharing: Sequence[Node]) -> PartResult | None:
        """A view of an input."""
        given = next((n for n in sharing if n in self.inputs), None)
        if given is None:
            return None
        return PartResult(source=self.inputs[given], of=self._layout(given), view=self._layout(node))

    def _of_another(self, node: Node, sharing: Sequence[Node]) -> PartResult | None:
        """A view of what another result is a view of."""
        if not any(n in self.wanted and n is not node for n in sharing):
            return None
        whole = next((n for n in sharing if _fills_memory(n, self.dim)), None)
        if whole is None:
            raise NotCompiled([Problem("output", "results that share memory with gaps", None)])
        return PartResult(source=self._number(whole), view=self._layout(node))

    def _own(self, node: Node) -> PartResult:
        """An array of its own."""
        fake = tensor_at(node)
        if order_of(fake, self.dim) in (None, tuple(range(fake.ndim))):
            return PartResult(source=self._number(node))
        return PartResult(source=self._number(node), view=replace(self._layout(node), start=0))

    def _number(self, node: Node) -> int:
        return self.arrays.setdefault(node, len(self.arrays))

    def _layout(self, node: Node) -> TensorLayout:
        found = TensorLayout.of(tensor_at(node), self.dim)
        if found is None:               # PyTorch's own sizes can be more than polynomials; numbers always can be taken
            raise NotCompiled([Problem("output", "a view whose place in memory depends on more than sizes", None)])
        return found


NOWHERE = TensorLayout((), (), 0)             # of an input that is returned itself: it lies where it lies


def tensor_at(node: Node) -> torch.Tensor:
    """What was captured as the value of a node that is a tensor."""
    fake: torch.Tensor = node.meta["val"]
    return fake


def _memory(node: Node) -> Any:
    """What stands for the memory of its tensor, as elements of one type; None where it has none of its own, or holds
    the numbers with another sign."""
    fake = node.meta.get("val")
    if not isinstance(fake, torch.Tensor) or fake.layout is not torch.strided or fake.is_neg() or fake.is_conj():
        return None
    return StorageWeakRef(fake.untyped_storage()), fake.dtype


def _hint(size: Any) -> Any:
    """The number that a size had when the graph was captured; None of one that depends on values."""
    return size if isinstance(size, int) else size.node.hint


def order_of(fake: torch.Tensor, dim: ToDim) -> tuple[int, ...] | None:
    """The axes of a tensor from the largest step in memory to the smallest; None unless its elements fill a stretch of
    memory for all sizes. An axis of one element stands where it is."""
    rows = range(fake.ndim)
    layout, strides = TensorLayout.of(fake, dim), [_hint(s) for s in fake.stride()]
    if layout is None or None in strides or 0 in layout.shape:
        return None
    many = [axis for axis in rows if layout.shape[axis] != 1]
    ordered = sorted(many, key=lambda axis: -strides[axis])
    step: Dim = 1
    for axis in reversed(ordered):
        if layout.strides[axis] != step:
            return None
        step = step * layout.shape[axis]
    places = iter(ordered)
    return tuple(next(places) if axis in many else axis for axis in rows)


def _fills_memory(node: Node, dim: ToDim) -> bool:
    """Whether it has each element of its memory once."""
    fake = tensor_at(node)
    shape = [_hint(n) for n in fake.shape]
    if None in shape or _hint(fake.storage_offset()) != 0:
        return False
    nbytes = _hint(fake.untyped_storage().nbytes())
    return order_of(fake, dim) is not None and nbytes == prod(shape) * fake.element_size()
