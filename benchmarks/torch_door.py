"""python -m benchmarks torch opinfo | zoo | speed | real: PyTorch's models through graphc."""
from __future__ import annotations

import argparse
from importlib import import_module

PARTS = {"opinfo": "benchmarks.torch_opinfo", "zoo": "benchmarks.torch_zoo", "speed": "benchmarks.torch_speed",
         "real": "benchmarks.torch_real"}


def main(options: argparse.Namespace, rest: list[str]) -> None:
    """Runs one of the parts with its own options."""
    import_module(PARTS[options.old]).main(rest)
