"""Whether a product runs better once, for all steps of a loop, than once in each step: only while it is small.

Moving costs memory: stacks of operands or results. It pays where one step's product is bound by the memory it touches
(a weight, a carried sum) or by the cost of a call; a product that uses each loaded element often stays in the loop, as
in a scan over layers.
"""
from __future__ import annotations

from collections.abc import Set

from graphc.ir.contraction import Contraction
from graphc.ir.dims import typical
from graphc.ir.graph import Node, Value

# uses of each loaded element (rows of a weight's product, terms of a sum) from which on arithmetic dominates
REUSE = 256
SMALL_FLOPS = 1 << 22       # about 20 µs of a core: below it a call counts


def batching_gains(node: Node, varying: Set[Value]) -> bool:
    """A product of stacks instead of one product per step. An operand that is the same in all steps is then read once.
    """
    c = _contraction(node)
    x, y = (v in varying for v in node.inputs)
    if x and y:
        return typical(c.flops) < SMALL_FLOPS
    return typical(c.extent(c.m if x else c.n)) < REUSE


def summing_gains(node: Node) -> bool:
    """The sum over steps of a product as one product, instead of a carried sum that every step reads and writes."""
    c = _contraction(node)
    return typical(c.extent(c.k)) < REUSE


def _contraction(node: Node) -> Contraction:
    x, y = node.inputs
    return node.op.contraction(x.type, y.type)
