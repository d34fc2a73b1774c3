"""Facts about operators that several rooms of the compiler need."""
from __future__ import annotations

from graphc.ir.graph import Node, regions

VIEWS = frozenset({"transpose", "reshape", "broadcast_to", "slice"})     # views of memory: no kernel
CHECKED = frozenset({"take", "take_along_axis", "scatter_add", "scatter_add_along_axis", "row_places", "check_rows"})


def may_fail(node: Node) -> bool:
    """Whether the node, or one inside it, checks indices at run time."""
    if node.op.name in CHECKED:
        return not getattr(node.op, "checked", False)
    return any(may_fail(n) for _, region in regions(node.op) for n in region.nodes)
