"""Logistic regression on four examples, the first program of Autograd's README (Maclaurin, Duvenaud and Adams 2015), as
graphs.

    python examples/logistic_regression.py [--steps 100]
"""
from __future__ import annotations

import argparse

import numpy as np

import graphc as gc

INPUTS = np.array([[0.52, 1.12, 0.77], [0.88, -1.08, 0.15], [0.52, 0.06, -1.30], [0.74, -2.49, 1.39]])
TARGETS = np.array([True, True, False, True])


def sigmoid(x):
    return 0.5 * (gc.tanh(x / 2) + 1)


@gc.graph
def training_loss(weights: gc.f64[3]):
    """-log p(targets | inputs, weights)."""
    p = sigmoid(INPUTS @ weights)
    return -gc.sum(gc.log(gc.where(TARGETS, p, 1 - p)))


training_gradient = gc.grad(training_loss, "weights")


def main(arguments: list[str] | None = None) -> tuple[float, float]:
    """Prints the check of the gradient, and the loss before and after training; returns the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args(arguments)
    print(gc.check_gradients(training_loss, raises=True))
    weights = np.zeros(3)
    losses = []
    for i in range(options.steps + 1):
        losses.append(float(training_loss(weights)))
        if i % 20 == 0:
            print(f"step {i:4}   loss {losses[-1]:.6f}")
        weights -= 0.01 * training_gradient(weights)
    print(f"initial loss {losses[0]:.6f}, trained loss {losses[-1]:.6f}")
    return losses[0], losses[-1]


if __name__ == "__main__":
    main()
