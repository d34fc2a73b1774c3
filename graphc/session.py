"""What generates for batches of one size: the programs of prompts and tokens, and the arrays that are kept between
their calls."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol

import numpy as np

from graphc.contained import contained
from graphc.dsl.array import Array
from graphc.dsl.context import user_loc
from graphc.dsl.function import GraphFunction, finish
from graphc.dsl.trace import RANDOM_KEY, Trace
from graphc.dsl.tree import Structure
from graphc.errors import GraphError
from graphc.execute import Runnable, make_executable, sized_executable
from graphc.ir.dim_text import as_dim
from graphc.ir.dims import Dim
from graphc.ir.graph import Graph, Node
from graphc.ir.open import Bounds
from graphc.ir.ops.blocks import BlockProduct
from graphc.ir.ops.contract import Matmul
from graphc.ir.ops.elementwise import Elementwise
from graphc.ir.types import TensorType, f32, i64
from graphc.nn.decode import Batch, Decoding, Kept, decoding_with
from graphc.nn.entry import Entry
from graphc.nn.generate import sample
from graphc.nn.module import Function, Module, argument_names
from graphc.nn.network import call, entries, network_name
from graphc.nn.path import rooted
from graphc.once import once_property
from graphc.prompts import grown, padded_size, resized
from graphc.recalled import Recalled, keep, named, recall_key, recalled
from graphc.records import dataclass
from graphc.runtime.lock import StateLock
from graphc.runtime.memory import round_up
from graphc.sized import SizedGraph
from graphc.specialised import Specialised
from graphc.state import State
from graphc.stored_weights import storing
from graphc.weight_storage import Store

KEPT_PROMPTS = 3                    # programs for prompts of different lengths, where there is none for all
KEPT_STEPS = 32                     # programs of a token: all, since each window is twice as large as the one before
WINDOW = 512                        # a token looks at so many slots of the caches, or at twice, four times … as many
STRIDE = 64                         # where one program serves all windows: at a multiple of so many
KEPT_SIZES = 256                    # of which what a call needs is kept
SLOT, LONGEST, LENGTHS = (Kept(None, name) for name in ("slot", "longest", "lengths"))


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen, as far as programs depend on it."""
    sampled: bool
    top_k: int | None
    nucleus: bool

    def token(self, scores: Array, temperature: Array | None, top_p: Array | None) -> Array:
        if temperature is None:             # not sampled: it is no knob
            return scores.argmax(-1)
        nucleus = None if top_p is None else top_p.astype(scores.dtype)
        return sample(scores, temperature.astype(scores.dtype), self.top_k, nucleus)

    @property
    def knobs(self) -> dict[str, TensorType]:
        """The arguments of a program that may change from call to call."""
        names = ("temperature",) * self.sampled + ("top_p",) * self.nucleus
        return dict.fromkeys(names, f32[()])


@dataclass(frozen=True)
class SessionPlan:
    """What a pair of programs is made for."""
    batch: Batch
    ids: TensorType
    inputs: tuple[tuple[str, TensorType], ...]
    choice: Sampling
    store: Store | None = None


class ProgramLoader(Protocol):
    """What makes the native code of a function: of one without named dimensions, or for all sizes in bounds."""

    def native(self, function: GraphFunction) -> Runnable: ...

    def sized(self, trace: Callable[[], GraphFunction], bounds: Mapping[str, Bounds]) -> SizedGraph: ...


