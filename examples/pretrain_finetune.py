"""A causal Transformer pretrained on lines of source without labels, then fine-tuned to tell which module of Python's
library a line comes from, from few labels; against the same network trained on these labels from scratch.

    python examples/pretrain_finetune.py [--pretraining 1200] [--steps 150] [--labels 4,16,64]
"""
from __future__ import annotations

import argparse

import numpy as np
from text import MODULES, Lines, library_lines

import graphc as gc
from graphc import nn, optim
from graphc.progress import Progress
from graphc.train import TrainStep

BATCH, SIZE, LAYERS, HEADS = 64, 64, 3, 4


class Classifier(nn.Module):
    """The body of a language model, its average over a line, and scores of the modules."""

    def __init__(self, model: nn.LanguageModel):
        super().__init__()
        # under the same names: their arrays can be taken over
        self.embed, self.sequence_model = model.embed, model.sequence_model
        self.collapse, self.classify = nn.Collapse("average", batch_first=True), nn.Linear(len(MODULES))

    def forward(self, x, lengths):
        return self.classify(self.collapse(self.sequence_model(self.embed(x), lengths=lengths), lengths=lengths))


def language_model(words: int) -> nn.LanguageModel:
    block = nn.TransformerBlock(HEADS, causal=True, pre_norm=True, dropout=0.1)
    return nn.LanguageModel(nn.Embedding(words, SIZE, std=SIZE ** -0.5),
                            nn.SinusoidalPosition() >> block ** LAYERS >> nn.LayerNorm())


def optimizer(rate: float, steps: int) -> optim.Optimizer:
    return optim.AdamW(optim.warmup(optim.cosine(rate, steps), steps=steps // 10 + 1), clip_norm=1.0,
                       groups=[optim.no_decay()])


def pretrained(model: nn.LanguageModel, lines: Lines, steps: int) -> tuple[dict[str, np.ndarray], list[float]]:
    """The model's arrays after training on what follows each piece of a line, and the losses in nats per piece."""
    def loss(ids, lengths):
        return model.loss(ids, lengths)
    step = gc.train_step(loss, optimizer=optimizer(4e-3, steps), ids=gc.i32[BATCH, lines.x.shape[1]],
                         lengths=gc.i32[BATCH])
    bar, losses = Progress(list(lines.batches(BATCH, steps)), "pretraining"), []
    for x, lengths, _ in bar:
        losses.append(step(x, lengths))
        bar.loss(losses[-1])
    return {name: step.state[f"model.{name}"] for name, _ in model.named_parameters()}, losses


def few(lines: Lines, labels: int) -> Lines:
    """The first so many lines of each module."""
    return lines[np.concatenate([np.flatnonzero(lines.y == c)[:labels] for c in range(len(MODULES))])]


def accuracy(model: nn.LanguageModel, start: dict[str, np.ndarray], train: Lines, held_out: Lines, steps: int) -> float:
    """The share of held-out lines whose module is found after training from `start`, or from scratch where it is
    empty."""
    types = {"x": gc.i32[BATCH, train.x.shape[1]], "lengths": gc.i32[BATCH], "y": gc.i32[BATCH]}
    step: TrainStep = gc.train_step(Classifier(model), loss=nn.cross_entropy, optimizer=optimizer(2e-3, steps), **types)
    if start:
        step.state.load(start, "pretraining", partial=True)
    for batch in train.batches(BATCH, steps):
        step(*batch)
    return step.evaluate([(held_out.x, held_out.lengths, held_out.y)], accuracy=nn.accuracy)["accuracy"]


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Prints and returns the accuracies on held-out lines by number of labels, pretrained and from scratch, and the
    losses of pretraining."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretraining", type=int, default=1200)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--labels", default="4,16,64", help="labelled lines of each module")
    options = parser.parse_args(arguments)
    words, train, held_out = library_lines()
    model = language_model(len(words))
    start, losses = pretrained(model, train, options.pretraining)
    found = {"first": losses[0], "last": float(np.mean(losses[-20:]))}
    print(f"pretraining on {len(train)} lines: {found['first']:.2f} -> {found['last']:.2f} nats per piece of a line")
    for labels in map(int, options.labels.split(",")):
        scratch, tuned = (accuracy(model, s, few(train, labels), held_out, options.steps) for s in ({}, start))
        found |= {f"scratch, {labels}": scratch, f"pretrained, {labels}": tuned}
        print(f"{labels:3} labelled lines of each module: from scratch {100 * scratch:.1f} %, pretrained "
              f"{100 * tuned:.1f} %")
    return found


if __name__ == "__main__":
    main()
