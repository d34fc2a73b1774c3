"""What of the door can be had without the package onnx: a function that loads it when it is called."""
from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphc.dsl.context import user_loc
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.once import loaded

if TYPE_CHECKING:
    from onnx import ModelProto

    from graphc.dsl.function import GraphFunction
    from graphc.ir.graph import Graph
    from graphc.ir.types import TensorType
    from graphc.nn.module import Module
    from graphc.state import Model
    from graphc.train import TrainStep

OPSET = 23                          # Attention and RMSNormalization are in it, and runtimes of 2025 have it


@formed
def to_onnx(f: GraphFunction | Module | Model | TrainStep | Graph | Callable[..., object],
            path: str | os.PathLike[str] | None = None, *, opset: int = OPSET, training: bool = False,
            seed: int | None = None, state: str | os.PathLike[str] | Mapping[str, np.ndarray] | None = None,
            outputs: Sequence[str] | None = None, external: bool | None = None,
            **bindings: TensorType | int) -> ModelProto:
    """Writes `f` as an ONNX file, and returns the model (`path` None: only that).

    `f`: a graph, a gradient such as `gc.grad(f, "x")`, a network with the types of its inputs (`x=gc.f32["B", 784]`)
    and its parameters, by `state=` or `seed=` as for gc.compile, `step.model`, or a training step. Named sizes are
    symbolic dimensions of the file; a number for one (`B=64`) fixes it. Parameters are initializers under their names.
    Results are called "result" ("result0", "result1", … of a tuple; a dict's own keys), and `outputs` adds values by
    name, as in gc.compile.

    What a call changes, as a training step its parameters, optimizer arrays, step and random key, is an input under its
    name and an output under its name with ".new" behind it. Such an input has an initializer, the value at this moment:
    the first call may leave it out. So a training step is an ordinary model, which trains wherever ONNX runs.

    `opset`: the version of ONNX's operators, 18 or later. `external`: arrays go to a second file, the first one's name
    with ".data" behind it; None: if the file would be larger than 2 GB, which protobuf does not allow.

    Raises GraphError, with all of them, for operators that ONNX cannot express; OSError where the file cannot be
    written.
    """
    given = {"opset": opset, "training": training, "seed": seed, "state": state, "outputs": outputs,
             "external": external}
    try:
        written = loaded("graphc.doors.onnx_out.entry", "written")
    except GraphError as absent:
        raise absent.at(user_loc()) from None
    return written(to_onnx, f, path, given, bindings)
