"""A drawn share of ONNX's backend suite; `python -m benchmarks onnx suite` runs it whole."""
import pytest

from benchmarks.onnx_suite import CRASH, PASS, cases, known_reason, outcome

SHARE = 12                          # every twelfth case; those of converted layers, too


def drawn():
    """Cases spread over the suite: the whole numbers with one remainder, so that each opset and operator has its turn."""
    return [case for i, case in enumerate(cases()) if i % SHARE == 5]


@pytest.mark.parametrize("case", drawn(), ids=lambda case: case.name)
def test_case(case):
    """Passes; what is listed with a reason is refused or differs, and never crashes."""
    found = outcome(case)
    reason = known_reason(case)
    assert found.result != CRASH
    assert (found.result == PASS) is (reason is None), (found, reason)
