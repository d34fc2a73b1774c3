"""`gc.to_onnx`: what the user gives, as a file."""
from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

import graphc as gc
from graphc.api import state_for, traced
from graphc.contained import contained
from graphc.doors.onnx_out.model import model_of
from graphc.doors.onnx_out.package import ModelProto, TensorProto, defs
from graphc.doors.onnx_out.rule import OLDEST
from graphc.dsl.context import user_loc
from graphc.dsl.outputs import with_outputs
from graphc.errors import GraphError
from graphc.given import integer
from graphc.ir.types import TensorType
from graphc.nn.entry import Entry
from graphc.nn.network import entries, sorted_out
from graphc.replacing import replacing
from graphc.state import State
from graphc.train import TrainStep

MOST_BYTES = (1 << 31) - (1 << 20)  # of a file: protobuf's limit, less what is no array
APART = 1 << 10                     # bytes from which an array goes to the file of data, if there is one
ALIGNMENT = 4096                    # of arrays in it, so that they can be mapped into memory


def written(public: Callable[..., object], f: object, path: str | os.PathLike[str] | None, given: dict[str, object],
            bindings: dict[str, TensorType | int]) -> ModelProto:
    """What `gc.to_onnx`, which is `public`, gives: its options are `given`."""
    options, types = sorted_out(cast(Callable[..., object], f), public, given, bindings)
    opset, training, seed, state, outputs, external = options.values()
    opset = integer(opset, "opset", OLDEST, defs.onnx_opset_version(), user_loc())
    model = _model(f, opset, training, (seed, state), outputs, types)
    if path is not None:
        _save(model, Path(os.fsdecode(path)), external)
    return model


@contained
def _model(f: object, opset: int, training: bool, origin: tuple[int | None, object], outputs: Sequence[str] | None,
           types: Mapping[str, TensorType | int]) -> ModelProto:
    """What `to_onnx` gives."""
    try:
        if isinstance(f, TrainStep):
            if origin != (None, None) or outputs is not None or training:
                raise GraphError("a training step brings its state, its mode and its outputs: leave out seed=, state=, "
                                 "training= and outputs=")
            function = f.as_one("a model")
            return model_of(traced(function.graph, False, types).graph, _held(f.state, entries(function)), opset,
                            gc.__version__)
        source = traced(f, training, types)
        function = source.function if outputs is None else with_outputs(source.function, outputs)
        needed = entries(function)
        owner = state_for(function.name, needed, origin[0], origin[1] if source.state is None else source.state)
        return model_of(replace(source, function=function).graph, _held(owner, needed) if owner else [], opset,
                        gc.__version__)
    except GraphError as error:
        raise error.at(user_loc()) from None


def _held(state: State, needed: Sequence[Entry]) -> list[tuple[str, np.ndarray]]:
    """Names and values of what is needed, all of one moment."""
    names = [state.name(e.key) or e.name for e in needed]
    arrays = state.arrays(needed)
    return list(zip(names, state.lock.read(arrays)))


def _save(model: ModelProto, path: Path, external: bool | None) -> None:
    """The file, and that of its data if it has one, each replaced as a whole."""
    size = sum(len(t.raw_data) for t in model.graph.initializer)
    kept = model
    if external or (external is None and size > MOST_BYTES):
        kept = ModelProto()
        kept.CopyFrom(model)
        _move_data(kept, path.with_name(path.name + ".data"))
    with replacing(path) as file:
        file.write(kept.SerializeToString())


def _move_data(model: ModelProto, path: Path) -> None:
    """Writes the large arrays to a file of their own, to which the model then refers."""
    with replacing(path) as file:
        end = 0
        for tensor in model.graph.initializer:
            size = len(tensor.raw_data)
            if size < APART:
                continue
            start = -(-end // ALIGNMENT) * ALIGNMENT
            file.write(bytes(start - end) + tensor.raw_data)
            end = start + size
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", path.name), ("offset", start), ("length", size)):
                tensor.external_data.add(key=key, value=str(value))
