"""Operators that run as one kind of kernel. The tables of choosers (schedule/choose.py) and of lowerings
(codegen/lower/__init__.py) have a row for each; other operators have rows of their own.
"""
from __future__ import annotations

from graphc.ir.op import Op
from graphc.ir.ops import CLASSES, sort
from graphc.ir.ops.constant import Constant
from graphc.ir.ops.fused import Fused
from graphc.schedule import choose_move, in_place, iteration_space, parallel_rows

Family = tuple[type[Op], ...]

# views and constants have no kernel
NESTS: Family = (Fused, *(op for op in iteration_space.RULES if not op.is_view and op is not Constant))
ROWS: Family = tuple(parallel_rows.RULES)
SORTS: Family = (sort.Sort, sort.ArgSort, sort.TopK)
SCATTERS: Family = in_place.SCATTERS
MOVES: Family = tuple(choose_move.BLOCKS)
CONTRACTIONS: Family = tuple(op for op in CLASSES if op.is_contraction)
