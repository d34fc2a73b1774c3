"""What tests of torch.compile begin with."""
from __future__ import annotations

import pytest


@pytest.fixture
def compiled_anew():
    """Nothing that torch.compile has made before is known; random numbers start at the same place."""
    torch = pytest.importorskip("torch")
    import graphc.doors.torch.backend  # noqa: F401  as the entry point loads it
    torch._dynamo.reset()
    torch.manual_seed(0)
