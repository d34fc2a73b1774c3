"""What runs along rows, some of them together: the bits are those of each row by itself."""
import numpy as np
import pytest

import graphc as gc

RUNNING = {"cumsum": lambda x: gc.cumsum(x, -1), "cumprod": lambda x: gc.cumprod(x, -1),
           "cummax": lambda x: gc.cummax(x, -1), "flipped": lambda x: gc.flip(gc.cumsum(gc.flip(x, 2), -1), 2)}


@pytest.mark.parametrize("name", RUNNING)
@pytest.mark.parametrize("rows", (2, 3, 8, 9, 22))
def test_rows_side_by_side_have_the_bits_of_each(name, rows):
    x = np.random.default_rng(rows).standard_normal((rows, 1, 37)).astype(np.float32)

    def compiled(count):
        @gc.graph
        def f(x: gc.f32[count, 1, 37]):
            found = RUNNING[name](x)
            return found if isinstance(found, tuple) else (found,)
        return gc.compile(f)
    alone, together = compiled(1), compiled(rows)(x)
    for k in range(rows):
        for one, all_ in zip(alone(x[k:k + 1]), together):
            assert one.tobytes() == all_[k:k + 1].tobytes()
    if name == "cumsum":
        np.testing.assert_allclose(together[0], np.cumsum(x, -1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", ((2, 5), (8, 5), (9, 5), (3, 7, 5)), ids=str)
@pytest.mark.parametrize("turned", (False, True))
def test_positions_are_looked_up_in_several_rows(shape, turned):
    """Also where the table's rows are columns in memory, and a bad position is found whatever row has it."""
    rng = np.random.default_rng(0)
    x, at = rng.standard_normal(shape).astype(np.float32), rng.integers(0, 5, 33).astype(np.int32)
    given = np.ascontiguousarray(x.T) if turned else x

    @gc.graph
    def f(x: gc.f32[given.shape], at: gc.i32[33]):
        return gc.take(x.T if turned else x, at, -1)
    run = gc.compile(f)
    np.testing.assert_array_equal(run(given, at), x[..., at])
    at[20] = 5
    with pytest.raises(gc.GraphError, match="5"):
        run(given, at)
