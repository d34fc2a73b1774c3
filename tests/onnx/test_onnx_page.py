"""docs/onnx.md says what the rules are."""
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs"))
import make_onnx  # noqa: E402

from graphc.doors.onnx.older import OLDER  # noqa: E402
from graphc.doors.onnx.rule import rule_of  # noqa: E402
from graphc.doors.onnx.table import RULES, rule_for, schema_of  # noqa: E402


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


@pytest.mark.parametrize("opset", (7, 9, 11, 13, 16, 18, 21))
def test_rules_take_the_attributes_of_older_opsets(opset):
    lacking = {}
    for key in RULES.keys() | OLDER.keys():
        schema = None if ":" in key else schema_of("", key, opset)
        if schema is None or schema.deprecated:
            continue
        rule = rule_for("", key, schema.since_version)
        missing = schema.attributes.keys() - {p.name for p in rule.operands} - rule.attributes.keys() - REFUSED.get(key, set())
        if missing and not rule.more:
            lacking[key] = sorted(missing)
    assert not lacking


def test_older_forms_end_in_order():
    for versions in OLDER.values():
        assert [below for below, _ in versions] == sorted(below for below, _ in versions)
