"""The table of operators: how each is written in ONNX. A composite without a rule is written as what it is made of, and
so is what `rewrites` has."""
from __future__ import annotations

from graphc.doors.onnx_out import (
    composites, control, counterpart, elementwise, images, indexing, movement, products, reductions)
from graphc.doors.onnx_out.rule import Rules

RULES: Rules = (elementwise.RULES | counterpart.RULES | movement.RULES | reductions.RULES | products.RULES
                | indexing.RULES | images.RULES | composites.RULES | control.RULES)
