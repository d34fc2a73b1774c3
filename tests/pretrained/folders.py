"""Small folders as transformers saves them, with weights that follow from a seed and each array's name."""
from __future__ import annotations

import json
from pathlib import Path
from zlib import crc32

import numpy as np
from safetensors.numpy import save_file

import graphc as gc
from graphc.doors.pretrained.families import FAMILIES
from graphc.doors.pretrained.fields import Fields
from graphc.doors.pretrained.folder import _labels
from graphc.nn.network import entries, trace_network

SIZES = dict(vocab_size=67, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
             max_position_embeddings=64)
GROUPED = SIZES | dict(num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2)
DISTIL = dict(vocab_size=67, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=64)
GPT2 = dict(vocab_size=67, n_embd=32, n_layer=2, n_head=4, n_positions=64, pad_token_id=0)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, rope_theta=10000.0)
THREE = dict(id2label={str(i): str(i) for i in range(3)}, label2id={str(i): i for i in range(3)})
CONFIGS = {
    "bert": ("bert", "BertModel", SIZES),
    "bert_words": ("bert", "BertForMaskedLM", SIZES | dict(hidden_act="gelu_new")),
    "bert_classes": ("bert", "BertForSequenceClassification", SIZES | THREE),
    "roberta_words": ("roberta", "RobertaForMaskedLM", SIZES | dict(type_vocab_size=1, pad_token_id=1)),
    "roberta_classes": ("roberta", "RobertaForSequenceClassification", SIZES | dict(pad_token_id=1)),
    "distilbert_words": ("distilbert", "DistilBertForMaskedLM", DISTIL),
    "distilbert_classes": ("distilbert", "DistilBertForSequenceClassification", DISTIL),
    "gpt2": ("gpt2", "GPT2LMHeadModel", GPT2),
    "gpt2_classes": ("gpt2", "GPT2ForSequenceClassification", GPT2 | dict(scale_attn_by_inverse_layer_idx=True)),
    "llama": ("llama", "LlamaForCausalLM", GROUPED | dict(attention_bias=True, mlp_bias=True, rope_theta=5e5,
                                                          rope_scaling=LLAMA3)),
    "llama_yarn": ("llama", "LlamaForCausalLM", GROUPED | dict(rope_parameters=YARN, tie_word_embeddings=True)),
    "llama_classes": ("llama", "LlamaForSequenceClassification", GROUPED | dict(
        rope_parameters=dict(rope_type="linear", factor=2.5, rope_theta=20000.0))),
    "mistral": ("mistral", "MistralForCausalLM", GROUPED | dict(sliding_window=4)),
    "qwen2": ("qwen2", "Qwen2ForCausalLM", GROUPED | dict(use_sliding_window=True, sliding_window=3,
                                                          max_window_layers=1)),
    "qwen3": ("qwen3", "Qwen3ForCausalLM", GROUPED | dict(head_dim=24, tie_word_embeddings=True)),
    "gemma": ("gemma", "GemmaForCausalLM", GROUPED | dict(head_dim=16)),
    "gemma2": ("gemma2", "Gemma2ForCausalLM", GROUPED | dict(
        head_dim=16, sliding_window=4, query_pre_attn_scalar=20, attn_logit_softcapping=2.0,
        final_logit_softcapping=1.0)),
}


def config_of(case: str) -> dict:
    kind, name, options = CONFIGS[case]
    return {"model_type": kind, "architectures": [name], **options}


def arrays_of(config: dict) -> dict[str, np.ndarray]:
    """An array for each parameter of the network that the config describes."""
    family, fields = FAMILIES[config["model_type"]], Fields("config.json", config)
    shape = family.shape(fields)
    net = family.architectures[config["architectures"][0]](
        shape, _labels(config), config.get("tie_word_embeddings", family.tied))
    needed = entries(trace_network(net, input_ids=gc.i64["B", "T"]))
    return {e.name: np.random.default_rng(crc32(e.name.encode())).normal(0, 0.3, e.type.shape).astype(np.float32)
            + np.float32("norm" in e.name.lower() and e.name.endswith("weight")) for e in needed}


def saved(folder: Path, config: dict, arrays: dict[str, np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def made(folder: Path, case: str) -> Path:
    config = config_of(case)
    return saved(folder, config, arrays_of(config))


def tokens(padding: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Three sequences of 11 tokens and their mask; where there is a token for padding, of 11, 6 and 9."""
    ids, mask = np.random.default_rng(3).integers(3, 67, (3, 11)), np.ones((3, 11), np.int64)
    for row, length in ((1, 6), (2, 9)) if padding is not None else ():
        ids[row, length:], mask[row, length:] = padding, 0
    return ids, mask


def summary(result: np.ndarray, mask: np.ndarray) -> list[float]:
    """A few numbers that depend on all: scores of the first class, and sums over classes, of tokens that are seen."""
    rows = result[mask.astype(bool)] if result.ndim == 3 else result
    return [*rows[:, 0].tolist(), *(rows.astype(np.float64) ** 2).sum(-1).tolist()]
