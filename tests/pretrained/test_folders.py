"""What a folder may look like, what is refused, and that weights stay where the file has them."""
from __future__ import annotations

import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import graphc as gc
from graphc import GraphError
from pretrained.folders import arrays_of, config_of, made, saved

IDS = np.array([[5, 9, 11, 3], [7, 8, 33, 21]])


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    return made(tmp_path_factory.mktemp("llama"), "llama_yarn")


def changed(llama: Path, folder: Path, arrays: dict | None = None, without: str = "", **fields) -> Path:
    """The folder with other fields in its config, and other arrays; None drops either."""
    config = {n: v for n, v in (config_of("llama_yarn") | fields).items() if n != without}
    kept = {n: a for n, a in (arrays_of(config_of("llama_yarn")) | (arrays or {})).items() if a is not None}
    return saved(folder, config, kept)


def logits(folder: Path, **options) -> np.ndarray:
    return gc.compile(gc.from_pretrained(folder, **options), input_ids=gc.i64[2, 4])(IDS)


@pytest.mark.parametrize("fields, text", [
    (dict(model_type="mamba"), "model_type 'mamba' is not supported"),
    (dict(architectures=["LlamaForTokenClassification"]), "LlamaForTokenClassification is not supported; give architecture="),
    (dict(architectures=None), "names no architecture"),
    (dict(rope_parameters=dict(rope_type="dynamic", factor=2.0)), "rope_type = 'dynamic' is not supported"),
    (dict(rope_parameters=dict(rope_type="linear")), "has no field factor"),
    (dict(rope_parameters=dict(rope_type="linear", factor=2.0, twist=3)), "the field twist = 3 is not supported"),
    (dict(partial_rotary_factor=0.5), "the field partial_rotary_factor = 0.5 is not supported"),
    (dict(quantization_config={"bits": 4}), "the field quantization_config"),
    (dict(hidden_act="warp"), "hidden_act = 'warp' is not supported"),
    (dict(num_attention_heads="four"), "num_attention_heads is an int"),
    (dict(without="hidden_size"), "has no field hidden_size"),
    (dict(num_key_value_heads=3), "4 heads of queries do not share 3"),
    (dict(num_hidden_layers=1), "model.layers.1.input_layernorm.weight, for which the network"),
    (dict(intermediate_size=40), "the network wants float32[48, 32]|the network wants float32[40, 32]"),
    (dict(arrays={"model.norm.weight": None}), "has no model.norm.weight"),
    (dict(arrays={"model.layers.0.self_attn.q_proj.bias": np.ones(32, np.float32)}), "q_proj.bias, for which the network"),
    (dict(arrays={"lm_head.weight": np.ones((67, 32), np.float32)}), "lm_head.weight differs from model.embed_tokens.weight"),
])
def test_what_does_not_fit_is_refused(llama, tmp_path, fields, text):
    with pytest.raises(GraphError) as raised:
        gc.from_pretrained(changed(llama, tmp_path / "other", **fields))
    assert any(part in str(raised.value) for part in text.split("|")), str(raised.value)
    assert "test_folders.py" in str(raised.value)


def test_other_configs_are_refused_too(tmp_path):
    for case, fields, text in (("bert", dict(position_embedding_type="relative_key"), "position_embedding_type"),
                               ("bert", dict(is_decoder=True), "is_decoder = True"),
                               ("qwen2", dict(layer_types=["chunked_attention"] * 2), "layer_types is one of"),
                               ("gemma", dict(hidden_act="gelu"), "add hidden_activation"),
                               ("llama", dict(rope_parameters=dict(rope_theta=1e4)), "one of them only"),
                               ("gpt2", dict(auto_map={"AutoModel": "own.py"}), "auto_map")):
        config = config_of(case)
        with pytest.raises(GraphError, match=text):
            gc.from_pretrained(saved(tmp_path / "other", config | fields, {"x": np.zeros(1, np.float32)}))


def test_fields_that_the_user_knows_not_to_matter(llama, tmp_path):
    folder = changed(llama, tmp_path / "other", note="mine")
    with pytest.raises(GraphError, match="ignore=\\['note'\\]"):
        gc.from_pretrained(folder)
    np.testing.assert_array_equal(logits(folder, ignore=["note"]), logits(llama))


