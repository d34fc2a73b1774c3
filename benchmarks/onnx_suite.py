"""The backend suite of the package onnx through `gc.from_onnx`: single operators, small models, converted layers.

Each case is imported, compiled and run; its outputs are compared with the suite's, within the suite's tolerance. Cases
run in processes of their own, some at a time, so that a crash is one case's.
"""
from __future__ import annotations

import multiprocessing
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

import graphc as gc
from graphc.doors.onnx.graph import GraphReader
from graphc.doors.onnx.known import NeedsNumbers, Unsupported
from graphc.doors.onnx.narrow import OF_NUMPY
from graphc.doors.onnx.reading import domain_of, read
from graphc.doors.onnx.table import has_rule
from graphc.ir.types import dtype_of

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")
CHUNK = 32                          # cases of one process
SECONDS = 120                       # for one case
PASS, WRONG, REFUSED, ERROR, CRASH = "pass", "wrong", "not supported", "error", "crash"


# what does not pass, by a pattern of the case's name, and why; operators without a rule come from the table of rules
REASONS: Mapping[str, str] = {
    "test_bernoulli*": "the suite's random numbers are those of numpy's generator",
    "test_dft_inverse*": "where the result is 0 the suite's own numbers are off by 1.5e-6, graphc's by 1.9e-6, and the "
                         "tolerance is 1e-7",
    "test_attention_*d_*bf16*": "results of 16 bits, which differ in the last one, and the tolerance is finer than "
                                "such numbers are: the suite rounds after each operator, graphc less often (of 192 "
                                "results 22 to 39 are not those of f64, rounded; of the suite's 40 to 75)",
    "test_attention_4d_causal_fp16*": "as above",
    "test_equal_string*": "strings", "test_*string*": "strings", "test_strnorm*": "strings",
    "test_ai_onnx_ml_label_encoder_tensor*": "strings",
    "test_regex*": "strings", "test_image_decoder*": "encoded images are decoded before a network sees them"}


def known_reason(case: Any) -> str | None:
    """Why a case cannot pass; None where it should."""
    found = next((reason for pattern, reason in REASONS.items() if fnmatch(case.name, pattern)), None)
    model, _ = loaded(case)
    opsets = {domain_of(o.domain): o.version for o in model.opset_import}
    missing = {n.op for n in GraphReader(read(model)).graph(model.graph).all_nodes()
               if not has_rule(n.domain, n.op, opsets) and not model.functions}
    return found or (f"no rule for {min(missing)}" if missing else None)


@dataclass(frozen=True)
class Outcome:
    """What became of a case."""
    kind: str
    name: str
    result: str
    reason: str = ""


