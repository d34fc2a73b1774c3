"""Compiles one contraction and runs it on strided arrays."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.codegen.abi import MAIN
from graphc.codegen.llvm import jit
from graphc.codegen.llvm.emit import emit_module, scratch_bytes
from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.verify import verify
from graphc.codegen.lower.contraction.lowering import lower_contraction
from graphc.ir.contraction import Contraction
from graphc.ir.types import TensorType, dtype_of
from graphc.runtime.executable import Executable, Program
from graphc.runtime.native import native
from graphc.runtime.signature import ArraySpec, Signature
from graphc.schedule.choose_contraction import contraction_schedule
from graphc.schedule.contraction_schedule import ContractionSchedule
from graphc.schedule.target import AVX2, Target
from graphc.schedule.view import ViewType


def view_of(x: np.ndarray) -> ViewType:
    return ViewType(dtype_of(x), x.shape, tuple(s // x.itemsize for s in x.strides))


@dataclass
class Kernel:
    """A compiled contraction of arrays that lie like the ones it was made for."""
    function: LoopFunction
    schedule: ContractionSchedule
    text: str
    executable: Executable

    def run(self, ins: Sequence[np.ndarray], outs: Sequence[np.ndarray], threads: int = 1) -> None:
        self.executable.run(ins, outs, threads)

    def run_once(self, ins: Sequence[np.ndarray], outs: Sequence[np.ndarray]) -> None:
        """Exactly one run, for outputs that overwrite inputs (`run` may be repeated by the suite to compare bits)."""
        tables = [np.array([x.ctypes.data for x in arrays], np.int64) for arrays in (ins, outs)]
        frame = self.executable._new_frame(self.executable._layout)
        frame.prepare(*[t.ctypes.data for t in tables])
        assert native().run(self.executable.resident.loaded.address(MAIN), frame.address) == 0


def lowered(c: Contraction, ins: Sequence[np.ndarray], outs: Sequence[np.ndarray], target: Target = AVX2,
            epilogue=None):
    a, b, out = view_of(ins[0]), view_of(ins[1]), view_of(outs[0])
    schedule = contraction_schedule(c, a.shape, a.strides, b.shape, b.strides, out.strides, a.dtype, target,
                                    fused=epilogue is not None)
    f = lower_contraction([view_of(x) for x in ins], [view_of(x) for x in outs], schedule, target, epilogue)
    main = LoopFunction("main")
    views = [main.buffer("input", i, 0, v.dtype, v.shape, v.strides) for i, v in enumerate(map(view_of, ins))]
    views += [main.buffer("output", i, 0, v.dtype, v.shape, v.strides) for i, v in enumerate(map(view_of, outs))]
    if schedule.shared_scratch:
        views.append(main.buffer("arena", 0, 0, a.dtype, (schedule.shared_scratch,)))
    main.call(f, views)
    verify(f)
    verify(main)
    return f, main, schedule


def compiled(c: Contraction, ins: Sequence[np.ndarray], outs: Sequence[np.ndarray], target: Target = AVX2,
             epilogue=None, threads: int = 1) -> Kernel:
    f, main, schedule = lowered(c, ins, outs, target, epilogue)
    text = emit_module([f], main, target)

    def specs(arrays, name):
        return tuple(ArraySpec(f"{name}{i}", TensorType(dtype_of(x), x.shape)) for i, x in enumerate(arrays))
    program = Program(jit.compile_object(text, target), Signature(specs(ins, "in"), specs(outs, "out")),
                      arena_bytes=schedule.shared_scratch * ins[0].itemsize, scratch_bytes=scratch_bytes([f], main))
    return Kernel(f, schedule, text, Executable(program, threads=threads))


def check(c: Contraction, a: np.ndarray, b: np.ndarray, out: np.ndarray, threads: Sequence[int] = (1,),
          tolerance: float = 2e-6) -> Kernel:
    """Runs and compares with the float64 oracle; the error is measured against the sum of absolute values."""
    kernel = compiled(c, [a, b], [out])
    wide = [x.astype(np.float64) for x in (a, b)]
    wanted = c.reference(*wide, out.shape)
    scale = c.reference(*map(np.abs, wide), out.shape)
    results = []
    for n in threads:
        out[...] = 77
        kernel.run([a, b], [out], n)
        results.append(out.copy())
        limit = (tolerance if a.dtype == np.float32 else 1e-14) * (scale + 1e-30)
        worst = np.abs(out - wanted) - limit
        assert np.all(worst <= 0), (str(kernel.schedule), np.argwhere(worst > 0)[:5].tolist(), float(worst.max()))
    for other in results[1:]:
        assert np.array_equal(results[0], other), "bits depend on the number of threads"
    return kernel
