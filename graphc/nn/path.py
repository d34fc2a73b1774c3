"""Where in the network we are while it is traced: the stack of layers being called, and the names of their
parameters."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

from graphc.dsl.array import Array
from graphc.dsl.context import current_trace
from graphc.dsl.inline import join
from graphc.dsl.outputs import LayerCall
from graphc.dsl.tree import flatten

if TYPE_CHECKING:
    from graphc.dsl.trace import Trace
    from graphc.nn.module import Module

    Mentioned = Callable[[Callable[..., Any]], Iterable[tuple[str, Module]]]        # the layers that a function names


class LayerFrame:
    """One layer being called: its path, and the names that its inner layers have or are given.

    `direct` gives its own inner layers with their names, `known` also those inside of them.
    """

    def __init__(self, path: str, known: "Callable[[], Iterable[tuple[str, Module]]]" = tuple,
                 direct: "Callable[[], Iterable[tuple[str, Module]]]" = tuple) -> None:
        self.path, self.known, self.direct = path, known, direct
        self.names: dict[int, str] = {}
        self.keep: list[Module] = []            # ids stay valid while the modules live

    def child(self, module: "Module") -> str:
        """The name of an inner layer: as the outer one has it, else by its class, numbered from the second on."""
        if id(module) not in self.names:
            self._look()
        if id(module) not in self.names:
            self.names[id(module)] = self._fresh(type(module).__name__.lower())
            self.keep.append(module)
        return self.names[id(module)]

    def holds(self, module: "Module") -> bool:
        """Whether the layer has `module` as a direct part."""
        return any(inner is module for _, inner in self.direct())

    def _look(self) -> None:
        """The names of the layers that the outer one has now."""
        for name, inner in self.known():
            self.names.setdefault(id(inner), name)

    def _fresh(self, base: str) -> str:
        taken = set(self.names.values())
        return base if base not in taken else next(n for i in range(2, 1 << 30) if (n := f"{base}_{i}") not in taken)


FRAMES: ContextVar[tuple[LayerFrame, ...]] = ContextVar("graphc layers", default=())


def parameter_path(name: str) -> str:
    """The full name of parameter `name` of the layer being called."""
    return join(FRAMES.get()[-1].path, name)


@contextmanager
def entered(module: "Module", mentioned: "Mentioned") -> Iterator[None]:
    """The layer is being called: nodes carry its path, its inner layers are named below it. `mentioned(f)`: the
    layers that a function names."""
    trace = current_trace()
    frames = FRAMES.get() or (_root(trace.root, mentioned),)
    name = frames[-1].child(module)
    token = FRAMES.set(frames + (LayerFrame(join(frames[-1].path, name), module.named_modules, module.children),))
    try:
        with trace.scope(name) if name else nullcontext():
            yield
    finally:
        FRAMES.reset(token)


def noted(kind: str, forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward`, whose result the trace notes as that of the layer being called."""
    def call(*arrays: Any, **options: Any) -> Any:
        trace, path = current_trace(), FRAMES.get()[-1].path
        place = len(trace.calls)
        trace.calls.append(None)
        result = forward(*arrays, **options)
        values = tuple(a.value for a in flatten(result)[0] if isinstance(a, Array) and a.trace is trace)
        trace.calls[place] = LayerCall(path, kind, values)
        return result
    return call


def is_part(module: "Module") -> bool:
    """Whether `module` is a direct part of the layer being called, and not just something that its forward uses."""
    frames = FRAMES.get()
    return bool(frames) and frames[-1].holds(module)


def placed(module: "Module", name: str) -> None:
    """The inner layer about to be called stands at the place `name`, also if it stands at another one too."""
    FRAMES.get()[-1].names[id(module)] = name


@contextmanager
def rooted(module: "Module") -> Iterator[None]:
    """`module` is the whole network: its own path is empty."""
    frame = LayerFrame("")
    frame.names[id(module)] = ""
    token = FRAMES.set((frame,))
    try:
        yield
    finally:
        FRAMES.reset(token)


def _root(trace: Trace, mentioned: "Mentioned") -> LayerFrame:
    """The frame of a traced function that is no layer: one per trace, so that a layer called twice keeps its name.
    Layers that the function mentions are named by its variables, as in a training step of that function."""
    if trace.layers is None:
        trace.layers = LayerFrame("", lambda: mentioned(trace.function) if trace.function else ())
    return cast(LayerFrame, trace.layers)           # dsl knows no layers
