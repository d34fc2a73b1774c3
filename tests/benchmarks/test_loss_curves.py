"""How far training in bf16 strays from f32, beside how far f32 strays from itself."""
from __future__ import annotations

import numpy as np

from benchmarks.loss_curves import HEAD, STEPS, WINDOW, cells, distances, outside

EVEN = np.linspace(2.0, 1.0, STEPS)


def test_distances_are_of_one_curve_from_the_other():
    """Below and above count alike, ten steps at a time, and all."""
    np.testing.assert_allclose(distances(1.05 * EVEN, EVEN), (0.05, 0.05))
    np.testing.assert_allclose(distances(0.95 * EVEN, EVEN), (0.05, 0.05))
    one = EVEN.copy()
    one[WINDOW] *= 1.2
    whole, furthest = distances(one, EVEN)
    assert 0.001 < whole < 0.002 and 0.019 < furthest < 0.021


def test_inside_of_f32_is_no_distance():
    assert outside(EVEN, [0.98 * EVEN, 1.02 * EVEN]) == 0
    np.testing.assert_allclose(outside(1.05 * EVEN, [EVEN, 0.9 * EVEN]), 0.05)
    np.testing.assert_allclose(outside(0.81 * EVEN, [EVEN, 0.9 * EVEN]), 0.1)


def test_what_is_said():
    """Being within what f32 covers is no excuse for a plain distance that is too large."""
    exact = [EVEN, 0.992 * EVEN, 1.009 * EVEN]
    row = cells(1.0095 * EVEN, exact)
    assert len(row) == len(HEAD) - 1 and row[-6:] == ["0.95%", "0.95%", "yes", "0.90%", "0.90%", "0.05%"]
    assert cells(1.03 * EVEN, exact)[-4] == "no"
    assert cells(1.03 * EVEN, [*exact, 1.05 * EVEN])[-4:] == ["no; f32 neither", "5.00%", "5.00%", "0.00%"]
    uneven = EVEN * np.where(np.arange(STEPS) // WINDOW % 2, 0.97, 1.03)
    assert cells(uneven, exact)[-4] == "no: of all steps yes, of ten no"
