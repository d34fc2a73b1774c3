"""What the digits network looks at: gradients of its scores towards the image (Simonyan, Vedaldi and Zisserman 2014),
and feature maps, as a picture.

    python examples/saliency.py [--epochs 5] [--out saliency.png]
"""
from __future__ import annotations

import argparse

import numpy as np
from matplotlib.figure import Figure

import graphc as gc
from graphc import demo
from graphc.train import Model

SHOWN, MAPS = 8, 8                  # digits, and feature maps of the first of them
STEP = 0.1                          # of pixels between 0 and 1
LAYERS = {"net.2": "after the first ReLU", "net.5": "after the second", "net.10": "after the third"}


def look(model: Model, x: np.ndarray) -> dict[str, np.ndarray]:
    """For images [n, 1, 8, 8]: "result", the gradient of each one's largest score towards its pixels, and the results
    of LAYERS."""
    net = model.net

    @gc.graph
    def largest_scores(x: gc.f32[x.shape]):
        return gc.sum(gc.max(net(x), axis=1))
    return gc.compile(gc.grad(largest_scores, "x"), outputs=list(LAYERS), state=model.state)(x)


def accuracy_after(model: Model, x: np.ndarray, y: np.ndarray, change: np.ndarray) -> float:
    """The share of images that are recognised when every pixel has moved by STEP in the direction of `change`."""
    scores = gc.compile(model, x=gc.f32[x.shape])(x + STEP * np.sign(change))
    return float((scores.argmax(1) == y).mean())


def picture(x: np.ndarray, found: dict[str, np.ndarray], digits: np.ndarray, path: str) -> None:
    """Digits above their gradients (red: more ink raises the score), then feature maps of the first digit."""
    figure = Figure(figsize=(11, 8), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[2, 3])
    axes = above.subplots(2, SHOWN)
    for i in range(SHOWN):
        largest = np.abs(found["result"][i]).max()
        axes[0, i].imshow(x[i, 0], cmap="gray_r")
        axes[0, i].set_title(str(digits[i]))
        axes[1, i].imshow(found["result"][i, 0], cmap="seismic", vmin=-largest, vmax=largest)
    maps = below.subplots(len(LAYERS), MAPS)
    below.suptitle("feature maps of the first digit")
    for row, (layer, title) in zip(maps, LAYERS.items()):
        row[0].set_ylabel(title)
        for axis, values in zip(row, strongest(found[layer][0])):
            axis.imshow(values, cmap="viridis")
    for axis in (*axes.flat, *maps.flat):
        axis.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=120)


def strongest(maps: np.ndarray) -> np.ndarray:
    """The MAPS channels of [C, H, W] that vary most."""
    return maps[np.argsort(-maps.std(axis=(1, 2)))[:MAPS]]


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Trains, prints how much more than random changes those against the gradient hurt, saves the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", default="saliency.png")
    options = parser.parse_args(arguments)
    data = demo.digits()
    result = demo.train(options.epochs, 0, data)
    found = look(result.step.model, data.x_held_out)
    x, y, gradient = data.x_held_out, data.y_held_out, found["result"]
    changes = {"as they are": 0 * x, "random signs": np.random.default_rng(0).standard_normal(x.shape),
               "against the gradient": -gradient}
    figures = {name: accuracy_after(result.step.model, x, y, change.astype(np.float32))
               for name, change in changes.items()}
    shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in figures.items())
    print(f"accuracy after every pixel has moved by {STEP}: {shares}")
    print("feature maps: " + ", ".join(f"{title} {list(found[layer].shape[1:])}" for layer, title in LAYERS.items()))
    picture(x[:SHOWN], found, y, options.out)
    print(f"saved {options.out}")
    return figures


if __name__ == "__main__":
    main()
