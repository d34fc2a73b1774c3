"""All operators by name. A file lists its own; nothing registers itself."""
from __future__ import annotations

from collections.abc import Callable

from graphc.ir.op import Op
from graphc.ir.ops import (
    activation, attention, blocks, constant, contract, control, conv, custom, elementwise, embedding_gradients, factor,
    fft, grid_sample, index, loss, norm, packed, random, reduce, remat, resize, scan_ops, scatter, shape,
    shape_composites, sort, solve, special, trig, window, winograd)

CLASSES: tuple[type[Op], ...] = (
    elementwise.CLASSES + constant.OPS + activation.OPS + trig.OPS + special.OPS + reduce.OPS + scan_ops.OPS + sort.OPS
    + shape.OPS + packed.OPS + shape_composites.OPS + resize.OPS + grid_sample.OPS + index.OPS + scatter.OPS
    + embedding_gradients.OPS + random.OPS + norm.OPS + loss.OPS + factor.OPS + solve.OPS + fft.OPS + contract.OPS
    + blocks.OPS + conv.OPS + winograd.OPS + window.OPS + attention.OPS + control.OPS + custom.OPS + remat.OPS)

OPS: dict[str, Callable[..., Op]] = elementwise.OPS | {c.name: c for c in CLASSES if c is not elementwise.Elementwise}
