"""BERT, GPT and GPT-2 of the library transformers, from a config with random weights: saved as safetensors, loaded by
names, same outputs.

Bound: |difference| <= 2e-5 (1 + |value|) in f32. Both sides sum in other orders: 1e-6 a layer is what is seen; a wrong
epsilon, a wrong form of GELU or one wrong mask makes 1e-4 and more.
"""
import numpy as np
import pytest
import torch

import graphc as gc
from graphc import models
from graphc.checkpoint import load_arrays
from graphc.ir.types import TensorType, dtype_of

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.peers

BATCH, TIME, VOCABULARY = 3, 11, 97
LENGTHS = (11, 7, 1)
SIZES = ((16, 1, 2), (24, 3, 4), (64, 2, 8))             # width, layers, heads
RANDOM = np.random.default_rng(0)
IDS = RANDOM.integers(0, VOCABULARY, (BATCH, TIME)).astype(np.int32)
SEGMENTS = RANDOM.integers(0, 2, (BATCH, TIME)).astype(np.int32)
REAL = np.arange(TIME) < np.array(LENGTHS)[:, None]      # bool [B, T]
HOLES = RANDOM.random((BATCH, TIME)) < 0.6
HOLES[:, 0] = True                                       # a causal row that may look at nothing has no mean to agree on
# name: transformers' attention mask, graphc's options; a block's mask is [B, heads, T, S]
MASKS = {
    "whole": (None, {}),
    "padded": (REAL, {"mask": REAL[:, None, None, :]}),
    "lengths": (REAL, {"lengths": np.array(LENGTHS, np.int32)}),
    "holes": (HOLES, {"mask": HOLES[:, None, None, :]}),
}


def shaken(module, seed=0):
    """The module with every parameter drawn anew, biases and norms too (their defaults are 0 and 1), ready for
    inference.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return module.eval()


def saved(module, folder):
    """The file of the module's state, as `save_pretrained` writes it."""
    module.save_pretrained(folder)
    return folder / "model.safetensors"


def tensor(mask):
    return None if mask is None else torch.tensor(mask.astype(int))


def close(mine, theirs):
    theirs = theirs.detach().numpy()
    assert mine.shape == theirs.shape and (np.abs(mine - theirs) <= 2e-5 * (1 + np.abs(theirs))).all()


def bert_of(width, layers, heads, **options):
    config = transformers.BertConfig(vocab_size=VOCABULARY, hidden_size=width, num_hidden_layers=layers,
                                     num_attention_heads=heads,
                                     intermediate_size=4 * width, max_position_embeddings=16, **options)
    return shaken(transformers.BertModel(config))


def gpt2_of(width, layers, heads):
    config = transformers.GPT2Config(vocab_size=VOCABULARY, n_embd=width, n_layer=layers, n_head=heads, n_positions=16)
    return shaken(transformers.GPT2LMHeadModel(config))


def gpt_of(width, layers, heads):
    config = transformers.OpenAIGPTConfig(vocab_size=VOCABULARY, n_embd=width, n_layer=layers, n_head=heads,
                                          n_positions=16)
    return shaken(transformers.OpenAIGPTLMHeadModel(config))


def run(net, state, *arrays, **named):
    given = {f"x{i}": a for i, a in enumerate(arrays)} | named
    return gc.compile(net, state=state,
                      **{name: TensorType(dtype_of(a), a.shape) for name, a in given.items()})(*given.values())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("masked", MASKS)
def test_bert(size, masked, tmp_path):
    theirs = bert_of(*size)
    state = models.renamed(saved(theirs, tmp_path), models.BERT_NAMES)
    mask, options = MASKS[masked]
    want = theirs(torch.tensor(IDS), token_type_ids=torch.tensor(SEGMENTS), attention_mask=tensor(mask))
    options = {"segments": SEGMENTS, **options}
    sizes = dict(zip(("width", "layers", "heads"), size), vocabulary=VOCABULARY, context=16)
    close(run(models.bert(**sizes), state, IDS, **options), want.last_hidden_state)
    close(run(models.bert(**sizes, pooled=True), state, IDS, **options), want.pooler_output)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("masked", MASKS)
def test_gpt2(size, masked, tmp_path):
    theirs = gpt2_of(*size)
    state = models.renamed(saved(theirs, tmp_path), models.GPT_NAMES)
    mask, options = MASKS[masked]
    want = theirs(torch.tensor(IDS), output_hidden_states=True, attention_mask=tensor(mask))
    net = models.gpt(**dict(zip(("width", "layers", "heads"), size)), vocabulary=VOCABULARY, context=16, pre_norm=True)
    close(run(net, state, IDS, **options), want.logits)
    close(run(net[:5], state, IDS, **options), want.hidden_states[-1])


@pytest.mark.parametrize("size", SIZES)
def test_gpt(size, tmp_path):
    """The first GPT: norms behind the sums, none at the end."""
    theirs = gpt_of(*size)
    state = models.renamed(saved(theirs, tmp_path), models.GPT_NAMES)
    net = models.gpt(**dict(zip(("width", "layers", "heads"), size)), vocabulary=VOCABULARY, context=16)
    close(run(net, state, IDS), theirs(torch.tensor(IDS)).logits)


def test_the_names_of_older_files(tmp_path):
    """In the first published files of BERT a norm has gamma and beta."""
    arrays = load_arrays(saved(bert_of(16, 1, 2), tmp_path))
    old = {n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): a
           for n, a in arrays.items()}
    assert old.keys() != arrays.keys()
    assert models.renamed({f"bert.{n}": a for n, a in old.items()},
                          models.BERT_NAMES).keys() == models.renamed(arrays, models.BERT_NAMES).keys()


def test_gradients_of_gpt2(tmp_path):
    """The loss of predicting each next token, towards every parameter."""
    theirs = gpt2_of(24, 2, 4)
    state = models.renamed(saved(theirs, tmp_path), models.GPT_NAMES)
    net = models.gpt(VOCABULARY, 24, 2, 4, 16, pre_norm=True)
    gc.plan(net, ids=gc.i32[BATCH, TIME])                # so that its parameters are known

    @gc.graph
    def loss(ids: gc.i32[BATCH, TIME]):
        return gc.nn.cross_entropy(net(ids)[:, :-1], ids[:, 1:])
    found = gc.compile(gc.value_and_grad(loss, net), state={f"net.{n}": a for n, a in state.items()})(IDS)
    ids = torch.tensor(IDS, dtype=torch.long)
    want = theirs(ids, labels=ids).loss
    want.backward()
    close(found.pop("value"), want)
    grads = models.renamed({n: p.grad.numpy() for n, p in theirs.named_parameters()}, models.GPT_NAMES)
    assert found.keys() == {f"net.{n}" for n in grads}
    for name, g in grads.items():
        close(found[f"net.{name}"], torch.tensor(g))
