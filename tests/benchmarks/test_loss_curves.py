"""How far training in bf16 strays from f32, beside how far f32 strays from itself."""
from __future__ import annotations

import numpy as np

from benchmarks.loss_curves import HEAD, STEPS, WINDOW, cells, outside

EVEN = np.linspace(2.0, 1.0, STEPS)


def test_inside_of_f32_is_no_distance():
    """Below and above all runs of f32 count alike, relative to the nearest, ten steps at a time."""
    assert outside(EVEN, [0.98 * EVEN, 1.02 * EVEN]) == 0
    np.testing.assert_allclose(outside(1.05 * EVEN, [EVEN, 0.9 * EVEN]), 0.05)
    np.testing.assert_allclose(outside(0.81 * EVEN, [EVEN, 0.9 * EVEN]), 0.1)
    one = EVEN.copy()
    one[WINDOW] *= 1.2
    assert 0.019 < outside(one, [EVEN]) < 0.021


def test_what_is_said():
    exact = [EVEN, 0.992 * EVEN, 1.009 * EVEN]
    row = cells(1.015 * EVEN, exact)
    assert len(row) == len(HEAD) - 1 and row[-4:] == ["0.87%", "0.59%", "0.90%", "yes"]
    assert cells(1.03 * EVEN, exact)[-1] == "no"
    assert cells(1.05 * EVEN, [*exact, 1.03 * EVEN])[-1] == "no, nor is f32"
