"""Whether sums that cross each other are worth one kernel: sums along rows beside sums across them.

Apart, each kernel reads what the sums are made from. Together it is read once; sums across rows are added to a row of
accumulators, which is loaded and stored for every row, leaves L1 where it is long, and is written and read again for
every tile of rows.
"""
from __future__ import annotations

from graphc.ir.dims import typical
from graphc.ir.graph import Node, Value
from graphc.ir.types import f32
from graphc.passes.cluster import Cluster
from graphc.schedule.iteration_space import Space
from graphc.schedule.machine import Machine
from graphc.schedule.nest_facts import MASKED_STATE_CYCLES
from graphc.schedule.nest_grid import STATE_CYCLES
from graphc.schedule.target import LINE_BYTES

KERNEL_CYCLES = 200             # of another kernel, however little it does
MOVES = 3                       # of an element that one kernel leaves for another: it is stored, and loaded
LANES = LINE_BYTES // f32.itemsize


def crossing_refusal(c: Cluster, space: Space, node: Node, machine: Machine) -> str:
    """Why the node, which has joined `space`, had better not have made sums of it cross others; "": it may have."""
    wide = [n for n in space.crossing - c.space.crossing if space.dims_of(n.outputs[0])]
    if not wide or not node.op.is_reduction:
        return ""
    row, rows = typical(space.size(space.reduced or ())), typical(space.size(space.crossed or ()))
    added, saved = len(wide) * _added_cycles(c, row, rows, machine), _saved_cycles(c, node, row * rows, machine)
    if row * rows * (added - saved) <= KERNEL_CYCLES:
        return ""
    return f"they reduce different axes: to add {rows} rows to one of {row} elements costs more than to read them again"


def _added_cycles(c: Cluster, row: int, rows: int, machine: Machine) -> float:
    """Of an element that is added to a row of accumulators, for these."""
    nbytes = 2 * f32.itemsize
    element = (c.flops + 1) * machine.vector_op_cycles / LANES + nbytes / machine.l3_bytes_per_cycle
    added = 2 * machine.vector_op_cycles / LANES
    if f32.itemsize * row > machine.l1_bytes // 2:
        added += nbytes / machine.l2_bytes_per_cycle
    waits = MASKED_STATE_CYCLES if row % LANES else STATE_CYCLES
    tile = _tile_rows(row, rows, element, machine)
    moved = machine.shared_byte_cycles(f32.itemsize * row * rows / tile)
    return max(added, waits / row - element) + nbytes / tile * moved


def _tile_rows(row: int, rows: int, element: float, machine: Machine) -> float:
    """About how many rows share a row of accumulators."""
    if row * rows <= machine.serial_elements:
        return rows
    long, share = machine.long_tile_cycles / (row * element), rows / machine.planned_tiles
    return max(1, min(max(long, share), rows / machine.planned_cores))


def _saved_cycles(c: Cluster, node: Node, elements: int, machine: Machine) -> float:
    """Of an element that the node would read alone: stored by another kernel, or made again from what this reads."""
    size = node.inputs[0].type.dtype.itemsize
    made, leaves, flops = set(c.nodes), set[Value](), 0
    todo, seen = [node.inputs[0]], set[Value]()
    while todo:
        v = todo.pop()
        if v in seen:
            continue
        seen.add(v)
        if v.node is not None and v.node in made:
            flops += v.node.op.element_flops if not v.node.op.is_view else 0
            todo += v.node.inputs
        elif typical(v.type.size) == elements:
            leaves.add(v)
    read = sum(v.type.dtype.itemsize for v in leaves) or size
    again = read * machine.shared_byte_cycles(read * elements) + flops * machine.vector_op_cycles / LANES
    return min(again, MOVES * size * machine.shared_byte_cycles(MOVES * size * elements)) if flops else again
