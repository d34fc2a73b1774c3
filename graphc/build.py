"""The last stage: machine code and all that a later process needs to run it without compiling."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from graphc.errors import GraphError, Loc
from graphc.failure import Failure
from graphc.ir.graph import Graph
from graphc.ir.dims import Dim, evaluate
from graphc.memory.usage import Memory
from graphc.records import dataclass
from graphc.runtime.executable import Program
from graphc.runtime.memory import aligned_empty
from graphc.runtime.signature import ArraySpec, ResultKind, Signature


@dataclass(frozen=True)
class CallSite:
    """A kernel call of the program: the user's line and layer, the arithmetic (direct algorithm) and the bytes that one
    call must move, formulas where sizes come with the call; of a training step the phase.
    """
    kernel: str
    loc: Loc | None
    scope: str
    flops: Dim
    bytes: Dim
    phase: str = ""

    def at(self, sizes: Mapping[str, int]) -> CallSite:
        """With the numbers for these sizes."""
        return replace(self, flops=evaluate(self.flops, sizes), bytes=evaluate(self.bytes, sizes))


@dataclass(frozen=True)
class Build:
    """What the disk cache keeps of a compiled graph: the program, whose lines its failures are, its memory, and the
    calls that an instrumented build times."""
    program: Program
    failures: tuple[Failure, ...]
    memory: Memory
    sites: tuple[CallSite, ...] = ()

    def error(self, node: int, index: int, sizes: Mapping[str, int] = MappingProxyType({})) -> GraphError:
        """What to raise when the checking node of this number reports this index, where the names have these sizes."""
        return self.failures[node].error(index, sizes)

    def text(self) -> str:
        return f"{sum(map(len, self.program.objects))} bytes of machine code\n# {self.memory}"


def signature(graph: Graph) -> Signature:
    """How the graph is called."""
    names = graph.output_names or ("",) * len(graph.outputs)
    result: ResultKind = "array" if graph.output_names is None else "dict" if any(graph.output_names) else "tuple"
    outputs = tuple(ArraySpec(n or f"output {i}", v.type) for i, (n, v) in enumerate(zip(names, graph.outputs)))
    return Signature(tuple(ArraySpec(v.name, v.type) for v in graph.inputs), outputs, result, graph.name)


def constant_memory(nbytes: int) -> memoryview:
    """Where constants may lie."""
    return aligned_empty(nbytes, np.uint8).data
