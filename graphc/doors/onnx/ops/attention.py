"""Attention of ONNX: in its plain forms graphc's own operator, in others by the definition that ONNX gives."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import graphc as gc
from graphc.doors.onnx.call import Call
from graphc.doors.onnx.ops.microsoft_attention import heads_first, heads_last
from graphc.doors.onnx.rule import Operand
from graphc.dsl.array import Array
from graphc.errors import GraphError
from graphc.ir.dims import static_dim
from graphc.ir.types import f32, f64


def attention(q: Array, k: Array, v: Array, mask: Operand = None, past_key: Operand = None,
              past_value: Operand = None, lengths: Operand = None, *, is_causal: int = 0, kv_num_heads: int = 0,
              q_num_heads: int = 0, qk_matmul_output_mode: int = 0, scale: float | None = None, softcap: float = 0.0,
              softmax_precision: int = 0, call: Call, **windows: Any) -> Any:
    """[B, heads, T, D], or [B, T, heads * D]. A bool mask is left to ONNX's definition: a query that it hides whole
    gives 0 in graphc; and so are windows, attributes of new opsets."""
    own = None if mask is None else call.array(mask)
    others = any(x is not None for x in (past_key, past_value, lengths)) or softcap or call.wanted > 1 or (
        any("window" in name for name in call.attributes))
    usual = q.dtype is k.dtype is v.dtype and q.dtype in (f32, f64) and (own is None or own.dtype is q.dtype) and (
        not softmax_precision or call.importer.dtype(softmax_precision) is q.dtype)
    if others or not usual or (own is not None and own.shape[-1] != k.shape[-2]):
        return tuple(call.importer.by_body(call))
    flat = q.ndim == 3
    if flat:
        if not (q_num_heads and kv_num_heads):
            raise GraphError("Attention of three axes needs q_num_heads and kv_num_heads")
        q, k, v = heads_first(q, q_num_heads), heads_first(k, kv_num_heads), heads_first(v, kv_num_heads)
    groups = static_dim(q.shape[1]) // static_dim(k.shape[1])
    k, v = (gc.repeat(x, groups, axis=1) if groups > 1 else x for x in (k, v))
    y = gc.attention(q, k, v, own, scale=scale, causal=bool(is_causal))
    return heads_last(y) if flat else y


RULES: Mapping[str, Callable[..., Any]] = {"Attention": attention}
