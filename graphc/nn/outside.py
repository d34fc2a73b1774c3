"""What is said to a layer's call outside of graphs, and to who asks it for what it has not."""
from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from graphc.dsl.context import user_loc
from graphc.dsl.other_methods import OF_LAYERS
from graphc.errors import GraphError
from graphc.ir.types import of_numpy


def untraced(names: Iterable[str], arrays: Iterable[object]) -> GraphError:
    """The error for a layer that is called with numpy's arrays: what would run it. `names`: of its inputs."""
    given = [(name, a) for name, a in zip(names, arrays) if isinstance(a, np.ndarray)]
    types = "".join(f", {name}=gc.{of_numpy(a.dtype)}{list(a.shape)}" for name, a in given) or ", x=gc.f32[…]"
    return GraphError("a layer is called inside of a graph, and runs when it is compiled: "
                      f"run = gc.compile(net{types}, seed=0), then run({', '.join(name for name, _ in given) or 'x'})",
                      user_loc())


def check_made(kind: str, made: Iterable[str], parameters: Collection[str]) -> None:
    """GraphError if a layer that was called has no parameter of a name that others were to make up."""
    for name in made:
        if not any(own.startswith(f"parametrizations.{name}.") for own in parameters):
            raise GraphError(f"{kind} has no parameter {name!r} to be made of others; it has "
                             f"{', '.join(parameters) or 'none'}")


def no_attribute(kind: str, name: str, has_parameters: bool) -> AttributeError:
    """The error for an attribute that a layer of this class has not."""
    made = f": {OF_LAYERS[name]}" if name in OF_LAYERS else ""
    if not made and not name.startswith("_") and not has_parameters:
        made = ": a layer has its parameters, such as layer.weight, once it has been called and their sizes are known"
    return AttributeError(f"{kind} has no {name}{made}", name=name)
