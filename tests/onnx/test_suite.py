"""A drawn share of ONNX's backend suite; `python -m benchmarks onnx suite` runs it whole."""
import pytest

from benchmarks.onnx_suite import CRASH, PASS, REFUSED, cases, known_reason, outcome

SHARE = 8                           # every eighth case


def drawn():
    """Cases spread over the suite, so that each kind of operator has its turn."""
    return [case for i, case in enumerate(cases()) if i % SHARE == 5]


@pytest.mark.parametrize("case", drawn(), ids=lambda case: case.name)
def test_case(case):
    """Passes; what is listed with a reason, or needs an operator without a rule (docs/onnx.md has the table), is refused
    or differs, and never crashes."""
    found = outcome(case)
    reason = known_reason(case)
    assert found.result != CRASH
    if reason is None and found.result == REFUSED and "no rule for this operator" in found.reason:
        reason = "an operator of a body has no rule"
    assert (found.result == PASS) is (reason is None), (found, reason)
