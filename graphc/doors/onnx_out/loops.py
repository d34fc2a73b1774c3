"""Loops and branches: Scan where slices are read, Loop elsewhere, If. Bodies see the names around them, so captured
values are no inputs of theirs."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphc.doors.onnx_out.emitter import ELEMENT, Emitter
from graphc.doors.onnx_out.package import GraphProto, ValueInfoProto, helper
from graphc.ir.graph import Value
from graphc.ir.types import TensorType

Step = Callable[[Emitter, str, list[str]], tuple[str, str]]


def body_graph(e: Emitter, name: str, inputs: Sequence[ValueInfoProto], outputs: Sequence[str],
               types: Sequence[TensorType]) -> GraphProto:
    """What an emitter of a body has written, as a graph with these results."""
    names = e.results(outputs, [f"{name}.out"] * len(outputs))
    return helper.make_graph(e.nodes, name, list(inputs), list(map(e.described, names, types)))


def along_axis(e: Emitter, xs: Sequence[Value], axis: int, reverse: bool, start: int, step: Step) -> str:
    """Slices of the arrays along an axis, one after another: `step(body, carry, slices)` gives the new carry, which
    begins with `start` everywhere, and a slice of the result."""
    type = xs[0].type
    axis %= type.rank
    slice_type = type.with_shape(type.shape[:axis] + type.shape[axis + 1:])
    inner = e.inner()
    before = inner.file.unique("before")
    names = [inner.file.unique("slice") for _ in xs]
    after, result = step(inner, before, names)
    inputs = [inner.described(name, slice_type) for name in (before, *names)]
    body = body_graph(inner, e.file.unique("along"), inputs, [after, result], [slice_type] * 2)
    begin = e.op("Expand", e.constant(start, type.dtype), e.shape(slice_type.shape))
    _, y = e.ops("Scan", begin, *(e.values[x] for x in xs), body=body, num_scan_inputs=len(xs), outputs=2,
                 scan_input_axes=[axis] * len(xs), scan_input_directions=[int(reverse)] * len(xs),
                 scan_output_axes=[axis], scan_output_directions=[int(reverse)])
    return y


def zeros(e: Emitter, type: TensorType) -> str:
    """An array of zeros."""
    zero = e.constant(np.zeros((), type.dtype.np))
    return e.op("Expand", zero, e.shape(type.shape)) if type.shape else zero


__all__ = ["ELEMENT", "along_axis", "body_graph", "zeros"]
