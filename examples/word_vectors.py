"""GloVe (Pennington, Socher and Manning 2014) on the help topics of Python's own documentation: neighbours, analogies,
a picture.

    python examples/word_vectors.py [--size 30] [--steps 400] [--window 12] [--out word-vectors.png]
"""
from __future__ import annotations

import argparse
from itertools import permutations

import numpy as np
from matplotlib.figure import Figure
from text import Words, python_words

import graphc as gc
from graphc import nn, optim
from graphc.progress import Progress

X_MAX, ALPHA = 10.0, 0.75           # the paper's 0.75; its maximum of 100 is for billions of words
PAIRS = """object objects class classes function functions module modules value values argument arguments method
           methods name names statement statements exception exceptions attribute attributes type types element
           elements integer integers key keys""".split()
SHOWN = ("list", "dictionary", "exception", "if", "try", "integers")


def co_occurrences(ids: np.ndarray, count: int, window: int) -> np.ndarray:
    """X[i, j]: how often word j stands within `window` words of word i, each time weighted by 1 / distance. [count,
    count] f32."""
    x = np.zeros((count, count), np.float32)
    for distance in range(1, window + 1):
        a, b = ids[:-distance], ids[distance:]
        known = (a >= 0) & (b >= 0)
        np.add.at(x, (a[known], b[known]), 1 / distance)
    return x + x.T


class GloVe(nn.Module):
    """J = sum over i, j of f(X_ij) (w_i · c_j + b_i + d_j - log X_ij)², f(x) = min(x / x_max, 1)^α."""

    def __init__(self, count: int, size: int):
        super().__init__()
        self.count, self.size = count, size

    def forward(self, x):
        start = nn.Uniform(0.5 / self.size)
        w, c = self.parameter("w", (self.count, self.size), start), self.parameter("c", (self.count, self.size), start)
        b, d = self.parameter("b", (self.count, 1), start), self.parameter("d", (self.count,), start)
        f = gc.minimum(x / X_MAX, 1) ** ALPHA
        return gc.sum(f * (w @ c.T + b + d - gc.log(gc.maximum(x, 1e-6))) ** 2)


def train(x: np.ndarray, size: int, steps: int, seed: int = 0) -> tuple[np.ndarray, list[float]]:
    """The sum of both vectors of each word, as in the paper, scaled to length 1: [count, size]; and J before every
    step."""
    step = gc.train_step(GloVe(len(x), size), optimizer=optim.Adam(optim.cosine(0.05, steps)),
                         x=gc.f32[x.shape], seed=seed)
    bar, losses = Progress(range(steps), "training"), []
    for _ in bar:
        losses.append(step(x))
        bar.loss(losses[-1])
    vectors = step.state["w"] + step.state["c"]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), losses


def nearest(vectors: np.ndarray, to: np.ndarray, without: tuple[int, ...], count: int) -> np.ndarray:
    """The words whose vectors have the largest cosine with `to`."""
    scores = vectors @ to
    scores[list(without)] = -np.inf
    return np.argsort(-scores)[:count]


def analogies(words: Words, vectors: np.ndarray, first: int) -> tuple[int, int, int]:
    """Of all a : b = c : ? (object : objects = key : ?), how many have their answer among the `first` words nearest to
    b - a + c; among those nearest to c alone; how many there are."""
    asked = list(permutations(words.encode(PAIRS).reshape(-1, 2), 2))
    right = sum(answer in nearest(vectors, vectors[b] - vectors[a] + vectors[c], (a, b, c), first)
                for (a, b), (c, answer) in asked)
    without = sum(answer in nearest(vectors, vectors[c], (a, b, c), first) for (a, b), (c, answer) in asked)
    return right, without, len(asked)


def picture(words: Words, vectors: np.ndarray, path: str, shown: int = 150) -> None:
    """The most frequent words after the first 60, on the first two principal components."""
    chosen = slice(60, 60 + shown)
    centred = vectors[chosen] - vectors[chosen].mean(0)
    x, y = (centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T).T
    figure = Figure(figsize=(11, 8), layout="constrained")
    axis = figure.subplots()
    axis.scatter(x, y, s=4, color="tab:blue")
    for i, word in enumerate(words.words[chosen]):
        axis.annotate(word, (x[i], y[i]), fontsize=7)
    axis.set_title("GloVe vectors of words in Python's help topics: first two principal components")
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Trains, prints neighbours and analogies, saves the picture; returns J before and after and the shares of
    analogies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("size", 30), ("steps", 400), ("window", 12), ("first", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", default="word-vectors.png")
    options = parser.parse_args(arguments)
    words = python_words(at_least=5)
    x = co_occurrences(words.ids, len(words.words), options.window)
    print(f"{len(words.ids)} words, {len(words.words)} different ones that occur 5 times or more, "
          f"{np.count_nonzero(x)} pairs that occur together")
    vectors, losses = train(x, options.size, options.steps)
    print(f"J {losses[0]:.0f} -> {losses[-1]:.1f}")
    for word in SHOWN:
        i, = words.encode([word])
        print(f"{word:>12}: {', '.join(words.words[j] for j in nearest(vectors, vectors[i], (i,), 6))}")
    right, without, count = analogies(words, vectors, options.first)
    print(f"the answer to {right} of {count} analogies is among the {options.first} words nearest to b - a + c; to "
          f"{without} it is near c alone")
    picture(words, vectors, options.out)
    print(f"saved {options.out}")
    return {"first": losses[0], "last": losses[-1], "analogies": right / count, "neighbours": without / count}


if __name__ == "__main__":
    main()
