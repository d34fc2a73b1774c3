"""What becomes of a function for one instruction set: LLVM text, and what the library must know of it."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace

import numpy as np

from graphc.codegen.abi import MAIN, PREPARE
from graphc.compiler import Compilation
from graphc.errors import GraphError, InternalError
from graphc.failure import Failure
from graphc.ir.dims import Dim, Dims, static_shape
from graphc.ir.graph import Graph
from graphc.ir.open import Bounds, open_graph, size_conditions
from graphc.memory.budget import Budget
from graphc.memory.plan import ProgramPlan
from graphc.records import dataclass
from graphc.runtime.instances.instance_memory import PASSES, ProgramFacts
from graphc.runtime.memory import round_up
from graphc.schedule.target import Target
from graphc.sized import PROOFS
from graphc.stages import Emitted, Lowered

MARKER = 0x5EED_1DE0_1DEA           # an index that no text has, in the place of that which a check reports


@dataclass(frozen=True, eq=False)
class LibraryFunction:
    """An exported function: its graph, the bounds of its named sizes, the numbers of its state's arrays. `results`:
    names of those that have none in the graph. `budget`: of memory."""
    name: str
    graph: Graph
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    state: tuple[int, ...] = ()
    results: tuple[str, ...] = ()
    budget: Budget | None = None

    @property
    def sizes(self) -> tuple[str, ...]:
        """The names of its sizes, in the order of its parameters."""
        return tuple(sorted(self.graph.dim_names))


@dataclass(frozen=True, eq=False)
class LibraryProgram:
    """A function for one instruction set. `symbol`: of its code in the library. `sizes`, `conditions`, `bounds`: of a
    program with named sizes."""
    symbol: str
    function: LibraryFunction
    emitted: Emitted
    arena: Dim
    scratch: Dim
    consts: bytes
    derived: tuple[int, ...]
    passing: frozenset[int]
    prepares: bool
    failures: tuple[Failure, ...]
    bounds: Mapping[str, Bounds]
    conditions: Dims

    @property
    def symbols(self) -> dict[str, str]:
        """What the entries of the LLVM text are called in the library."""
        return {MAIN: self.symbol} | ({PREPARE: f"{self.symbol}_prepare"} if self.prepares else {})

    def facts(self, state_offsets: Sequence[int]) -> bytes:
        """`ProgramFacts` and its arrays, for a state whose arrays lie at these offsets of its image."""
        graph = self.function.graph
        arrays = [v.type.dtype.itemsize - 1 for v in (*graph.inputs, *graph.outputs)]
        derived, end, passing = [], 0, 0
        for n, size in enumerate(self.derived):
            derived.append(PASSES if n in self.passing else end)
            end += 0 if n in self.passing else round_up(size)
            passing = max(passing, round_up(size) if n in self.passing else 0)
        fixed = [dim if isinstance(dim, int) else 0 for dim in (self.arena, self.scratch)]
        row = [*fixed, len(arrays), len(self.function.state), len(derived), end, passing, graph.writes,
               len(self.function.sizes)]
        states = [state_offsets[n] for n in self.function.state]
        assert len(row) * 8 == ProgramFacts.size
        return np.array([*row, *arrays, *states, *derived], "<i8").tobytes()

    def messages(self) -> bytes:
        """For each number of a check: where the texts before and after the index begin, and whether it is of NaNs; then
        these texts."""
        texts = [_around(failure) for failure in self.failures]
        rows, content = [], bytearray()
        for failure, (before, after) in zip(self.failures, texts):
            begin = 24 * len(texts) + len(content)
            content += before + b"\0" + after + b"\0"
            rows.append((begin, begin + len(before) + 1, failure.nan))
        return np.array(rows, "<i8").tobytes() + bytes(content)


def library_program(function: LibraryFunction, symbol: str, target: Target) -> LibraryProgram:
    """Compiles up to LLVM text. GraphError where no program serves all sizes of a name."""
    graph: Graph = function.graph
    bounds: dict[str, Bounds] = {}
    conditions: Dims = ()
    try:
        if graph.dim_names:
            graph, bounds = open_graph(graph, function.bounds)
            conditions = size_conditions(graph)
        budget = function.budget
        if budget is not None and function.sizes:
            budget = budget.for_sizes(graph.name, function.sizes, {n: b.high for n, b in function.bounds.items()})
        compilation = Compilation(graph, target, budget=budget)
        emitted, lowered = compilation.stage(Emitted), compilation.stage(Lowered)
        consts = b"".join(compilation.stage(ProgramPlan).constants.parts)
    except (GraphError, InternalError) as error:
        if isinstance(error, InternalError) and error.stage not in PROOFS or not function.sizes:
            raise
        raise GraphError(f"{function.name} cannot be one program for all sizes of {', '.join(function.sizes)}: give "
                         f"their values, or bounds ({error.text})") from error
    program = lowered.program
    failures = tuple(Failure.of(n, i in program.nan_checks) for i, n in enumerate(program.checked))
    return LibraryProgram(
        symbol, function, emitted, lowered.memory.arena, lowered.memory.scratch, consts,
        static_shape(lowered.derived.sizes), lowered.derived.passing, program.prepare is not None, failures, bounds,
        conditions)


def _around(failure: Failure) -> tuple[bytes, bytes]:
    """What is said before and after the index."""
    many = failure.positions
    if isinstance(many, int) or many is None:
        text = str(failure.error(MARKER))
    else:
        error = replace(failure, positions=None).error(MARKER)
        text = str(GraphError(f"{error.text}: there are {many} {failure.words[1]}", error.loc))
    before, _, after = text.partition(str(MARKER))
    return before.encode(), after.encode()
