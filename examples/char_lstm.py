"""A character language model: an LSTM on the help topics of Python's own documentation, against an interpolated 5-gram
model.

    python examples/char_lstm.py [--steps 1200] [--hidden 320] [--characters N]
"""
from __future__ import annotations

from language_model import Settings, run

from graphc import nn

DEFAULTS = Settings(steps=1200, hidden=320, batch=32, length=64, lr=3e-3, decay=0.01, dropout=0.3)


def network(letters: int, settings: Settings) -> nn.Module:
    """ids [B, T] -> scores of the next character [B, T, letters]."""
    return (nn.Embedding(letters, 64) >> nn.LSTM(settings.hidden, batch_first=True) >> nn.Dropout(settings.dropout)
            >> nn.Linear(letters))


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Trains, prints bits per character beside the 5-gram model's, and a sample."""
    return run(__doc__, network, DEFAULTS, arguments)


if __name__ == "__main__":
    main()
