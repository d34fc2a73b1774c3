"""Runs one loop function, or one operator through its schedule and lowering, on numpy arrays: no pool, tiles in reverse
order on the caller.
"""
from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from graphc.codegen import abi
from graphc.codegen.llvm import jit
from graphc.codegen.llvm.emit import emit_module, scratch_bytes
from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.verify import verify
from graphc.codegen.lower import function_needs_node_id, lower
from graphc.codegen.lower.request import KernelRequest
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op
from graphc.ir.ops.fused import Fused
from graphc.ir.types import TensorType, dtype_of
from graphc.schedule.choose import schedule_node
from graphc.schedule.nest_schedule import NestSchedule, shared_offsets
from graphc.schedule.target import AVX2, Target
from graphc.schedule.view import ViewType

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


class Native:
    """A compiled loop function; its first `n_inputs` views are inputs, then outputs, then shared scratch of `partials`.
    """

    def __init__(self, function: LoopFunction, n_inputs: int, n_outputs: int, partials: Sequence = (),
                 target: Target = AVX2):
        main = LoopFunction("main")
        offsets, views = shared_offsets(tuple(partials)), []
        for k, view in enumerate(function.views):
            space, slot, offset = ("input", k, 0) if k < n_inputs else ("output", k - n_inputs, 0)
            if k >= n_inputs + n_outputs:
                space, slot, offset = "arena", 0, offsets[k - n_inputs - n_outputs]
            views.append(main.buffer(space, slot, offset, view.dtype, view.shape, view.strides))
        main.call(function, [*views, *([7] if function_needs_node_id(function) else [])])
        verify(function)
        verify(main)
        self.text = emit_module([function], main, target)
        self.loaded = jit.load_object(jit.compile_object(self.text + PARALLEL, target), (abi.MAIN, "test.parallel"))
        self.main = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)(self.loaded.address(abi.MAIN))
        self.scratch = np.zeros(scratch_bytes([function], main) + 64, np.uint8)
        self.arena = np.zeros(sum(d.itemsize * n + 64 for d, n in partials) + 64, np.uint8)

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> int:
        tables = [(ctypes.c_void_p * max(1, len(a)))(*[x.ctypes.data for x in a]) for a in (inputs, outputs)]
        fields = dict(parallel=self.loaded.address("test.parallel"), threads=1, inputs=ctypes.addressof(tables[0]),
                      outputs=ctypes.addressof(tables[1]), scratch=_aligned(self.scratch), arena=_aligned(self.arena),
                      status=abi.STATUS_OK)
        self.context = (ctypes.c_int64 * len(abi.FIELDS))(*[fields.get(name, 0) for name in abi.FIELDS])
        return self.main(ctypes.addressof(self.context))

    @property
    def failure(self) -> tuple[int, int] | None:
        return abi.read_failure(self.context[list(abi.FIELDS).index("status")])


def _aligned(array: np.ndarray) -> int:
    return (array.ctypes.data + 63) // 64 * 64


def view_of(array: np.ndarray) -> ViewType:
    """The view type of an array, by its own strides."""
    return ViewType(dtype_of(array), array.shape, tuple(s // array.itemsize for s in array.strides))


def node_of(op: Op, arrays: Sequence[np.ndarray]) -> Node:
    b = Builder("single")
    return b.apply(op, [b.input(f"x{k}", TensorType(dtype_of(a), a.shape)) for k, a in enumerate(arrays)])[0].node


def compile_node(node: Node, arrays: Sequence[np.ndarray], outputs: Sequence[np.ndarray], schedule=None,
                 target: Target = AVX2) -> Native:
    ins, outs = [view_of(a) for a in arrays], [view_of(a) for a in outputs]
    schedule = schedule or schedule_node(node, ins, outs, target)
    function = lower(KernelRequest(node, tuple(ins), tuple(outs), schedule, target))
    partials = schedule.partials if isinstance(schedule, NestSchedule) else ()
    native = Native(function, len(ins), len(outs), partials, target)
    native.schedule = schedule
    return native


def run_op(op: Op, *arrays: np.ndarray, schedule=None, inplace: bool = False,
           target: Target = AVX2) -> tuple[np.ndarray, ...]:
    """The outputs of one operator (a `Fused` too), natively. Arrays may be strided views. AssertionError if a check
    fails.

    inplace: outputs overwrite copies of the inputs that the schedule allows.
    """
    node = node_of(op, arrays)
    outputs = [np.empty(v.type.shape, v.type.dtype.np) for v in node.outputs]
    native = compile_node(node, arrays, outputs, schedule, target)
    if inplace:
        arrays = [a.copy() if a.flags.c_contiguous else a for a in arrays]
        for o, i in {o: i for i, o in {i: o for o, i in native.schedule.inplace}.items()}.items():      # one to one
            outputs[o] = arrays[i]
    assert native.run(arrays, outputs) == 0, native.failure
    return tuple(outputs)


def fused(graph: Graph) -> Fused:
    """The whole graph as one cluster."""
    return Fused(graph)
