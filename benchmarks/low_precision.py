"""python -m benchmarks low-precision: `compute="bf16"` and `compute="int8"` beside f32, and beside OpenVINO's and ONNX
Runtime's forms of these where they are installed (see `low_precision_peers`).

All engines of a row take turns of a fifth of a second. A line has the median of its turns and the best, how much of
f32's time and of the fastest peer's in that type that is (medians, and bests in brackets), and the error: the root of
the mean square of the differences from graphc's f32 results, relative to that of these results. `--workload` chooses by
name; `--minutes` bounds the whole run: rows that would start later are named as not run. `--out` keeps lines and the
peers' files; `--resume` goes on with what it has.
"""
from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from time import monotonic

import numpy as np

import graphc as gc
from benchmarks.low_precision_peers import peers
from benchmarks.networks import NETWORKS
from benchmarks.protocol import Comparison, Timing, compare
from benchmarks.workloads import BY_NAME, INFER, TRAIN, WORKLOADS, Workload
from graphc import nn, optim
from graphc.nn.network import entries, trace_network

BATCHES = 1, 8
INFERENCE = ("bert-base T128 b1 infer", "resnet50 b1 infer", "mobilenet b1 infer", "gpt 6x384 T256 b1 infer")
TRAINING = ("gpt 6x384 T256 b12 train", "resnet18 b16 train", "lstm 2x512 T64 b32 train")
F32 = "f32"
TYPES = ("bf16", "int8")
CONVOLUTIONS = ("alexnet", "resnet", "mobilenet")           # networks that peers, too, calibrate
HEAD = ("workload", "threads", "engine", "median", "best", "of f32", "of the fastest peer", "error")
TURNS, TRAINING_TURNS = 5, 3
Call = Callable[..., object]


def main(options: argparse.Namespace) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    kept, end = options.out / "low_precision.jsonl", monotonic() + 60 * options.minutes if options.minutes else None
    done = _done(kept) if options.resume else {}
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD))
    with kept.open("a" if options.resume else "w") as file:
        for w in _chosen(options.workload):
            for threads in options.threads:
                key = f"{w.name}, {threads} threads"
                if key not in done and end is not None and monotonic() > end:
                    print(f"| {w.name} | {threads} | not run |" + " |" * (len(HEAD) - 3), flush=True)
                    continue
                lines = done.get(key) or _measured(w, threads, options.out / "files", options.resume)
                if key not in done:
                    print(json.dumps({"row": key, "lines": lines}), file=file, flush=True)
                for line in lines:
                    print(f"| {' | '.join(line)} |", flush=True)


def _done(kept: Path) -> dict[str, list[list[str]]]:
    if not kept.exists():
        return {}
    return {row["row"]: row["lines"] for row in map(json.loads, kept.read_text().splitlines())}


def _chosen(wanted: list[str] | None) -> Iterator[Workload]:
    """Those of the table, or all inference and training whose name has one of these texts."""
    batches = [replace(BY_NAME[name], batch=batch) for batch in BATCHES for name in INFERENCE]
    own = [*batches, *(BY_NAME[name] for name in TRAINING)]
    if not wanted:
        yield from own
        return
    others = [w for w in WORKLOADS if w.mode in (INFER, TRAIN)]
    named = {w.name: w for w in (*own, *others)}
    yield from (w for name, w in named.items() if any(text in name for text in wanted))


def _measured(w: Workload, threads: int, folder: Path, keep: bool) -> list[list[str]]:
    """The lines of a workload."""
    batches, state = w.batches(), {} if w.is_operator or w.mode == TRAIN else state_of(w)
    found: dict[str, Call] = {f"graphc {F32}": _compiled(w, threads, None, state)}
    for name, compute in _computes(w, batches, state).items():
        try:
            found[f"graphc {name}"] = _compiled(w, threads, compute, state)
        except gc.GraphError as error:              # no product that could be one of this type
            print(f"<!-- {w.name}, {name}: {error} -->")
    if w.mode == INFER and not w.is_operator:
        given = types_of(w) | {"state": state}
        found |= peers(network(w), given, batches, threads, folder / w.name.replace(" ", "_"), keep,
                       w.network in CONVOLUTIONS)
    errors = {} if w.mode == TRAIN else _errors(found, batches[0])
    timed = compare(w.name, {name: _turns(run, batches) for name, run in found.items()},
                    turns=TRAINING_TURNS if w.mode == TRAIN else TURNS)
    return [_line(w, threads, name, timed, errors.get(name)) for name in found]


