"""Files of weights, as mappings from names to arrays."""
from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.checkpoint import load_arrays, save_arrays
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.given import shown


@formed
def load_weights(path: str | os.PathLike[str], *, prefix: str = "", under: str = "") -> dict[str, np.ndarray]:
    """All arrays of a safetensors file by name: for `gc.compile(net, state=…)`, `step.state.load(…, partial=True)`.

    prefix: only those whose names begin so, without it ("encoder." of a larger model); under: what to put before all
    names ("net." for a network that is now the variable `net` of a function). GraphError for a file that is missing or
    damaged, or has no such name.
    """
    path = _path(path, "load_weights")
    for what, text in (("prefix", prefix), ("under", under)):
        if not isinstance(text, str):
            raise GraphError(f"load_weights: {what} is a str, got {shown(text)}", user_loc())
    arrays = load_arrays(path)
    chosen = {under + name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
    if not chosen:
        raise GraphError(f"{path} has no name that begins with {prefix!r}; it has {', '.join(list(arrays)[:8])}",
                         user_loc())
    return chosen


@formed
def save_weights(path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> None:
    """Writes arrays by name (`step.weights()`, say) as a safetensors file, whole or not at all."""
    if not isinstance(arrays, Mapping) or not all(isinstance(name, str) for name in arrays):
        raise GraphError(f"save_weights takes a mapping from names to arrays, got {shown(arrays)}", user_loc())
    save_arrays(_path(path, "save_weights"), {name: np.asarray(a) for name, a in arrays.items()})


def _path(path: Any, what: str) -> str:
    if not isinstance(path, (str, os.PathLike)):
        raise GraphError(f"{what} takes the path of a file, got {shown(path)}", user_loc())
    return str(os.fspath(path))
