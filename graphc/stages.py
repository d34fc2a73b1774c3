"""What a graph is on its way to machine code: a frozen class for each stage, each with its text.

Two stages live where they are made: `Split` in passes/precompute.py, `ProgramPlan` in memory/plan.py; the last,
`Build`, has a file of its own.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Protocol

from graphc.codegen.llvm import jit
from graphc.codegen.llvm.emit import scratch_bytes
from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.printer import print_function
from graphc.codegen.program import LoopProgram
from graphc.codegen.scratch_layout import callers_first
from graphc.ir.dims import Dim, Dims
from graphc.ir.graph import Graph, Value
from graphc.ir.printer import print_graph
from graphc.memory.derived_state import DerivedState
from graphc.memory.usage import Memory
from graphc.passes.precompute import Split
from graphc.records import dataclass
from graphc.schedule.target import Target


class PipelineStage(Protocol):
    """What every stage can do."""

    def text(self) -> str: ...


@dataclass(frozen=True)
class Declared:
    """The graph as it was written or differentiated."""
    graph: Graph

    def text(self) -> str:
        return print_graph(self.graph)


@dataclass(frozen=True)
class Simplified(Declared):
    """Of few and simple operators, without what is equal, constant or dead."""


@dataclass(frozen=True)
class FusedGraphs(Split):
    """Both graphs, of kernels in their final order. Of several shards in one program: `of_one` are those of one of
    them, by which values are stored, and `stand` says which ones stand for those of that."""
    of_one: FusedGraphs | None = None
    stand: Mapping[Value, list[Value]] = field(default_factory=dict)


@dataclass(frozen=True)
class Lowered:
    """The kernels as loops and what calls them; `derived` is made from the state, `memory` the bytes of one call, known
    before a run."""
    program: LoopProgram
    derived: DerivedState
    memory: Memory

    def text(self) -> str:
        functions = callers_first([*entries(self.program), *self.program.kernels])
        return "\n\n".join(map(print_function, reversed(functions)))


@dataclass(frozen=True)
class Emitted:
    """The program as LLVM IR, and the parts that are compiled one by one."""
    llvm: str
    target: Target
    sizes: Dims                     # what the code needs of sizes that come with the call, in the order of its table
    parts: tuple[str, ...]          # `gc_main` is in the last

    def text(self) -> str:
        return self.llvm

    def assembly(self) -> str:
        return jit.assembly(self.llvm, self.target)


def entries(program: LoopProgram) -> list[LoopFunction]:
    """The functions that are called from outside."""
    return [f for f in (program.main, program.prepare) if f is not None]


def thread_scratch(program: LoopProgram) -> Dim:
    """Bytes of scratch that each thread needs."""
    return scratch_bytes(list(program.kernels), program.main, program.prepare)
