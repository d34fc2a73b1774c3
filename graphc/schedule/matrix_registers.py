"""Which contractions matrix registers can compute, and how operands reach them."""
from __future__ import annotations

from collections.abc import Sequence
from math import prod

from graphc.ir.dims import static_dim
from graphc.schedule.blocking import PackingMode
from graphc.schedule.contraction_context import DOT_ROWS
from graphc.schedule.contraction_form import spread
from graphc.schedule.contraction_schedule import group_sizes, round_up
from graphc.schedule.register_tiles import MATRICES_ACROSS
from graphc.schedule.target import MATRIX_LANES
from graphc.schedule.tile_cost import TiledProblem
from graphc.schedule.tile_sizes import linear_from


def fit_matrices(problem: TiledProblem) -> bool:
    """Whether factors are such that instructions multiply matrices of them, columns are known, and results are rows: of
    integers not so few that vectors, which give the same, have them all."""
    p, context = problem.form, problem.context
    few = context.exact and isinstance(p.extent(p.m), int) and problem.m <= DOT_ROWS
    if not context.matrices or problem.transposed or context.codes or few or problem.vectors > MATRICES_ACROSS:
        return False
    numbers = (p.b.strides[p.k[-1]], p.b.strides[p.n[-1]], p.out.strides[p.m[-1]])
    return all(isinstance(n, int) and n >= 0 for n in numbers) and all(isinstance(p.sizes[d], int) for d in p.n)


def matrix_row_modes(problem: TiledProblem) -> tuple[PackingMode, ...]:
    """Rows at equal distances that lie along the sum are loaded from where they are, unless runs of it are short:
    copied into one each, they are fewer registers."""
    p = problem.form
    step = p.a.strides[p.m[-1]]
    lies = p.a.strides[p.k[-1]] == 1 and isinstance(step, int) and step >= 0 and p.a.steps_evenly(p.m, p.sizes)
    run = prod(problem.k_sizes[linear_from(p.a, p, p.k):])
    whole = run == problem.k or run % MATRIX_LANES == 0
    unpacked = (PackingMode.UNPACKED,) if lies and whole else ()
    known = all(isinstance(n, int) for n in group_sizes(p, p.k)[1:])
    return (*unpacked, PackingMode.PER_TILE) if known else unpacked


def matrix_column_modes(problem: TiledProblem, modes: Sequence[PackingMode]) -> tuple[PackingMode, ...]:
    """Of those of vectors: registers are loaded whole, so columns that do not fill them are packed."""
    ragged = problem.n % problem.nr > 0
    return tuple([mode for mode in modes if mode is not PackingMode.UNPACKED or not ragged])


def copied_row(steps: int) -> int:
    """Elements between rows of so many steps in a copy: whole lines, and such a number of them that rows do not share
    few sets of a cache, with room for a whole register from the last step on."""
    return static_dim(spread(round_up(steps, MATRIX_LANES) + MATRIX_LANES, MATRIX_LANES))