def _turns(run: Call, batches: list[tuple[np.ndarray, ...]]) -> Callable[[int], object]:
    return lambda i: run(*batches[i % len(batches)])


def _computes(w: Workload, batches: list[tuple[np.ndarray, ...]], state: dict[str, np.ndarray]) -> dict[str, object]:
    """What `compute=` is, by the name of the line."""
    named: dict[str, object] = {name: name for name in TYPES}
    if w.mode == INFER and w.network in CONVOLUTIONS:
        named["int8 calibrated"] = gc.calibrate(network(w), batches, state=state, **types_of(w))
    return named


def network(w: Workload) -> Call:
    return NETWORKS[w.network](**w.options)


def state_of(w: Workload) -> dict[str, np.ndarray]:
    """Fresh parameters. Matrices of networks with convolutions have the variance of He (2015), 2 / inputs, which keeps
    signals their size through relu: as they are initialised, 1 / (3 inputs), rounding would drown what is left of them.
    """
    gain = np.float32(6 ** 0.5 if w.network in CONVOLUTIONS else 1)
    found = entries(trace_network(network(w), False, **types_of(w)))
    return {e.name: a * gain if (a := e.initial(0)).ndim > 1 else a for e in found}


def types_of(w: Workload) -> dict[str, object]:
    """Of the inputs by name, as a graph of the network has them; of a training step with its target."""
    names, arrays = ("q", "k", "v") if w.is_operator else ("x",), w.batches()[0]
    types = {name: type_of(a) for name, a in zip(names, arrays)}
    return types | ({"y": type_of(arrays[-1])} if w.mode == TRAIN else {})


def type_of(array: np.ndarray) -> object:
    return {"f": gc.f32, "i": gc.i32 if array.itemsize == 4 else gc.i64}[array.dtype.kind][array.shape]


def _compiled(w: Workload, threads: int, compute: object, state: dict[str, np.ndarray]) -> Call:
    types = types_of(w)
    if w.mode == INFER:
        return gc.compile(network(w), threads=threads, compute=compute,
                          **(types if w.is_operator else types | {"state": state}))
    return gc.train_step(network(w), loss=nn.cross_entropy, optimizer=optim.SGD(w.rate), threads=threads,
                         compute=compute, seed=0, **types)


def _errors(found: Mapping[str, Call], batch: tuple[np.ndarray, ...]) -> dict[str, float]:
    """Of the first result, relative to that of the first engine."""
    results = {name: np.asarray(_first(run(*batch)), np.float64) for name, run in found.items()}
    exact, *_ = results.values()
    size = float(np.sqrt(np.mean(np.square(exact))))
    return {name: float(np.sqrt(np.mean(np.square(y.reshape(exact.shape) - exact)))) / size
            for name, y in results.items()}


def _first(result: object) -> object:
    """Engines give an array, a list of arrays, or a mapping."""
    if isinstance(result, Mapping):
        return next(iter(result.values()))
    return result[0] if isinstance(result, (list, tuple)) else result


def _line(w: Workload, threads: int, name: str, timed: Comparison, error: float | None) -> list[str]:
    time, (first, *_) = timed.timings[name], timed.timings
    kind = next((t for t in TYPES if t in name), "")
    rivals = [t for other, t in timed.timings.items() if not other.startswith("graphc") and kind in other]
    of_peer = _share(time, rivals) if name.startswith("graphc") and kind and rivals else ""
    of_f32 = "" if name == first else _share(time, [timed.timings[first]])
    return [w.name, str(threads), name, f"{time.median * 1e3:.2f} ms", f"{time.best * 1e3:.2f} ms", of_f32, of_peer,
            "" if error is None or name == first else f"{100 * error:.2g} %"]


def _share(time: Timing, others: list[Timing]) -> str:
    """Of the fastest other's median, and of the best of all."""
    return f"{time.median / min(t.median for t in others):.2f} ({time.best / min(t.best for t in others):.2f})"
