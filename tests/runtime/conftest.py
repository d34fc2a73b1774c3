"""A disk cache of each test's own."""
import pytest

from graphc.codegen.llvm.cache import FOLDER


@pytest.fixture
def given(tmp_path, monkeypatch):
    """What the user names."""
    path = tmp_path / "deep" / "cache"
    monkeypatch.setenv("GRAPHC_CACHE", str(path))
    return path


@pytest.fixture
def folder(given):
    """The cache's own."""
    return given / FOLDER
