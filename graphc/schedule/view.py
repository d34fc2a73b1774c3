"""The layout of a tensor in memory, shape and strides: all that schedules and lowerings know of an operand."""
from __future__ import annotations


from graphc.errors import Unsized
from graphc.ir.dims import Dim, Dims, Poly, exact_quotient, product_of, typical
from graphc.ir.size_proofs import sign_of
from graphc.ir.types import DType
from graphc.records import dataclass


@dataclass(frozen=True)
class ViewType:
    """Element type, shape, and the distance in elements between neighbours along each axis."""
    dtype: DType
    shape: Dims
    strides: Dims

    @property
    def is_contiguous(self) -> bool:
        return same_strides(self.shape, self.strides, contiguous_strides(self.shape))

    def __str__(self) -> str:
        text = f"{self.dtype}[{', '.join(map(str, self.shape))}]"
        return text if self.is_contiguous else f"{text} strides ({', '.join(map(str, self.strides))})"


def view_bytes(t: ViewType) -> int:
    """Of the elements that there are, of the typical size: none is counted again along an axis of stride 0."""
    return typical(product_of(tuple([n for n, s in zip(t.shape, t.strides) if s != 0]))) * t.dtype.itemsize


def contiguous_strides(shape: Dims, order: tuple[int, ...] | None = None) -> Dims:
    """Strides of a dense array whose axes are stored in `order`, outermost first (default: row-major)."""
    strides: list[Dim] = [0] * len(shape)
    step: Dim = 1
    for axis in reversed(order or range(len(shape))):
        strides[axis] = step
        size = shape[axis]
        step = step * (size if isinstance(size, Poly) else max(size, 1))
    return tuple(strides)


def span(shape: Dims, strides: Dims) -> tuple[Dim, Dim]:
    """Least and greatest element offset that an array reaches; (0, -1) when it is empty. Sizes that are not numbers
    are at least 1; Unsized where that, or the sign of a stride, is not known."""
    if 0 in shape:
        return 0, -1
    low: Dim = 0
    high: Dim = 0
    for n, stride in zip(shape, strides):
        step = (n - 1) * stride
        sign = step if isinstance(step, int) else sign_of(step)
        if sign is None:
            raise Unsized(f"what an array of shape {shape} and strides {strides} spans is not known for all sizes")
        if sign > 0:
            high += step
        else:
            low += step
    return low, high


def same_strides(shape: Dims, a: Dims, b: Dims) -> bool:
    """Whether both address the same elements; strides of axes of size 1 do not matter."""
    return all(x == y or n in (0, 1) for n, x, y in zip(shape, a, b))


def reshape_strides(shape: Dims, strides: Dims, new: Dims) -> Dims | None:
    """Strides under which the same elements, in row-major order, have shape `new`; None if only a copy can do it."""
    if 0 in shape:
        return contiguous_strides(new)
    runs = _runs(shape, strides)
    result: list[Dim] = []
    size, step = runs.pop() if runs else (1, 1)
    for n in reversed(new):
        if n == 1:
            result.append(step)
            continue
        while size == 1 and runs:
            size, step = runs.pop()
        outside = exact_quotient(size, n)
        if outside is None:
            return None
        result.append(step)
        size, step = outside, step * n
    return tuple(reversed(result))


def _runs(shape: Dims, strides: Dims) -> list[tuple[Dim, Dim]]:
    """Axes merged into maximal runs (size, step of the innermost) that one step walks through."""
    runs: list[tuple[Dim, Dim]] = []
    for n, s in zip(shape, strides):
        if n == 1:
            continue
        if runs and runs[-1][1] == n * s:
            runs[-1] = (runs[-1][0] * n, s)
        else:
            runs.append((n, s))
    return runs
