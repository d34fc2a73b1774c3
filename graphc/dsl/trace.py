"""A trace: one graph being built by running the user's function on symbolic arrays."""
from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING

from graphc.dsl.array import Array, as_array
from graphc.dsl.context import STACK, error_loc, user_loc
from graphc.dsl.outputs import LayerCall
from graphc.errors import GraphError
from graphc.ir.builder import Builder
from graphc.ir.graph import Value
from graphc.ir.types import TensorType, i64

if TYPE_CHECKING:
    from graphc.dsl.debug import Print

RANDOM_KEY = "random.key"
RANDOM_KEY_TYPE = i64[2]
# whether a step trains anything of a layer, whose parameters have these names
Trains = Callable[[object, list[str]], bool]
# 2^32 over the golden ratio: multiples by step stay far apart, so step * this + round is new each time
ROUNDS = 0x9E3779B9
SHARDS = 0x9E3779B97F4A7C15 - (1 << 64)     # the same of 2^64, for seeds: no shard draws what another one draws


class Trace:
    """Owns the builder of one graph and the state that the graph reads and writes.

    Entering it makes it the running trace of the thread; who enters one without a parent is `contained`. A trace with
    a `parent` is the body of a loop or branch: arrays of the outer traces that it uses become extra inputs:
    `captured` finds the input of an outer value, `outer` lists the outer arrays in the order of those inputs. In the
    body of a loop, `iteration` is the number of the round, an input that exists once something asks for it (random
    numbers do: each round draws its own). In one that is `apart`, which runs once (remat), layers may update state:
    whoever made it does that outside.
    """

    def __init__(self, name: str, training: bool = False, parent: "Trace | None" = None, loop: bool = False,
                 apart: bool = False):
        self.builder = Builder(name)
        self.parent = parent
        self.loop = loop
        self.apart = apart
        self.updated: dict[Hashable, Array] = {}        # of a trace apart: what its layers made of the state
        self.iteration: Array | None = None
        self.mode_matters = False
        self.derived = False                            # whether a derivative was inlined
        self.in_training = training
        self.shard: Array | None = None                 # of a batch, its number, i64: each draws its own numbers
        self.captured: dict[Value, Value] = {}
        self.outer: list[Array] = []
        self.keys: dict[Hashable, Array] = {}
        self.state_values: dict[Hashable, Value] = {}
        self.function: Callable | None = None           # what is traced: layers are named by its variables
        self.layers: object | None = None               # the names that layers called by it have (see nn.path)
        # of layers, in the order in which they began; None: has not returned yet
        self.calls: list[LayerCall | None] = []
        self.shared: dict[Hashable, tuple[Array, ...]] = {}     # what layers make once for all of them, by what it is
        self.prints: list[Print] | None = [] if parent is None else None    # None: nothing can be printed from here
        # where layers said which of the first two axes of a sequence is time (see order)
        self.batch_first: dict[Value, bool] = {}
        # by which layers arrays were taken for batch first, or not
        self.taken_orders: list[tuple[str, Value, bool]] = []
        self.trains: Trains | None = None
        self.trains_matter = False
        self._state_names: set[str] = set()
        self._streams: Counter[str] = Counter()
        self._entered: list[Token] = []                 # what to undo at the exits
        if parent:
            self.builder.scope = parent.builder.scope

    def __enter__(self) -> "Trace":
        self._entered.append(STACK.set(STACK.get() + (self,)))
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        STACK.reset(self._entered.pop())
        if isinstance(error, GraphError) and error.loc is None:
            raise error.at(error_loc(traceback)) from None

    @property
    def training(self) -> bool:
        """Whether the root graph is traced for training. Whoever asks makes the graph depend on the mode."""
        self.root.mode_matters = True
        return self.root.in_training

    @property
    def trained(self) -> Trains | None:
        """What the training step that the root graph is traced for trains. Whoever asks makes the graph depend on it.
        """
        self.root.trains_matter = True
        return self.root.trains

    @property
    def root(self) -> "Trace":
        return self.parent.root if self.parent else self

    def input(self, name: str, type: TensorType) -> Array:
        return Array(self.builder.input(name, type), self)

    # layers

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Nodes built inside belong to the layer `name` of the surrounding layer: "encoder" then "0" gives
        "encoder.0"."""
        before = self.builder.scope
        self.builder.scope = f"{before}.{name}" if before else name
        try:
            yield
        finally:
            self.builder.scope = before

    def state(self, key: Hashable, name: str, type: TensorType) -> Array:
        """The current value of the state owned by `key` (any hashable object): a state input `name`
        of the root graph at the first request, the same array (or its update) afterwards."""
        root = self.root
        new = self._updated(key)
        if new is not None:
            return new
        if key not in root.keys:
            if name in root._state_names:
                raise GraphError(f"two different states are called {name!r}")
            root._state_names.add(name)
            root.state_values[key] = root.builder.state_input(name, type)
            root.keys[key] = Array(root.state_values[key], root)
        return root.keys[key]

    def update_state(self, key: Hashable, new: Array) -> None:
        """`new` becomes the value of the state of `key` after a run, and is what `state` returns from here on."""
        root = self.root
        if self.apart:
            self.updated[key] = new
            return
        if key not in root.keys:
            raise GraphError("a state must be read with trace.state before it is updated")
        if self is not root:
            raise GraphError("state (such as running statistics) cannot change inside scan, cond or while_loop: "
                             "return the new value from the body and update the state outside")
        root.builder.loc = user_loc()
        root.builder.update(root.state_values[key], root.value(new))
        root.keys[key] = new

    def _updated(self, key: Hashable) -> Array | None:
        """What layers inside of this trace, or of those apart around it, have made of a state."""
        if key in self.updated:
            return self.updated[key]
        return self.parent._updated(key) if self.parent else None

    # random numbers

    def random_key(self) -> Array:
        """The hidden key i64[2] = (seed, step) of the state; its step counts runs."""
        if self.parent is None:
            return self._root_key()
        key = self.parent.random_key()
        if not self.loop:
            return key
        return key * [1, ROUNDS] + (self.round() + 1) * as_array([0, 1])

    def round(self) -> Array:
        """The number of the round of this loop, i64."""
        if self.iteration is None:
            self.iteration = self.input("iteration", i64[()])
        return self.iteration

    def _root_key(self) -> Array:
        fresh = RANDOM_KEY not in self.keys
        key = self.state(RANDOM_KEY, RANDOM_KEY, RANDOM_KEY_TYPE)
        if fresh:
            b = self.builder
            b.update(key.value, b.add(key.value, b.constant([0, 1], i64)))
        return key if self.shard is None else key + self.shard * as_array([SHARDS, 0])

    def next_stream(self, what: str) -> int:
        """A 32-bit number for a random operator: a hash of the layer's path and a count within it, stable between
        runs."""
        path = f"{self.builder.scope}/{what}"
        self.root._streams[path] += 1
        return zlib.crc32(f"{path}/{self.root._streams[path]}".encode())

    # arrays

    def value(self, array: Array) -> Value:
        """The value of `array` inside this trace; an array of an outer trace becomes a captured input."""
        if array.trace is self:
            return array.value
        if array.value not in self.captured:
            if not self._descends_from(array.trace):
                raise GraphError(f"{array!r} belongs to another graph, whose trace is over or not around this one: "
                                 "pass it as an argument, or return it from that graph")
            self.captured[array.value] = self.builder.input(self._fresh(array.value.name), array.type)
            self.outer.append(array)
        return self.captured[array.value]

    def _fresh(self, name: str) -> str:
        """A name for a captured input: that of the outer value if no other input has it."""
        taken = {v.name for v in self.builder.inputs}
        return name if name and name not in taken else f"outer{len(self.outer)}"

    def _descends_from(self, trace: "Trace") -> bool:
        return self.parent is not None and (self.parent is trace or self.parent._descends_from(trace))
