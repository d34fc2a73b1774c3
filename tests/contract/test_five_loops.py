"""The loops of a contraction nest as docs/architecture.md says, and only the operands know how they are packed."""
from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from graphc.codegen.loops.loop_ir import Call, For, If, Parallel
from graphc.codegen.loops.verify import verify
from graphc.codegen.lower.contraction import lowering
from graphc.codegen.lower.contraction.lowering import lower_contraction
from graphc.ir import contraction as C
from graphc.ir.types import f32
from graphc.schedule.blocking import Blocking, Cut, PackingMode
from graphc.schedule.choose_contraction import contraction_schedule
from graphc.schedule.contraction_schedule import ContractionSchedule, TileSchedule
from graphc.schedule.target import AVX2
from graphc.schedule.view import ViewType, contiguous_strides

FOLDER = Path(lowering.__file__).parent
M, N, K = 100, 96, 200
MODES = PackingMode.UNPACKED, PackingMode.ONCE, PackingMode.PER_TILE
BLOCKING = Blocking(mr=6, nr=16, mc=24, nc=Cut(0, 48), kc=Cut(0, 50))


def calls(statements: list, around: tuple = ()) -> Iterator[tuple[tuple, Call]]:
    """Each call with the loops around it."""
    for s in statements:
        if isinstance(s, Call):
            yield around, s
        elif isinstance(s, (For, Parallel)):
            yield from calls(s.body, (*around, s))
        elif isinstance(s, If):
            yield from calls(s.then, around)
            yield from calls(s.otherwise, around)


def schedule_of(**fields) -> ContractionSchedule:
    """A product of matrices by tiles of 24 × 48 in blocks of 50 steps, packed once unless the fields say otherwise."""
    shapes = (M, K), (K, N)
    chosen = contraction_schedule(C.matmul(*shapes), shapes[0], (K, 1), shapes[1], (N, 1), (N, 1), f32, AVX2)
    tiles = TileSchedule(BLOCKING, 8, **{"a": PackingMode.ONCE, "b": PackingMode.ONCE} | fields)
    packed = 102 * K, N * K
    return replace(chosen, phases=(tiles,), packed_a=(0,), packed_b=(packed[0],), partials=(sum(packed),),
                   shared_scratch=sum(packed) + tiles.splits * M * N)


def lowered(schedule: ContractionSchedule):
    views = [ViewType(f32, shape, contiguous_strides(shape)) for shape in ((M, K), (K, N), (M, N))]
    f = lower_contraction(views[:2], views[2:], schedule, AVX2)
    verify(f)
    return f


@pytest.mark.parametrize("a", MODES, ids=lambda mode: mode.value)
@pytest.mark.parametrize("b", MODES, ids=lambda mode: mode.value)
def test_tiles_blocks_columns_rows_whatever_is_packed(a, b):
    found = list(calls(lowered(schedule_of(a=a, b=b)).body))
    assert found
    for (tiles, blocks, columns, rows), call in found:
        assert isinstance(tiles, Parallel) and tiles.label == "tiles" and tiles.count.const == -(-M // 24) * -(-N // 48)
        assert (blocks.step, blocks.hi.const) == (1, K // 50)
        assert (columns.step, columns.hi.const, rows.step) == (16, 48, 6)
        assert call.callee.name.startswith("tile_f32_6x16")


def test_parts_of_a_sum_are_added_by_a_second_loop_over_tiles():
    f = lowered(schedule_of(splits=2))
    labels = [(s.label, s.count.const) for s in f.body if isinstance(s, Parallel)]
    assert labels[-2:] == [("tiles", 20), ("add", 10)]


def names(path: Path) -> set[str]:
    return {n.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Name)}


def test_only_the_sources_of_operands_know_packing_modes():
    knowing = {path.name for path in FOLDER.glob("*.py") if "PackingMode" in names(path)}
    assert knowing == {"row_source.py", "column_source.py", "matrix_rows.py"}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_no_function_takes_more_than_seven_things(path):
    for n in ast.walk(ast.parse(path.read_text())):
        if isinstance(n, (ast.FunctionDef, ast.Lambda)):
            taken = [a.arg for a in (*n.args.posonlyargs, *n.args.args, *n.args.kwonlyargs) if a.arg != "self"]
            assert len(taken) <= 7, f"{path.name}: {getattr(n, 'name', 'lambda')}({', '.join(taken)})"
