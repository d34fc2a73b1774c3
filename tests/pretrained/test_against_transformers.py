"""Logits equal to those of transformers, on random weights, for every family and head."""

import numpy as np
import pytest

import graphc as gc

pytestmark = pytest.mark.peers

SMALL = dict(vocab_size=131, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=80,
             max_position_embeddings=64)
GROUPED = SMALL | dict(num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32, rope_theta=500000.0)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, rope_theta=10000.0)
CASES = {
    "bert": ("BertConfig", ("BertModel", "BertForMaskedLM", "BertForSequenceClassification", "BertForTokenClassification"),
             SMALL | dict(num_labels=3)),
    "bert_untied": ("BertConfig", ("BertForMaskedLM",), SMALL | dict(tie_word_embeddings=False, hidden_act="relu")),
    "roberta": ("RobertaConfig", ("RobertaModel", "RobertaForMaskedLM", "RobertaForSequenceClassification",
                                  "RobertaForTokenClassification"), SMALL | dict(num_labels=4, type_vocab_size=1)),
    "distilbert": ("DistilBertConfig", ("DistilBertModel", "DistilBertForMaskedLM", "DistilBertForSequenceClassification",
                                        "DistilBertForTokenClassification"),
                   dict(vocab_size=131, dim=48, n_layers=3, n_heads=4, hidden_dim=80, max_position_embeddings=64)),
    "gpt2": ("GPT2Config", ("GPT2Model", "GPT2LMHeadModel", "GPT2ForSequenceClassification"),
             dict(vocab_size=131, n_embd=48, n_layer=3, n_head=4, n_positions=64, pad_token_id=0, bos_token_id=1,
                  eos_token_id=2)),
    "gpt2_scales": ("GPT2Config", ("GPT2LMHeadModel",),
                    dict(vocab_size=131, n_embd=48, n_layer=3, n_head=4, n_positions=64, n_inner=100,
                         scale_attn_by_inverse_layer_idx=True, activation_function="relu", tie_word_embeddings=False,
                         bos_token_id=1, eos_token_id=2)),
    "llama": ("LlamaConfig", ("LlamaModel", "LlamaForCausalLM", "LlamaForSequenceClassification"), GROUPED),
    "llama_biases": ("LlamaConfig", ("LlamaForCausalLM",), GROUPED | dict(
        attention_bias=True, mlp_bias=True, tie_word_embeddings=True, head_dim=16, rope_parameters=LLAMA3)),
    "llama_linear": ("LlamaConfig", ("LlamaForCausalLM",), GROUPED | dict(
        rope_parameters=dict(rope_type="linear", factor=2.5, rope_theta=20000.0))),
    "llama_yarn": ("LlamaConfig", ("LlamaForCausalLM",), GROUPED | dict(rope_parameters=YARN)),
    "mistral": ("MistralConfig", ("MistralModel", "MistralForCausalLM", "MistralForSequenceClassification"),
                GROUPED | dict(sliding_window=5)),
    "mistral_whole": ("MistralConfig", ("MistralForCausalLM",), GROUPED | dict(sliding_window=None)),
    "qwen2": ("Qwen2Config", ("Qwen2Model", "Qwen2ForCausalLM", "Qwen2ForSequenceClassification"), GROUPED),
    "qwen2_windows": ("Qwen2Config", ("Qwen2ForCausalLM",), GROUPED | dict(
        use_sliding_window=True, sliding_window=4, max_window_layers=1, tie_word_embeddings=True)),
    "qwen3": ("Qwen3Config", ("Qwen3Model", "Qwen3ForCausalLM", "Qwen3ForSequenceClassification"),
              GROUPED | dict(head_dim=24)),
    "gemma": ("GemmaConfig", ("GemmaForCausalLM",), GROUPED | dict(head_dim=16)),
    "gemma2": ("Gemma2Config", ("Gemma2ForCausalLM",), GROUPED | dict(head_dim=16, sliding_window=5,
                                                                       query_pre_attn_scalar=20, attn_logit_softcapping=2.0,
                                                                       final_logit_softcapping=1.0)),
}
ROWS = [(case, name) for case, (_, names, _) in CASES.items() for name in names]


def made(case: str, name: str, folder, dtype: str = "float32", **save):
    """A network of transformers with random weights, saved."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config, _, options = CASES[case]
    torch.manual_seed(7)
    net = getattr(transformers, name)(getattr(transformers, config)(**options)).eval()
    with torch.no_grad():
        for p in net.parameters():                  # norms and biases, too
            p.add_(torch.randn_like(p) * 0.2)
    net = net.to(getattr(torch, dtype))
    net.save_pretrained(folder, **save)
    return net.float()


def batch():
    rng = np.random.default_rng(3)
    ids, mask = rng.integers(3, 131, (3, 11)), np.ones((3, 11), np.int64)
    for row, length in ((1, 6), (2, 9)):
        ids[row, length:], mask[row, length:] = 1, 0
    return ids, mask


def outputs(net, ids, mask):
    import torch
    padding = net.config.pad_token_id
    ids = np.where(mask == 0, padding if padding is not None else ids, ids)
    with torch.no_grad():
        made = net(torch.tensor(ids), attention_mask=torch.tensor(mask))
    return ids, [made[key].numpy() for key in ("logits", "last_hidden_state", "pooler_output") if key in made]


@pytest.mark.parametrize("case, name", ROWS)
def test_logits(case, name, tmp_path):
    net = made(case, name, tmp_path)
    ids, mask = batch()
    if name.startswith("GPT2ForSeq") or case == "gpt2_scales":
        mask[:] = 1
    ids, wanted = outputs(net, ids, mask)
    model = gc.from_pretrained(tmp_path)
    run = gc.compile(model, input_ids=gc.i64["B", "T"], attention_mask=gc.i64["B", "T"])
    for rows in (slice(0, 3), slice(1, 2)):
        got = run(ids[rows], mask[rows])
        got = list(got.values()) if isinstance(got, dict) else [got]
        assert len(got) == len(wanted)
        for a, b in zip(got, wanted):
            b = b[rows]
            seen = mask[rows].astype(bool) if b.ndim == 3 else slice(None)
            assert np.abs(a - b)[seen].max() <= 2e-5 * max(1, np.abs(b).max())
    assert {n for n in model.state} <= set(net.state_dict())
