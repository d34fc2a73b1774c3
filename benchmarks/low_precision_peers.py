"""The forms of a network in which peers run it in fewer bits, each the fast one that its makers recommend.

OpenVINO with bf16 arithmetic and the hint for latency; both engines in 8 bits: ONNX Runtime with its own quantizer's
file, of networks with convolutions static (QDQ, calibrated, scales by channel), of transformers dynamic; OpenVINO with
the static file of either, which it turns into its own integer kernels.
"""
from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import graphc as gc

Batches = Sequence[tuple[np.ndarray, ...]]
WHOLE, CLEAN, DYNAMIC, STATIC = "f32.onnx", "clean.onnx", "dynamic.onnx", "static.onnx"
DYNAMIC_KINDS = ["MatMul", "Gemm"]
STATIC_KINDS = [*DYNAMIC_KINDS, "Conv", "Add"]      # sums of branches, lest they go back to floats between convolutions


@dataclass(frozen=True)
class Missing:
    """A peer that does not take part."""
    why: str


def peers(net: Callable[..., Any], given: Mapping[str, object], batches: Batches, threads: int, folder: Path,
          keep: bool, calibrated: bool) -> Iterator[tuple[str, Callable[..., object] | Missing]]:
    """Each peer with what runs a batch, or with why it does not. given: types of inputs, and the state. keep: files in
    `folder` are used again."""
    folder.mkdir(parents=True, exist_ok=True)
    if not keep:
        for path in folder.glob("*.onnx*"):
            path.unlink()
    forms: list[tuple[str, tuple[str, ...], Callable[[], Callable[..., object]]]] = [
        ("OpenVINO bf16", ("openvino",), lambda: _openvino(_whole(net, given, folder), threads, "bf16")),
        ("OpenVINO int8", ("openvino", "onnxruntime"),
         lambda: _openvino(_static(_whole(net, given, folder), batches), threads, "f32")),
        ("ONNX Runtime int8", ("onnxruntime",), lambda: _onnx_runtime(
            _static(_whole(net, given, folder), batches) if calibrated else _dynamic(_whole(net, given, folder)),
            threads))]
    for name, packages, make in forms:
        absent = [package for package in ("onnx", *packages) if not find_spec(package)]
        if absent:
            yield name, Missing(f"not run: {', '.join(absent)} not installed")
            continue
        try:
            run = make()
            run(*batches[0])
        except Exception as error:              # whatever a peer raises: its line says so
            yield name, Missing(told(error))
        else:
            yield name, run


def told(error: BaseException) -> str:
    """An error as the cell of a table."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".replace("|", "/")


def _whole(net: Callable[..., Any], given: Mapping[str, object], folder: Path) -> Path:
    path = folder / WHOLE
    if not path.exists():
        gc.to_onnx(net, path, **given)
    return path


def _openvino(path: Path, threads: int, precision: str) -> Callable[..., object]:
    """bf16 as the precision of all arithmetic, or f32 around the integers of the file."""
    model = import_module("openvino").Core().compile_model(str(path), "CPU", {
        "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision, "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads})
    request = model.create_infer_request()
    return lambda *arrays: request.infer(list(arrays))


def _onnx_runtime(path: Path, threads: int) -> Callable[..., object]:
    runtime = import_module("onnxruntime")
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = threads, 1
    settings.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    settings.log_severity_level = 3
    session = runtime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    return lambda *arrays: session.run(None, dict(zip(names, arrays)))


def _dynamic(path: Path) -> Path:
    """Products by weights with 8-bit weights by channel, activations quantised in each call."""
    made = path.with_name(DYNAMIC)
    if not made.exists():
        quantization = _quantization()
        quantization.quantize_dynamic(_clean(path), made, op_types_to_quantize=DYNAMIC_KINDS, per_channel=True)
    return made


def _static(path: Path, batches: Batches) -> Path:
    """Calibrated on the batches."""
    made = path.with_name(STATIC)
    if not made.exists():
        quantization, clean = _quantization(), _clean(path)
        kinds = quantization.QuantType
        quantization.quantize_static(clean, made, _reader(quantization, clean, batches), per_channel=True,
                                     op_types_to_quantize=STATIC_KINDS, activation_type=kinds.QUInt8,
                                     weight_type=kinds.QInt8)
    return made


def _clean(path: Path) -> Path:
    """With batch norms folded into convolutions, and weights transposed once: the quantizer takes constants alone."""
    made = path.with_name(CLEAN)
    if not made.exists():
        import_module("onnxruntime.quantization.shape_inference").quant_pre_process(path, made,
                                                                                   skip_symbolic_shape=True)
    return made


def _quantization() -> Any:
    """Its quantizer, which warns of what it does itself."""
    logging.getLogger().setLevel(logging.ERROR)
    return import_module("onnxruntime.quantization")


def _reader(quantization: Any, path: Path, batches: Batches) -> Any:
    """Of the batches, by the names of the file's inputs."""
    names = [i.name for i in import_module("onnx").load(path, load_external_data=False).graph.input]
    items = iter([dict(zip(names, batch)) for batch in batches])

    class Reader(quantization.CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(items, None)
    return Reader()
