"""A character language model: a Transformer on the help topics of Python's own documentation, against an interpolated
5-gram model.

    python examples/char_transformer.py [--steps 1000] [--hidden 128] [--characters N]
"""
from __future__ import annotations

from language_model import Settings, run

from graphc import nn

DEFAULTS = Settings(steps=1000, hidden=128, batch=16, length=128, lr=4e-3, decay=0.1, dropout=0.05)
LAYERS, HEADS = 3, 4


def network(letters: int, settings: Settings) -> nn.Module:
    """ids [B, T] -> scores of the next character [B, T, letters]."""
    block = nn.TransformerBlock(HEADS, causal=True, pre_norm=True, dropout=settings.dropout)
    return (nn.Embedding(letters, settings.hidden) >> nn.SinusoidalPosition() >> block ** LAYERS >> nn.LayerNorm()
            >> nn.Linear(letters))


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Trains, prints bits per character beside the 5-gram model's, and a sample."""
    return run(__doc__, network, DEFAULTS, arguments)


if __name__ == "__main__":
    main()
