"""From operator to kernel: who chooses its schedule, who lowers it. Both tables have a row for every operator that
becomes one.
"""
from __future__ import annotations

from dataclasses import is_dataclass

import pytest

from graphc.codegen.lower import LOWERINGS, lower
from graphc.codegen.lower.request import KernelRequest
from graphc.errors import InternalError
from graphc.ir.builder import Builder
from graphc.ir.op import Composite, Op
from graphc.ir.ops import CLASSES
from graphc.ir.ops.constant import Constant
from graphc.ir.ops.custom import CustomVjp
from graphc.ir.ops.fused import Fused
from graphc.ir.types import f32
from graphc.schedule import schedule as schedule_module
from graphc.schedule.choose import CHOOSERS, schedule_node
from graphc.schedule.plain_schedule import PlainSchedule
from graphc.schedule.scatter_schedule import ScatterSchedule
from graphc.schedule.schedule import Schedule
from graphc.schedule.target import AVX2
from graphc.schedule.view import ViewType

GONE = {CustomVjp}                  # before anything is planned: derivatives are taken
KERNELS = {op for op in (*CLASSES, Fused)
           if not (op.is_view or op.is_control or op is Constant or op in GONE or issubclass(op, Composite)
                   and not op.has_kernel)}


def subclasses(cls: type) -> set[type]:
    return set(cls.__subclasses__()).union(*map(subclasses, cls.__subclasses__()))


@pytest.mark.parametrize("table", [CHOOSERS, LOWERINGS], ids=["choosers", "lowerings"])
def test_every_operator_that_becomes_a_kernel_has_a_row_and_every_row_an_operator(table):
    assert set(table) == KERNELS


def test_every_schedule_answers_what_the_memory_plan_asks():
    """With numbers of bytes and pairs, of a schedule whose class says no more than it must."""
    made = subclasses(Schedule) - {schedule_module.ProductSchedule}
    assert len(made) >= 6 and all(is_dataclass(cls) and {"__setattr__", "__str__"} <= vars(cls).keys()
                                  for cls in made)
    schedule = ScatterSchedule(in_place=ScatterSchedule(aliased=True))
    assert (schedule.shared_bytes, schedule.packed_bytes, schedule.prepacked, schedule.aliased) == (0, 0, None, False)
    assert schedule.updating().aliased and schedule.inplace_pairs((), ()) == ((0, 0),)


def test_an_operator_without_a_row_is_named_with_the_table():
    class Unknown(Op):
        name = "unknown"

        def infer(self, x):
            return x
    b = Builder("try")
    node = b.apply(Unknown(), [b.input("x", f32[3])])[0].node
    view = ViewType(f32, (3,), (1,))
    with pytest.raises(InternalError, match="unknown.* needs a row in graphc/schedule/choose.py"):
        schedule_node(node, [view], [view], AVX2)
    with pytest.raises(InternalError, match="unknown.* needs a row in graphc/codegen/lower/__init__.py"):
        lower(KernelRequest(node, (view,), (view,), PlainSchedule(), AVX2))
