"""Handwritten digits (8x8, from scikit-learn) with a convolutional network: accuracy on a held-out fifth, median of
three seeds.

    python examples/digits_cnn.py [--epochs 15] [--seeds 3]
"""
from __future__ import annotations

import argparse
import time
from statistics import median

from graphc import demo


def main(arguments: list[str] | None = None) -> float:
    """The median held-out accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(arguments)
    data, found = demo.digits(), []
    for seed in range(options.seeds):
        start = time.perf_counter()
        result = demo.train(options.epochs, seed, data)
        found.append(result.accuracies[-1])
        print(f"seed {seed}: held-out accuracy {100 * found[-1]:.2f} %, loss {result.losses[0]:.3f} -> "
              f"{result.losses[-1]:.3f}, {time.perf_counter() - start:.1f} s")
    print(f"median of {options.seeds} seeds: {100 * median(found):.2f} % of {len(data.y_held_out)} held-out digits")
    return median(found)


if __name__ == "__main__":
    main()
