"""The configs of Llama, Mistral, Qwen and Gemma as shapes of a decoder."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import sqrt

import numpy as np

from graphc.doors.pretrained.decoder import DecoderLayer, DecoderShape
from graphc.doors.pretrained.encoder import activation_of
from graphc.doors.pretrained.fields import Fields
from graphc.doors.pretrained.rotary import turning_of
from graphc.dsl.context import user_loc
from graphc.errors import GraphError

SLIDING, FULL = "sliding_attention", "full_attention"


def llama_shape(fields: Fields) -> DecoderShape:
    return _shape(fields, "hidden_act", _biases(fields, network=fields.flag("mlp_bias", False)), {})


def mistral_shape(fields: Fields) -> DecoderShape:
    window = fields.optional("sliding_window", fields.integer, 4096)
    count = fields.integer("num_hidden_layers")
    return _shape(fields, "hidden_act", (False, False, False), dict.fromkeys(range(count), window))


def qwen2_shape(fields: Fields) -> DecoderShape:
    return _shape(fields, "hidden_act", (True, False, False), _qwen_windows(fields))


def qwen3_shape(fields: Fields) -> DecoderShape:
    shape = _shape(fields, "hidden_act", _biases(fields), _qwen_windows(fields))
    return replace(shape, normed_heads=True)


def gemma_shape(fields: Fields) -> DecoderShape:
    """Of Gemma 1. Its first files say "gelu" by `hidden_act` alone and mean tanh's form, or erf's: who reads them
    decides."""
    fields.only("use_bidirectional_attention", False)
    fields.only("hidden_activation", "gelu_pytorch_tanh")
    older, newer = fields.text("hidden_act", ""), fields.text("hidden_activation", "")
    if older not in ("", "gelu_pytorch_tanh") and not newer:
        raise GraphError(f"{fields.where}: hidden_act = {older!r} of Gemma is taken for \"gelu_pytorch_tanh\" by some "
                         "programs and not by others: add hidden_activation = \"gelu_pytorch_tanh\"", user_loc())
    return _gemma(_shape(fields, "hidden_activation", _biases(fields), {}, "gelu_pytorch_tanh"))


def gemma2_shape(fields: Fields) -> DecoderShape:
    fields.only("use_bidirectional_attention", False)
    fields.only("cache_implementation", "hybrid")
    window, count = fields.integer("sliding_window", 4096), fields.integer("num_hidden_layers")
    kinds = fields.words("layer_types", [SLIDING if i % 2 == 0 else FULL for i in range(count)])
    windows = {i: window for i, kind in enumerate(_layer_kinds(fields, kinds, count)) if kind == SLIDING}
    shape = _gemma(_shape(fields, "hidden_activation", _biases(fields), windows, "gelu_pytorch_tanh"))
    return replace(shape, after=True, scale=fields.number("query_pre_attn_scalar", 256) ** -0.5,
                   cap=fields.optional("attn_logit_softcapping", fields.number, 50.0),
                   final_cap=fields.optional("final_logit_softcapping", fields.number, 30.0))


def _gemma(shape: DecoderShape) -> DecoderShape:
    return replace(shape, offset=True, embedding_scale=float(np.float32(sqrt(shape.width))))


def _shape(fields: Fields, activation: str, biases: tuple[bool, bool, bool], windows: Mapping[int, int | None],
           default: str = "silu") -> DecoderShape:
    """What all have. `windows`: of the layers that do not see all places."""
    width, heads = fields.integer("hidden_size"), fields.integer("num_attention_heads")
    head = fields.integer("head_dim", width // heads)
    context = fields.integer("max_position_embeddings", 2048)
    turning = turning_of(fields, head, context)
    count = fields.integer("num_hidden_layers")
    return DecoderShape(
        fields.integer("vocab_size"), width, heads, fields.integer("num_key_value_heads", heads), head,
        fields.integer("intermediate_size"), tuple(DecoderLayer(turning, windows.get(i)) for i in range(count)),
        fields.number("rms_norm_eps", 1e-6), activation_of(fields, activation, default), biases,
        padding=fields.optional("pad_token_id", lambda name: fields.integer(name, least=0)))


def _biases(fields: Fields, network: bool = False) -> tuple[bool, bool, bool]:
    bias = fields.flag("attention_bias", False)
    return bias, bias, network


def _qwen_windows(fields: Fields) -> dict[int, int | None]:
    count, first = fields.integer("num_hidden_layers"), fields.integer("max_window_layers", 28, 0)
    window = fields.optional("sliding_window", fields.integer, 4096)
    slides = fields.flag("use_sliding_window", False) and window is not None
    kinds = fields.words("layer_types", [SLIDING if slides and i >= first else FULL for i in range(count)])
    kinds = _layer_kinds(fields, kinds, count)
    if SLIDING in kinds and not slides:
        raise GraphError(f"{fields.where}: layer_types says {SLIDING}, use_sliding_window and sliding_window do not",
                         user_loc())
    return {i: window for i, kind in enumerate(kinds) if kind == SLIDING}


def _layer_kinds(fields: Fields, kinds: list[str], count: int) -> list[str]:
    if len(kinds) != count or not {SLIDING, FULL}.issuperset(kinds):
        raise GraphError(f"{fields.where}: layer_types is one of {FULL} and {SLIDING} for each of {count} layers, got "
                         f"{kinds!r}", user_loc())
    return kinds
