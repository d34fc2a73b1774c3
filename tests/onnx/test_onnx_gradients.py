"""Gradients of a share of the imported operators; `python -m benchmarks onnx gradients` checks all."""
import pytest

from benchmarks.onnx_gradients import NONE, PASS, candidates, gradient_outcome

SHARE = 14
DRAWN = candidates()[3::SHARE]


@pytest.mark.parametrize("case", DRAWN, ids=lambda case: case.name)
def test_gradients_agree_with_differences(case):
    found = gradient_outcome(case)
    assert found.result in (PASS, NONE), found.reason


def test_there_are_many():
    """What is drawn from."""
    assert len(candidates()) >= 150
