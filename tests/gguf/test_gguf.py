"""GGUF files: their number types, and the networks that they hold."""
from __future__ import annotations

import struct

import numpy as np
import pytest

import graphc as gc
from gguf_files import NUMBER, fields_of, from_names_of_transformers, random_blocks, whole, write
from graphc import GraphError, nn, optim
from graphc.doors.gguf.blocks import KINDS, Quantised, decoded
from graphc.doors.gguf.read import GgufTensor, _Cursor
from graphc.dsl.trace import Trace
from graphc.nn.described import description
from graphc.runtime.memory import SharedBlocks
from pretrained.folders import arrays_of, config_of, saved

QUANTISED = [kind.name for kind in KINDS.values() if kind.read is not None]
IDS = np.array([[5, 9, 11, 3, 60], [7, 8, 33, 21, 2]])
WIDTH, HEADS, GROUPS, HIDDEN, COUNT = 256, 4, 2, 256, 96


def quantised_file(path, kind: str):
    """A Llama of one layer whose matrices are of a type."""
    shapes = {"token_embd": (COUNT, WIDTH), "output": (COUNT, WIDTH), "blk.0.attn_q": (WIDTH, WIDTH),
              "blk.0.attn_k": (WIDTH // 2, WIDTH), "blk.0.attn_v": (WIDTH // 2, WIDTH),
              "blk.0.attn_output": (WIDTH, WIDTH), "blk.0.ffn_gate": (HIDDEN, WIDTH), "blk.0.ffn_up": (HIDDEN, WIDTH),
              "blk.0.ffn_down": (WIDTH, HIDDEN)}
    norms = {name: whole(np.ones(WIDTH)) for name in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight")}
    tensors = {f"{name}.weight": random_blocks(kind, shape, i, 0.2) for i, (name, shape) in enumerate(shapes.items())}
    return write(path, fields_of("llama", WIDTH, 1, HEADS, GROUPS, HIDDEN), tensors | norms)


@pytest.mark.peers
@pytest.mark.parametrize("kind", QUANTISED)
def test_numbers_are_those_of_the_package_gguf(kind):
    quants = pytest.importorskip("gguf.quants")
    number, known = NUMBER[kind], KINDS[NUMBER[kind]]
    shape = (6, 3 * known.elements)
    _, _, raw = random_blocks(kind, shape, 5)
    data = np.frombuffer(raw, np.uint8)
    found = decoded(GgufTensor(number, shape, data), SharedBlocks())
    assert isinstance(found, Quantised)
    wanted = quants.dequantize(data.reshape(6, -1), quants.GGMLQuantizationType(number))
    np.testing.assert_array_equal(found.whole(), wanted)


# of a block that `block_of` makes: sums of the package gguf's numbers, each times its place
SUMS = {'Q4_0': -2093.5, 'Q4_1': 23471.0, 'Q8_0': -2712.0, 'Q4_K': 30695660.0, 'Q5_K': 86584340.0, 'Q6_K': 6316348.0}


def block_of(kind: str) -> GgufTensor:
    """Two rows of blocks whose bytes count up, with scales of 0.5 and 0.25."""
    known = KINDS[NUMBER[kind]]
    raw = (np.arange(4 * known.nbytes) * 7 % 256).astype(np.uint8).reshape(4, -1)
    for at in {"Q4_0": (0,), "Q8_0": (0,), "Q4_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}[kind]:
        raw[:, at:at + 2] = np.array([0.5, 0.25, 0.5, 0.25], np.float16)[:, None].view(np.uint8)
    return GgufTensor(NUMBER[kind], (2, 2 * known.elements), raw.reshape(-1))


@pytest.mark.parametrize("kind", QUANTISED)
def test_numbers_of_a_block(kind):
    found = decoded(block_of(kind), SharedBlocks())
    y = found.whole()
    assert float((y * np.arange(y.size).reshape(y.shape)).sum(dtype=np.float64)) == SUMS[kind]


@pytest.mark.parametrize("case, more", [
    ("llama_yarn", {}), ("qwen2", {}), ("qwen3", {"attention.key_length": 24, "attention.value_length": 24}),
    ("gemma2", {"attention.key_length": 16, "attention.sliding_window": 4, "attn_logit_softcapping": 2.0,
                "final_logit_softcapping": 1.0})])
def test_networks_are_those_of_transformers(case, more, tmp_path):
    config = config_of(case)
    kind = config["model_type"]
    for name in ("rope_parameters", "use_sliding_window", "query_pre_attn_scalar"):
        config.pop(name, None)
    if kind == "gemma2":
        config["query_pre_attn_scalar"] = config["head_dim"]
    (tmp_path / "hf").mkdir()
    arrays = arrays_of(config)
    theirs = gc.from_pretrained(saved(tmp_path / "hf", config, arrays))
    path = write(tmp_path / "m.gguf", fields_of(kind, 32, 2, 4, 2, 48, **more),
                 from_names_of_transformers(kind, arrays, 4, 2))
    ours = gc.from_gguf(path)
    a, b = (gc.compile(m, input_ids=gc.i64[2, 5])(IDS) for m in (ours, theirs))
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", QUANTISED)
def test_quantised_networks_compute_what_their_numbers_say(kind, tmp_path):
    path = quantised_file(tmp_path / "m.gguf", kind)
    kept, wide = gc.from_gguf(path), gc.from_gguf(path, store="f32")
    assert kept.state._arrays["model.layers.0.mlp.up_proj.weight.codes"].dtype == (np.uint8 if "Q4" in kind else np.int8)
    assert sum(a.nbytes for a in kept.state._arrays.values()) < 0.5 * sum(a.nbytes for a in wide.state._arrays.values())
    a, b = (gc.compile(m, input_ids=gc.i64[2, 5])(IDS) for m in (kept, wide))
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("kind, prompt", [
    ("Q4_1", IDS[0].tolist()), pytest.param("Q6_K", [IDS[0].tolist(), [3, 4]], marks=pytest.mark.slow)])
def test_tokens_are_those_of_the_numbers_as_f32(kind, prompt, tmp_path):
    """With minima, and with other blocks and several sequences."""
    path = quantised_file(tmp_path / "m.gguf", kind)
    kept, wide = (gc.Generator(gc.from_gguf(path, store=store)) for store in (None, "f32"))
    tokens = kept(prompt, 10)
    assert tokens.tolist() == wide(prompt, 10).tolist()
    assert ("block_product" in kept.dump("fused")) and "block_product" not in wide.dump("fused")


def test_a_later_process_traces_nothing(tmp_path, monkeypatch):
    """It finds what the first has kept; a network that was changed is traced, and layers own their arrays when somebody asks for them."""
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path / "cache"))
    path, traced, found = quantised_file(tmp_path / "m.gguf", "Q4_0"), [], []
    original = Trace.__enter__
    monkeypatch.setattr(Trace, "__enter__", lambda self: (traced.append(self.builder.name), original(self))[1])
    for change in (False, False, True):
        traced.clear()
        model = gc.from_gguf(path)
        if change:
            model.net.model.layers[0].mlp.activation = "relu"
        generator = gc.Generator(model, capacity=1024)
        found.append((generator(IDS[0].tolist(), 6).tolist(), tuple(traced)))
    assert found[0][0] == found[1][0] != found[2][0]
    assert len(found[0][1]) == 3 and found[1][1] == () and {"prompt_decoderlanguage", "token_decoderlanguage"} < set(found[2][1])
    assert "rms_norm" in generator.dump("graph") and set(model.state) == {n for n, _ in model.net.named_parameters()}
    assert description(model.net) and description(nn.Linear(3) >> (lambda x: x)) is None


def test_strings_that_are_read_together():
    rng, together = np.random.default_rng(0), 0
    for _ in range(300):
        letters = [120, 65, 200, 226, 130, 172, *[0] * (rng.random() < 0.2)]
        parts = [bytes(rng.choice(letters, rng.choice([1, 2, 3, 130])).tolist())
                 for _ in range(rng.integers(1, 6))]
        data = np.frombuffer(b"".join(struct.pack("<Q", len(p)) + p for p in parts) + bytes(rng.integers(0, 9)), np.uint8)
        some, all_ = _Cursor(data), _Cursor(data)
        found = some._short_strings(len(parts))
        together += bool(found)
        assert not found or (found, some.at) == (all_._any_strings(len(parts)), all_.at)
    assert together > 100


@pytest.mark.parametrize("kind", ["Q4_0", pytest.param("Q8_0", marks=pytest.mark.slow)])
def test_changes_of_low_rank_are_trained_beside_integers(kind, tmp_path):
    """The first loss is that of the numbers as f32; integers stay as they are, and what is beside them learns."""
    path, y = quantised_file(tmp_path / "m.gguf", kind), np.roll(IDS, -1, 1)
    kept, wide = gc.from_gguf(path), gc.from_gguf(path, store="f32")
    step = gc.train_step(nn.add_lora(kept.net, 2), loss=nn.cross_entropy, optimizer=optim.Adam(0.02),
                         input_ids=gc.i64[IDS.shape], y=gc.i64[y.shape], trainable=lambda name: "lora_" in name, seed=0)
    step.state.load(kept.state.copy(), partial=True)
    before = step.state.copy()
    losses = [float(step(IDS, y)) for _ in range(12)]
    scores = gc.compile(wide, input_ids=gc.i64[IDS.shape])(IDS).astype(np.float64)
    exact = np.mean(np.log(np.exp(scores).sum(2)) - np.take_along_axis(scores, y[..., None], 2)[..., 0])
    assert abs(losses[0] - exact) < 1e-4 * exact and losses[-1] < 0.9 * losses[0]
    assert {name for name, a in before.items() if not np.array_equal(a, step.state[name]) and not name.startswith("optim.")} \
        <= {name for name in before if "lora_" in name} | {"step"}
    assert "u8[" in step.dump("planned") or "i8[" in step.dump("planned")


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_whole_numbers_stay_as_the_file_has_them(kind, tmp_path):
    model = gc.from_gguf(quantised_file(tmp_path / "m.gguf", kind))
    array = model.state._arrays["model.layers.0.mlp.up_proj.weight"]
    assert array.dtype.itemsize == 2 and not array.flags.owndata
    assert np.isfinite(gc.compile(model, input_ids=gc.i64[2, 5])(IDS)).all()


def test_stores(tmp_path):
    path = quantised_file(tmp_path / "m.gguf", "Q8_0")
    assert gc.from_gguf(path, store=gc.bf16).state._arrays["lm_head.weight"].dtype.name == "bfloat16"
    with pytest.raises(GraphError, match="store= is f32, bf16, f16"):
        gc.from_gguf(path, store="int2")
    with pytest.raises(GraphError, match="takes the path of a file"):
        gc.from_gguf(3)
    with pytest.raises(GraphError, match="there is no file"):
        gc.from_gguf(tmp_path / "other.gguf")


def test_damaged_files_are_refused(tmp_path):
    whole_file = quantised_file(tmp_path / "m.gguf", "Q4_0").read_bytes()
    for size in [*range(0, 600, 23), 2000, len(whole_file) // 2, len(whole_file) - 40]:
        (tmp_path / "m.gguf").write_bytes(whole_file[:size])
        with pytest.raises(GraphError, match="cannot be read|can be read"):
            gc.from_gguf(tmp_path / "m.gguf")
    rng = np.random.default_rng(0)
    for _ in range(40):                                     # a wrong byte in the header: refused, or of no consequence
        data = bytearray(whole_file)
        data[rng.integers(0, 900)] ^= 1 << int(rng.integers(8))
        (tmp_path / "m.gguf").write_bytes(data)
        try:
            gc.from_gguf(tmp_path / "m.gguf")
        except GraphError:
            pass


@pytest.mark.parametrize("fields, text", [
    ({"general.architecture": "mamba"}, "the architecture 'mamba' is not supported"),
    ({"llama.expert_count": 8}, "expert_count = 8 is not supported"),
    ({"llama.rope.scaling.type": "yarn"}, "rope.scaling.type = 'yarn' is not supported"),
    ({"llama.twist": 1.5}, "the field twist = 1.5 is not supported"),
    ({"llama.rope.dimension_count": 32}, "rope.dimension_count = 32 is not supported, only 64"),
    ({"llama.block_count": 2}, "block_count is 2, the file has arrays of 1 layers"), ({"llama.feed_forward_length": 128}, "the network wants"),
])
def test_fields_that_do_not_fit_are_refused(fields, text, tmp_path):
    own = fields_of("llama", WIDTH, 1, HEADS, GROUPS, HIDDEN) | fields
    tensors = {}
    path = quantised_file(tmp_path / "m.gguf", "Q4_0")
    model = gc.from_gguf(path)
    for name, tensor in model.file.tensors.items():
        tensors[name] = KINDS[tensor.kind].name, tensor.shape, tensor.data.tobytes()
    with pytest.raises(GraphError, match=text):
        gc.from_gguf(write(tmp_path / "n.gguf", own, tensors))


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    """A scale, and what the type that is asked for has no room for."""
    path = quantised_file(tmp_path / "m.gguf", "Q4_0")
    raw, first = path.read_bytes(), random_blocks("Q4_0", (WIDTH, WIDTH), 2, 0.2)[2][:18]         # a block of blk.0.attn_q
    for scale, options, message in ((np.inf, {}, r"bad.gguf is damaged: blk.0.attn_q.weight has blocks with a scale"),
                                    (30000, {"store": "f16"}, "numbers of blk.0.attn_q.weight are beyond f16")):
        (tmp_path / "bad.gguf").write_bytes(raw.replace(first, np.array([scale], np.float16).tobytes() + first[2:]))
        with pytest.raises(GraphError, match=message):
            gc.from_gguf(tmp_path / "bad.gguf", **options)
