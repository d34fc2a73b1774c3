"""A graph with its native code: what `gc.compile` gives where all sizes are known."""
from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.build import Build
from graphc.compiler import Compilation
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed_methods
from graphc.dsl.other_methods import OF_RUNS, Answering
from graphc.errors import GraphError
from graphc.given import integer
from graphc.ir.builder import bind_graph
from graphc.ir.graph import Graph
from graphc.ir.parser import parse
from graphc.ir.printer import print_graph
from graphc.ir.shown import Shown
from graphc.memory.budget import Budget
from graphc.memory.usage import Memory
from graphc.once import loaded, once_property
from graphc.origin import Origin, explained, quantisation_of, state_of
from graphc.quantisation_report import QuantisationReport
from graphc.runtime.executable import Executable
from graphc.runtime.lock import StateLock
from graphc.runtime.memory import aligned_copy
from graphc.runtime.state_table import StateTable
from graphc.state import State

if TYPE_CHECKING:
    from graphc.passes.join_shards import Shards
    from graphc.profile import Profile


class CompiledGraph(partial[Any], Shown, Answering):
    """Native code of a graph. Call it with numpy arrays; `dump(stage)`, `memory` and `explain()` tell
    what it does; `executable` runs it.

    As a `partial` of the native entry, without arguments, it is called from C to C: a call costs no Python.
    """
    answers = OF_RUNS
    making: Callable[[], Graph]
    compilation: Compilation
    executable: Executable
    sizes: Mapping[str, int]
    origin: Origin | None = None        # of what `gc.compile` made

    def __new__(cls, graph: Graph, threads: int = 0, state: Sequence[np.ndarray] | StateTable = (),
                lock: StateLock | None = None, quiet: bool = False, budget: Budget | None = None,
                shards: Shards | None = None) -> CompiledGraph:
        """`state`, `lock`, `quiet`: as of `Executable`. `shards`: `graph` is that of one, and the program of some."""
        compilation = Compilation(graph, budget=budget, shards=shards)

        def start(build: Build) -> Executable:
            knob = compilation.config.threads
            return Executable(build.program, threads or knob, state, lock, build.error, user_loc, quiet)
        return with_code(lambda: compilation.called, compilation, compilation.load(start))

    @once_property
    def graph(self) -> Graph:
        """The graph; where its code was on disk, made when somebody wants to see it."""
        return self.making()

    def __repr__(self) -> str:
        return f"<compiled {self.graph.heading}>"

    def dump(self, stage: str = "graph") -> str:
        """The text of a stage: graph, simplified, fused, planned, loops, llvm or asm."""
        return self.compilation.text(stage)

    def explain(self) -> str:
        """Why neighbours were not fused, and among which candidates each kernel's schedule was chosen."""
        return explained(self.origin, self.compilation.explain())

    def quantisation(self) -> QuantisationReport:
        """Of what `compute=` made: each product's bits, how its activations are rounded, and the errors of its weights,
        or why it stays f32. Of what `store=` keeps: each weight's errors and bytes, or why it stays f32. GraphError for
        other functions."""
        return quantisation_of(self.origin)

    def profile(self, *arrays: np.ndarray, runs: int = 5) -> Profile:
        """Where the time of a call with these arguments goes: print it, or `save("roofline.svg")`. An instrumented
        build runs, on a copy of the state; this one pays nothing for it."""
        profiling = loaded("graphc.profile")            # with peaks and pictures, which few processes need
        runs = integer(runs, "runs", 1, profiling.MOST_RUNS, user_loc())
        mine, made = self.executable, self.compilation
        timed = Compilation(made.graph, timed=True, budget=made.budget, shards=made.shards)
        table = np.zeros((len(timed.build.sites), 2), np.int64)
        state: Sequence[np.ndarray] | StateTable
        lock: StateLock | None
        if mine.settled:
            state, lock = mine.state, None
        else:
            state, lock = (mine.lock or StateLock()).read(mine.state.arrays), StateLock()
        run = timed.load(lambda build: Executable(build.program.at(self.sizes), mine.threads, state, lock,
                                                  partial(build.error, sizes=self.sizes), user_loc, profile=table))
        sites = [site.at(self.sizes) for site in timed.build.sites]
        named = profiling.arrays_read(timed.planned, run.state, arrays)
        measured: Profile = profiling.measure(run, table, sites, arrays, named, runs)
        return measured

    def into(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """Runs on arrays that have exactly the types of the graph and are C-contiguous; not checked."""
        self.executable.run(inputs, outputs)

    @once_property
    def memory(self) -> Memory:
        """Bytes of a call, by purpose; of its state, those that are kept."""
        formulas = self.compilation.build.memory
        return replace(formulas.at(**self.sizes), state=sum(a.nbytes for a in self.executable.state.arrays))

    @property
    def state(self) -> State:
        """The live arrays that calls read and write: read, written, saved and copied by name, as `step.state`."""
        return state_of(self.origin)

    def renew(self) -> None:
        """See `Executable.renew`."""
        self.executable.renew()

    def release(self) -> None:
        """Gives back the memory that calls in flight have used; the next call takes what it needs."""
        self.executable.release()

    def __reduce__(self) -> tuple[Callable[..., CompiledGraph], tuple[Any, ...]]:
        """The graph, and copies of what its calls read: a copy is apart from the state of a training step."""
        mine = self.executable
        read = list(mine.state.arrays) if mine.settled else (mine.lock or StateLock()).read(mine.state.arrays)
        # of settled code, the arrays that only what is derived was made from are gone
        derived = [a.copy() for a in mine.state.derived] if mine.settled else []
        target = mine.program.target.name if mine.program.target else ""
        text = _packed(print_graph(bind_graph(self.graph, self.sizes)))
        return _unpickled, (text, mine.threads, read, derived, self.compilation.budget, target)


def with_code(graph: Callable[[], Graph], compilation: Compilation, executable: Executable,
              sizes: Mapping[str, int] = MappingProxyType({})) -> CompiledGraph:
    """The graph with native code that is there. `sizes`: of its named dimensions, where one program serves all."""
    run = partial.__new__(CompiledGraph, executable.call)
    run.making, run.compilation, run.executable, run.sizes = graph, compilation, executable, sizes
    return run


def _unpickled(text: bytes, threads: int, arrays: Sequence[np.ndarray], derived: Sequence[np.ndarray],
               budget: Budget | None, target: str) -> CompiledGraph:
    """What was pickled, compiled again, mostly from the disk cache."""
    graph = parse(zlib.decompress(text).decode())
    if not derived or not graph.state:
        lock = StateLock() if graph.writes else None
        return CompiledGraph(graph, threads, [aligned_copy(a) for a in arrays], lock, budget=budget)
    program = Compilation(graph, budget=budget).build.program
    here = program.target.name if program.target else ""
    sizes = tuple(0 if n in program.passing else size for n, size in enumerate(program.derived))
    if (here, sizes) != (target, tuple(a.nbytes for a in derived)):
        raise GraphError(f"{graph.name} was pickled with its parameters in the form that {target} reads, and this "
                         f"machine is {here or 'another one'}: pickle the step, or the network and its weights, and "
                         "compile it here", user_loc())
    return CompiledGraph(graph, threads, StateTable.settled(arrays, sizes, derived, program.idle), budget=budget)


formed_methods(CompiledGraph)


def _packed(text: str) -> bytes:
    """The text with the letters that are frequent in short codes: the hexadecimal digits of constants take half a byte
    each. (Looking for repetitions, zlib's other half, finds none in them, takes longer and gains nothing.)"""
    packer = zlib.compressobj(strategy=zlib.Z_HUFFMAN_ONLY)
    return packer.compress(text.encode()) + packer.flush()
