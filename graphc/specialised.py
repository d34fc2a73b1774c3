"""Native code for the sizes that come. Here alone sizes decide which program runs."""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from weakref import WeakMethod

import numpy as np

from graphc.compiled import CompiledGraph
from graphc.compiler import Compilation
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed_methods
from graphc.dsl.inline import solve_dims
from graphc.dsl.other_methods import OF_RUNS, Answering
from graphc.errors import GraphError, Unsized
from graphc.execute import Runnable
from graphc.ir.builder import bind_graph
from graphc.ir.dims import static_dim
from graphc.ir.graph import Graph
from graphc.ir.open import Bounds
from graphc.ir.parser import parse
from graphc.ir.printer import print_graph
from graphc.ir.shown import Shown
from graphc.ir.types import TensorType, dtype_of
from graphc.memory.usage import Memory
from graphc.once import recent
from graphc.origin import Origin, explained, quantisation_of, state_of
from graphc.quantisation_report import QuantisationReport
from graphc.runtime.arguments import array_of_any_type
from graphc.runtime.sizes_entry import SizesEntry
from graphc.sized import SizedGraph
from graphc.state import State

if TYPE_CHECKING:
    from graphc.profile import Profile

KEPT_PROGRAMS = 16                  # for different sizes, of one function
KEPT_SIZES = 256                    # of which what a call needs is kept
ANY_SIZE = Bounds(0)
SHAPE = attrgetter("shape")

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


