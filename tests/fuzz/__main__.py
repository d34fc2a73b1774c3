"""Damaged input on purpose: `python -m tests.fuzz [text | cli | checkpoint | cache] --minutes M --seed N`, from the
root of the repository.

Each kind is a module here with `run(rng, deadline) -> int`: it makes cases from the numpy Generator `rng` until
`time.monotonic()` is past `deadline` (at least one), returns how many there were, and raises AssertionError, with what
repeats the case, at the first finding.
"""
from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

import numpy as np

KINDS = ("text", "cli", "checkpoint", "cache")


def known() -> dict[str, Callable[[np.random.Generator, float], int | None]]:
    """The kinds that are there, by name."""
    return {kind: import_module(f"tests.fuzz.{kind}").run for kind in KINDS if find_spec(f"tests.fuzz.{kind}")}


def main() -> None:
    """Shares the minutes equally among the kinds asked for; all of them if none is."""
    runs = known()
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz",
                                     description="Feeds damaged input to graphc until it is answered wrongly.")
    parser.add_argument("kinds", nargs="*", choices=[*runs, []], metavar=" | ".join(runs))
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    kinds = options.kinds or list(runs)
    for kind in kinds:
        start = time.monotonic()
        cases = runs[kind](np.random.default_rng(options.seed), start + options.minutes * 60 / len(kinds))
        print(f"{kind}: {cases or 'all'} cases from seed {options.seed} in {time.monotonic() - start:.0f} s, nothing "
              f"found")


if __name__ == "__main__":
    main()
