"""The handwritten digits that ship with scikit-learn: a convolutional network, its training, and a picture of both.
Needs the extra `demo`."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import cast

import numpy as np

import graphc as gc
from graphc import nn, optim
from graphc.extra import missing
from graphc.progress import Progress
from graphc.records import dataclass
from graphc.replacing import replacing, write_file
from graphc.train import TrainStep, train_step

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
except ImportError as error:
    raise missing("the demo", "scikit-learn and matplotlib", "demo", error) from None

BATCH = 64


@dataclass(frozen=True)
class Digits:
    """8x8 images in [0, 1], [n, 1, 8, 8] f32, and their digits i32; a fixed fifth of each digit is held out."""
    x: np.ndarray
    y: np.ndarray
    x_held_out: np.ndarray
    y_held_out: np.ndarray


@dataclass
class Result:
    """What a training run leaves: the step, loss per step, held-out accuracy per epoch."""
    step: TrainStep
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)


def digits() -> Digits:
    data = load_digits()
    images = (data.images / 16).astype(np.float32)[:, None]
    parts = train_test_split(images, data.target.astype(np.int32), test_size=0.2, stratify=data.target, random_state=0)
    x, x_held_out, y, y_held_out = map(np.ascontiguousarray, parts)
    return Digits(x, y, x_held_out, y_held_out)


def network(dropout: tuple[float, float] = (0.25, 0.4)) -> nn.Module:
    """Three convolutions with batch norm, two poolings, dropout, one linear layer: 58 thousand parameters."""
    def block(channels: int) -> nn.Module:
        return nn.Conv2d(channels, 3, padding=1) >> nn.BatchNorm2d() >> nn.relu
    return (block(32) >> block(64) >> nn.MaxPool2d(2) >> nn.Dropout(dropout[0])
            >> block(64) >> nn.MaxPool2d(2) >> nn.Dropout(dropout[1]) >> nn.Flatten() >> nn.Linear(10))


def training_step(epochs: int, data: Digits, seed: int) -> TrainStep:
    schedule = optim.cosine(3e-3, epochs * (len(data.x) // BATCH))
    return train_step(network(), loss=nn.cross_entropy, optimizer=optim.AdamW(schedule, groups=[optim.no_decay()]),
                      x=gc.f32[BATCH, 1, 8, 8], y=gc.i32[BATCH], seed=seed)


def train(epochs: int = 15, seed: int = 0, data: Digits | None = None) -> Result:
    """Trains for so many epochs; shows progress on stderr."""
    data = data or digits()
    result = Result(training_step(epochs, data, seed))
    for epoch in range(epochs):
        bar = Progress(list(batches(data, seed, epoch)), f"epoch {epoch + 1}/{epochs}", examples=BATCH)
        for x, y in bar:
            result.losses.append(cast(float, result.step(x, y)))
            bar.loss(result.losses[-1])
        result.accuracies.append(accuracy(result.step, data))
    return result


def batches(data: Digits, seed: int, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The training images in a new order, in whole batches."""
    order = np.random.default_rng([seed, epoch]).permutation(len(data.x))
    for i in range(len(order) // BATCH):
        chosen = order[i * BATCH:(i + 1) * BATCH]
        yield data.x[chosen], data.y[chosen]


def accuracy(step: TrainStep, data: Digits) -> float:
    """The share of held-out digits that are recognised."""
    return float(step.evaluate([(data.x_held_out, data.y_held_out)], accuracy=nn.accuracy)["accuracy"])


def picture(result: Result, predicted: np.ndarray, data: Digits, path: str | Path) -> None:
    """Saves the learning curve above the first 24 held-out digits with their predictions (wrong ones in red)."""
    figure = Figure(figsize=(9, 7), layout="constrained")
    above, below = cast(np.ndarray, figure.subfigures(2, 1, height_ratios=[3, 2]))
    _draw_curve(above.subplots(), result)
    for axis, image, guess, truth in zip(below.subplots(3, 8).flat, data.x_held_out, predicted, data.y_held_out):
        axis.imshow(image[0], cmap="gray_r")
        axis.set_title(str(guess), color="black" if guess == truth else "red", fontsize=10)
        axis.axis("off")
    with replacing(path) as file:
        figure.savefig(file, format=Path(path).suffix[1:], dpi=120)


def _draw_curve(axis: Axes, result: Result) -> None:
    per_epoch = len(result.losses) / max(len(result.accuracies), 1)
    axis.plot(result.losses, color="tab:blue", linewidth=0.8)
    axis.set(xlabel="step", ylabel="training loss", yscale="log")
    right = axis.twinx()
    right.plot([(i + 1) * per_epoch for i in range(len(result.accuracies))], [100 * a for a in result.accuracies],
               color="tab:orange", marker="o", markersize=3)
    right.set_ylabel("held-out accuracy, %")
    axis.set_title(f"held-out accuracy {100 * result.accuracies[-1]:.1f} %")


def main(epochs: int, folder: Path) -> None:
    """Trains, prints the accuracy, saves the picture and the text of the fused graph of the training step."""
    data = digits()
    result = train(epochs, 0, data)
    folder.mkdir(parents=True, exist_ok=True)
    predict = gc.compile(result.step.model, x=gc.f32[len(data.x_held_out), 1, 8, 8])
    picture(result, predict(data.x_held_out).argmax(axis=1), data, folder / "digits.png")
    write_file(folder / "fused.txt", result.step.dump("fused") + "\n")
    print(f"held-out accuracy {100 * result.accuracies[-1]:.2f} %; {result.step.memory}")
    print(f"saved {folder / 'digits.png'} (learning curve, predictions) and {folder / 'fused.txt'} (the fused graph)")
