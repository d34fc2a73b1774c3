"""A network from an ONNX file without its last layer, and a new layer behind it that learns something else from few
examples; against such a layer on the pixels. The file is made here: a network that tells handwritten digits apart. What
is new is whether a digit is odd.

    python examples/onnx_finetune.py [--examples 40,160,640] [--epochs 8] [--steps 200]
"""
from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import graphc as gc
from graphc import demo, nn, optim
from graphc.train import TrainStep

BATCH = 32


# what fine-tuning takes: the file up to the features that its last layer reads, as it is, and a layer behind it

def from_file(path: Path) -> nn.Module:
    return gc.from_onnx(path, outputs="features", freeze=True)


def tuned(trunk: nn.Module, x: np.ndarray, y: np.ndarray, steps: int) -> TrainStep:
    """Trained on all of x [n, 1, 8, 8] and y [n] at each step."""
    step = gc.train_step(trunk >> nn.Linear(2), loss=nn.cross_entropy, optimizer=optim.AdamW(1e-2),
                         x=gc.f32["n", 1, 8, 8], y=gc.i32["n"])
    for _ in range(steps):
        step(x, y)
    return step


# the file, and how good the new layer is

class Recogniser(nn.Module):
    """Scores of the ten digits, and the features that they are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = (nn.Conv2d(32, 3, padding=1) >> nn.relu >> nn.MaxPool2d(2) >> nn.Conv2d(64, 3, padding=1)
                      >> nn.relu >> nn.MaxPool2d(2) >> nn.Flatten() >> nn.Linear(64) >> nn.relu)
        self.head = nn.Linear(10)

    def forward(self, x):
        return self.head(gc.name(self.trunk(x), "features"))


def write_file(path: Path, data: demo.Digits, epochs: int) -> None:
    """Trains a recogniser and writes it as an ONNX file."""
    step = gc.train_step(Recogniser(), loss=nn.cross_entropy, optimizer=optim.AdamW(2e-3),
                         x=gc.f32[BATCH, 1, 8, 8], y=gc.i32[BATCH])
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(len(data.x))
        for chosen in order[:len(order) // BATCH * BATCH].reshape(-1, BATCH):
            step(data.x[chosen], data.y[chosen])
    gc.to_onnx(step.model, path, x=gc.f32["n", 1, 8, 8], outputs=["features"])


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Prints and returns the accuracies on held-out digits by number of examples, on the pixels and on the file's
    features."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", default="40,160,640")
    parser.add_argument("--epochs", type=int, default=8, help="of the training of the file's network")
    parser.add_argument("--steps", type=int, default=200, help="of the new layer")
    options = parser.parse_args(arguments)
    data, found = demo.digits(), {}
    held_out = [(data.x_held_out, data.y_held_out % 2)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.onnx"
        write_file(path, data, options.epochs)
        for count in map(int, options.examples.split(",")):
            for name, network in (("pixels", nn.Flatten()), ("file", from_file(path))):
                step = tuned(network, data.x[:count], data.y[:count] % 2, options.steps)
                found[f"{name}, {count}"] = step.evaluate(held_out, accuracy=nn.accuracy)["accuracy"]
            print(f"{count:3} examples of odd and even digits: a layer on the pixels "
                  f"{100 * found[f'pixels, {count}']:.1f} %, on the file's features "
                  f"{100 * found[f'file, {count}']:.1f} %")
    return found


if __name__ == "__main__":
    main()
