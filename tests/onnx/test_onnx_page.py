"""docs/onnx.md says what the rules are."""
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs"))
import make_onnx  # noqa: E402

from graphc.doors.onnx.older import OLDER  # noqa: E402
from graphc.doors.onnx.rule import rule_of  # noqa: E402
from graphc.doors.onnx.table import RULES, schema_of  # noqa: E402


# strings, and numbers of which most are not there
REFUSED = {"Constant": {"sparse_value", "value_string", "value_strings"}, "TfIdfVectorizer": {"pool_strings"}}


def test_tables_are_current():
    page = make_onnx.PAGE.read_text()
    assert page == make_onnx.text(page), "run python docs/make_onnx.py"


@pytest.mark.parametrize("key", sorted(RULES))
def test_a_rule_takes_what_the_schema_has(key):
    """Operands in number, attributes by name, defaults as they are."""
    domain, _, op = key.rpartition(":")
    schema = schema_of(domain, op, make_onnx.DOMAINS.get(domain, 1))
    if schema is None:
        return
    rule = rule_of(RULES[key])
    names = {p.name for p in rule.operands} | rule.attributes.keys()
    missing = schema.attributes.keys() - names - REFUSED.get(key, set())
    assert rule.more or not missing, f"{op} has the attributes {sorted(missing)}"
    most = len(rule.operands) if not any(p.many for p in rule.operands) else 1 << 30
    assert min(schema.max_input, 1 << 20) <= most, f"{op} takes up to {schema.max_input} operands"
    for name, attribute in schema.attributes.items():
        if name in rule.attributes and attribute.required:
            assert not rule.attributes[name].optional or rule.attributes[name].default is None, name


def test_older_forms_end_in_order():
    for versions in OLDER.values():
        assert [below for below, _ in versions] == sorted(below for below, _ in versions)
