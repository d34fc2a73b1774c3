"""How structured operators (those with a loop structure of their own) divide their work into rows that may run in any
order, and the loop inside a row.

Schedule and lowering both use it, so that they agree. A row is one index of `extents`; inside it runs a loop over
`lane` elements, which are neighbours in memory (`vector`) or not, `repeat` times.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from graphc.errors import InternalError
from graphc.ir.dims import Dim, Dims, ceil_div, static_dim, typical
from graphc.ir.graph import Node
from graphc.ir.image import CHANNEL_AXIS, FIRST_SPATIAL_AXIS
from graphc.ir.op import Op
from graphc.ir.ops import blocks, embedding_gradients, factor, index, scan_ops, window
from graphc.records import dataclass
from graphc.schedule.target import Target
from graphc.schedule.view import ViewType, reshape_strides

Views = Sequence[ViewType]

ROWS_TOGETHER = 4                   # rows of a matrix of codes that are multiplied at the same time
REGISTERS_OF_ROW = 8                # of vectors, for a row of the other factor: sums, and a block of it
FEW_ROWS = 8                        # of x, that read codes in loops, too
MOST_GROUPS = 2                     # of such rows that are taken together, each code of its own; more rows are a loop
MOST_LINES = 8                      # rows that run side by side: enough to hide that steps wait, and their addresses
# of pooling, whose last operand has an element for each window
GRADIENTS = (window.MaxPoolGrad, window.AvgPoolGrad)
CHUNK = 64                          # elements of a lane axis that a row takes where rows must not share elements


@dataclass(frozen=True)
class Rows:
    extents: Dims
    lane: Dim = 1
    vector: bool = False
    repeat: Dim = 1

    @property
    def count(self) -> Dim:
        return prod(self.extents)

    @property
    def sizes(self) -> Dims:
        """All that the work is a product of."""
        return *self.extents, self.lane, self.repeat


def rows_of(node: Node, ins: Sequence[ViewType], outs: Sequence[ViewType]) -> Rows:
    """The rows of a structured operator."""
    rule = RULES.get(type(node.op))
    if rule is None:
        raise InternalError(f"no rule says which parts of {node.op.name} are independent; it needs a row in "
                            f"graphc/schedule/parallel_rows.py", "schedule")
    return rule(node.op, ins, outs)


def unit_stride(axis: int, *views: ViewType) -> bool:
    """Whether neighbours along the axis are neighbours in memory in every view."""
    return all(v.strides[axis] == 1 or v.shape[axis] == 1 for v in views)


def memory_order(view: ViewType) -> tuple[int, ...]:
    """The axes from the largest step to the smallest."""
    return tuple(sorted(range(len(view.shape)), key=lambda axis: -abs(typical(view.strides[axis]))))


def permuted(view: ViewType, order: Sequence[int]) -> ViewType:
    return ViewType(view.dtype, tuple(view.shape[axis] for axis in order), tuple(view.strides[axis] for axis in order))


def without(axes: Dims, *left_out: int) -> Dims:
    return tuple(n for i, n in enumerate(axes) if i not in left_out)


def _last_axis(out: ViewType, vector: bool, repeat: Dim = 1) -> Rows:
    """One row per index of all axes but the last, which is the lane."""
    if not out.shape:
        return Rows((), 1, False, repeat)
    return Rows(out.shape[:-1], out.shape[-1], vector, repeat)


def as_lines(*views: ViewType) -> tuple[ViewType, ...] | None:
    """The views as matrices of a known number of rows, which lie along the last axis; None where only copies of them
    are, or one row is all."""
    found: list[ViewType] = []
    for view in views:
        shape = prod(view.shape[:-1]), view.shape[-1]
        strides = reshape_strides(view.shape, view.strides, shape)
        if strides is None or shape[0] == 1 or not isinstance(shape[0], int):
            return None
        found.append(ViewType(view.dtype, shape, strides))
    return tuple(found)


def shared_positions(op: index.Take, ins: Views, outs: Views) -> tuple[ViewType, ...] | None:
    """Table and result as matrices, where the same positions are looked up in each of their rows: some rows together,
    so that a position is loaded and checked once for all of them."""
    x, idx = ins
    return as_lines(x, outs[0]) if op.axis % len(x.shape) == len(x.shape) - 1 and len(idx.shape) == 1 else None


def lines_together(op: scan_ops.Cumulative | scan_ops.RunningArgExtremum, ins: Views,
                   outs: Views) -> tuple[tuple[ViewType, ...], int] | None:
    """Operand and result of what runs along the last axis as matrices, and how many rows of them go side by side, since
    each step in a row waits for the one before."""
    found = as_lines(ins[0], outs[0]) if op.axis % len(outs[0].shape) == len(outs[0].shape) - 1 else None
    if found is None:
        return None
    return found, 1 << min(MOST_LINES, static_dim(found[0].shape[0])).bit_length() - 1


def _take(op: index.Take, ins: Views, outs: Views) -> Rows:
    x, idx = ins
    shared = shared_positions(op, ins, outs)
    if shared:
        count, lane = shared[1].shape
        return Rows((ceil_div(count, MOST_LINES),), lane, False, MOST_LINES)
    has_tail = op.axis % len(x.shape) < len(x.shape) - 1
    return _last_axis(outs[0], has_tail and unit_stride(-1, x, outs[0]))


def _elementwise(op: Op, ins: Views, outs: Views) -> Rows:
    return _last_axis(outs[0], False)


def _one(op: Op, ins: Views, outs: Views) -> Rows:
    """A single row: what comes later may overwrite what came before."""
    return Rows((), 1, False, prod(ins[0].shape) + typical(prod(outs[0].shape)) // 8)


def _running(op: scan_ops.Cumulative, ins: Views, outs: Views) -> Rows:
    out = outs[0]
    rank, axis = len(out.shape), op.axis % len(out.shape)
    together = lines_together(op, ins, outs)
    if together:
        (_, y), lines = together
        return Rows((y.shape[0] // lines,), 1, False, out.shape[axis] * lines)
    if axis == rank - 1 or not unit_stride(-1, *ins, out):
        return Rows(without(out.shape, axis), 1, False, out.shape[axis])
    chunks = ceil_div(out.shape[-1], CHUNK)
    return Rows((*without(out.shape, axis, rank - 1), chunks), CHUNK, True, out.shape[axis])


def _matrix(op: Op, ins: Views, outs: Views) -> Rows:
    """One row a matrix."""
    largest = max((*ins, *outs), key=lambda v: len(v.shape))
    m, n = map(typical, largest.shape[-2:])
    vector = all(unit_stride(-1, v) for v in (*ins, *outs) if len(v.shape) == len(largest.shape))
    times = 40 if isinstance(op, factor.SymmetricEigen) else 1
    return Rows(largest.shape[:-2], largest.shape[-1], vector, m * max(n // 3, 1) * times)


def _right_hand_sides(op: Op, ins: Views, outs: Views) -> Rows:
    """Some columns of one matrix."""
    *batch, n, k = outs[0].shape
    lane = min(k, CHUNK) if isinstance(k, int) else CHUNK
    return Rows((*batch, ceil_div(k, CHUNK)), lane, unit_stride(-1, ins[1], outs[0]), typical(n)**2 // 2)


def few_together(target: Target) -> int:
    """Rows of the other factor for which codes are converted once."""
    return max(1, target.vector_registers // REGISTERS_OF_ROW)


def is_few(rows: Dim) -> bool:
    """Whether so many rows of the other factor are best multiplied by codes as these lie."""
    return isinstance(rows, int) and rows <= FEW_ROWS


def _block_product(op: blocks.BlockProduct, ins: Views, outs: Views) -> Rows:
    """Some rows of the matrix by all of the other operand."""
    x, codes = ins[:2]
    return Rows((ceil_div(codes.shape[0], ROWS_TOGETHER),), x.shape[-1], True, ROWS_TOGETHER * prod(x.shape[:-1]))


def takes_lines(op: Op, image: Dims, out: Dims) -> bool:
    """Whether what windows of such an image have in common may be computed line by line: all windows have as many
    positions, lines known lengths.
    """
    if not isinstance(op, (window.MaxPool, window.MaxPoolGrad, window.AvgPool, window.AvgPoolGrad)):
        return False
    size, result = image[FIRST_SPATIAL_AXIS:], out[FIRST_SPATIAL_AXIS:]
    if not all(isinstance(n, int) for n in (*size, *result)) or 0 in size or 0 in result:
        return False
    if isinstance(op, (window.MaxPool, window.MaxPoolGrad)):
        return True
    even = op.count_include_pad and not op.ceil_mode or not op.reaches_outside(size, result)
    return even and (isinstance(op, window.AvgPool) or op.padding[-1][0] < op.kernel[-1] == op.spans[-1])


def pools_by_lines(op: Op, ins: Views, outs: Views) -> bool:
    """Whether vectors of a pooling run along lines of pixels: these, and not channels, are neighbours in memory."""
    image, out = (outs[0], ins[-1]) if isinstance(op, GRADIENTS) else (ins[0], outs[0])
    if not unit_stride(-1, *ins, *outs) or not takes_lines(op, image.shape, out.shape):
        return False
    return image.shape[CHANNEL_AXIS] == 1 or not unit_stride(CHANNEL_AXIS, image, out)


def _plane(op: window.MaxPoolGrad, image: ViewType, windows: ViewType) -> Rows:
    """All windows of an image's channel: these may overlap."""
    *outer, kernel = op.kernel
    lines = prod(windows.shape[FIRST_SPATIAL_AXIS:-1])
    return Rows(image.shape[:FIRST_SPATIAL_AXIS], image.shape[-1], True, lines * (2 * prod(outer) + kernel))


