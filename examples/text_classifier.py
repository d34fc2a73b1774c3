"""Which module of Python's library does a line come from? w · Collapse(SequenceModel³(EmbedToken(x))) with each
sequence model and each collapse, against a bag of words.

    python examples/text_classifier.py [--steps 700] [--models LSTM,Transformer]
"""
from __future__ import annotations

import argparse
import time

import numpy as np
from text import MODULES, Lines, library_lines

import graphc as gc
from graphc import nn, optim
from graphc.train import TrainStep

BATCH, SIZE = 64, 48
RECURRENT = {"hidden": SIZE // 2, "bidirectional": True, "batch_first": True}
MODELS = {
    "Elman RNN": lambda: nn.RNN(**RECURRENT) ** 3, "LSTM": lambda: nn.LSTM(**RECURRENT) ** 3,
    "GRU": lambda: nn.GRU(**RECURRENT) ** 3,
    "Transformer": lambda: nn.SinusoidalPosition() >> nn.TransformerBlock(heads=4, dropout=0.1, pre_norm=True) ** 3
    >> nn.LayerNorm()}
COLLAPSES = ("first", "last", "average")


def classifier(words: int, sequence_model: nn.Module, collapse: str) -> nn.Module:
    return (nn.Embedding(words, SIZE) >> nn.Dropout(0.3) >> sequence_model >> nn.Collapse(collapse, batch_first=True)
            >> nn.Linear(len(MODULES)))


def bag_of_words(words: int) -> nn.Module:
    """A linear classifier of the mean of a line's words: softmax regression on their frequencies."""
    return nn.Embedding(words, len(MODULES)) >> nn.Collapse("average", batch_first=True)


def trained(net: nn.Module, lines: Lines, steps: int, rate: float, decay: float = 0.01, seed: int = 0) -> TrainStep:
    optimizer = optim.AdamW(optim.warmup(optim.cosine(rate, steps), steps=steps // 10 + 1), weight_decay=decay,
                            clip_norm=1.0)
    step = gc.train_step(net, loss=nn.cross_entropy, optimizer=optimizer, x=gc.i32[BATCH, lines.x.shape[1]],
                         lengths=gc.i32[BATCH], y=gc.i32[BATCH], seed=seed)
    for batch in lines.batches(BATCH, steps, seed):
        step(*batch)
    return step


def accuracy(step: TrainStep, lines: Lines) -> float:
    """The share of lines whose module is found."""
    return step.evaluate([(lines.x, lines.lengths, lines.y)], accuracy=nn.accuracy)["accuracy"]


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Prints and returns the accuracy on held-out lines of the bag of words, of the largest class, and of every model
    and collapse."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--models", default=",".join(MODELS), help="some of them, with commas")
    options = parser.parse_args(arguments)
    words, train, held_out = library_lines()
    found = {"largest class": float(np.bincount(held_out.y).max() / len(held_out))}
    found["bag of words"] = accuracy(trained(bag_of_words(len(words)), train, 2 * options.steps, 0.1), held_out)
    print(f"{len(train)} lines of {len(MODULES)} modules, {len(words)} words; {len(held_out)} lines held out")
    print(f"largest class {100 * found['largest class']:.1f} %, bag of words {100 * found['bag of words']:.1f} %")
    print(f"{'':<12}" + "".join(f"{collapse:>10}" for collapse in COLLAPSES))
    for name in options.models.split(","):
        start = time.perf_counter()
        row = {c: accuracy(trained(classifier(len(words), MODELS[name](), c), train, options.steps, 8e-3), held_out)
               for c in COLLAPSES}
        found |= {f"{name}, {collapse}": share for collapse, share in row.items()}
        shares = "".join(f"{100 * share:>8.1f} %" for share in row.values())
        print(f"{name:<12}{shares}   {time.perf_counter() - start:.1f} s")
    return found


if __name__ == "__main__":
    main()
