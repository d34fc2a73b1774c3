"""Layers of the user in generation: what they keep by `nn.decoding`, and how `check` finds one that keeps nothing."""
import numpy as np
import pytest

import graphc as gc
from graphc import models, nn

COUNT, WIDTH = 13, 8


class Before(nn.Module):
    """x[t] + f(x[t - 1]): a causal convolution of two steps. `keeps`: the last step, for generation."""

    def __init__(self, keeps=True):
        super().__init__()
        self.keeps, self.inner = keeps, nn.Linear(WIDTH)

    def forward(self, x):
        before = gc.zeros((x.shape[0], 1, x.shape[2]))
        now = nn.decoding() if self.keeps else None
        if now:
            kept, before = now.carried(self, "last", before)
            now.keep(kept, now.last(x))
        return x + self.inner(gc.concat([before, x], axis=1)[:, :-1])


def network(keeps=True):
    return nn.Embedding(COUNT, WIDTH) >> Before(keeps) ** 2 >> nn.Linear(COUNT)


def test_a_layer_keeps_what_it_looks_back_at():
    generate = gc.Generator(network(), seed=3)
    generate.check([[1, 2, 3], [4, 5, 6]], 10)
    assert generate([[1, 2, 3], [7]], 6)[1].tolist() == generate([7], 6).tolist()


def test_check_finds_a_layer_that_keeps_nothing():
    with pytest.raises(gc.GraphError, match=r"token number \d is not what the whole network says"):
        gc.Generator(network(keeps=False), seed=3).check([[1, 2, 3], [4, 5, 6]], 10)


def test_check_takes_other_inputs():
    embed = nn.Embedding(COUNT, WIDTH)
    net = nn.Seq2Seq(embed >> nn.TransformerBlock(2),
                     embed >> nn.SinusoidalPosition() >> nn.DecoderBlock(2) >> nn.Linear(COUNT))
    gc.Generator(net, seed=0).check([[1], [2]], 5, source=np.array([[3, 4, 5], [6, 7, 8]]))


@pytest.mark.parametrize("tied", [True, False])
def test_known_networks_generate_and_score_the_last_token_of_a_prompt_alone(tied):
    net = models.gpt(COUNT, 16, 2, 2, context=20, pre_norm=True, tied=tied)
    generate = gc.Generator(net, seed=0)
    generate.check([[1, 2, 3, 4, 5]], 16)
    text = generate.dump("simplified", prompt=True)
    assert f"f32[1, 1, {COUNT}]" in text and f"f32[1, 16, {COUNT}]" not in text
    with pytest.raises(gc.GraphError, match="knows 20 places, prompt and tokens need 21"):
        generate([1, 2, 3, 4, 5], 17)


def test_f64_networks_draw_by_f64():
    net = nn.Embedding(COUNT, WIDTH, dtype=gc.f64) >> nn.GRU(WIDTH, batch_first=True) >> nn.Linear(COUNT)
    generate = gc.Generator(net, seed=0)
    assert generate([1, 2], 20, temperature=1.0, top_k=3).shape == (20,)
    assert ("random_uniform" in generate.dump("graph") and "dtype=f64" in generate.dump("graph")
            and "dtype=f32" not in generate.dump("graph"))