class Programs:
    """One program for all sizes of a dimension, where the network and the compiler can make it, else one for each size
    that is asked for."""

    def __init__(self, trace: Callable[[Dim], GraphFunction], loader: ProgramLoader, name: str,
                 capacity: int, most: int, single: bool = False):
        """`trace(size)`: the graph for an int, or for the dimension `name`, of up to `capacity`; `loader` makes its
        code. `most`: programs kept. `single`: all sizes are rounded to the same one."""
        self._single = single
        self._trace, self._loader, self._name, self._bounds = trace, loader, name, {name: Bounds(1, capacity)}
        self._apart: Specialised[Runnable] = Specialised(lambda size: loader.native(trace(size)), most)
        self._together: Specialised[Runnable] = Specialised(lambda size, sized: sized.at(**{name: size}), KEPT_SIZES)
        self.last: Runnable | None = None
        self.why_not = ""           # each size has a program of its own; empty where that is not so

    @once_property
    def sized(self) -> SizedGraph | None:
        """The program for all sizes, unless sizes are rounded to a single one anyway."""
        if self._single:
            return None
        try:
            return self._loader.sized(partial(self._trace, as_dim(self._name)), self._bounds)
        except GraphError as reason:        # should it be another mistake, the graph of one size has it too
            self.why_not = reason.text
            return None

    def at(self, size: int, rounded: int) -> tuple[Runnable, int]:
        """The code for arrays of `size`, and it; of `rounded`, where sizes have programs of their own."""
        sized = self.sized
        if sized is not None and sized.serves({self._name: size}):
            run = self.last = self._together.at(size=size, sized=sized)
            return run, size
        try:
            run = self.last = self._apart.at(size=rounded)
        except GraphError as error:
            if self.why_not in ("", error.text):
                raise
            raise GraphError(f"{error.text}; one program for all {self._name} cannot be made either: {self.why_not}",
                             error.loc) from error
        return run, rounded

    @property
    def kept(self) -> tuple[Runnable, ...]:
        return self._apart.kept + self._together.kept


