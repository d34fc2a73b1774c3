"""Every public function of whole graphs and networks, with everything in the place of every argument: a result, or a
GraphError with the user's line.
"""
import inspect
import os
import tempfile
from functools import partial

import numpy as np
import pytest
from kinds import VALUES, shown
from test_kinds import NOT_CALLED

import graphc as gc
from graphc import nn, optim


@gc.graph
def square(x: gc.f32[3], y: gc.f64["B"]):
    return gc.sum(gc.name(x * 2, "h") * x)


@gc.graph
def scaled(x: gc.f32[3]):
    return x * x


NET = nn.Linear(2) >> nn.relu
WIDE = nn.Linear(16)
TOKENS = nn.Embedding(7, 4) >> nn.LSTM(4, batch_first=True) >> nn.Linear(7)
OPTIMIZER = optim.SGD(0.1)
FOLDER = tempfile.mkdtemp()
FILE = os.path.join(FOLDER, "weights")
SERIES = np.arange(12.0).reshape(6, 2)
CALLED = {
    "batches": lambda: {"size": 2},
    "save_weights": lambda: {"path": FILE, "arrays": {"a": SERIES}},
    "load_weights": lambda: (gc.save_weights(FILE, {"a": SERIES}), {"path": FILE})[1],
    "windows": lambda: {"series": SERIES, "length": 2, "ahead": 1},
    "calibrate": lambda: {"f": WIDE, "batches": [np.ones((3, 16), np.float32)], "x": gc.f32[3, 16], "seed": 0},
    "check_gradients": lambda: {"f": square, "B": 2, "samples": 1, "directions": 1, "wrt": ["x"]},
    "compile": lambda: {"f": NET, "x": gc.f32[3, 4], "seed": 0}, "draw": lambda: {"f": square}, "explore": lambda: {"f": square, "path": "nowhere.txt"},
    "export": lambda: {"what": NET, "folder": FOLDER, "x": gc.f32[3, 4], "seed": 0, "targets": "x86_64-linux:sse2"},
    "grad": lambda: {"f": square, "wrt": "x"},
    "generate": lambda: {"model": TOKENS, "prompt": [1, 2], "steps": 2, "seed": 0},
    "IntegerBlocks": lambda: {"kind": "int4"},
    "Generator": lambda: {"model": TOKENS, "seed": 0}, "graph": lambda: {"f": None},
    "hessian": lambda: {"f": square, "wrt": "x"}, "vmap": lambda: {"f": scaled},
    "hvp": lambda: {"f": square, "wrt": "x"}, "jacobian": lambda: {"f": scaled},
    "jacrev": lambda: {"f": scaled}, "jacfwd": lambda: {"f": scaled},
    "jvp": lambda: {"f": square, "wrt": "x"}, "parse": lambda: {"text": str(scaled)},
    "plan": lambda: {"f": NET, "x": gc.f32[3, 4]},
    "train_step": lambda: {"f": NET, "loss": nn.cross_entropy, "optimizer": OPTIMIZER, "x": gc.f32[3, 4],
                           "y": gc.i64[3]},
    "value_and_grad": lambda: {"f": square, "wrt": "x"}, "vjp": lambda: {"f": scaled},
}
COUNTED = {"steps", "samples", "directions", "capacity"}
OF_OTHERS = {"threads", "path", "state", "text", "file"}        # tests/runtime, tests/errors: machine, files and texts


def test_no_function_is_left_out():
    assert CALLED.keys() == NOT_CALLED - {"Array", "DType", "GraphFunction", "TensorType", "GraphError",
                                          "InternalError", "debug_print",
                                          "distributed", "from_gguf", "from_onnx", "from_pretrained", "from_torch", "to_onnx",
                                          "to_torch"}


def wrong(f):
    try:
        f()
    except gc.GraphError as error:
        return (None if error.loc is not None
                and error.loc.file == __file__ else f"GraphError without the line: {error.text} at {error.loc}")
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return None


@pytest.mark.parametrize("name", sorted(CALLED))
def test_functions(name):
    function, bad = getattr(gc, name), []
    function = partial(function, SERIES) if name == "batches" else function
    assert wrong(lambda: function(**CALLED[name]())) is None
    for argument, parameter in inspect.signature(function).parameters.items():
        if argument in OF_OTHERS:
            continue
        for value in VALUES:
            if parameter.kind is parameter.VAR_POSITIONAL:
                continue
            if argument in ("f", "what", "loss", "model", "trainable") and callable(value):
                continue                                        # what a function of the user's raises is the user's
            if argument in COUNTED and isinstance(value, (int, np.integer)) and 100 < value < 2 ** 63:
                continue                                        # right, and takes as long as it says
            keyword = "x" if parameter.kind is parameter.VAR_KEYWORD and name not in ("draw", "explore") else argument
            found = wrong(lambda: function(**CALLED[name]() | {keyword: value}))
            bad += [f"{argument}={shown(value)}: {found}"] if found else []
    assert not bad, "\n".join(bad)
