"""What pooling takes, in cycles of one core, by the direction of its vectors."""
from __future__ import annotations

from math import prod

from graphc.ir.dims import typical
from graphc.ir.image import CHANNEL_AXIS, FIRST_SPATIAL_AXIS
from graphc.ir.ops.window import AvgPoolGrad, MaxPoolGrad, Pooling
from graphc.ir.types import TensorType
from graphc.schedule.spaced_loads import spaced_cycles, window_cycles
from graphc.schedule.target import Target

LINE_CYCLES = 13                # of a loop around a line of vectors
STORE_CYCLES, FORWARD_CYCLES = 1, 10    # to store a vector; until a masked one can be loaded again
RANGE_CYCLES = 6                # of loops over what is above each other, whose bounds are computed
CHOICE_OPS = 4                  # to compare with the largest so far, NaN too, and to take its place with its number
SENT_CYCLES = 10                # of a gradient that goes to a place that was computed


def channel_cycles(op: Pooling, x: TensorType, y: TensorType, target: Target) -> float:
    """Vectors along the channels, of an image and a result that lie by lines and are copied. Windows of a gradient that
    overlap add to what is there: a vector that is not full waits for what it has just stored.
    """
    machine, lanes = target.machine, target.lanes(x.dtype.itemsize)
    channels = typical(y.shape[CHANNEL_AXIS])
    vectors = typical(y.size) / channels * -(-channels // lanes)
    moved = machine.transpose_cycles + 2 * x.dtype.itemsize / machine.l3_bytes_per_cycle
    each = 1 / machine.loads_per_cycle + machine.vector_op_cycles
    images = x.size
    if isinstance(op, MaxPoolGrad):
        # twice around each window: for its maximum, then to add to what is there
        each += CHOICE_OPS * machine.vector_op_cycles + 1 / machine.loads_per_cycle + 2 * STORE_CYCLES
        each += 0 if op.covers_once(x.shape[FIRST_SPATIAL_AXIS:]) or channels % lanes == 0 else FORWARD_CYCLES
        images = 2 * images
    if isinstance(op, AvgPoolGrad) and not op.covers_once(x.shape[FIRST_SPATIAL_AXIS:]):
        each += STORE_CYCLES + (FORWARD_CYCLES if channels % lanes else 0)
    return vectors * prod(op.kernel) * each + typical(images + y.size) * moved


def line_cycles(op: Pooling, x: TensorType, y: TensorType, target: Target) -> float:
    """Vectors along lines: loops for what is above each other, then for what is side by side. x: the image, y: an
    element for each window."""
    machine, lanes = target.machine, target.lanes(x.dtype.itemsize)
    width, out = typical(x.shape[-1]), typical(y.shape[-1])
    *outer, kernel = op.kernel
    if isinstance(op, MaxPoolGrad):
        return _sent_cycles(op, x, y, target)
    stride, each = op.stride[-1], 1 / machine.loads_per_cycle + machine.vector_op_cycles
    above = 1.0 * prod(outer)
    if isinstance(op, AvgPoolGrad):
        above = prod(k / s for k, s in zip(outer, op.stride))
        read, written, beside = out, width, kernel * each
        spread = (out if stride > 1 else 0) * machine.scalar_element_cycles + -(-width // lanes)
    else:
        read, written, spread = width, out, 0.0
        beside = window_cycles(kernel, stride, op.dilation[-1], lanes, machine) + kernel * machine.vector_op_cycles
    column = above * (each + machine.step_cycles) + RANGE_CYCLES * len(outer)
    line = 3 * LINE_CYCLES + -(-read // lanes) * column + -(-written // lanes) * beside + spread
    lines = typical(x.size) / width if isinstance(op, AvgPoolGrad) else typical(y.size) / out
    return lines * line


def _sent_cycles(op: MaxPoolGrad, x: TensorType, y: TensorType, target: Target) -> float:
    """Maxima by lines, of which each sends its gradient to its place."""
    machine, lanes = target.machine, target.lanes(x.dtype.itemsize)
    width, out = typical(x.shape[-1]), typical(y.shape[-1])
    *outer, kernel = op.kernel
    choice = CHOICE_OPS * machine.vector_op_cycles
    column = prod(outer) * (1 / machine.loads_per_cycle + choice + machine.step_cycles) + RANGE_CYCLES * len(outer)
    beside = 2 * spaced_cycles(op.stride[-1], lanes, machine) + 2 * choice
    line = 3 * LINE_CYCLES + -(-width // lanes) * column + -(-out // lanes) * kernel * beside + out * SENT_CYCLES
    return typical(y.size) / out * line + typical(x.size) / lanes * STORE_CYCLES
