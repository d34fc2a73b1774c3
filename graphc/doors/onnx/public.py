"""What of the door can be had without the package onnx: a function that loads it when it is called."""
from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.dsl.context import user_loc
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.once import loaded

if TYPE_CHECKING:
    from onnx import ModelProto

    from graphc.doors.onnx.network import Freeze, OnnxNetwork, Sizes


@formed
def from_onnx(model: str | os.PathLike[str] | bytes | ModelProto, /, *, freeze: Freeze = None,
              sizes: Sizes | None = None, outputs: str | Sequence[str] | None = None) -> OnnxNetwork:
    """The network of an ONNX model: a layer like any other, whose inputs have the types of the file.

    `model`: a path, the bytes of a file, or an onnx.ModelProto, of any opset. Data beside the file must lie in its
    folder. Sizes that the file leaves open are named dimensions; `sizes` gives some of them (`{"batch": 8}`), whole
    shapes of inputs (`{"image": (1, 3, "H", "W")}`), also of those that have none in the file, the numbers of inputs
    that decide sizes (`{"axes": np.array([0, 1])}`), which are inputs no more, or how many arrays an input has that is
    a sequence (`{"images": 3}`) or an optional one.

    Float initializers with axes that take part in computation are parameters under their names in the file, and start
    with its numbers; `freeze` leaves out of training all of them (True) or those of these names or patterns
    ("encoder.*"). Batch norms and dropouts are for training in a training step and for inference elsewhere. Several
    outputs come as a dict by their names; `outputs=` of gc.compile adds values by their names in the file.

    `outputs`: the names of values that the network gives instead of the file's outputs, in this order; nodes and inputs
    that they do not need are left out. So a trunk is cut before its last layers, to get others:
    `gc.from_onnx("net.onnx", outputs="features", freeze=True) >> nn.Linear(3)`.

    Raises GraphError for a file that is damaged, and for what is not supported: all of it, at once.
    """
    try:
        network_of = loaded("graphc.doors.onnx.network", "network_of")
    except GraphError as absent:
        raise absent.at(user_loc()) from None
    return network_of(model, freeze, sizes, outputs)
