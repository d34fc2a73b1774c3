"""Test vectors: inputs of every function and what this process computes of them, one call after the other on one state.
Whoever runs the library elsewhere compares with these; on the same instruction set the bits are equal."""
from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphc.build import signature
from graphc.codegen.llvm.host import host_target
from graphc.codegen.llvm.jit import compile_cached
from graphc.doors.library.library import Built
from graphc.doors.library.programs import LibraryProgram, library_program
from graphc.doors.library.samples import SampleCall, sizes_to_show
from graphc.errors import GraphError
from graphc.ir.builder import bind_graph
from graphc.ir.dim_binding import bind
from graphc.ir.dims import static_dim
from graphc.runtime.executable import Executable, Program
from graphc.runtime.lock import StateLock
from graphc.runtime.memory import aligned_copy

LARGE = 16 << 20                # elements of a call, above which there are none


def vectors(built: Built) -> dict[str, np.ndarray]:
    """Arrays by "function.parameter". A function that refuses these inputs has none, and one with very large arrays."""
    library, rng = built.library, np.random.default_rng(0)
    state = [aligned_copy(a.value) for a in library.image.arrays]
    found: dict[str, np.ndarray] = {}
    shown = sizes_to_show(built)
    for number, function in enumerate(library.functions):
        call = SampleCall(function, {name: shown[name] for name in function.sizes})
        if sum(map(call.count, call.arrays)) > LARGE:
            continue
        inputs = [_drawn(rng, a.type.dtype.np, [static_dim(bind(d, call.sizes)) for d in a.type.shape])
                  for a in call.arrays if not a.is_result]
        try:
            outputs = _run(_program(built, number), call.sizes, [state[n] for n in function.state], inputs)
        except GraphError:              # of indices that are none of these, say
            continue
        found |= {f"{function.name}.{a.name}": value for a, value in zip(call.arrays, (*inputs, *outputs))}
    return found


def _drawn(rng: np.random.Generator, dtype: np.dtype, shape: list[int]) -> np.ndarray:
    """Standard normal floats; zeros and ones for other types, so that they can be indices."""
    return np.asarray(rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)).astype(dtype)


def _program(built: Built, number: int) -> LibraryProgram:
    """For this machine: that of the library where it has one."""
    here, function = host_target(), built.library.functions[number]
    same = [p for p in built.of_function(number) if here.covers(p.emitted.target)]
    return same[0] if same else library_program(function, function.name, here)


def _run(program: LibraryProgram, sizes: Mapping[str, int], state: list[np.ndarray],
         inputs: list[np.ndarray]) -> list[np.ndarray]:
    """The results; the state changes if the function changes it."""
    graph, target = program.function.graph, program.emitted.target
    code = Program(compile_cached(program.emitted.llvm, target), signature(bind_graph(graph, sizes)), program.arena,
                   program.scratch, memoryview(program.consts), target=target, derived=program.derived,
                   passing=program.passing, writes=graph.writes, sizes=program.emitted.sizes)
    run = Executable(code.at(sizes), 1, state, StateLock(),
                     lambda node, index: program.failures[node].error(index, sizes))
    outputs = [np.empty(spec.type.shape, spec.type.dtype.np) for spec in run.signature.outputs]
    run.run(inputs, outputs)
    return outputs
