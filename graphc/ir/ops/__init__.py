"""All operators by name. A file lists its own; nothing registers itself."""
from __future__ import annotations

from collections.abc import Callable

from graphc.ir.op import Op
from graphc.ir.ops import activation, attention, constant, contract, control, conv, elementwise, index, reduce, shape, window

_CLASSES = (constant.OPS + activation.OPS + reduce.OPS + shape.OPS + index.OPS
            + contract.OPS + conv.OPS + window.OPS + attention.OPS + control.OPS)

OPS: dict[str, Callable[..., Op]] = elementwise.OPS | {c.name: c for c in _CLASSES}
