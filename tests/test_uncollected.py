"""The search for cycles pauses while a program is compiled, and only then."""
import gc

import pytest

from graphc.compiler import compiled
from graphc.uncollected import uncollected


@pytest.mark.parametrize("on", [True, False])
def test_it_is_as_before_afterwards(on):
    before = gc.isenabled()
    try:
        (gc.enable if on else gc.disable)()
        with pytest.raises(ZeroDivisionError), uncollected():
            assert not gc.isenabled()
            with uncollected():
                pass
            assert not gc.isenabled()
            1 / 0
        assert gc.isenabled() == on
        compiled("graph f(x: f32[3]) {\n  %0 = exp(x) : f32[3]\n  return %0\n}\n")
        assert gc.isenabled() == on
    finally:
        (gc.enable if before else gc.disable)()
