"""Convolutions and pooling of types, and in forms, for which runtimes have no kernel: each window's elements side by
side (im2col), then a sum over them. For images whose sizes are numbers; None for others."""
from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from graphc.ir.dims import Dims, Sizes
from graphc.ir.graph import Node, Value
from graphc.ir.op import Opcode, OpBuilder
from graphc.ir.ops.constant import full
from graphc.ir.ops.conv import Conv, ConvInputGrad, ConvOp, ConvWeightGrad
from graphc.ir.ops.window import AvgPool, AvgPoolGrad, AvgPooling, MaxPool, MaxPoolGrad, MaxPoolPick, Pooling, lowest
from graphc.ir.types import TensorType
from graphc.records import dataclass


@dataclass(frozen=True)
class WindowFrame:
    """An image with what is around it, and the windows in it. `places` [windows, elements of one]: where the elements
    are, counted in the framed image; `inside`: whether they are in the image."""
    size: Sizes
    padding: tuple[tuple[int, int], ...]
    places: np.ndarray
    inside: np.ndarray

    @staticmethod
    def of(size: Sizes, out: Sizes, kernel: Sizes, op: ConvOp | Pooling) -> WindowFrame:
        padding = op.frame(size, out) if isinstance(op, Pooling) else op.padding
        around = tuple(n + low + high for n, (low, high) in zip(size, padding))
        rank = len(size)
        along, within = [], []
        for axis in range(rank):
            at = (np.arange(out[axis])[:, None] * op.stride[axis] + np.arange(kernel[axis]) * op.dilation[axis])
            shape = [1] * 2 * rank
            shape[axis], shape[rank + axis] = at.shape
            along.append(at.reshape(shape))
            low = padding[axis][0]
            within.append(((at >= low) & (at < low + size[axis])).reshape(shape))
        flat = (prod(out), prod(kernel))
        places = np.ravel_multi_index(np.broadcast_arrays(*along), around).reshape(flat)
        inside = np.logical_and.reduce(np.broadcast_arrays(*within)).reshape(flat)
        return WindowFrame(size, tuple(padding), places.astype(np.int64), inside)

    @property
    def around(self) -> Sizes:
        return tuple(n + low + high for n, (low, high) in zip(self.size, self.padding))

    def flat(self, b: OpBuilder, x: Value, value: float) -> Value:
        """x [N, C, *size] with `value` around it, [N, C, elements]."""
        low, high = zip(*((0, 0), (0, 0), *self.padding))
        x = b.pad(x, low=low, high=high, value=value)
        return b.reshape(x, shape=(*x.type.shape[:2], prod(self.around)))

    def columns(self, b: OpBuilder, x: Value, value: float = 0) -> Value:
        """[N, C, windows, elements of one]."""
        return b.take(self.flat(b, x, value), b.constant(self.places), axis=2)

    def empty(self, b: OpBuilder, x: Value) -> Value:
        """Zeros, [N, C, elements], for N and C as of x."""
        return full(b, 0, x.type.with_shape((*x.type.shape[:2], prod(self.around))))

    def image(self, b: OpBuilder, flat: Value) -> Value:
        """[N, C, *size], without what is around."""
        framed = b.reshape(flat, shape=(*flat.type.shape[:2], *self.around))
        start = (0, 0, *(low for low, _ in self.padding))
        stop = (*flat.type.shape[:2], *(low + n for (low, _), n in zip(self.padding, self.size)))
        return b.slice(framed, start=start, stop=stop, step=(1,) * len(start))

    def spread(self, b: OpBuilder, terms: Value) -> Value:
        """The image whose elements are the sums of what the windows [N, C, windows, elements of one] send to them."""
        n, c, *_ = terms.type.shape
        updates = b.reshape(terms, shape=(n, c, self.places.size))
        added = b.scatter_add(self.empty(b, terms), b.constant(self.places.reshape(-1)), updates, axis=2)
        return self.image(b, added)


def _frame(op: ConvOp | Pooling, x: Dims, out: Dims, kernel: Dims) -> WindowFrame | None:
    sizes = [d for d in (*x[2:], *out[2:], *kernel) if isinstance(d, int)]
    count = op.axes
    return WindowFrame.of(tuple(sizes[:count]), tuple(sizes[count:2 * count]), tuple(sizes[2 * count:]),
                    op) if len(sizes) == 3 * count else None


