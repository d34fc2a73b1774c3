"""Operands that are packed once, before the loop around a product whose number of rows comes with the call: all
regimes of rows read the same panels."""
import numpy as np
import pytest

import graphc as gc

STEPS = {
    "rows times w": (lambda h, x, w: (h * x) @ w, lambda width: (width, width)),
    "rows times w.T": (lambda h, x, w: (h * x) @ w.T, lambda width: (width, width)),
    "w times columns": (lambda h, x, w: (w @ (h * x).T).T, lambda width: (width, width)),
    "wide and back": (lambda h, x, w: ((h * x) @ w) @ w.T, lambda width: (width, 4 * width)),
}


@pytest.mark.parametrize("width", [3, 8, 20, 24, 33, 40, 72, 130])
@pytest.mark.parametrize("name", STEPS)
def test_all_numbers_of_rows_read_the_same_panels(name, width):
    step, shape = STEPS[name]
    random = np.random.default_rng(width)
    w = (random.standard_normal(shape(width)) / width).astype(np.float32)

    def run(w, x, h):
        return gc.scan(lambda h, x: (step(h, x, w), h), h, x)
    program = gc.compile(run, w=gc.f32[w.shape], x=gc.f32[3, "B", width], h=gc.f32["B", width])
    assert program.sized is not None, program.why_not
    for rows in (1, 5, 12, 97, 150):
        x = random.standard_normal((3, rows, width)).astype(np.float32)
        h = random.standard_normal((rows, width)).astype(np.float32)
        last, before, expected = h, [], program(w, x, h)
        for t in range(3):
            before.append(last)
            last = step(last.astype(np.float64), x[t], w)
        np.testing.assert_allclose(expected[0], last, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(expected[1], np.stack(before), rtol=1e-4, atol=1e-5)
