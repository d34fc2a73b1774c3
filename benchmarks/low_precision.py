"""python -m benchmarks low-precision: `compute="bf16"` and `compute="int8"` beside f32, and beside OpenVINO's and ONNX
Runtime's forms of these where they are installed (see `low_precision_peers`).

All engines of a row take turns of a fifth of a second. A line has the median of its turns and the best, how much of
f32's time and of the fastest peer's in that type that is (medians, and bests in brackets), the error: the root of the
mean square of the differences from graphc's f32 results, relative to that of these results; and whether the medians
reach what is wanted. Each row is measured by a process of its own: one that fails, ends or hangs costs its row alone.
`--workload` chooses by name; `--minutes` bounds the whole run: rows that would start later are named as not run, and
one that is not done then is ended. `--out` keeps lines and the peers' files; `--resume` goes on with what it has.
"""
from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic

import numpy as np

import graphc as gc
from benchmarks.low_precision_peers import Missing, peers, told
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
HEAD = ("workload", "threads", "engine", "median", "best", "of f32", "of the fastest peer", "error", "wanted")
TURNS, TRAINING_TURNS = 5, 3
ROW_SECONDS = 600.0                 # that a row may take
# the wanted time as a share of f32's, by mode, type and network ("": all others), and of the fastest peer's
OF_F32 = {(TRAIN, "bf16", ""): 0.65, (INFER, "bf16", ""): 0.62, (INFER, "int8", "bert"): 0.5}
NO_PRODUCTS = ("mobilenet",)        # networks whose time is not that of products
OF_PEER = 0.85
Call = Callable[..., object]


def main(options: argparse.Namespace) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    kept, end = options.out / "low_precision.jsonl", monotonic() + (60 * options.minutes or float("inf"))
    done = _done(kept) if options.resume else {}
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD), flush=True)
    with kept.open("a" if options.resume else "w") as file:
        for w in _chosen(options.workload):
            for threads in options.threads:
                key = f"{w.name}, {threads} threads"
                lines, is_whole = done.get(key), False
                if lines is None:
                    lines, is_whole = _apart(w, threads, options.out / "files", options.resume, end)
                if is_whole:
                    print(json.dumps({"row": key, "lines": lines}), file=file, flush=True)
                for line in lines:
                    print(f"| {' | '.join(line)} |", flush=True)


def _done(kept: Path) -> dict[str, list[list[str]]]:
    if not kept.exists():
        return {}
    return {row["row"]: row["lines"] for row in map(json.loads, kept.read_text().splitlines())}


def _apart(w: Workload, threads: int, folder: Path, keep: bool, end: float) -> tuple[list[list[str]], bool]:
    """The lines of a workload, measured by another process, and whether it came to its end."""
    if monotonic() > end:
        return [_empty(w, threads, "all", "not run: the minutes are over")], False
    context = get_context("spawn")
    mine, other = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(other, w, threads, folder, keep))
    process.start()
    other.close()
    try:
        if not mine.poll(min(ROW_SECONDS, end - monotonic())):
            return [_empty(w, threads, "all", "not done when its time was over")], False
        lines, error = mine.recv()
        return (lines, True) if not error else ([_empty(w, threads, "all", error)], False)
    except EOFError:
        process.join()
        return [_empty(w, threads, "all", f"its process ended with status {process.exitcode}")], False
    finally:
        process.kill()
        process.join()


def _send(to: Connection, w: Workload, threads: int, folder: Path, keep: bool) -> None:
    try:
        to.send((_measured(w, threads, folder, keep), ""))
    except Exception as error:                      # whatever it is: the other rows go on
        to.send(([], told(error)))


def _empty(w: Workload, threads: int, name: str, why: str) -> list[str]:
    """The line of what was not measured."""
    return [w.name, str(threads), name, why, *[""] * (len(HEAD) - 4)]


def _chosen(wanted: list[str] | None) -> Iterator[Workload]:
    """Those of the table, one image or text first, or all inference and training whose name has one of these texts."""
    one, more = ([replace(BY_NAME[name], batch=batch) for name in INFERENCE] for batch in BATCHES)
    own = [*one, *(BY_NAME[name] for name in TRAINING), *more]
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
    missing: dict[str, str] = {}
    for name, make in _computes(w, batches, state).items():
        try:
            found[f"graphc {name}"] = _compiled(w, threads, make(), state)
        except gc.GraphError as error:              # no product that could be one of this type, say
            missing[f"graphc {name}"] = told(error)
    if w.mode == INFER and not w.is_operator:
        given = types_of(w) | {"state": state}
        for name, run in peers(network(w), given, batches, threads, folder / w.name.replace(" ", "_"), keep,
                               w.network in CONVOLUTIONS):
            if isinstance(run, Missing):
                missing[name] = run.why
            else:
                found[name] = run
    errors = {} if w.mode == TRAIN else _errors(found, batches[0])
    timed = compare(w.name, {name: _turns(run, batches) for name, run in found.items()},
                    turns=TRAINING_TURNS if w.mode == TRAIN else TURNS)
    return [*(_line(w, threads, name, timed, errors.get(name)) for name in found),
            *(_empty(w, threads, name, why) for name, why in missing.items())]


def _turns(run: Call, batches: list[tuple[np.ndarray, ...]]) -> Callable[[int], object]:
    return lambda i: run(*batches[i % len(batches)])


def _computes(w: Workload, batches: list[tuple[np.ndarray, ...]],
              state: dict[str, np.ndarray]) -> dict[str, Callable[[], object]]:
    """What `compute=` is, by the name of the line. Training for integers multiplies f32: nothing to be timed."""
    kinds = TYPES[:1] if w.mode == TRAIN else TYPES
    named: dict[str, Callable[[], object]] = {name: lambda name=name: name for name in kinds}
    if w.mode == INFER and w.network in CONVOLUTIONS:
        named["int8 calibrated"] = lambda: gc.calibrate(network(w), batches, state=state, **types_of(w))
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
    is_ours = name.startswith("graphc") and kind
    shares = {F32: [] if name == first else [timed.timings[first]], "peer": rivals if is_ours else []}
    bounds = {F32: _of_f32(w, kind), "peer": OF_PEER}
    wanted = [f"{bound} of {other}: {'yes' if _median_share(time, shares[other]) <= bound else 'no'}"
              for other, bound in bounds.items() if is_ours and bound and shares[other]]
    return [w.name, str(threads), name, f"{time.median * 1e3:.2f} ms", f"{time.best * 1e3:.2f} ms",
            *(_share(time, others) for others in shares.values()),
            "" if error is None or name == first else f"{100 * error:.2g} %", ", ".join(wanted)]


def _of_f32(w: Workload, kind: str) -> float:
    """The wanted share of f32's time; 0: none is."""
    own = OF_F32.get((w.mode, kind, w.network), OF_F32.get((w.mode, kind, ""), 0.0))
    return 0.0 if w.mode == INFER and w.network in NO_PRODUCTS else own


def _median_share(time: Timing, others: list[Timing]) -> float:
    return time.median / min(t.median for t in others)


def _share(time: Timing, others: list[Timing]) -> str:
    """Of the fastest other's median, and of the best of all."""
    if not others:
        return ""
    return f"{_median_share(time, others):.2f} ({time.best / min(t.best for t in others):.2f})"
