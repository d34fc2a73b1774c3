"""PyTorch's weights in the order of axes of JAX, TensorFlow and PyTensor: [in, out] and HWIO; and a network's options
as these call it.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

EMBEDDINGS = {"rnn": ("0.weight",), "lstm": ("0.weight",), "gru": ("0.weight",), "gpt": ("0.weight", "1.weight"),
              "bert": ("0.tokens.weight", "0.positions.weight", "0.segments.weight")}
FIRST_OPTION = {"mlp": "sizes", "resnet": "blocks"}     # given by place
RUNNING = "running_"                                    # in the name of state that is no parameter


def turned(network: str, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    embedding = EMBEDDINGS.get(network, ())
    turn = lambda n, w: w.transpose(2, 3, 1, 0) if w.ndim == 4 else w.T if w.ndim == 2 and n not in embedding else w
    return {n: np.ascontiguousarray(turn(n, w)) for n, w in weights.items()}


def with_options(networks: Mapping[str, Callable], network: str, options: Mapping) -> Callable:
    """f(p, x, train) of a network of the table."""
    options = dict(options)
    first = [options.pop(FIRST_OPTION[network])] if network in FIRST_OPTION else []
    return partial(networks[network], *first, **options)


def nhwc(array: np.ndarray) -> np.ndarray:
    """Images, which have few channels, with these behind."""
    is_image = array.ndim == 4 and array.shape[1] <= 4 < array.shape[2]
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if is_image else array