class Session:
    """The programs of one plan, and the arrays that are kept between their calls."""

    def __init__(self, root: Module, plan: SessionPlan, owner: Callable[[Sequence[Entry]], State | None], threads: int):
        """`owner` gives the state that has the parameters it is called with."""
        self.root, self.plan, self.owner, self.threads, self.own = root, plan, owner, threads, State()
        capacity = plan.batch.capacity
        self.prompts = Programs(self._prompted, self, "T", capacity, KEPT_PROMPTS)
        self.steps = Programs(self._stepped, self, "W", capacity, KEPT_STEPS, capacity <= WINDOW)
        self.slots = np.arange(capacity)
        self.structures: dict[Kept, tuple[Structure, tuple[TensorType, ...]]] = {}
        self.places: int | None = None
        self.last: Runnable | None = None
        self.lasting = False        # whether programs of a token derive values from what only those of prompts write
        self.traced = False         # whether the structures are known

    def tokens(self, ids: np.ndarray, lengths: np.ndarray, inputs: Mapping[str, np.ndarray],
               knobs: Sequence[np.ndarray], needed: int, seed: int) -> Iterator[np.ndarray]:
        """Arrays of tokens [B], of which all but the last fill `needed` slots together with the prompts."""
        longest, capacity = int(lengths.max()), self.plan.batch.capacity
        first, size = self.prompts.at(longest, min(padded_size(longest), capacity))
        if self.places is not None and needed > self.places:
            raise GraphError(f"the network knows {self.places} places, prompt and tokens need {needed}: give a larger "
                             "length to LearnedPosition", user_loc())
        if RANDOM_KEY in self.own:
            self.own[RANDOM_KEY] = np.array([seed, 0])
        token = first(resized(ids, size), lengths, *inputs.values(), *knobs)
        yield token
        if self.lasting:
            for step in self.steps.kept:
                step.renew()
        window, seen, run = 0, tuple[np.ndarray, ...](), self.last
        for slot in range(longest, needed):
            if run is None or slot >= window:
                most = [min(n, capacity) for n in (round_up(slot + 1, STRIDE), grown(slot + 1, WINDOW))]
                run, window = self.steps.at(*most)
                self.last = run
                seen = (self.slots[:window],) if self.steps.sized else ()
            token = run(token, *seen, *knobs)
            yield token

    def native(self, function: GraphFunction) -> Runnable:
        """Of one size, on what is kept and the state of the network."""
        graph, arrays, lock = self._on_arrays(function)
        return make_executable(graph, arrays, lock, self.threads, quiet=True)

    def sized(self, trace: Callable[[], GraphFunction], bounds: Mapping[str, Bounds]) -> SizedGraph:
        """The same of what `trace` gives, for all sizes. Nothing is traced where an earlier process has done so."""
        owner = self.owner(())
        key = recall_key(self.root, self.plan, sorted(bounds.items())) if owner and self.plan.store is None else None
        known = recalled(key)
        if known is not None and owner is not None and all(map(owner.holds, known.foreign)):
            arrays = self._arrays(known.entries, known.own, owner)
            self.places, self.lasting = known.places, known.lasting
            return SizedGraph(lambda: trace().graph, bounds, self.threads, arrays, owner.lock, True, key=known.code)
        function = trace()
        graph, arrays, lock = self._on_arrays(function)
        program = sized_executable(graph, bounds, self.threads, arrays, lock, quiet=True)
        needed = entries(function)
        keep(key, Recalled(*named(needed), program.key, tuple(map(_is_own, needed)), self.places, self.lasting))
        return program

    def _on_arrays(self, function: GraphFunction) -> tuple[Graph, list[np.ndarray], StateLock]:
        """The graph as weights are stored, the arrays of its state, and their lock."""
        function, stored = storing(function, self.plan.store)
        needed = entries(function)
        owner = self.owner([e for e in needed if not _is_own(e)])
        arrays = self._arrays(needed, list(map(_is_own, needed)), owner or self.own)
        if stored:
            stored.check(arrays)
        return function.graph, arrays, (owner or self.own).lock

    def _arrays(self, needed: Sequence[Entry], own: Sequence[bool], owner: State) -> list[np.ndarray]:
        """Those of the owner, and, where `own` says so, of this session."""
        for entry, is_own in zip(needed, own):
            if is_own and entry.name not in self.own:
                self.own.add(entry, entry.initial(0))
        return [(self.own if is_own else owner).array(entry) for entry, is_own in zip(needed, own)]

    @contained
    def _prompted(self, size: Dim) -> GraphFunction:
        """The graph that takes prompts of `size` tokens and gives the first token."""
        root, plan, self.traced = self.root, self.plan, True
        with Trace(f"prompt_{network_name(root)}") as trace, rooted(root):
            ids = trace.input(prompt_name(root), plan.ids.with_shape((plan.batch.size, size)))
            lengths = trace.input("lengths", i64[plan.batch.size])
            longest = lengths.max() if plan.batch.ragged else lengths[0]
            inputs = {name: trace.input(name, type) for name, type in plan.inputs}
            kept = {SLOT: longest, LONGEST: longest, LENGTHS: lengths}
            for key, value in (kept | {Kept("input", name): x for name, x in inputs.items()}).items():
                _kept(trace, key, value.type)
                trace.update_state(key, value)
            return self._chosen(trace, Decoding(plan.batch, lengths, longest, structures=self.structures), ids, inputs)

    @contained
    def _stepped(self, window: Dim) -> GraphFunction:
        """The graph that takes a token and gives the next, looking at the first `window` slots of the caches."""
        root, plan = self.root, self.plan
        if not self.traced:
            self._prompted(as_dim("T"))
        with Trace(f"token_{network_name(root)}") as trace, rooted(root):
            ids = trace.input("token", plan.ids)
            slots = None if isinstance(window, int) else trace.input("slots", i64[window])
            slot, longest = _kept(trace, SLOT, i64[()]), _kept(trace, LONGEST, i64[()])
            lengths = _kept(trace, LENGTHS, i64[plan.batch.size])
            inputs = {name: _kept(trace, Kept("input", name), type) for name, type in plan.inputs}
            now = Decoding(plan.batch, lengths, longest, slot, window, slots, self.structures)
            function = self._chosen(trace, now, ids.reshape(-1, 1), inputs)
        self.lasting = _reads_prompt(function)
        return function

    def _chosen(self, trace: Trace, now: Decoding, ids: Array, inputs: Mapping[str, Array]) -> GraphFunction:
        """The graph from ids to the next token."""
        root, choice = self.root, self.plan.choice
        with decoding_with(now):
            scores = call(root, {prompt_name(root): ids, **inputs})
        scores = _last_scores(now, scores, ids)
        knobs = {name: trace.input(name, type) for name, type in choice.knobs.items()}
        token = choice.token(scores, knobs.get("temperature"), knobs.get("top_p")).astype(ids.dtype)
        if now.slot is not None:
            trace.update_state(SLOT, now.slot + 1)
        self.places = now.places
        return finish(trace, token, user_loc())


