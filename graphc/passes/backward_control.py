"""Gradients of operators that hold regions: scan, cond, while_loop."""
from __future__ import annotations

from collections.abc import Callable

from graphc.ir.op import Op

CONTROL_RULES: dict[type[Op], Callable] = {}
