"""Native code for the sizes that come. Here alone sizes decide which program runs."""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np

from graphc.dsl.context import user_loc
from graphc.dsl.form import formed_methods
from graphc.dsl.inline import solve_dims
from graphc.errors import GraphError
from graphc.execute import Runnable
from graphc.ir.builder import bind_graph
from graphc.ir.graph import Graph
from graphc.ir.parser import parse
from graphc.ir.printer import print_graph
from graphc.ir.shown import Shown
from graphc.ir.types import TensorType, dtype_of, static_dim
from graphc.memory.usage import Memory
from graphc.once import recent
from graphc.profile import Profile

KEPT_PROGRAMS = 16                  # for different sizes, of one function

R = TypeVar("R")


class Specialised(Generic[R]):
    """What is made of one function for given sizes: once for each set of them; the last `most` that were used are kept.

    The seam for sizes at run time: when one program serves every size of a named dimension, `at` gives that program
    whatever the sizes, `make` is called once, and those who ask (`gc.compile`, training steps, evaluation, generation)
    stay as they are.
    """

    def __init__(self, make: Callable[..., R], most: int = KEPT_PROGRAMS):
        """`make(**sizes)`: what is kept for these sizes."""
        self._make, self._most = make, most
        self._kept: OrderedDict[tuple[tuple[str, Hashable], ...], R] = OrderedDict()

    def at(self, **sizes: Hashable) -> R:
        """What is made for these sizes."""
        return recent(self._kept, tuple(sorted(sizes.items())), partial(self._make, **sizes), self._most)

    @property
    def last(self) -> R | None:
        """That of the sizes used last."""
        return next(reversed(self._kept.values()), None)

    @property
    def kept(self) -> tuple[R, ...]:
        """All that is kept, that used last at the end."""
        return tuple(self._kept.values())


class SpecialisedGraph(Specialised[Runnable], Shown):
    """A graph as native code for the sizes of its named dimensions, which are those of the arrays that come. Without
    named dimensions there is one program, made when it is first asked for."""

    def __init__(self, graph: Graph, make: Callable[[Graph], Runnable], advice: str = ""):
        """`make`: the native code of a graph without named dimensions; `advice`: what to do where it is not known
        yet."""
        super().__init__(lambda **sizes: make(bind_graph(graph, sizes)))
        self.graph, self._native, self._advice, self.static = graph, make, advice, not graph.dim_names

    def __repr__(self) -> str:
        sizes = "" if self.static else f", for each size of {', '.join(sorted(self.graph.dim_names))}"
        return f"<compiled {self.graph.heading}{sizes}>"

    def __reduce__(self) -> tuple[Callable[..., SpecialisedGraph], tuple[Any, ...]]:
        """Without native code, which is made again, mostly from the disk cache."""
        return _unpickled, (print_graph(self.graph), self._native, self._advice)

    def __call__(self, *args: np.ndarray, **named: Any) -> Any:
        return self.fitting(self._by_name(args) | {k: v for k, v in named.items() if k != "out"})(*args, **named)

    def fitting(self, arrays: Mapping[str, np.ndarray]) -> Runnable:
        """The native code for the sizes of these arrays. GraphError where one is missing or of another type."""
        return self.at() if self.static else self.at(**self._sizes(arrays))

    def used(self) -> Runnable:
        """The native code for the sizes used last."""
        if self.static:
            return self.at()
        if self.last is None:
            raise GraphError(f"the sizes of {', '.join(sorted(self.graph.dim_names))} are not known before the first "
                             f"call{self._advice}", user_loc())
        return self.last

    @property
    def memory(self) -> Memory | None:
        """Bytes by purpose, for the sizes used last; the oracle knows none."""
        return self.used().memory

    def dump(self, stage: str = "graph") -> str:
        """The text of a stage; those after "graph" are of the sizes used last."""
        return print_graph(self.graph) if stage == "graph" else self.used().dump(stage)

    def explain(self) -> str:
        """As of the compiled function for the sizes used last."""
        return self.used().explain()

    def profile(self, *arrays: np.ndarray, runs: int = 5) -> Profile:
        """As of the compiled function for the sizes of these arrays."""
        return self.fitting(self._by_name(arrays)).profile(*arrays, runs=runs)

    def _by_name(self, arrays: tuple[np.ndarray, ...]) -> dict[str, np.ndarray]:
        return dict(zip((v.name for v in self.graph.inputs), arrays))

    def _sizes(self, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
        inputs = self.graph.inputs
        missing = [v.name for v in inputs if v.name not in arrays]
        if missing:
            raise GraphError(f"{self.graph.name} needs {missing[0]!r}", user_loc())
        try:
            given = [np.asarray(arrays[v.name]) for v in inputs]
            types = [TensorType(dtype_of(a), a.shape) for a in given]
            sizes = solve_dims([(v.name, v.type, type) for v, type in zip(inputs, types)])
            return {name: static_dim(size) for name, size in sizes.items()}
        except GraphError as error:
            raise error.at(user_loc()) from None


def _unpickled(text: str, make: Callable[[Graph], Runnable], advice: str) -> SpecialisedGraph:
    return SpecialisedGraph(parse(text), make, advice)


formed_methods(SpecialisedGraph)