class SpecialisedGraph(partial[Any], Shown, Answering):
    """A graph as native code for the sizes of its named dimensions, which are those of the arrays that come: one
    program for all sizes where the compiler can make it, else one for each. Without named dimensions there is one
    program, made when it is first asked for.

    As a `partial` of the native entry, sizes that have come before are called from C to C: a call costs no Python.
    """
    answers = OF_RUNS
    _entry: SizesEntry

    def __new__(cls, graph: Graph, *given: object, **options: object) -> SpecialisedGraph:
        """With the entry of which it is a `partial`."""
        entry = SizesEntry(len(graph.inputs), lambda *args, **named: called()(*args, **named))
        self = partial.__new__(cls, entry.call)
        called = cast(Callable[[], Callable[..., Any]], WeakMethod(self._called))       # no cycle
        self._entry = entry
        return self

    def __init__(self, graph: Graph, make: Callable[[Graph], Runnable], advice: str = "",
                 make_sized: Callable[[Graph, Mapping[str, Bounds]], SizedGraph] | None = None,
                 bounds: Mapping[str, Bounds] = MappingProxyType({})):
        """`make`: the native code of a graph without named dimensions; `make_sized`: that for all sizes, in bounds;
        `advice`: what to do where the sizes are not known yet; `bounds`: those that the user gave."""
        self.graph, self._native, self._advice, self.static = graph, make, advice, not graph.dim_names
        self._make_sized, self._bounds, self._opened = None if self.static else make_sized, bounds, False
        self._sized: SizedGraph | None = None
        apart = cast(Callable[[], Callable[..., Runnable]], WeakMethod(self._apart_at))
        self._apart: Specialised[Runnable] = Specialised(lambda **sizes: apart()(**sizes))
        self._together: OrderedDict[Hashable, Runnable] = OrderedDict()      # by sizes, of the program for all
        self._by_shapes: dict[tuple[object, ...], Runnable] = {}
        self._last: Runnable | None = None
        self.origin: Origin | None = None       # of what `gc.compile` made
        self.why_not = ""           # each size needs a program of its own; empty where that is not so

    def __repr__(self) -> str:
        sizes = "" if self.static else f", for each size of {', '.join(sorted(self.graph.dim_names))}"
        return f"<compiled {self.graph.heading}{sizes}>"

    def __reduce__(self) -> tuple[Callable[..., SpecialisedGraph], tuple[Any, ...]]:
        """Without native code, which is made again, mostly from the disk cache."""
        return _unpickled, (print_graph(self.graph), self._native, self._advice, self._make_sized, dict(self._bounds))

    def _called(self, *args: Any, **named: Any) -> Any:
        """A call for whose arrays the native entry keeps no program."""
        return self.serving(args, {k: v for k, v in named.items() if k != "out"})(*args, **named)

    def serving(self, args: Sequence[np.ndarray], named: Mapping[str, np.ndarray] = MappingProxyType({})) -> Runnable:
        """As `fitting`, of arrays in the order of the inputs, and others by name; fast for shapes that have come
        before."""
        if self.static:
            return self.at()
        try:
            run = self._by_shapes.get(tuple(map(SHAPE, args)))
        except AttributeError:                              # no arrays: the long way has words for it
            run = None
        if run is None:
            return self.fitting({**self._by_name(args), **named})
        return self._used(run)

    def _used(self, run: Runnable) -> Runnable:
        self._entry.forget()
        self._last = run
        return run

    def at(self, **sizes: int) -> Runnable:
        """The native code for these sizes."""
        sized = self.sized
        if sized is not None and sized.serves(sizes):
            make: Callable[[], Any] = partial(sized.at, **sizes)
            return self._used(recent(self._together, tuple(sizes.items()), make, KEPT_SIZES))
        return self._used(self._apart.at(**sizes))

    def fitting(self, arrays: Mapping[str, np.ndarray]) -> Runnable:
        """The native code for the sizes of these arrays. GraphError where one is missing or of another type."""
        if self.static:
            return self.at()
        sizes = self._sizes(arrays)
        run = self.at(**sizes)
        if len(self._by_shapes) >= KEPT_SIZES:
            self._forget_shapes()
        given = [arrays[v.name] for v in self.graph.inputs]
        self._by_shapes[tuple(map(np.shape, given))] = run
        if isinstance(run, CompiledGraph):
            self._entry.keep(given, run.executable, run)
            if self.func is not self._entry.call:           # native now: this is how a `partial` gets its function
                cast(Any, self).__setstate__((self._entry.call, (), {}, self.__dict__))
        return run

    def _apart_at(self, **sizes: int) -> Runnable:
        """A program made for these sizes alone. Of those before it one may go for it."""
        self._forget_shapes()
        return self._native(bind_graph(self.graph, sizes))

    def _forget_shapes(self) -> None:
        self._by_shapes.clear()
        self._entry.clear()

    @property
    def sized(self) -> SizedGraph | None:
        """The program for all sizes, if there can be one; `why_not` says why there is none."""
        if not self._opened:
            if self._make_sized is not None:
                try:
                    self._sized = self._make_sized(self.graph, self._bounds)
                except Unsized as reason:
                    self.why_not = reason.text
            self._opened = True
        return self._sized

    @property
    def last(self) -> Runnable | None:
        """That for the sizes used last."""
        return cast(Runnable | None, self._entry.last) or self._last

    @property
    def kept(self) -> tuple[Runnable, ...]:
        """All that is kept."""
        return (*self._together.values(), *self._apart.kept)

    @property
    def state(self) -> State:
        """The live arrays that calls read and write: read, written, saved and copied by name, as `step.state`."""
        return state_of(self.origin)

    def renew(self) -> None:
        """See `Executable.renew`."""
        for run in self.kept:
            run.renew()

    def release(self) -> None:
        """Gives back the memory that calls have used."""
        for run in self.kept:
            run.release()

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
        """Bytes by purpose, as formulas in the sizes; of programs for each size, for those used last. The oracle knows
        none."""
        return self.sized.memory if self.sized else self.used().memory

    def dump(self, stage: str = "graph") -> str:
        """The text of a stage; those after "graph" are of the program for all sizes, or for those used last."""
        if stage == "graph":
            return print_graph(self.graph)
        return self.sized.compilation.text(stage) if self.sized else self.used().dump(stage)

    def explain(self) -> str:
        """As of the compiled function, for all sizes or for those used last."""
        if self.sized:
            return explained(self.origin, self.sized.compilation.explain())
        each = f"each size has a program of its own: {self.why_not}\n\n" if self.why_not else ""
        return explained(self.origin, each + self.used().explain())

    def quantisation(self) -> QuantisationReport:
        """As of the compiled function."""
        return quantisation_of(self.origin)

    @property
    def compilation(self) -> Compilation:
        """The stages: of the program for all sizes, or of that for the sizes used last."""
        return self.sized.compilation if self.sized else self.used().compilation

    def profile(self, *arrays: np.ndarray, runs: int = 5) -> Profile:
        """As of the compiled function for the sizes of these arrays."""
        return self.fitting(self._by_name(arrays)).profile(*arrays, runs=runs)

    def _by_name(self, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip((v.name for v in self.graph.inputs), arrays))

    def _sizes(self, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
        inputs = self.graph.inputs
        missing = [v.name for v in inputs if v.name not in arrays]
        if missing:
            raise GraphError(f"{self.graph.name} needs {missing[0]!r}", user_loc())
        try:
            given = [array_of_any_type(arrays[v.name], f"argument {v.name!r} of {self.graph.name}") for v in inputs]
            types = [TensorType(dtype_of(a), a.shape) for a in given]
            sizes = solve_dims([(v.name, v.type, type) for v, type in zip(inputs, types)])
            found = {name: static_dim(size) for name, size in sizes.items()}
            for name, size in found.items():
                if size not in self._bounds.get(name, ANY_SIZE):
                    bounds = self._bounds[name]
                    raise GraphError(f"{name} is {size} here, but {self.graph.name} was compiled for {name}="
                                     f"({bounds.low}, {bounds.high})")
            return found
        except GraphError as error:
            raise error.at(user_loc()) from None


def _unpickled(text: str, make: Callable[[Graph], Runnable], advice: str,
               make_sized: Callable[[Graph, Mapping[str, Bounds]], SizedGraph] | None,
               bounds: Mapping[str, Bounds]) -> SpecialisedGraph:
    return SpecialisedGraph(parse(text), make, advice, make_sized, bounds)


formed_methods(SpecialisedGraph)
