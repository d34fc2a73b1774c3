"""Whether the image of a convolution in groups is read faster as bf16, which is widened in registers, than as f32."""
from __future__ import annotations

from functools import lru_cache
from math import prod

from graphc.ir.dims import Sizes, typical
from graphc.ir.image import CHANNEL_AXIS
from graphc.ir.ops.conv import Conv
from graphc.ir.types import TensorType, bf16, f32
from graphc.schedule.choose_contraction import contraction_schedule, form_cycles
from graphc.schedule.cost import Candidate, Ranking, ranked
from graphc.schedule.target import Target
from graphc.schedule.view import contiguous_strides
from graphc.schedule.widening_cost import WIDEN_OPS

ROUND_OPS = 3                   # of a vector by instruction: classes of its numbers, a test of them, the rounding
ROUND_BITS_OPS = 12             # the same by arithmetic on bits


def is_read_narrow(op: Conv, image: TensorType, weights: TensorType, target: Target, rounds: bool) -> bool:
    """rounds: what makes the image in f32 would round it; else it is there as bf16, and would be converted before."""
    shapes = (tuple([typical(d) for d in t.shape]) for t in (image, weights))
    return group_image_forms(op, *shapes, target, rounds).best.schedule


@lru_cache(maxsize=256)
def group_image_forms(op: Conv, image: Sizes, weights: Sizes, target: Target, rounds: bool) -> Ranking[bool]:
    """As bf16, and as f32: the sums, the image's bytes, which come from the cores that have made it, and its
    conversion."""
    machine, lanes = target.machine, target.lanes(f32.itemsize)
    numbers = prod(image) / machine.planned_cores

    def form(name: str, narrow: bool, converted: int, is_made: bool) -> Candidate[bool]:
        itemsize = bf16.itemsize if narrow else f32.itemsize
        stored = itemsize / machine.l3_bytes_per_cycle if is_made else 0.0
        return Candidate(name, narrow, (
            ("sums", _sums(op, image, weights, target, narrow)),
            ("image", numbers * (itemsize * machine.remote_byte_cycles + stored)),
            ("conversion", numbers / lanes * converted * machine.vector_op_cycles)))
    rounding = ROUND_OPS if target.rounds_to_bf16(lanes) else ROUND_BITS_OPS
    return ranked((form("bf16", True, rounding if rounds else 0, rounds),
                   form("f32", False, 0 if rounds else WIDEN_OPS, True)), 1.0)


def _sums(op: Conv, image: Sizes, weights: Sizes, target: Target, narrow: bool) -> float:
    """Of images whose channels are the innermost axis."""
    types = TensorType(f32, image), TensorType(f32, weights)
    result = op.output_shape(image, weights)
    steps = [contiguous_strides(shape, (0, *range(CHANNEL_AXIS + 1, len(shape)), CHANNEL_AXIS))
             for shape in (image, result)]
    made = contraction_schedule(op.contraction(*types), image, steps[0], weights, contiguous_strides(weights), steps[1],
                                f32, target, factors=(bf16 if narrow else f32, f32))
    return form_cycles(made, target) or 0.0
