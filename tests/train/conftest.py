"""Every test of the training step runs twice: by the oracle and natively."""
import pytest


@pytest.fixture(params=["oracle", "native"])
def engine(request, monkeypatch):
    monkeypatch.setenv("GRAPHC_ORACLE", "1" if request.param == "oracle" else "0")
    return request.param
