"""A bidirectional LSTM that tags every character of Python source with the kind of token that it is in (the truth is
from `tokenize`), against an Elman RNN that reads forwards only, and the most frequent kind.

    python examples/tagger.py [--steps 1500] [--hidden 64]
"""
from __future__ import annotations

import argparse
import keyword
import time
import tokenize
from io import StringIO

import numpy as np
from text import IGNORED, MODULES, Letters, module_source

import graphc as gc
from graphc import nn, optim

KINDS = ("space", "name", "keyword", "number", "string", "comment", "operator")
NUMBERS = {tokenize.NAME: 1, tokenize.NUMBER: 3, tokenize.STRING: 4, tokenize.COMMENT: 5, tokenize.OP: 6}
BATCH, LENGTH, CONTEXT = 32, 96, 16         # the first and last CONTEXT characters of a window are not judged
SHOWN = "    def area(self, r=2.5):  # of a circle\n        return 'π r²' if r is None else 3.14 * r ** 2\n"


def tags(source: str) -> np.ndarray:
    """The kind of each character, a number of KINDS."""
    kinds = np.zeros(len(source), np.int32)
    starts = np.cumsum([0] + [len(line) for line in source.splitlines(keepends=True)])
    for token in tokenize.generate_tokens(StringIO(source).readline):
        kind = NUMBERS.get(token.type, 4 if "STRING" in tokenize.tok_name[token.type] else 0)
        begin, end = (starts[line - 1] + column for line, column in (token.start, token.end))
        kinds[begin:end] = 2 if kind == 1 and keyword.iskeyword(token.string) else kind
    return kinds


def windows(ids: np.ndarray, kinds: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Characters and kinds [n, LENGTH]; IGNORED near both ends, where half of the context is missing."""
    places = starts[:, None] + np.arange(LENGTH)
    inside = np.abs(np.arange(LENGTH) - (LENGTH - 1) / 2) < LENGTH / 2 - CONTEXT
    return ids[places], np.where(inside, kinds[places], IGNORED).astype(np.int32)


def networks(letters: int, hidden: int) -> dict[str, nn.Module]:
    """Characters [B, T] -> scores [B, T, KINDS]."""
    return {
        "bidirectional LSTM": nn.Embedding(letters, 32) >> nn.LSTM(hidden, bidirectional=True, batch_first=True)
        >> nn.Linear(len(KINDS)),
        "RNN, forwards": nn.Embedding(letters, 32) >> nn.RNN(2 * hidden, batch_first=True) >> nn.Linear(len(KINDS))}


def loss(scores, y):
    return nn.cross_entropy(scores, y, ignore_index=IGNORED)


def right(scores, y):
    return nn.accuracy(scores, y, ignore_index=IGNORED)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Prints and returns the shares of held-out characters that get the right kind, and shows some of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("steps", 1500), ("hidden", 64), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(arguments)
    sources = [module_source(module) for module in MODULES]
    letters = Letters("".join(sorted(set("".join(sources) + SHOWN))))
    ids, kinds = np.concatenate([letters.encode(s) for s in sources]), np.concatenate([tags(s) for s in sources])
    cut, random = len(ids) * 9 // 10, np.random.default_rng(options.seed)
    x, y = windows(ids, kinds, np.arange(cut, len(ids) - LENGTH, LENGTH - 2 * CONTEXT))
    found = {"most frequent kind": float(np.mean(y[y != IGNORED] == np.bincount(kinds[:cut]).argmax()))}
    for name, net in networks(letters.count, options.hidden).items():
        start, optimizer = time.perf_counter(), optim.AdamW(optim.cosine(1e-2, options.steps), clip_norm=1.0)
        step = gc.train_step(net, loss=loss, optimizer=optimizer, x=gc.i32[BATCH, LENGTH], y=gc.i32[BATCH, LENGTH],
                             seed=options.seed)
        for _ in range(options.steps):
            step(*windows(ids, kinds, random.integers(0, cut - LENGTH, BATCH)))
        found[name] = step.evaluate([(x, y)], accuracy=right)["accuracy"]
        print(f"{name:<20} {100 * found[name]:.2f} % of the characters, {time.perf_counter() - start:.1f} s")
        shown = gc.compile(step.model, x=gc.i32[1, len(SHOWN)])(letters.encode(SHOWN)[None])[0].argmax(-1)
        marked = "".join(" nk0'#+"[kind] if c != "\n" else c for kind, c in zip(shown, SHOWN))
        for line, marks in zip(SHOWN.splitlines(), marked.splitlines()):
            print(f"    {line}\n    {marks}")
    print(f"most frequent kind   {100 * found['most frequent kind']:.2f} %")
    return found


if __name__ == "__main__":
    main()
