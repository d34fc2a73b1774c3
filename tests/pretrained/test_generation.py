"""Tokens of pretrained networks, made one by one, against the whole network on all tokens before."""
import numpy as np
import pytest

import graphc as gc
from pretrained.folders import made


def uncached(model, ids: list[int], steps: int) -> list[int]:
    """The likeliest token after all before it, `steps` times, by the whole network."""
    run = gc.compile(model, input_ids=gc.i64["B", "T"])
    tokens = list(ids)
    for _ in range(steps):
        tokens.append(int(run(np.array([tokens]))[0, -1].argmax()))
    return tokens[len(ids):]


@pytest.mark.parametrize("case", ["gpt2", "llama", "mistral", "qwen3", "gemma2"])
def test_tokens_are_those_of_the_whole_network(case, tmp_path):
    model = gc.from_pretrained(made(tmp_path, case))
    prompts = [[5, 9, 11, 3, 60, 7, 8], [33, 4, 21]]
    wanted = [uncached(model, prompt, 12) for prompt in prompts]
    together = gc.generate(model, prompts, 12)
    assert together.tolist() == wanted
    assert gc.generate(model, prompts[1], 12).tolist() == wanted[1]