def _lines(op: window.Pooling, result: ViewType) -> Rows:
    """A line of the result: what is above each other, and what is side by side."""
    *outer, kernel = op.kernel
    return Rows(result.shape[:-1], result.shape[-1], True, prod(outer) + kernel)


def _pool(op: window.Pooling, ins: Views, outs: Views) -> Rows:
    n, c, *size = outs[0].shape
    if pools_by_lines(op, ins, outs):
        return _lines(op, outs[0])
    if unit_stride(CHANNEL_AXIS, *ins, *outs):
        return Rows((n, *size), c, True, prod(op.kernel))
    return Rows((n, c, *size[:-1]), size[-1], False, prod(op.kernel))


def _pool_gradient(op: window.Pooling, ins: Views, outs: Views) -> Rows:
    """A line of windows side by side; where they overlap, or channels are not neighbours, all windows of one image and
    some channels.
    """
    (n, c, *size), (*lines, width) = outs[0].shape, ins[-1].shape[FIRST_SPATIAL_AXIS:]
    line = 2 * width * prod(op.kernel)
    if pools_by_lines(op, ins, outs):
        return _plane(op, outs[0], ins[-1]) if isinstance(op, window.MaxPoolGrad) else _lines(op, outs[0])
    if not unit_stride(CHANNEL_AXIS, *ins, *outs):
        return Rows((n, c), 1, False, prod(lines) * line)
    if op.covers_once(size):
        return Rows((n, *lines), c, True, line)
    return Rows((n, ceil_div(c, CHUNK)), CHUNK, True, prod(lines) * line)


RULES: dict[type[Op], Callable[[Any, Views, Views], Rows]] = {
    blocks.BlockProduct: _block_product,
    index.Take: _take, index.TakeAlongAxis: _elementwise,
    embedding_gradients.RowPlaces: _one, embedding_gradients.CheckRows: _one,
    scan_ops.CumSum: _running, scan_ops.CumProd: _running, scan_ops.RunningArgExtremum: _running,
    factor.Cholesky: _matrix, factor.LU: _matrix, factor.SymmetricEigen: _matrix, factor.LQ: _matrix,
    factor.TriangularSolve: _right_hand_sides,
    **dict.fromkeys((*window.MaxPool.every(), *window.MaxPoolPick.every(), *window.AvgPool.every()), _pool),
    **dict.fromkeys((*window.MaxPoolGrad.every(), *window.AvgPoolGrad.every()), _pool_gradient),
}