def _grouped(b: OpBuilder, v: Value, groups: int, at: int, rest: int) -> Value:
    """The channels of axis `at` divided into groups, and the axes from `rest` on as one."""
    shape = v.type.shape
    return b.reshape(v, shape=(*shape[:at], groups, shape[at] // groups, *shape[at + 1:rest], prod(shape[rest:])))


def _columns(b: OpBuilder, frame: WindowFrame, x: Value, groups: int) -> Value:
    """The windows of an image [N, groups, C / groups, windows, elements]."""
    columns = frame.columns(b, x)
    n, c, windows, elements = columns.type.shape
    return b.reshape(columns, shape=(n, groups, c // groups, windows, elements))


def conv(b: OpBuilder, node: Node, x: Value, w: Value) -> Value | None:
    op, out = node.op, node.outputs[0].type
    frame = _frame(op, x.type.shape, out.shape, w.type.shape[2:]) if isinstance(op, Conv) else None
    if frame is None or not isinstance(op, Conv):
        return None
    y = b.einsum(_columns(b, frame, x, op.groups), _grouped(b, w, op.groups, 0, 2), equation="ngcok,gfck->ngfo")
    return b.reshape(y, shape=out.shape)


def input_grad(b: OpBuilder, node: Node, w: Value, dy: Value) -> Value | None:
    op = node.op
    frame = _frame(op, op.x_shape, dy.type.shape, w.type.shape[2:]) if isinstance(op, ConvInputGrad) else None
    if frame is None or not isinstance(op, ConvInputGrad):
        return None
    terms = b.einsum(_grouped(b, w, op.groups, 0, 2), _grouped(b, dy, op.groups, 1, 2), equation="gfck,ngfo->ngcok")
    n, g, c, windows, elements = terms.type.shape
    return frame.spread(b, b.reshape(terms, shape=(n, g * c, windows, elements)))


def weight_grad(b: OpBuilder, node: Node, x: Value, dy: Value) -> Value | None:
    op = node.op
    frame = _frame(op, x.type.shape, dy.type.shape, op.w_shape[2:]) if isinstance(op, ConvWeightGrad) else None
    if frame is None or not isinstance(op, ConvWeightGrad):
        return None
    dw = b.einsum(_columns(b, frame, x, op.groups), _grouped(b, dy, op.groups, 1, 2), equation="ngcok,ngfo->gfck")
    return b.reshape(dw, shape=op.w_shape)


def _pooled(op: Pooling, x: TensorType) -> WindowFrame | None:
    return _frame(op, x.shape, op.output_shape(x.shape), op.kernel)


def max_pool(b: OpBuilder, node: Node, x: Value) -> Value | None:
    frame = _pooled(node.op, x.type) if isinstance(node.op, MaxPool) else None
    if frame is None:
        return None
    return b.reshape(b.max(frame.columns(b, x, lowest(x.type.dtype.np)), axes=(3,)), shape=node.outputs[0].type.shape)


def _chosen(b: OpBuilder, frame: WindowFrame, x: Value) -> Value:
    """[N, C, windows]: where in the framed image the first maximum of each window is."""
    columns = frame.columns(b, x, lowest(x.type.dtype.np))
    first = b.argmax(columns, axis=3, keepdims=True)
    shape = columns.type.shape
    inside = b.broadcast_to(b.constant(frame.inside), shape=shape)
    real = b.take_along_axis(inside, first, axis=3)
    other = b.constant(np.argmax(frame.inside, 1, keepdims=True))
    choice = b.where(real, first, b.broadcast_to(other, shape=first.type.shape))
    places = b.take_along_axis(b.broadcast_to(b.constant(frame.places), shape=shape), choice, axis=3)
    return b.reshape(places, shape=shape[:3])


def max_grad(b: OpBuilder, node: Node, x: Value, dy: Value) -> Value | None:
    frame = _pooled(node.op, x.type) if isinstance(node.op, MaxPoolGrad) else None
    if frame is None:
        return None
    places = _chosen(b, frame, x)
    updates = b.reshape(dy, shape=places.type.shape)
    return frame.image(b, b.scatter_add_along_axis(frame.empty(b, dy), places, updates, axis=2))


def max_pick(b: OpBuilder, node: Node, x: Value, v: Value) -> Value | None:
    frame = _pooled(node.op, x.type) if isinstance(node.op, MaxPoolPick) else None
    if frame is None:
        return None
    picked = b.take_along_axis(frame.flat(b, v, 0), _chosen(b, frame, x), axis=2)
    return b.reshape(picked, shape=node.outputs[0].type.shape)


def _counts(b: OpBuilder, op: AvgPooling, size: Sizes, like: Value) -> Value:
    counts = op.counts((1, 1, *size), like.type.dtype.np)
    return b.constant(counts.reshape(-1), like.type.dtype)


def avg_pool(b: OpBuilder, node: Node, x: Value) -> Value | None:
    frame = _pooled(node.op, x.type) if isinstance(node.op, AvgPool) else None
    if frame is None or not isinstance(node.op, AvgPool):
        return None
    total = b.sum(frame.columns(b, x), axes=(3,))
    return b.reshape(b.div(total, _counts(b, node.op, frame.size, x)), shape=node.outputs[0].type.shape)


def avg_grad(b: OpBuilder, node: Node, dy: Value) -> Value | None:
    op = node.op
    frame = _pooled(op, dy.type.with_shape(op.x_shape)) if isinstance(op, AvgPoolGrad) else None
    if frame is None or not isinstance(op, AvgPoolGrad):
        return None
    windows, elements = frame.places.shape
    shape = (*dy.type.shape[:2], windows)
    share = b.div(b.reshape(dy, shape=shape), _counts(b, op, frame.size, dy))
    return frame.spread(b, b.broadcast_to(b.reshape(share, shape=(*shape, 1)), shape=(*shape, elements)))


FALLBACKS: dict[Opcode, Callable[..., Value | None]] = {kind: rule for family, rule in (
    (Conv, conv), (ConvInputGrad, input_grad), (ConvWeightGrad, weight_grad), (MaxPool, max_pool),
    (MaxPoolGrad, max_grad), (MaxPoolPick, max_pick), (AvgPool, avg_pool), (AvgPoolGrad, avg_grad))
    for kind in family.every()}
