"""How products by matrices of codes in blocks run: dot products of rows of codes, or micro-tiles whose columns are made
of codes when they are packed, which pays where enough rows share them."""
from __future__ import annotations

from dataclasses import replace
from math import prod

from graphc.ir.dims import Dim, static_dim, typical
from graphc.ir.ops.blocks import BlockProduct
from graphc.ir.ops.contract import Matmul
from graphc.ir.types import f32
from graphc.schedule.blocking import Cut
from graphc.schedule.choose_contraction import placed
from graphc.schedule.choose_plain import plain_schedule
from graphc.schedule.choose_rows import open_tile_schedule
from graphc.schedule.code_cost import CodeCost
from graphc.schedule.contraction_context import ColumnCodes, ContractionContext
from graphc.schedule.contraction_form import Form, Phase, normal_form
from graphc.schedule.contraction_schedule import (
    PhaseSchedule, RowsSchedule, TileSchedule, group_sizes, round_up)
from graphc.schedule.kernel_problem import KernelProblem
from graphc.schedule.operand_roles import Tensor
from graphc.schedule.parallel_rows import MOST_GROUPS, ROWS_TOGETHER, few_together
from graphc.schedule.schedule import Schedule
from graphc.schedule.tile_cost import Agreement
from graphc.schedule.view import ViewType, contiguous_strides


def block_product_schedule(p: KernelProblem[BlockProduct]) -> Schedule:
    """A pure function of shapes, strides and target. Where the number of rows comes with the call, a row's bits are the
    same for any number."""
    x = p.core.inputs[0].type
    rows = prod(x.shape[:-1])
    if p.gates or x.rank < 2 or isinstance(rows, int) and rows <= 1 or 0 in p.core.outputs[0].type.shape:
        return _dots(p)
    form = _form(p)
    if form.swap or len(form.phases) != 1 or len(form.phases[0].k) != 1 or len(form.phases[0].n) != 1:
        return _dots(p)
    tiles = _tiles(p, form.phases[0])
    ranking = tiles.ranking
    if isinstance(rows, int) and ranking is not None and _dot_cycles(p, rows) <= ranking.best.total:
        return _dots(p)
    return replace(placed(form, (tiles,), f32, None), operands=len(p.core.inputs))


def _dots(p: KernelProblem[BlockProduct]) -> Schedule:
    """Of the product alone: what an epilogue does to a result is little beside it."""
    core = p.core
    y, lanes = core.outputs[0].type, p.target.lanes(f32.itemsize)
    out = ViewType(y.dtype, y.shape, contiguous_strides(y.shape))
    schedule = plain_schedule(KernelProblem(core, p.ins[:len(core.inputs)], (out,), p.target))
    if schedule.serial:
        return schedule
    rows = -(-static_dim(core.inputs[1].type.shape[0]) // (p.gates or ROWS_TOGETHER))
    return replace(schedule, tile=_even_tile(schedule.tile, rows, lanes, p.target.machine.planned_cores))


def _even_tile(tile: int, rows: int, lanes: int, cores: int) -> int:
    """Of whole vectors, so that an epilogue has them, or a smaller one: by the rows that the busiest core has then."""
    def busiest(tile: int) -> int:
        tiles = -(-rows // tile)
        return (tiles - 1) // cores * tile + (rows - (tiles - 1) * tile if tiles % cores == 1 else tile)
    return min(round_up(tile, lanes), -(-rows // round_up(-(-rows // tile), cores)), key=busiest)


def _form(p: KernelProblem[BlockProduct]) -> Form:
    """Of x @ Wᵀ, as if W, f32 [N, K], were in memory."""
    x, n = p.core.inputs[0].type, p.core.inputs[1].type.shape[0]
    columns = x.shape[-1]
    contraction = Matmul().contraction(x, x.with_shape((columns, n)))
    a, out = p.ins[0], p.outs[0]
    return normal_form(contraction, Tensor(a.shape, a.strides), Tensor((columns, n), (1, columns)),
                       Tensor(out.shape, out.strides), p.target.lanes(f32.itemsize), p.has_epilogue, (True, True),
                       p.target.machine)


def _tiles(p: KernelProblem[BlockProduct], phase: Phase[Dim]) -> PhaseSchedule:
    """With the blocks of the sum that a product by W has: then all bits are the same; longer, if those are no whole
    blocks of codes."""
    op, lanes = p.core.op, p.target.lanes(f32.itemsize)
    parts = 8 * sum(v.dtype.itemsize for v in p.ins[2:len(p.core.inputs)])
    wide = ContractionContext(p.target, f32.itemsize, lanes, (False, True))
    decoded = _cost(p).decoded * p.target.machine.vector_op_cycles
    codes = replace(wide, free=(False, False), codes=ColumnCodes(op.block, op.bits + parts / op.block, decoded))
    usual = open_tile_schedule(phase, wide)
    first = usual.regimes[-1] if isinstance(usual, RowsSchedule) else usual
    assert isinstance(first, TileSchedule)
    sizes = group_sizes(phase, phase.k)
    chunk = round_up(static_dim(first.blocking.kc.length(sizes)), op.block)
    return open_tile_schedule(phase, codes, settled=Agreement(Cut(0, min(chunk, static_dim(sizes[0])))))


def _dot_cycles(p: KernelProblem[BlockProduct], rows: int) -> float:
    """Of dot products, where codes are converted once for a few rows."""
    machine, x, n = p.target.machine, p.core.inputs[0].type, typical(p.core.inputs[1].type.shape[0])
    cost, columns = _cost(p), typical(x.shape[-1])
    groups = -(-rows // few_together(p.target)) if rows <= MOST_GROUPS * few_together(p.target) else rows
    each = groups * cost.dots_of_codes + rows * cost.dots_of_row
    operations = n * (columns / cost.lanes * each + rows * cost.dots_of_sum)
    return operations * machine.vector_op_cycles / machine.planned_cores + machine.handover_cycles


def _cost(p: KernelProblem[BlockProduct]) -> CodeCost:
    return CodeCost(p.core.op, len(p.core.inputs) - 2, p.target.lanes(f32.itemsize), p.target)
