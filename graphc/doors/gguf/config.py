"""What a GGUF file says of its network, as the shape of a decoder."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import sqrt

import numpy as np

from graphc.doors.gguf.read import GgufFile
from graphc.doors.pretrained.decoder import DecoderLayer, DecoderShape
from graphc.doors.pretrained.fields import Fields
from graphc.doors.pretrained.rotary import Turning
from graphc.dsl.context import user_loc
from graphc.errors import GraphError
from graphc.nn.position import frequencies

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3")
GEMMAS = ("gemma", "gemma2", "gemma3")
PERIODS = {"gemma2": 2, "gemma3": 6}            # of so many layers, the last one sees all places
LARGE_GEMMAS = {"gemma2": 46, "gemma3": 62}     # layers of the 27 B networks, whose scores are scaled otherwise
LOCAL_BASE = 10000.0                            # of the layers of Gemma 3 that do not see all places
ROPE_FACTORS = "rope_freqs.weight"
# of no consequence for what the network computes
UNUSED = ("vocab_size", "attention.layer_norm_epsilon")


def gguf_shape(file: GgufFile) -> DecoderShape:
    """The network of the file. GraphError for an architecture or a field that is not known."""
    kind = file.fields.get("general.architecture")
    if kind not in ARCHITECTURES:
        raise GraphError(f"{file.path}: the architecture {kind!r} is not supported; known are "
                         f"{', '.join(ARCHITECTURES)}", user_loc())
    own = {name.removeprefix(f"{kind}."): value for name, value in file.fields.items() if name.startswith(f"{kind}.")}
    fields = Fields(f"{file.path}: {kind}", own, UNUSED)
    shape = _shape(fields, file, kind)
    fields.finish()
    return shape


def _shape(fields: Fields, file: GgufFile, kind: str) -> DecoderShape:
    width, heads = fields.integer("embedding_length"), fields.integer("attention.head_count")
    head = fields.integer("attention.key_length", width // heads)
    fields.only("attention.value_length", head)
    fields.only("rope.dimension_count", head)
    fields.only("expert_count", 0)
    fields.only("attention.causal", True)
    fields.integer("context_length", 1)             # caches are as long as they are asked for
    shape = DecoderShape(
        file.tensors["token_embd.weight"].shape[0] if "token_embd.weight" in file.tensors else 0, width, heads,
        fields.integer("attention.head_count_kv", heads), head, fields.integer("feed_forward_length"),
        _layers(fields, file, kind, head), fields.number("attention.layer_norm_rms_epsilon"),
        biases=(_has(file, "attn_q.bias"), _has(file, "attn_output.bias"), _has(file, "ffn_gate.bias")),
        normed_heads=_has(file, "attn_q_norm.weight"))
    return _gemma(shape, fields, kind) if kind in GEMMAS else shape


def _gemma(shape: DecoderShape, fields: Fields, kind: str) -> DecoderShape:
    large = len(shape.layers) == LARGE_GEMMAS.get(kind)
    return replace(
        shape, activation="gelu_pytorch_tanh", after=kind != "gemma",
        embedding_scale=float(np.float32(sqrt(shape.width))),
        scale=(shape.width // shape.heads if large else shape.head) ** -0.5,
        cap=fields.optional("attn_logit_softcapping", fields.number),
        final_cap=fields.optional("final_logit_softcapping", fields.number))


def _layers(fields: Fields, file: GgufFile, kind: str, head: int) -> tuple[DecoderLayer, ...]:
    count, window = fields.integer("block_count"), fields.optional("attention.sliding_window", fields.integer)
    there = len({name.split(".")[1] for name in file.tensors if name.startswith("blk.")})
    if count != there:
        raise GraphError(f"{fields.where}: block_count is {count}, the file has arrays of {there} layers", user_loc())
    period = PERIODS.get(kind)
    fields.only("attention.sliding_window_pattern", *([period] if period else []))
    turning = _turning(fields, file, head, kind)
    local = Turning(tuple(frequencies(head, fields.number("rope.freq_base_swa", LOCAL_BASE)).tolist()),
                    halves=turning.halves) if kind == "gemma3" else turning
    sees_all = [period is not None and i % period == period - 1 for i in range(count)]
    return tuple(DecoderLayer(turning, None) if whole else DecoderLayer(local, window) for whole in sees_all)


def _turning(fields: Fields, file: GgufFile, head: int, kind: str) -> Turning:
    """Files of Llama have the features of a head in the order in which pairs are neighbours."""
    slow = frequencies(head, fields.number("rope.freq_base", 10000.0))
    fields.only("rope.scaling.type", "none", "linear")
    factor = fields.number("rope.scaling.factor", 1.0)
    if fields.text("rope.scaling.type", "none") == "linear":
        slow = slow / factor
    if ROPE_FACTORS in file.tensors:
        slow = slow / file.tensors[ROPE_FACTORS].data.view(np.float32).astype(np.float64)
    return Turning(tuple(slow.tolist()), halves=kind != "llama")


def _has(file: GgufFile, part: str) -> bool:
    return f"blk.0.{part}" in file.tensors


def network_names(kind: str) -> Mapping[str, str]:
    """What parts of a layer are called in the network, by what they are called in the file."""
    norms = {"ffn_norm": "post_attention_layernorm"} if kind not in PERIODS else {
        "ffn_norm": "pre_feedforward_layernorm", "post_attention_norm": "post_attention_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm"}
    return {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
            "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
            "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
            "ffn_down": "mlp.down_proj", **norms}
