"""Generation by the library transformers: the tokens of GPT-2 from a config with random weights, beam-free and greedy;
the sets of top-k and top-p.
"""
import numpy as np
import pytest
import torch

import graphc as gc
from graphc import models, nn

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.peers

VOCABULARY, STEPS = 61, 20
PROMPTS = [[5, 3, 8], [13, 21, 34, 55, 8, 1], [2]]


def test_greedy_tokens_of_gpt2(tmp_path):
    config = transformers.GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=3, n_head=4, n_positions=40,
                                     bos_token_id=None, eos_token_id=None)
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.3 * torch.randn(p.shape))              # fresh weights repeat one token
    theirs.save_pretrained(tmp_path)
    net = models.gpt(VOCABULARY, 32, 3, 4, context=40, pre_norm=True)
    mine = gc.generate(net, PROMPTS, STEPS, state=models.renamed(tmp_path / "model.safetensors", models.GPT_NAMES))
    assert len(set(mine.ravel().tolist())) > 5
    for prompt, row in zip(PROMPTS, mine):
        wanted = theirs.generate(torch.tensor([prompt]), max_new_tokens=STEPS, do_sample=False,
                                 pad_token_id=0)[0, len(prompt):]
        np.testing.assert_array_equal(row, wanted.numpy())


@pytest.mark.parametrize("k, p", [(5, None), (None, 0.7), (None, 0.05), (20, 0.6)])
def test_the_tokens_that_top_k_and_top_p_keep(k, p):
    scores = np.random.default_rng(0).normal(size=(40, VOCABULARY)).astype(np.float32) * 2
    wanted = torch.tensor(scores)
    for name, value in (("TopKLogitsWarper", k), ("TopPLogitsWarper", p)):
        wanted = wanted if value is None else getattr(transformers, name)(value)(None, wanted)

    @gc.graph
    def kept(x: gc.f32[40, VOCABULARY]):
        return nn.likeliest(x, k, p) == x
    np.testing.assert_array_equal(kept(scores), torch.isfinite(wanted).numpy())
