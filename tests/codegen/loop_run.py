"""Runs loop functions on numpy arrays: no pool, tiles run on the caller, the last one first."""
from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import pytest

from graphc.codegen import abi
from graphc.codegen.llvm import jit
from graphc.codegen.llvm.emit import emit_for_sizes, emit_module, scratch_bytes
from graphc.codegen.llvm.host import can_run
from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.verify import verify
from graphc.ir.dims import evaluate
from graphc.ir.types import dtype_of
from graphc.schedule.target import AVX2, AVX512, Target

RUNS = tuple(pytest.param(t, id=t.name, marks=pytest.mark.skipif(not can_run(t), reason=f"this CPU has no {t.name}"))
             for t in (AVX2, AVX512))
"""Targets for tests that run code, those that this CPU lacks skipped."""

PARALLEL = """
define void @test.parallel(ptr %ctx, ptr %fn, ptr %frame, i64 %n) {
entry:
  %at = getelementptr i8, ptr %ctx, i64 SCRATCH
  %scratch = load ptr, ptr %at
  br label %head
head:
  %i = phi i64 [ %n, %entry ], [ %j, %body ]
  %more = icmp sgt i64 %i, 0
  br i1 %more, label %body, label %done
body:
  %j = sub i64 %i, 1
  call void %fn(ptr %ctx, ptr %frame, i64 %j, ptr %scratch)
  br label %head
done:
  ret void
}
""".replace("SCRATCH", str(abi.OFFSETS["scratch"]))


def assembly(functions: Sequence[LoopFunction], target: Target = AVX2, main: LoopFunction | None = None) -> str:
    """The machine code, as text, of functions for any target."""
    return jit.assembly(emit_module(list(functions), main, target), target)


class Compiled:
    """A compiled main; `run(*inputs)` fills the outputs that it was made with."""

    def __init__(self, text: str, scratch: int, target: Target = AVX2):
        self.loaded = jit.load_object(jit.compile_object(text + PARALLEL, target), (abi.MAIN, "test.parallel"))
        self.main = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)(self.loaded.address(abi.MAIN))
        self.scratch = np.zeros(scratch + 64, np.uint8)
        self.arena = np.zeros(1 << 16, np.uint8)

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray], table: Sequence[int] = ()) -> int:
        """Returns gc_main's result; the context's words are left in `self.context`. `table`: of sizes."""
        sizes = (ctypes.c_int64 * max(1, len(table)))(*table)
        tables = [(ctypes.c_void_p * max(1, len(a)))(*[x.ctypes.data for x in a]) for a in (inputs, outputs)]
        fields = dict(parallel=self.loaded.address("test.parallel"), threads=1, inputs=ctypes.addressof(tables[0]),
                      outputs=ctypes.addressof(tables[1]), scratch=_aligned(self.scratch), arena=_aligned(self.arena),
                      status=abi.STATUS_OK, sizes=ctypes.addressof(sizes))
        self.context = (ctypes.c_int64 * len(abi.FIELDS))(*[fields.get(name, 0) for name in abi.FIELDS])
        return self.main(ctypes.addressof(self.context))

    @property
    def failure(self) -> tuple[int, int] | None:
        return abi.read_failure(self.context[list(abi.FIELDS).index("status")])


def _aligned(array: np.ndarray) -> int:
    return (array.ctypes.data + 63) // 64 * 64


def compiled(function: LoopFunction, n_inputs: int, ints: Sequence[int] = (), target: Target = AVX2) -> Compiled:
    """main calls `function`: its first views are the inputs, the others the outputs."""
    main = _calling(function, n_inputs, ints)
    return Compiled(emit_module([function], main, target), scratch_bytes([function], main), target)


def _calling(function: LoopFunction, n_inputs: int, ints: Sequence[int] = ()) -> LoopFunction:
    main = LoopFunction("main")
    views = []
    for k, view in enumerate(function.views):
        space, slot = ("input", k) if k < n_inputs else ("output", k - n_inputs)
        views.append(main.buffer(space, slot, 0, view.dtype, view.shape, view.strides))
    main.call(function, [*views, *ints])
    verify(function)
    verify(main)
    return main


class ForSizes:
    """A function compiled once for all sizes; `run` brings them."""

    def __init__(self, function: LoopFunction, n_inputs: int, target: Target = AVX2, ints: Sequence[int] = ()):
        main = _calling(function, n_inputs, ints)
        text, self.sizes = emit_for_sizes([function], main, target)
        self.scratch = scratch_bytes([function], main)
        self.compiled = Compiled(text, 0, target)

    def run(self, sizes: dict[str, int], inputs: Sequence[np.ndarray], *outputs: np.ndarray) -> int:
        self.compiled.scratch = np.zeros(evaluate(self.scratch, sizes) + 64, np.uint8)
        return self.compiled.run(inputs, outputs, [evaluate(size, sizes) for size in self.sizes])


def run(function: LoopFunction, inputs: Sequence[np.ndarray], *outputs: np.ndarray, ints: Sequence[int] = (),
        target: Target = AVX2) -> int:
    """Compiles and calls `function` on arrays."""
    for array, view in zip([*inputs, *outputs], function.views, strict=True):
        assert dtype_of(array).name == view.dtype.name
    return compiled(function, len(inputs), ints, target).run(inputs, outputs)