def test_folders_that_lack_something(llama, tmp_path):
    with pytest.raises(GraphError, match="downloads nothing"):
        gc.from_pretrained("meta-llama/Llama-3.2-1B")
    with pytest.raises(GraphError, match="has no config.json"):
        gc.from_pretrained(tmp_path)
    shutil.copy(llama / "config.json", tmp_path)
    with pytest.raises(GraphError, match="has no safetensors file"):
        gc.from_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(GraphError, match="only pytorch_model.bin: save the model once more"):
        gc.from_pretrained(tmp_path)


def test_damaged_files(llama, tmp_path):
    shutil.copytree(llama, tmp_path / "other")
    whole = (llama / "model.safetensors").read_bytes()
    for size in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "other" / "model.safetensors").write_bytes(whole[:size])
        with pytest.raises(GraphError, match="cannot be read|not a whole safetensors file"):
            gc.from_pretrained(tmp_path / "other")


def test_shards_and_older_names(llama, tmp_path):
    arrays = arrays_of(config_of("llama_yarn"))
    names = sorted(arrays)
    parts = {"model-00001-of-00002.safetensors": names[:7], "model-00002-of-00002.safetensors": names[7:]}
    for file, inside in parts.items():
        # without the prefix of the inner network, as files of networks without a head have them
        save_file({n.removeprefix("model."): arrays[n] for n in inside}, tmp_path / file)
    index = {"weight_map": {n.removeprefix("model."): file for file, inside in parts.items() for n in inside}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    shutil.copy(llama / "config.json", tmp_path)
    np.testing.assert_array_equal(logits(tmp_path), logits(llama))
    index["weight_map"]["norm.weight"] = "model-00001-of-00002.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(GraphError, match="which has no such array"):
        gc.from_pretrained(tmp_path)
    index["weight_map"]["norm.weight"] = "../model.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(GraphError, match="not in its folder"):
        gc.from_pretrained(tmp_path)


def test_names_of_norms_in_older_files(tmp_path):
    arrays = arrays_of(config_of("bert_words"))
    older = {n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): a
             for n, a in arrays.items()}
    assert older.keys() != arrays.keys()
    first, second = (saved(tmp_path / n, config_of("bert_words"), a) for n, a in (("a", arrays), ("b", older)))
    np.testing.assert_array_equal(logits(first), logits(second))


def test_weights_stay_mapped_and_the_file_as_it_is(llama, tmp_path):
    shutil.copytree(llama, tmp_path / "other")
    before = (tmp_path / "other" / "model.safetensors").read_bytes()
    model = gc.from_pretrained(tmp_path / "other")
    array = model.state._arrays["model.layers.0.mlp.up_proj.weight"]
    assert array.base is not None and not array.flags.owndata
    run = gc.compile(model, input_ids=gc.i64["B", "T"])
    first = run(IDS)
    np.testing.assert_array_equal(run(IDS[:1]), first[:1])
    model.state["model.norm.weight"] = np.zeros(32, np.float32)
    assert not run(IDS).any()
    assert (tmp_path / "other" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_matrices_of_16_bits_stay_so_and_change_no_bit(llama, tmp_path, dtype):
    arrays = {n: a.astype(dtype) for n, a in arrays_of(config_of("llama_yarn")).items()}
    folder = saved(tmp_path / "other", config_of("llama_yarn"), arrays)
    model = gc.from_pretrained(folder)
    assert model.state._arrays["model.layers.0.mlp.up_proj.weight"].dtype == dtype
    wide = gc.from_pretrained(folder, dtype="f32")
    assert wide.state._arrays["model.layers.0.mlp.up_proj.weight"].dtype == np.float32
    a, b = (gc.compile(m, input_ids=gc.i64[2, 4])(IDS) for m in (model, wide))
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_what_from_pretrained_takes():
    for options, text in ((dict(folder=3), "takes the path of a folder"), (dict(folder=".", dtype="f16"), 'dtype is "f32"')):
        with pytest.raises(GraphError, match=text):
            gc.from_pretrained(**options)


def test_it_trains(llama):
    model = gc.from_pretrained(llama)
    step = gc.train_step(model.net, loss=lambda y, t: gc.nn.cross_entropy(y[:, -1], t), optimizer=gc.optim.AdamW(1e-2),
                         input_ids=gc.i64[2, 4], y=gc.i64[2], seed=0)
    step.state.load(model.state.copy(), partial=True)
    losses = [float(step(IDS, np.array([3, 60]))) for _ in range(8)]
    assert losses[-1] < 0.5 * losses[0]