def _reads_prompt(function: GraphFunction) -> bool:
    """Whether it reads what is kept, but only the program of the prompts writes."""
    graph = function.graph
    read = {v for node in graph.nodes for v in node.inputs}
    return any(isinstance(key, Kept) and v in read and new is None
               for key, v, new in zip(function.keys, graph.state, graph.updates))


def _kept(trace: Trace, key: Kept, type: TensorType) -> Array:
    return trace.state(key, f"kept.{key.what}", type)


def _is_own(entry: Entry) -> bool:
    return isinstance(entry.key, Kept) or entry.name == RANDOM_KEY


def prompt_name(root: Module) -> str:
    """The argument of the network that takes the tokens."""
    function = root.function if isinstance(root, Function) else root.forward
    return getattr(root, "generates", None) or next(argument_names(function))


def _last_scores(now: Decoding, scores: object, ids: Array) -> Array:
    """The scores [B, count] of what follows the last token."""
    batch, steps = ids.shape
    fitting = ((batch,), (batch, 1), (batch, steps))
    if not isinstance(scores, Array) or not scores.dtype.is_float or scores.shape[:-1] not in fitting:
        got = scores.type if isinstance(scores, Array) else type(scores).__name__
        raise GraphError(f"generation needs a network that gives scores [batch, time, tokens], [{batch}, {steps}, …] "
                         f"here, or [batch, tokens]; this one gives {got}")
    return scores if len(scores.shape) == 2 else _of_last(now, scores)[:, 0]


def _of_last(now: Decoding, scores: Array) -> Array:
    """now.last(scores), computed for the last token alone where scores are a product of each token's vector, and
    perhaps what follows elementwise: a bias, a cap."""
    after: list[tuple[Node, int]] = []
    while (place := _elementwise(scores)) is not None:
        node = scores.value.maker
        after.append((node, place))
        scores = Array(node.inputs[place], scores.trace)
    made = scores.value.node
    if made is not None and isinstance(made.op, Matmul | BlockProduct) and [
            v.type.rank for v in made.inputs] == [3, *(2 for _ in made.inputs[1:])]:
        x = now.last(Array(made.inputs[0], scores.trace))
        last = Array(scores.trace.builder.apply(made.op, [x.value, *made.inputs[1:]])[0], scores.trace)
    else:
        last = now.last(scores)
    for node, place in reversed(after):
        values = [last.value if i == place else v for i, v in enumerate(node.inputs)]
        last = Array(scores.trace.builder.apply(node.op, values)[0], scores.trace)
    return last


def _elementwise(scores: Array) -> int | None:
    """Which operand of an elementwise operator scores [batch, time, tokens] are made of, the others being the same for
    all of the batch and of time; None for other operators."""
    node = scores.value.node
    if node is None or not isinstance(node.op, Elementwise):
        return None
    wide = [i for i, v in enumerate(node.inputs) if v.type.rank > 1]
    return wide[0] if len(wide) == 1 and node.inputs[wide[0]].type.shape == scores.shape else None
