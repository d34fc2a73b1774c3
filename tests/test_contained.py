"""The search for cycles pauses while a program is compiled, and only then; context variables are afterwards as before.
"""
import gc
from contextvars import ContextVar

import pytest

from graphc.compiled import CompiledGraph
from graphc.contained import contained
from graphc.ir.parser import parse

VARIABLE = ContextVar("tested", default=0)


@contained
def failing():
    assert not gc.isenabled()
    VARIABLE.set(1)
    nested()
    assert not gc.isenabled() and VARIABLE.get() == 1
    1 / 0


@contained
def nested():
    VARIABLE.set(2)


@pytest.mark.parametrize("on", [True, False])
def test_it_is_as_before_afterwards(on):
    before = gc.isenabled()
    try:
        (gc.enable if on else gc.disable)()
        with pytest.raises(ZeroDivisionError):
            failing()
        assert gc.isenabled() == on and VARIABLE.get() == 0
        CompiledGraph(parse("graph f(x: f32[3]) {\n  %0 = exp(x) : f32[3]\n  return %0\n}\n"))
        assert gc.isenabled() == on
    finally:
        (gc.enable if before else gc.disable)()
