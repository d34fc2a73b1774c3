"""Operator -> rule."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from onnx import AttributeProto, FunctionProto, TensorProto, TypeProto, defs, helper

from graphc.doors.onnx.call import Item, type_of
from graphc.doors.onnx.known import Unsupported
from graphc.doors.onnx.older import OLDER
from graphc.doors.onnx.ops import (
    attention, boxes, control, dequantized, elementwise, image, index, loss, microsoft, microsoft_attention, ml, norm,
    product, quantized, random, recurrent, reduce, sequence, shape, signal, svm, training)
from graphc.doors.onnx.rule import ImportRule, RuleFunction, rule_of
from graphc.errors import InternalError

if TYPE_CHECKING:
    from graphc.doors.onnx.call import Call

# modules with RULES
PARTS = (attention, boxes, control, dequantized, elementwise, image, index, loss, microsoft, microsoft_attention, ml,
         norm, product, quantized, random, recurrent, reduce, sequence, shape, signal, svm, training)


def _merged(parts: Sequence[Mapping[str, RuleFunction]]) -> dict[str, RuleFunction]:
    table: dict[str, RuleFunction] = {}
    for part in parts:
        if twice := table.keys() & part.keys():
            raise InternalError(f"two rules for {min(twice)}")
        table |= part
    return table


RULES: Mapping[str, RuleFunction] = _merged([part.RULES for part in PARTS])


def key_of(domain: str, op: str) -> str:
    """How tables call an operator."""
    return f"{domain}:{op}" if domain else op


def rule_for(domain: str, op: str, since: int) -> ImportRule | None:
    """The rule of an operator as it is since this opset; None without one."""
    key = key_of(domain, op)
    for below, function in OLDER.get(key, ()):
        if since < below:
            return rule_of(function)
    return rule_of(RULES[key]) if key in RULES else None


def has_rule(domain: str, op: str, opsets: Mapping[str, int]) -> bool:
    """Whether there is a rule, or a body in the operator's schema."""
    if key_of(domain, op) in RULES or key_of(domain, op) in OLDER:
        return True
    schema = schema_of(domain, op, opsets.get(domain, 1))
    return schema is not None and bool(schema.has_function or schema.has_context_dependent_function)


@lru_cache(maxsize=None)
def schema_of(domain: str, op: str, opset: int) -> Any:
    """The operator as it is in this opset of its domain, an onnx.defs.OpSchema; None where onnx does not know it."""
    try:
        return defs.get_schema(op, min(max(opset, 1), defs.onnx_opset_version()) if not domain else opset, domain)
    except defs.SchemaError:
        return None


def since(domain: str, op: str, opset: int) -> int:
    """The opset since which the operator is as it is in this one; the opset where nothing is known of it."""
    schema = schema_of(domain, op, opset)
    return int(schema.since_version) if schema is not None else opset


def schema_body(call: Call) -> FunctionProto | None:
    """The operator's own definition by others."""
    schema = schema_of(call.node.domain, call.op, call.opset)
    if schema is None:
        return None
    if schema.has_function:
        return FunctionProto.FromString(schema.function_body.SerializeToString())
    if not schema.has_context_dependent_function:
        return None
    types = [b"" if v is None else _type(v).SerializeToString() for v in call.operands]
    body = schema.get_context_dependent_function(call.node.proto.SerializeToString(), types)
    return FunctionProto.FromString(body) if body else None


def check_attributes(call: Call) -> None:
    """Unsupported for an attribute that the operator does not have, where no rule asks for each by its name."""
    schema = schema_of(call.node.domain, call.op, call.opset)
    if schema is not None and (others := call.attributes.keys() - schema.attributes.keys()):
        raise Unsupported(f"{call.op} with the attribute {min(others)}")


def default_attributes(call: Call) -> list[AttributeProto]:
    """What the operator's attributes are where a node does not say."""
    schema = schema_of(call.node.domain, call.op, call.opset)
    found = [] if schema is None else [a.default_value for a in schema.attributes.values()]
    return [value for value in found if value.type != AttributeProto.UNDEFINED]


def _type(value: Item) -> TypeProto:
    """For onnx: sizes that are no numbers stay open."""
    if isinstance(value, list):
        items = [_type(v) for v in value[:1]] or [helper.make_tensor_type_proto(TensorProto.FLOAT, None)]
        return helper.make_sequence_type_proto(items[0])
    type = type_of(value)
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(type.dtype.np),
                                         [d if isinstance(d, int) else None for d in type.shape])
