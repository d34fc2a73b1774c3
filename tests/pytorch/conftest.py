"""What tests of torch.compile begin with."""
from __future__ import annotations

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

GROUP = "torch_dynamo_backends"


@pytest.fixture
def compiled_anew():
    """graphc is a backend as an installed one is, that of this tree. Nothing that torch.compile has made before is known; random numbers
    start at the same place."""
    torch = pytest.importorskip("torch")
    from torch._dynamo.backends import registry
    stated = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]["entry-points"][GROUP]
    for name, place in stated.items():
        registry._BACKENDS[name] = EntryPoint(name, place, GROUP)
        registry._COMPILER_FNS.pop(name, None)
    torch._dynamo.reset()
    torch.manual_seed(0)
