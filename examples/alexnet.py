"""AlexNet: what it is and takes before anything is allocated, then training steps on 224×224 images.

    python examples/alexnet.py [--batch 4] [--steps 2] [--classes 1000]
"""
from __future__ import annotations

import argparse
import time

import numpy as np

import graphc as gc
from graphc import models, nn, optim


def main(arguments: list[str] | None = None) -> tuple[int, list[float]]:
    """Prints layers, parameters, memory of a training step, and its loss and time; the number of parameters and the
    losses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("batch", 4), ("steps", 2), ("classes", 1000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(arguments)
    net, random = models.alexnet(options.classes), np.random.default_rng(0)
    images = random.standard_normal((options.batch, 3, 224, 224), np.float32)
    labels = random.integers(0, options.classes, options.batch, np.int32)
    print(gc.plan(net, x=gc.f32[images.shape]))
    start = time.perf_counter()
    step = gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.SGD(0.01, momentum=0.9), x=gc.f32[images.shape],
                         y=gc.i32[labels.shape])
    print(f"training step: {step.memory}")
    losses = []
    for i in range(options.steps):
        losses.append(step(images, labels))
        print(f"step {i}: loss {losses[-1]:.4f}, {time.perf_counter() - start:.2f} s" + " with compiling" * (i == 0))
        start = time.perf_counter()
    parameters = sum(p.type.size for p in net.parameters())
    print(f"{parameters / 1e6:.1f} M parameters")
    return parameters, losses


if __name__ == "__main__":
    main()
