"""The model of steps on several ranks."""
from __future__ import annotations

import pytest

from benchmarks.ranks import COUNTS, Ranked, fitted, messages, predicted

GRADIENTS, MESSAGE, BYTE = 16_000_000, 7e-6, 1.3e-10


@pytest.mark.parametrize("shared", [False, True])
def test_what_exchanges_were_made_of_is_found(shared):
    found = []
    for count in COUNTS:
        most = int(2 * (1 - 1 / count) * GRADIENTS)
        seconds = messages(count) * MESSAGE + (count * most if shared else most) * BYTE
        found.append(Ranked(count, 1.0, seconds, 1e-5, 0.1, 1e-3, GRADIENTS, most, count * most))
    assert fitted(found, shared) == pytest.approx((MESSAGE, BYTE))


def test_a_part_that_cannot_be_seen_is_left_out():
    """Where more ranks took less time, no message takes less than none."""
    found = [Ranked(count, 1.0, seconds, 1e-5, 0.1, 1e-3, GRADIENTS, most, 2 * most)
             for count, seconds, most in ((2, 3e-3, 16_000_000), (4, 2e-3, 24_000_000))]
    both = fitted(found, shared=False)
    assert min(both) == 0 < max(both)


def test_more_machines_take_longer_by_what_they_exchange():
    one = predicted(1, 1.0, 0.1, GRADIENTS, 1e-5, 1e9)
    assert one == 1.1
    assert predicted(1024, 1.0, 0.1, GRADIENTS, 1e-5, 1e9) == pytest.approx(
        one + 40 * 1e-5 + 1023 / 1024 * GRADIENTS * (2e-9 + 1 / 8e9))
