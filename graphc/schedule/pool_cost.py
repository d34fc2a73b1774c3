"""What pooling takes, in cycles of one core, by the direction of its vectors."""
from __future__ import annotations

from math import prod

from graphc.ir.dims import typical
from graphc.ir.image import CHANNEL_AXIS, FIRST_SPATIAL_AXIS
from graphc.ir.ops.window import AvgPoolGrad, Pooling
from graphc.ir.types import TensorType
from graphc.schedule.target import Target

LINE_CYCLES = 13                # of a loop around a line of vectors
STORE_CYCLES, FORWARD_CYCLES = 1, 10    # to store a vector; until a masked one can be loaded again
RANGE_CYCLES = 6                # of loops over what is above each other, whose bounds are computed


def spaced_loads(step: int, lanes: int) -> int:
    """Loads for a vector of elements `step` apart: of every second one two and a shuffle, of others one by one."""
    return step if step <= 2 else lanes


def channel_cycles(op: Pooling, x: TensorType, y: TensorType, target: Target) -> float:
    """Vectors along the channels, of an image and a result that lie by lines and are copied. Windows of a gradient that
    overlap add to what is there: a vector that is not full waits for what it has just stored.
    """
    machine, lanes = target.machine, target.lanes(x.dtype.itemsize)
    channels = typical(y.shape[CHANNEL_AXIS])
    vectors = typical(y.size) / channels * -(-channels // lanes)
    moved = machine.transpose_cycles + 2 * x.dtype.itemsize / machine.l3_bytes_per_cycle
    each = 1 / machine.loads_per_cycle + machine.vector_op_cycles
    if isinstance(op, AvgPoolGrad) and not op.covers_once(x.shape[FIRST_SPATIAL_AXIS:]):
        each += STORE_CYCLES + (FORWARD_CYCLES if channels % lanes else 0)
    return vectors * prod(op.kernel) * each + typical(x.size + y.size) * moved


def line_cycles(op: Pooling, x: TensorType, y: TensorType, target: Target) -> float:
    """Vectors along lines: loops for what is above each other, then for what is side by side. x: the image, y: an
    element for each window."""
    machine, lanes = target.machine, target.lanes(x.dtype.itemsize)
    width, out = typical(x.shape[-1]), typical(y.shape[-1])
    *outer, kernel = op.kernel
    stride, each = op.stride[-1], 1 / machine.loads_per_cycle + machine.vector_op_cycles
    above = 1.0 * prod(outer)
    if isinstance(op, AvgPoolGrad):
        above = prod(k / s for k, s in zip(outer, op.stride))
        read, written, beside = out, width, each
        spread = (out if stride > 1 else 0) * machine.scalar_element_cycles + -(-width // lanes)
    else:
        read, written, spread = width, out, 0.0
        beside = (spaced_loads(stride, lanes) / machine.loads_per_cycle + machine.vector_op_cycles + (stride == 2))
    column = above * (each + machine.step_cycles) + RANGE_CYCLES * len(outer)
    line = 3 * LINE_CYCLES + -(-read // lanes) * column + -(-written // lanes) * kernel * beside + spread
    lines = typical(x.size) / width if isinstance(op, AvgPoolGrad) else typical(y.size) / out
    return lines * line
