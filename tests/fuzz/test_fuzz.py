"""A share of every fuzzer; `python -m tests.fuzz` goes on for as long as one likes."""
import time

import numpy as np
import pytest

from tests.fuzz.__main__ import known
from tests.fuzz.text import check
from tests.fuzz.texts import sound_texts

SECONDS = 4.0


@pytest.mark.parametrize("kind", sorted(known()))
def test_a_share_finds_nothing(kind):
    known()[kind](np.random.default_rng(20), time.monotonic() + SECONDS)


def test_sound_texts_are_answered_with_their_graphs():
    for text in sound_texts():
        assert check(text) is not None
