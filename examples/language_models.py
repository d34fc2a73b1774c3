"""Language models side by side, on the help topics of Python's own documentation: counts, Bengio's network, Elman RNN,
LSTM, GRU, Transformer.

    python examples/language_models.py [--steps 400] [--hidden 192] [--characters N]
"""
from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from language_model import Settings, continuation, held_out_bits, options, train, training_step
from text import ngrams, python_topics

import graphc as gc
from graphc import nn

DEFAULTS = Settings(steps=400, hidden=192, batch=32, length=64, lr=4e-3, decay=0.01, dropout=0.1, sample=80)
ORDER = 5                                   # of the n-grams, and characters that Bengio's network sees


class Bengio(nn.Module):
    """b + W x + U tanh(d + H x): x the embeddings of the last characters side by side, W the skip connection (Bengio et
    al. 2003)."""

    def __init__(self, letters: int, hidden: int, context: int = 2 * ORDER):
        super().__init__()
        self.context, self.embed = context, nn.Embedding(letters, 32)
        self.skip, self.inner, self.outer = nn.Linear(letters), nn.Linear(2 * hidden), nn.Linear(letters, bias=False)

    def forward(self, ids):
        seen = gc.pad(self.embed(ids), ((0, 0), (self.context - 1, 0), (0, 0)))
        x = gc.concat([seen[:, i:i + ids.shape[1]] for i in range(self.context)], axis=-1)
        return self.skip(x) + self.outer(nn.tanh(self.inner(x)))


def recurrent(layer: type, letters: int, s: Settings) -> nn.Module:
    return nn.Embedding(letters, 64) >> layer(s.hidden, batch_first=True) >> nn.Dropout(s.dropout) >> nn.Linear(letters)


def transformer(letters: int, s: Settings) -> nn.LanguageModel:
    width = s.hidden // 2
    embed = nn.Embedding(letters, width, std=width ** -0.5)
    block = nn.TransformerBlock(4, causal=True, pre_norm=True, dropout=s.dropout)
    return nn.LanguageModel(embed, nn.SinusoidalPosition() >> block ** 3 >> nn.LayerNorm())


NETWORKS = {"Bengio": lambda letters, s: Bengio(letters, s.hidden),
            "Elman RNN": lambda letters, s: recurrent(nn.RNN, letters, replace(s, hidden=2 * s.hidden)),
            "LSTM": lambda letters, s: recurrent(nn.LSTM, letters, s),
            "GRU": lambda letters, s: recurrent(nn.GRU, letters, s), "Transformer": transformer}


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Prints a row and a sample for each model; returns bits per held-out character."""
    settings = options(__doc__, DEFAULTS, arguments)
    text = python_topics(settings.characters or None)
    counted = ngrams(text.train, text.held_out, text.count, ORDER)
    print(f"{f'{ORDER}-gram, likeliest':<24} infinite: {100 * counted.unseen:.1f} % of the characters never followed; "
          f"{counted.likeliest:.3f} bits for the others")
    print(f"{f'{ORDER}-gram, interpolated':<24} {counted.interpolated:.3f} bits per character")
    bits = {"n-gram": counted.interpolated}
    for name, network in NETWORKS.items():
        step, start = training_step(network(text.count, settings), settings), time.perf_counter()
        train(step, text, settings)
        rate = settings.steps * settings.batch * settings.length / (time.perf_counter() - start)
        bits[name] = held_out_bits(step, text, settings)
        size = sum(int(np.prod(p.type.shape)) for p in step.model.net.parameters())
        print(f"{name:<24} {bits[name]:.3f} bits per character; {size:,} parameters, {rate:,.0f} characters/s")
        print(f"    {continuation(step, text, settings)!r}")
    return bits


if __name__ == "__main__":
    main()
