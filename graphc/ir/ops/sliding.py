"""Windows that slide over images: what convolutions and pooling of one, two and three spatial axes have in common."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from types import EllipsisType
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from graphc.errors import GraphError
from graphc.ir.dims import Dims, Sizes
from graphc.ir.image import FIRST_SPATIAL_AXIS, SPATIAL_NAMES, image_text
from graphc.ir.op import Op, require
from graphc.ir.size_proofs import allowed

Steps = tuple[int, ...]                     # one number for each spatial axis
Pads = tuple[tuple[int, int], ...]          # (before, after) for each spatial axis
Where = tuple[EllipsisType | slice | int, ...]      # an index of arrays


Windows = TypeVar("Windows", bound="Sliding")


class Sliding(Op):
    """An operator defined once for images of any number of spatial axes, of which there is a class for each number:
    `Conv.at(2)` is conv2d.

    Its `name` has a place for the number. Attributes annotated as `Steps` or `Pads` have an entry for each spatial
    axis; their default is written for one.
    """
    axes: ClassVar[int]
    made: ClassVar[dict[int, type[Op]]]

    @classmethod
    def at(cls, axes: int) -> type[Self]:
        """The operator for images with so many spatial axes."""
        return cls.made[axes]               # type: ignore[return-value]    # `every` makes subclasses

    @classmethod
    def every(cls) -> tuple[type[Self], ...]:
        """The operator for each number of spatial axes."""
        if "made" not in vars(cls):
            cls.made = {axes: cls._made(axes) for axes in SPATIAL_NAMES}
        return tuple(cls.made.values())     # type: ignore[arg-type]    # see above

    @classmethod
    def _made(cls, axes: int) -> type[Self]:
        """A class whose attributes are annotated with their length, by which texts of graphs are read."""
        kinds = {field: tuple[(ENTRY[kind],) * axes]                    # type: ignore[misc]    # made at run time
                 for base in cls.__mro__ for field, kind in vars(base).get("__annotations__", {}).items()
                 if kind in ENTRY}
        own: dict[str, Any] = {field: cls.DEFAULTS[field] * axes        # type: ignore[operator]    # a tuple
                               for field in kinds if field in cls.DEFAULTS}
        name = cls.name.format(axes)
        title = "".join(word[:1].upper() + word[1:] for word in name.split("_"))
        return type(title, (cls,), {**own, "__annotations__": kinds, "__doc__": cls.__doc__,
                                    "__module__": cls.__module__, "name": name, "axes": axes})

    def like(self, family: type[Windows], **own: object) -> Windows:
        """An operator of another family with the same windows, and with attributes of its own."""
        shared: dict[str, Any] = {n: v for n, v in vars(self).items() if n in family.FIELDS}
        return family.at(self.axes)(**shared | own)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle finds a class by its name in a module: that of the family."""
        return _again, (type(self).__mro__[1], self.axes, {name: getattr(self, name) for name in self.FIELDS})

    @property
    def shape_text(self) -> str:
        """The shape of the images, for messages."""
        return image_text(self.axes)


def _again(family: type[Sliding], axes: int, own: dict[str, Any]) -> Sliding:
    return family.at(axes)(**own)


ENTRY: dict[object, object] = {"Steps": int, "Pads": tuple[int, int]}


def window_extents(size: Dims, kernel: Dims, stride: Steps, padding: Pads, dilation: Steps, name: str,
                   ceil: bool = False) -> Dims:
    """Number of window positions along each spatial axis; GraphError where the kernel is larger than the padded image.

    ceil: a last window may reach beyond the padding, if it begins in the image or in the padding before it.
    """
    result = []
    for n, k, step, pad, d in zip(size, kernel, stride, padding, dilation, strict=True):
        span = d * (k - 1) + 1
        room = n + sum(pad) - span
        more = step - 1 if ceil else 0
        require(allowed(room + more),
                f"{name}: the kernel covers {span} elements, the image with padding has only {n + sum(pad)}")
        count = (room + more) // step + 1 if step != 1 else room + 1
        if more and isinstance(count, int) and isinstance(n, int):
            count -= (count - 1) * step >= n + pad[0]
        elif more and (not isinstance(span, int) or span < step + pad[1]):
            raise GraphError(f"{name}: with ceil_mode, stride {step} and a kernel that covers {span}, the number of "
                             f"windows depends on the size {n}, which is not known; give it as a number")
        result.append(count)
    return tuple(result)


def offsets(kernel: Sizes, out: Sizes, stride: Steps, dilation: Steps) -> Iterator[tuple[Where, Where]]:
    """Every kernel position with the region of the padded image that it meets, one element per window; both as indices
    of the last axes."""
    for at in product(*map(range, kernel)):
        starts = [p * d for p, d in zip(at, dilation)]
        region = [slice(s, s + (o - 1) * st + 1, st) for s, o, st in zip(starts, out, stride)]
        yield (Ellipsis, *at), (Ellipsis, *region)


def padded(x: np.ndarray, padding: Sequence[tuple[int, int]], value: float = 0) -> np.ndarray:
    """The image with `value` around its spatial axes."""
    return np.pad(x, ((0, 0),) * FIRST_SPATIAL_AXIS + tuple(padding), constant_values=value)


def cropped(x: np.ndarray, padding: Sequence[tuple[int, int]], size: Sizes) -> np.ndarray:
    """What is left of a padded image, which may have axes in front, without the padding."""
    inside: Where = (Ellipsis, *[slice(low, low + n) for (low, _), n in zip(padding, size)])
    return x[inside]
