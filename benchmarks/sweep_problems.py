"""The problems of a sweep: what is drawn from a seed, the neighbour of each, and those that a report's lines name."""
from __future__ import annotations

import re
import zlib
from argparse import ArgumentTypeError
from ast import literal_eval
from collections.abc import Iterator, Mapping

import numpy as np

from benchmarks.operators import FAMILIES, Draw, Family, Options
from benchmarks.sweep_report import LIMIT
from benchmarks.workloads import Workload

LOOPS = ("jax", "pytensor")                     # engines whose operators are loops
Pair = tuple[Workload, Workload | None]         # a problem and its neighbour
# what a report says of a problem: family, mode, options, and threads before the options or behind them
LINE = re.compile(r"(?P<family>op\.\w+) (?P<mode>\w+)(?: t(?P<before>\d+))? (?P<options>.*?)"
                  r"(?: t(?P<behind>\d+)|, (?P<threads>\d+) threads.*)?$")


def problems(families: Mapping[str, Family], seed: int, count: int) -> Iterator[Pair]:
    """Each with a neighbour: the same with one size larger by one, where there is one. A problem depends on its family,
    the seed and its number alone. They come in rounds of one of each family and mode, in a drawn order.
    """
    for number in range(count):
        drawn = []
        for name, family in families.items():
            for mode in family.modes:
                rng = np.random.default_rng([seed, number, *name.encode(), len(mode)])
                options = family.draw(Draw(rng))
                problem, other = workload(name, mode, options), neighbour(name, mode, options, rng)
                drawn.append((rng.random(), problem, other))
        yield from ((problem, other) for _, problem, other in sorted(drawn, key=lambda d: d[0]))


def workload(name: str, mode: str, options: Options) -> Workload:
    return Workload(name, 1, mode, LIMIT, options, f"{name} {words(options)}", drawn=True)


def words(options: Options) -> str:
    return " ".join(f"{k}={v}" for k, v in options.items() if v not in ("", ())).replace("'", "")


def named(line: str) -> tuple[Workload, int | None]:
    """The problem that a line of a report names, and its number of threads, where it says one."""
    found = LINE.search(line.strip())
    family = FAMILIES.get(found["family"]) if found else None
    if found is None or family is None or found["mode"] not in family.modes:
        raise ArgumentTypeError(f"{line!r} is no problem: FAMILY MODE NAME=VALUE …, as a report prints it, with a "
                                f"family of {', '.join(FAMILIES)}")
    given = dict(part.partition("=")[::2] for part in re.split(r" (?=\w+=)", found["options"]))
    # an option that is empty is not printed
    empty = {k: type(v)() for k, v in family.draw(Draw(np.random.default_rng(0))).items()}
    if given.keys() - empty.keys() or {k for k, v in empty.items() if v == 0} - given.keys():
        raise ArgumentTypeError(f"{line!r}: {found['family']} takes {', '.join(empty)}")
    options = empty | {k: _value(text) for k, text in given.items()}
    threads = found["before"] or found["behind"] or found["threads"]
    return workload(found["family"], found["mode"], options), int(threads) if threads else None


def _value(text: str) -> object:
    """As `words` writes it: a number, a word, or a tuple of these and of tuples."""
    if text.startswith("("):
        return literal_eval(re.sub(r"[A-Za-z_]\w*", r"'\g<0>'", text))
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def takes(engine: str, problem: Workload, share: float) -> bool:
    """Loops go to JAX and PyTensor, and are unrolled by torch.compile, which takes minutes; of the others it takes that
    share, the same ones in every run."""
    if engine == "inductor":
        drawn = zlib.crc32(problem.name.encode()) / (1 << 32)
        return not FAMILIES[problem.network].loops and drawn < share
    return engine not in LOOPS or FAMILIES[problem.network].loops


def neighbour(name: str, mode: str, options: Options, rng: np.random.Generator) -> Workload | None:
    """One size larger by one; None where nothing but names and small numbers is left to change, or where nothing valid
    results.
    """
    sizes = [k for k, v in options.items() if isinstance(v, int) and v > 4 and k not in ("groups", "axis")]
    sizes += [(k, i) for k, v in options.items() if k in ("shape", "size") and isinstance(v, tuple)
              for i, n in enumerate(v) if n > 4]
    if not sizes:
        return None
    at = sizes[int(rng.integers(len(sizes)))]
    if isinstance(at, tuple):
        key, i = at
        changed = {**options, key: tuple(n + (j == i) for j, n in enumerate(options[key]))}
    else:
        changed = {**options, at: options[at] + 1}
    return workload(name, mode, changed) if is_valid(name, changed) else None


def changed(problem: Workload, other: Workload) -> str:
    """What the other has otherwise, as a report prints it."""
    return words({k: v for k, v in other.options.items() if v != problem.options[k]})


def is_valid(name: str, options: Options) -> bool:
    """Whether the sizes fit together: channels are multiples of groups, operands of a chain broadcast, k is within its
    row.
    """
    if name == "op.conv":
        return options["channels"] % options["groups"] == 0 == options["out"] % options["groups"]
    if name == "op.norm":
        return options["op"] != "group_norm" or options["shape"][1] % options["groups"] == 0
    if name == "op.sort":
        return options["op"] != "topk" or options["k"] <= options["shape"][-1]
    if name == "op.attention":
        return options["queries"] <= options["keys"]
    return name != "op.elementwise"