def cases(kinds: Sequence[str] = KINDS) -> list[Any]:
    """The suite's cases, in its order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [case for kind in kinds for case in load_model_tests(kind=kind)]


def outcome(case: Any) -> Outcome:
    """Runs one case here."""
    try:
        model, sets = loaded(case)
        wrong = _compared(model, sets, case.rtol, case.atol)
        return Outcome(case.kind, case.name, WRONG if wrong else PASS, wrong)
    except Unsupported as error:
        return Outcome(case.kind, case.name, REFUSED, error.text)
    except Exception as error:      # whatever it is, it is this case's outcome
        return Outcome(case.kind, case.name, ERROR, f"{type(error).__name__}: {error}")


def loaded(case: Any) -> tuple[onnx.ModelProto, list[tuple[list[Any], list[Any]]]]:
    """The model and its pairs of inputs and outputs."""
    if case.model is not None:
        return case.model, list(case.data_sets)
    folder = Path(case.model_dir)
    model = onnx.load(folder / "model.onnx")
    sets = []
    for data in sorted(folder.glob("test_data_set_*")):
        ends = (("input", model.graph.input), ("output", model.graph.output))
        sets.append(tuple([_array(data / f"{end}_{i}.pb", v) for i, v in enumerate(values)
                           if (data / f"{end}_{i}.pb").exists()] for end, values in ends))
    return model, sets


def _array(path: Path, info: onnx.ValueInfoProto) -> Any:
    kind = info.type.WhichOneof("value")
    message = {"sequence_type": onnx.SequenceProto, "optional_type": onnx.OptionalProto}.get(kind, onnx.TensorProto)()
    message.ParseFromString(path.read_bytes())
    read = {"sequence_type": numpy_helper.to_list, "optional_type": numpy_helper.to_optional}
    return read.get(kind, numpy_helper.to_array)(message)


def _compared(model: onnx.ModelProto, sets: Sequence[tuple[list[Any], list[Any]]], rtol: float, atol: float) -> str:
    """What differs; "" if nothing does. Inputs that decide sizes are given as numbers."""
    names = input_names(model)
    for inputs, wanted in sets:
        arrays = {name: _held(numpy_helper.to_array(v) if isinstance(v, onnx.TensorProto) else v)
                  for name, v in zip(names, inputs)}
        found = _flat(_run(model, arrays))
        wanted = _flat([numpy_helper.to_array(v) if isinstance(v, onnx.TensorProto) else v for v in wanted])
        if len(found) != len(wanted):
            return f"{len(found)} outputs, {len(wanted)} wanted"
        for i, (a, b) in enumerate(zip(found, wanted)):
            if text := _difference(np.asarray(a), _held(np.asarray(b)), rtol, atol):
                return f"output {i}: {text}"
    return ""


def _held(array: Any) -> Any:
    """A type that graphc does not have as the one that holds its numbers."""
    kind = OF_NUMPY.get(getattr(array, "dtype", None))
    return array if kind is None else array.astype(kind.holder.np)


def _items(arrays: list[Any]) -> Any:
    """How many arrays a sequence has; their shapes, where these are not all one, or there is one."""
    shapes = list(map(np.shape, arrays))
    return shapes if len(shapes) == 1 or len(set(shapes)) > 1 else len(shapes)


def input_names(model: onnx.ModelProto) -> list[str]:
    own = {t.name for t in model.graph.initializer}
    return [v.name for v in model.graph.input if v.name not in own]


def _run(model: onnx.ModelProto, arrays: Mapping[str, Any]) -> Any:
    """What graphc makes of the inputs."""
    fixed: dict[str, Any] = {name: _items(v) if v else 0 for name, v in arrays.items()
                             if v is None or isinstance(v, list)}
    items = {f"{name}.{i}": np.asarray(item) for name, v in arrays.items() if isinstance(v, list)
             for i, item in enumerate(v)}
    while True:
        try:
            net = gc.from_onnx(model, sizes=fixed)
            given = {name: v for name, v in arrays.items() if name not in fixed} | items
            if not given:
                return _without_inputs(net)
            types = {name: dtype_of(v)[v.shape] for name, v in given.items()
                     if name not in net.declared_inputs()}
            return gc.compile(net, threads=1, seed=0, **types)(**given)
        except NeedsNumbers as error:
            needed = {name: np.asarray(arrays[name]) for name in error.inputs if name not in fixed}
            if not needed:
                raise
            fixed |= needed


def _without_inputs(net: Any) -> Any:
    """A graph has an input: one that nothing reads."""
    return gc.compile(lambda unused: net(), threads=1, seed=0, unused=gc.f32[()])(np.float32(0))


def _flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return _flat(list(value.values()))
    return [w for v in value for w in _flat(v)] if isinstance(value, (list, tuple)) else [value]


def _difference(found: np.ndarray, wanted: np.ndarray, rtol: float, atol: float) -> str:
    if found.dtype != wanted.dtype or found.shape != wanted.shape:
        return f"{found.dtype}{list(found.shape)}, {wanted.dtype}{list(wanted.shape)} wanted"
    exact = found.dtype.kind in "iub"
    a, b = (v if exact else v.astype(np.float64) for v in (found, wanted))
    if np.array_equal(a, b) if exact else np.allclose(a, b, rtol, atol, equal_nan=True):
        return ""
    with np.errstate(all="ignore"):
        return f"differs by {np.nanmax(np.abs(a.astype(np.float64) - b.astype(np.float64))):.3g}"


def outcomes(chosen: Sequence[Any], run: Callable[[Any], Outcome] = outcome) -> Iterator[Outcome]:
    """All cases, in forked processes."""
    context = multiprocessing.get_context("fork")
    left = list(chosen)
    while left:
        ours, theirs = context.Pipe(duplex=False)
        part = left[:CHUNK]
        process = context.Process(target=_send, args=(part, theirs, run))
        process.start()
        theirs.close()
        done = 0
        try:
            while done < len(part) and ours.poll(SECONDS):
                yield ours.recv()
                done += 1
        except EOFError:
            pass
        process.terminate()
        process.join()
        if done < len(part):
            yield Outcome(part[done].kind, part[done].name, CRASH, "the process ended, or took too long")
            done += 1
        left = left[done:]


def _send(part: Sequence[Any], pipe: Any, run: Callable[[Any], Outcome]) -> None:
    for case in part:
        pipe.send(run(case))


def main(words: Sequence[str], kinds: Sequence[str] = KINDS) -> None:
    """Runs the cases whose names have one of the words in them (all without words); prints those that fail and a table.
    """
    chosen = [c for c in cases(kinds) if not words or any(w in c.name for w in words)]
    counts: Counter[tuple[str, str]] = Counter()
    byname = {c.name: c for c in chosen}
    for o in outcomes(chosen):
        counts[o.kind, o.result] += 1
        if o.result != PASS:
            listed = "listed " if known_reason(byname[o.name]) else ""
            print(f"{listed}{o.result}: {o.name}: {' '.join(o.reason.split())[:300]}", flush=True)
    print(f"\n{'':20s}" + "".join(f"{r:>15s}" for r in (PASS, WRONG, REFUSED, ERROR, CRASH)))
    for kind in kinds:
        print(f"{kind:20s}" + "".join(f"{counts[kind, r]:15d}" for r in (PASS, WRONG, REFUSED, ERROR, CRASH)))
