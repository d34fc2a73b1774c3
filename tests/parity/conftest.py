"""These tests compare with PyTorch (extra `peers`); without it they are skipped."""
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
collect_ignore_glob = []
try:
    import torch
    torch.set_num_threads(2)
except ImportError:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(params=["oracle", "native"])
def engine(request, monkeypatch):
    monkeypatch.setenv("GRAPHC_ORACLE", "1" if request.param == "oracle" else "0")
    return request.param
