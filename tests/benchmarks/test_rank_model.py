"""The model of steps on several ranks."""
from __future__ import annotations

import pytest

from benchmarks.ranks import COUNTS, Link, Ranked, fitted, messages, predicted
from graphc.errors import GraphError

GRADIENTS, MESSAGE, BYTE = 16_000_000, 7e-6, 1.3e-10


def test_what_exchanges_were_made_of_is_found():
    found = []
    for count in COUNTS:
        most = int(2 * (1 - 1 / count) * GRADIENTS)
        seconds = messages(count) * MESSAGE + most * BYTE
        found.append(Ranked(count, 1.0, seconds, 1e-5, 0.1, 1e-3, GRADIENTS, most))
    assert fitted(found) == pytest.approx((MESSAGE, BYTE))


@pytest.mark.parametrize("text, link", [("1gbit", Link(0.0, 125e6)), ("100mbit,2ms", Link(2e-3, 12.5e6)),
                                        ("2.5gbit,50us", Link(50e-6, 312.5e6))])
def test_a_link_is_a_rate_and_a_delay(text, link):
    assert vars(Link.of(text)) == pytest.approx(vars(link))


@pytest.mark.parametrize("text", ["fast", "1gbit,slow", "1", "1ms"])
def test_other_links_are_refused(text):
    with pytest.raises(GraphError, match="a rate and a delay"):
        Link.of(text)


def test_a_part_that_cannot_be_seen_is_left_out():
    """Where more ranks took less time, no message takes less than none."""
    found = [Ranked(count, 1.0, seconds, 1e-5, 0.1, 1e-3, GRADIENTS, most)
             for count, seconds, most in ((2, 3e-3, 16_000_000), (4, 2e-3, 24_000_000))]
    both = fitted(found)
    assert min(both) == 0 < max(both)


def test_more_machines_take_longer_by_what_they_exchange():
    one = predicted(1, 1.0, 0.1, GRADIENTS, 1e-5, 1e9)
    assert one == 1.1
    assert predicted(1024, 1.0, 0.1, GRADIENTS, 1e-5, 1e9) == pytest.approx(
        one + 40 * 1e-5 + 1023 / 1024 * GRADIENTS * (2e-9 + 1 / 8e9))
