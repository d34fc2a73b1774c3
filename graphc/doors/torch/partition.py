"""What graphc cannot take of a graph runs eagerly: the graph is cut, and one warning says where."""
from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
from torch.fx.passes.operator_support import OperatorSupportBase

from graphc.doors.torch.interpret import Problem, explained, known
from graphc.doors.torch.read import target_name


class NotCompiled(Exception):
    """A graph with operators that have no rule, or whose rule refuses them."""

    def __init__(self, problems: Sequence[Problem]):
        super().__init__(", ".join(p.target for p in problems))
        self.problems = list(problems)


class Leftovers:
    """What runs eagerly of one captured graph, in all its phases: one warning lists it."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.told: set[Problem] = set()
        self.gathering = True

    def tell(self) -> None:
        """Warns of all that was found while the graph was compiled; of what comes later, at once."""
        self.gathering = False
        self.found()

    def found(self) -> None:
        """Warns of what has come since the last time, unless a phase that is still to be compiled may add to it."""
        new = [p for p in dict.fromkeys(self.problems) if p not in self.told]
        if new and not self.gathering:
            self.told.update(new)
            text = explained("a graph of torch.compile", new).text
            warnings.warn(f"{text}\nThese run eagerly, the rest in graphc.", stacklevel=2)


class _Supported(OperatorSupportBase):
    """Calls that graphc takes: all but some."""

    def __init__(self, refused: frozenset[str]):
        self.refused = refused

    def is_node_supported(self, submodules: Mapping[str, torch.nn.Module], node: Node) -> bool:
        if node.op != "call_function" or node.name in self.refused:
            return False
        if target_name(node.target) == "operator.getitem":          # goes with what it is a part of
            return not isinstance(node.args[0], Node) or self.is_node_supported(submodules, node.args[0])
        return known(target_name(node.target))


class EagerPart(torch.nn.Module):
    """A part of a graph, as a module: native code where graphc takes it."""

    def __init__(self, run: Callable[..., Any], single: bool):
        super().__init__()
        self.run, self.single = run, single

    def forward(self, *tensors: Any) -> Any:
        found = self.run(*tensors)
        return found[0] if self.single else tuple(found)


def parted(module: GraphModule, problems: Sequence[Problem], leftovers: Leftovers,
           compile: Callable[[GraphModule], Callable[..., Any]]) -> GraphModule:
    """The graph with each connected part that can be taken as one native program."""
    leftovers.problems += problems
    support = _Supported(frozenset(p.step for p in problems))
    partitioner = CapabilityBasedPartitioner(module, support, allows_single_node_partition=False,
                                             non_compute_ops=["_operator.getitem"])
    fused = partitioner.partition_and_fuse()
    for name, inner in list(fused.named_children()):
        if isinstance(inner, GraphModule) and name.startswith("fused_"):
            try:
                run = compile(inner)
            except NotCompiled as reason:
                leftovers.problems += reason.problems
                continue
            output = next(n for n in inner.graph.nodes if n.op == "output").args[0]
            setattr(fused, name, EagerPart(run, not isinstance(output, tuple | list)))
    return fused
