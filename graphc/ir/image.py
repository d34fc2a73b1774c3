"""Images: arrays [N, C, *spatial], with any number of spatial axes, and which operands of an operator are some."""
from __future__ import annotations


from graphc.ir.dims import Dims
from graphc.records import dataclass

BATCH_AXIS, CHANNEL_AXIS = 0, 1
FIRST_SPATIAL_AXIS = 2
# what people call the spatial axes, by their number; there are operators for images of these numbers
SPATIAL_NAMES: dict[int, tuple[str, ...]] = {1: ("L",), 2: ("H", "W"), 3: ("D", "H", "W")}


@dataclass(frozen=True)
class ImageRoles:
    """The operands that are images, and whether the results are. Other operands, and results, are kernels of a
    convolution."""
    operands: tuple[int, ...]
    result: bool


def spatial_axes(rank: int) -> range:
    """The spatial axes of an image with `rank` axes."""
    return range(FIRST_SPATIAL_AXIS, rank)


def channels_last(rank: int) -> tuple[int, ...]:
    """The axes of an image in the order of memory in which the channels of one pixel are neighbours."""
    return (BATCH_AXIS, *spatial_axes(rank), CHANNEL_AXIS)


def varies_by_channel_only(shape: Dims, image: Dims) -> bool:
    """Whether an array of `shape`, broadcast to `image`, holds one number for each channel, or one for all."""
    aligned = (1,) * (len(image) - len(shape)) + shape
    return all(n == 1 or axis == CHANNEL_AXIS and n == image[axis] for axis, n in enumerate(aligned))


def image_text(axes: int) -> str:
    """The shape of an image with so many spatial axes, as messages say it: [N, C, H, W]."""
    return f"[N, C, {', '.join(SPATIAL_NAMES[axes])}]"


def kernel_text(axes: int, first: str, second: str) -> str:
    """The shape of a convolution's kernels, as messages say it: [F, C / groups, KH, KW]."""
    names = ("K",) if axes == 1 else tuple(f"K{n}" for n in SPATIAL_NAMES[axes])
    return f"[{first}, {second}, {', '.join(names)}]"
