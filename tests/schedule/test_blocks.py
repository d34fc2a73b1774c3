"""Tiles of products by codes in blocks."""
from __future__ import annotations

import pytest

from graphc.schedule.choose_blocks import _even_tile


@pytest.mark.parametrize("rows, tile, chosen", [(144, 25, 18), (384, 25, 32), (144, 9, 9), (12288, 200, 192), (5, 1, 1), (3, 7, 1)])
def test_cores_get_even_shares_of_rows(rows, tile, chosen):
    """Of whole vectors where these do."""
    assert _even_tile(tile, rows, 16, 4) == chosen
