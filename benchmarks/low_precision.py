"""python -m benchmarks low-precision: `compute="bf16"` and `compute="int8"` beside f32, and beside OpenVINO's bf16 and
ONNX Runtime's dynamic int8 where these are installed. All take turns; the table has the median time of a call and its
ratio to that of f32. `--workload` chooses by name, `--minutes` how long each row takes (default: a quarter).
"""
from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter

import numpy as np

import graphc as gc
from benchmarks.networks import NETWORKS
from benchmarks.workloads import INFER, TRAIN, WORKLOADS, Workload
from graphc import nn, optim

NAMES = ("bert-base", "resnet50 b1 infer", "resnet50 b8 infer", "mobilenet b1 infer", "gpt 6x384", "resnet18",
         "lstm 2x512 T64 b32 train", "attention 8x64 T1024")
TITLES = ("f32", "bf16", "int8", "OpenVINO bf16", "ONNX Runtime int8")
ORDER = ("None", "bf16", "int8", "OpenVINO", "ONNX Runtime")
QUARTER = 0.25                      # minutes
TYPES = (None, "bf16", "int8")
LEAST_CALLS = 3
Call = Callable[[int], object]


def main(options: argparse.Namespace) -> None:
    wanted = options.workload or NAMES
    print("| workload | threads | " + " | ".join(TITLES) + " |\n|" + "---|" * (2 + len(TITLES)))
    for w in WORKLOADS:
        if w.mode in (INFER, TRAIN) and any(text in w.name for text in wanted):
            for threads in options.threads:
                times = alternated(engines(w, threads), (options.minutes or QUARTER) * 60)
                cells = (w.name, str(threads), *(_cell(times, name) for name in ORDER))
                print(f"| {' | '.join(cells)} |", flush=True)


def _cell(times: dict[str, float], name: str) -> str:
    return f"{times[name] * 1e3:.2f} ms ({times[name] / times['None']:.2f})" if name in times else "-"


def engines(w: Workload, threads: int) -> dict[str, Call]:
    """What runs the batch of this number, by name; f32 is "None"."""
    batches = w.batches()

    def turns(run: Callable[..., object]) -> Call:
        return lambda i: run(*batches[i % len(batches)])
    net = NETWORKS[w.network](**w.options)
    found: dict[str, Call] = {}
    for compute in TYPES:
        try:
            found[str(compute)] = turns(_compiled(w, net, threads, compute))
        except gc.GraphError as error:              # no product that could be one of this type
            print(f"{w.name}, {compute}: {error}")
    if w.mode == INFER and not w.is_operator:
        found |= {name: turns(run) for name, run in _peers(w, net, threads).items()}
    return found


def _types(w: Workload) -> dict[str, object]:
    """Of the inputs by name, as a graph of the network has them; of a training step with its target."""
    names, arrays = ("q", "k", "v") if w.is_operator else ("x",), w.batches()[0]
    types = {name: type_of(a) for name, a in zip(names, arrays)}
    return types | ({"y": type_of(arrays[-1])} if w.mode == TRAIN else {})


def type_of(array: np.ndarray) -> object:
    return {"f": gc.f32, "i": gc.i32 if array.itemsize == 4 else gc.i64}[array.dtype.kind][array.shape]


def _compiled(w: Workload, net: object, threads: int, compute: str | None) -> Callable[..., object]:
    types = _types(w)
    if w.mode == INFER:
        return gc.compile(net, threads=threads, compute=compute, **(types if w.is_operator else types | {"seed": 0}))
    return gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.SGD(w.rate), threads=threads, compute=compute,
                         seed=0, **types)


def _peers(w: Workload, net: object, threads: int) -> dict[str, Callable[..., object]]:
    """The network as an ONNX file, in the engines that are installed."""
    folder = Path(tempfile.mkdtemp())
    path, found = folder / "net.onnx", dict[str, Callable[..., object]]()
    wanted = {name: make for name, (package, make) in PEERS.items() if find_spec(package)}
    if wanted:
        gc.to_onnx(net, path, seed=0, **_types(w))
    for name, make in wanted.items():
        try:
            found[name] = make(path, threads)
        except Exception as error:                  # whatever a peer raises: its cell stays empty, and it is said why
            print(f"{w.name}, {name}: {error}")
    return found


def _openvino(path: Path, threads: int) -> Callable[..., object]:
    """In bf16."""
    model = import_module("openvino").Core().compile_model(str(path), "CPU", {
        "INFERENCE_PRECISION_HINT": "bf16", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": threads})
    request = model.create_infer_request()
    return lambda *arrays: request.infer(list(arrays))


def _onnx_runtime(path: Path, threads: int) -> Callable[..., object]:
    """With the weights, and in each call the activations, as 8-bit integers; its quantizer takes products apart, which
    attention as one operator hides."""
    runtime, quantization = import_module("onnxruntime"), import_module("onnxruntime.quantization")
    small = path.with_name("int8.onnx")
    quantization.quantize_dynamic(path, small, op_types_to_quantize=["MatMul", "Gemm", "Conv"])
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = runtime.InferenceSession(str(small), settings, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    return lambda *arrays: session.run(None, dict(zip(names, arrays)))


PEERS = {"OpenVINO": ("openvino", _openvino), "ONNX Runtime": ("onnxruntime", _onnx_runtime)}


def alternated(calls: dict[str, Call], seconds: float) -> dict[str, float]:
    """The median time of each, in turns of one call."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call(0)
    end, number = monotonic() + seconds, 0
    while monotonic() < end or number < LEAST_CALLS:
        for name, call in calls.items():
            began = perf_counter()
            call(number)
            times[name].append(perf_counter() - began)
        number += 1
    return {name: median(taken) for name, taken in times.items()}
