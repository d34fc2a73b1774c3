"""Tokens of pretrained networks, made one by one, against the whole network on all tokens before."""
import numpy as np
import pytest

import graphc as gc
from pretrained.folders import arrays_of, config_of, saved


def uncached(model, ids: list[int], steps: int) -> list[int]:
    """The likeliest token after all before it, `steps` times, by the whole network."""
    run = gc.compile(model, input_ids=gc.i64["B", "T"])
    tokens = list(ids)
    for _ in range(steps):
        tokens.append(int(run(np.array([tokens]))[0, -1].argmax()))
    return tokens[len(ids):]


SLOW = [pytest.param(case, marks=pytest.mark.slow) for case in ("gpt2", "llama", "qwen2", "qwen3", "gemma2")]


@pytest.mark.parametrize("case", ["mistral", *SLOW])
def test_tokens_are_those_of_the_whole_network(case, tmp_path):
    config = config_of(case) | dict(tie_word_embeddings=False)         # with tied ones it repeats itself
    model = gc.from_pretrained(saved(tmp_path, config, arrays_of(config)))
    prompts = [[5, 9, 11, 3, 60, 7, 8], [33, 4, 21]]
    wanted = [uncached(model, prompt, 12) for prompt in prompts]
    assert len(set(wanted[0])) > 2
    together = gc.generate(model, prompts, 12)
    assert together.tolist() == wanted
    assert gc.generate(model, prompts[1], 12).tolist() == wanted[1]


def test_the_scores_of_a_prompt_are_those_of_its_last_token_alone(tmp_path):
    config = config_of("gemma2") | dict(num_hidden_layers=1)
    generate = gc.Generator(gc.from_pretrained(saved(tmp_path, config, arrays_of(config))))
    tokens = [token.tolist() for token in generate.stream([5, 9, 11, 3], 3)]
    assert tokens == generate([5, 9, 11, 3], 3)[:, None].tolist()
    assert "[1, 1, 67]" in generate.dump("fused", prompt=True) and "T, 67]" not in generate.dump("fused", prompt=True)
