"""`gc.generate`: sequences, one native call a token. What layers look back at lies in native buffers between the calls."""
from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.api import state_for
from graphc.dsl.array import Array
from graphc.dsl.context import user_loc
from graphc.dsl.function import GraphFunction, finish
from graphc.dsl.trace import RANDOM_KEY, Trace
from graphc.errors import GraphError
from graphc.execute import Executable, make_executable
from graphc.ir.types import BY_NUMPY, TensorType, f32, i64
from graphc.nn.decoding import Batch, Decoding, Kept, decoding_with
from graphc.nn.entry import Entry
from graphc.nn.generate import sample
from graphc.nn.module import Function, Module, argument_names, as_module
from graphc.nn.network import call, entries, network_name
from graphc.nn.path import rooted
from graphc.state import State
from graphc.train import Model

KEPT_SESSIONS = 4                   # caches and programs for batches of different sizes
KEPT_PROMPTS = 4                    # programs for prompts of different lengths
SMALLEST = 16                       # prompts are padded to so many tokens, or 1.5, 2, 3, 4, 6 … times as many
WINDOW = 512                        # a token looks at so many slots of the caches, or at twice, four times … as many
SLOT, LONGEST, LENGTHS = (Kept(None, name) for name in ("slot", "longest", "lengths"))


def generate(model: Callable | Model, prompt, steps: int, *, temperature: float = 0.0, top_k: int | None = None, top_p: float | None = None,
             stop: int | None = None, lengths=None, capacity: int | None = None, seed: int | None = None,
             state: str | os.PathLike | Mapping[str, np.ndarray] | None = None, threads: int = 0, **inputs) -> np.ndarray:
    """The tokens that follow `prompt`, up to `steps` of them: integers [B, n], or [n] for one prompt.

    `model`: a network, ids [B, T] -> scores of the next token [B, T, count] (or [B, count], of the last step), with its parameters as in
    `gc.compile`: `step.model`, `state=`, or `seed=` for fresh ones. `prompt`: integers [T], [B, T], or lists of different lengths; `lengths`, integers
    [B], of a padded array. Other arguments of the network are given by name, arrays: `source=` of nn.Seq2Seq, whose prompt is the start token.
    temperature 0 takes the likeliest token each time; otherwise tokens are drawn as by `nn.sample`, by `seed` (0 unless given).
    After the token `stop` a sequence is filled with it; all having stopped, the result ends. `capacity`: tokens that the caches hold.

    The network looks back only by causal attention, recurrent layers and Collapse; a layer of your own keeps what it needs by `nn.decoding`.
    """
    generator = _generator(model, state, seed, capacity, threads)
    return generator(prompt, steps, temperature=temperature, top_k=top_k, top_p=top_p, stop=stop, lengths=lengths, seed=seed or 0, **inputs)


@dataclass(frozen=True)
class Choice:
    """How tokens are chosen, as far as programs depend on it."""
    sampled: bool
    top_k: int | None
    nucleus: bool

    def token(self, scores: Array, temperature: Array | None, top_p: Array | None) -> Array:
        if not self.sampled:
            return scores.argmax(-1)
        return sample(scores, temperature.astype(scores.dtype), self.top_k, top_p.astype(scores.dtype) if self.nucleus else None)

    @property
    def knobs(self) -> dict[str, TensorType]:
        """The arguments of a program that may change from call to call."""
        return {"temperature": f32[()], "top_p": f32[()]} if self.nucleus else {"temperature": f32[()]} if self.sampled else {}


@dataclass(frozen=True)
class Plan:
    """What a pair of programs is made for."""
    batch: Batch
    ids: TensorType
    inputs: tuple[tuple[str, TensorType], ...]
    choice: Choice


class Generator:
    """A network that generates, as `gc.generate`, with its programs and caches: for many calls. `state`: what it runs on."""

    def __init__(self, model: Callable | Model, *, state=None, seed: int | None = None, capacity: int | None = None, threads: int = 0):
        bound = isinstance(model, Model)
        self.root = as_module(model.net if bound else model)
        self.state: State | None = model.state if bound else None
        self._source, self._capacity, self._threads = (state, seed), capacity, threads
        self._sessions: OrderedDict[Plan, list[Session]] = OrderedDict()
        self._last: Session | None = None

    def __call__(self, prompt, steps: int, **options) -> np.ndarray:
        """As `gc.generate`."""
        single = not isinstance(prompt, int) and len(prompt) > 0 and np.ndim(prompt[0]) == 0
        stop = options.get("stop")
        tokens = []
        for token in self.stream(prompt, steps, **options):
            done = stop is not None and tokens
            tokens.append(np.where(tokens[-1] == stop, stop, token) if done else token)
        made = np.stack(tokens, axis=1)
        return made[0] if single else made

    def stream(self, prompt, steps: int, *, temperature: float = 0.0, top_k: int | None = None, top_p: float | None = None, stop: int | None = None,
               lengths=None, seed: int = 0, **inputs) -> Iterator[np.ndarray]:
        """The tokens [B] one after the other, as they are made; it ends when every sequence has had `stop`."""
        knobs = _knobs(temperature, top_k, top_p)
        arrays = {name: np.asarray(a) for name, a in inputs.items()}
        ids, lengths = _prompts(prompt, lengths, arrays)
        if not isinstance(steps, int) or steps < 1:
            raise GraphError(f"generate makes 1 or more tokens, got steps={steps!r}", user_loc())
        needed = int(lengths.max()) + steps - 1         # the last token is not looked back at
        plan = self._plan(ids, lengths, needed, arrays, Choice(temperature > 0, top_k, top_p is not None))
        session = self._session(plan)
        try:
            stopped = np.zeros(len(ids), bool)
            for token in session.tokens(ids, lengths, arrays, knobs, needed, seed):
                yield token
                if stop is not None:
                    stopped |= token == stop
                    if stopped.all():
                        return
        finally:
            self._give_back(plan, session)

    def dump(self, stage: str = "graph") -> str:
        """The program of one token, that used last, as text at a stage: graph, fused, loops, llvm or asm."""
        return self._used().last.dump(stage)

    @property
    def memory(self):
        """Bytes of the program of one token, that used last; its caches count as state."""
        return self._used().last.memory

    def _used(self) -> "Session":
        if self._last is None or self._last.last is None:
            raise GraphError("the program of a token is not known before the first call", user_loc())
        return self._last

    def _plan(self, ids: np.ndarray, lengths: np.ndarray, needed: int, inputs: Mapping[str, np.ndarray], choice: Choice) -> Plan:
        capacity = self._capacity or _doubled(needed, SMALLEST)
        if needed > capacity:
            raise GraphError(f"the longest prompt has {lengths.max()} tokens, with those to generate {needed} must be kept; the caches hold {capacity}: "
                             f"give capacity={needed}", user_loc())
        batch = Batch(len(ids), capacity, bool(lengths.min() < lengths.max()))
        types = tuple((name, TensorType(_dtype(name, a), a.shape)) for name, a in inputs.items())
        return Plan(batch, TensorType(BY_NUMPY[ids.dtype], (len(ids),)), types, choice)

    def _session(self, plan: Plan) -> "Session":
        """A session that nobody uses."""
        free = self._sessions.get(plan)
        self._last = free.pop() if free else Session(self, plan)
        return self._last

    def _give_back(self, plan: Plan, session: "Session") -> None:
        self._sessions.setdefault(plan, []).append(session)
        self._sessions.move_to_end(plan)
        if len(self._sessions) > KEPT_SESSIONS:
            self._sessions.popitem(last=False)

    def owner(self, needed: Sequence[Entry]) -> State | None:
        """The state that has the parameters `needed`; made when they are first known."""
        if self.state is None and needed:
            state, seed = self._source
            self.state = state_for(network_name(self.root), needed, seed, state)
        return self.state


class Session:
    """The programs of one plan, and the arrays that are kept between their calls."""

    def __init__(self, generator: Generator, plan: Plan):
        self.generator, self.plan, self.own = generator, plan, State()
        self.prompts: OrderedDict[int, Executable] = OrderedDict()
        self.structures: dict = {}
        self.places: int | None = None
        self.steps: dict[int, Executable] = {}
        self.last: Executable | None = None
        self.lasting = False        # whether the programs of a token derive values from what only those of the prompts write

    def tokens(self, ids: np.ndarray, lengths: np.ndarray, inputs: Mapping[str, np.ndarray], knobs: Sequence[np.ndarray], needed: int,
               seed: int) -> Iterator[np.ndarray]:
        """Arrays of tokens [B], of which all but the last fill `needed` slots together with the prompts."""
        longest, capacity = int(lengths.max()), self.plan.batch.capacity
        size = min(_padded_size(longest), capacity)
        first = self._first(size)
        if self.places is not None and needed > self.places:
            raise GraphError(f"the network knows {self.places} places, prompt and tokens need {needed}: give a larger length to LearnedPosition", user_loc())
        if RANDOM_KEY in self.own:
            self.own[RANDOM_KEY] = np.array([seed, 0])
        token = first(_resized(ids, size), lengths, *inputs.values(), *knobs)
        yield token
        if self.lasting:
            for step in self.steps.values():
                step.renew()
        window = 0
        for slot in range(longest, needed):
            if slot >= window:
                window = min(_doubled(slot + 1, WINDOW), capacity)
                self.last = self._step(window)
            token = self.last(token, *knobs)
            yield token

    def _first(self, size: int) -> Executable:
        """The program that takes prompts of `size` tokens and gives the first token."""
        if size not in self.prompts:
            self.prompts[size] = self._executable(self._prompted(size))
            if len(self.prompts) > KEPT_PROMPTS:
                self.prompts.popitem(last=False)
        self.prompts.move_to_end(size)
        return self.prompts[size]

    def _step(self, window: int) -> Executable:
        """The program that takes a token and gives the next, looking at the first `window` slots of the caches."""
        if window not in self.steps:
            function = self._stepped(window)
            self.lasting = _reads_prompt(function)
            self.steps[window] = self._executable(function)
        return self.steps[window]

    def _executable(self, function: GraphFunction) -> Executable:
        needed = entries(function)
        owner = self.generator.owner([e for e in needed if not _is_own(e)])
        for entry in needed:
            if _is_own(entry) and entry.name not in self.own:
                self.own.add(entry, entry.initial(0))
        arrays = [(self.own if _is_own(e) else owner).array(e) for e in needed]
        return make_executable(function.graph, arrays, (owner or self.own).lock, self.generator._threads, quiet=True)

    def _prompted(self, size: int) -> GraphFunction:
        root, plan = self.generator.root, self.plan
        with Trace(f"prompt_{network_name(root)}") as trace, rooted(root):
            ids = trace.input(_prompt_name(root), plan.ids.with_shape((plan.batch.size, size)))
            lengths = trace.input("lengths", i64[plan.batch.size])
            longest = lengths.max() if plan.batch.ragged else lengths[0]
            inputs = {name: trace.input(name, type) for name, type in plan.inputs}
            for key, value in {SLOT: longest, LONGEST: longest, LENGTHS: lengths, **{Kept("input", n): x for n, x in inputs.items()}}.items():
                _kept(trace, key, value.type)
                trace.update_state(key, value)
            return self._chosen(trace, Decoding(plan.batch, lengths, longest, None, 0, self.structures), ids, inputs)

    def _stepped(self, window: int) -> GraphFunction:
        root, plan = self.generator.root, self.plan
        with Trace(f"token_{network_name(root)}") as trace, rooted(root):
            ids = trace.input("token", plan.ids)
            slot, longest = _kept(trace, SLOT, i64[()]), _kept(trace, LONGEST, i64[()])
            lengths = _kept(trace, LENGTHS, i64[plan.batch.size])
            inputs = {name: _kept(trace, Kept("input", name), type) for name, type in plan.inputs}
            function = self._chosen(trace, Decoding(plan.batch, lengths, longest, slot, window, self.structures), ids.reshape(-1, 1), inputs)
        return function

    def _chosen(self, trace: Trace, now: Decoding, ids: Array, inputs: Mapping[str, Array]) -> GraphFunction:
        """The graph from ids to the next token."""
        root, choice = self.generator.root, self.plan.choice
        with decoding_with(now):
            scores = call(root, {_prompt_name(root): ids, **inputs})
        scores = _last_scores(now, scores, ids)
        knobs = {name: trace.input(name, type) for name, type in choice.knobs.items()}
        token = choice.token(scores, knobs.get("temperature"), knobs.get("top_p")).astype(ids.dtype)
        if not now.first:
            trace.update_state(SLOT, now.slot + 1)
        self.places = now.places
        return finish(trace, token, user_loc())


def _generator(model: Callable | Model, state, seed: int | None, capacity: int | None, threads: int) -> Generator:
    """For a bound model the one that was made before."""
    if not isinstance(model, Model):
        return Generator(model, state=state, seed=seed, capacity=capacity, threads=threads)
    key = "generate", as_module(model.net), capacity, threads
    if key not in model.state.programs:
        model.state.programs[key] = Generator(model, capacity=capacity, threads=threads)
    return model.state.programs[key]


def _reads_prompt(function: GraphFunction) -> bool:
    """Whether it reads what is kept, but only the program of the prompts writes."""
    graph = function.graph
    read = {v for node in graph.nodes for v in node.inputs}
    return any(isinstance(key, Kept) and v in read and new is None for key, v, new in zip(function.keys, graph.state, graph.updates))


def _kept(trace: Trace, key: Kept, type: TensorType) -> Array:
    return trace.state(key, f"kept.{key.what}", type)


def _is_own(entry: Entry) -> bool:
    return isinstance(entry.key, Kept) or entry.name == RANDOM_KEY


def _prompt_name(root: Module) -> str:
    return getattr(root, "generates", None) or next(argument_names(root.function if isinstance(root, Function) else root.forward))


def _last_scores(now: Decoding, scores, ids: Array) -> Array:
    """The scores [B, count] of what follows the last token."""
    batch, steps = ids.shape
    if not isinstance(scores, Array) or not scores.dtype.is_float or scores.shape[:-1] not in ((batch,), (batch, 1), (batch, steps)):
        raise GraphError(f"generation needs a network that gives scores [batch, time, tokens], [{batch}, {steps}, …] here, or [batch, tokens]; "
                         f"this one gives {scores.type if isinstance(scores, Array) else type(scores).__name__}")
    return scores if len(scores.shape) == 2 else _of_last(now, scores)[:, 0]


def _of_last(now: Decoding, scores: Array) -> Array:
    """now.last(scores), computed for the last token alone where scores are a product of each token's vector, and perhaps a bias."""
    node = scores.value.node
    operands = [Array(v, scores.trace) for v in node.inputs] if node else []
    if node and node.op.name == "matmul" and operands[0].ndim == 3 and operands[1].ndim == 2:
        return now.last(operands[0]) @ operands[1]
    if node and node.op.name == "add" and operands[0].type == scores.type and operands[1].ndim < 2:
        return _of_last(now, operands[0]) + operands[1]
    return now.last(scores)


def _knobs(temperature: float, top_k: int | None, top_p: float | None) -> list[np.ndarray]:
    """Numbers for `Choice.knobs`; GraphError unless they make sense."""
    if not temperature >= 0:
        raise GraphError(f"temperature must be 0 (the likeliest token) or more, got {temperature}", user_loc())
    if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
        raise GraphError(f"top_k is an int of 1 or more, got {top_k!r}", user_loc())
    if top_p is not None and not 0 < top_p <= 1:
        raise GraphError(f"top_p is a probability above 0, got {top_p}", user_loc())
    if temperature == 0 and (top_k, top_p) != (None, None):
        raise GraphError("temperature is 0, so the likeliest token is taken each time; top_k and top_p need a temperature above 0, such as 1.0", user_loc())
    return [np.array(x, np.float32) for x in ((temperature, top_p) if top_p is not None else (temperature,) if temperature else ())]


def _prompts(prompt, lengths, inputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Ids [B, T], padded behind, and lengths i64 [B]."""
    if isinstance(prompt, (int, np.integer)):
        batch = next((a.shape[0] for a in inputs.values() if a.ndim), 1)
        prompt = np.full((batch, 1), prompt)
    ids, lengths = _padded(prompt) if lengths is None else (np.asarray(prompt), np.asarray(lengths))
    if ids.dtype not in (np.int32, np.int64) or ids.ndim != 2 or 0 in ids.shape:
        raise GraphError(f"a prompt is integers [batch, time], [time], or lists of them, of one token or more; got {ids.dtype} {list(ids.shape)}", user_loc())
    if lengths.shape != ids.shape[:1] or lengths.dtype.kind not in "iu" or lengths.min() < 1 or lengths.max() > ids.shape[1]:
        raise GraphError(f"lengths are {len(ids)} integers from 1 to {ids.shape[1]}, got {lengths.tolist()}", user_loc())
    return ids, lengths.astype(np.int64)


def _padded(prompt) -> tuple[np.ndarray, np.ndarray]:
    """A prompt or several as one array, and their lengths."""
    rows = [np.asarray(row) for row in ([prompt] if len(prompt) and np.ndim(prompt[0]) == 0 else prompt)]
    if any(row.ndim != 1 for row in rows):
        raise GraphError("prompts are integers [time] each", user_loc())
    lengths = np.array([len(row) for row in rows], np.int64)
    dtype = np.result_type(*rows) if rows else np.int64
    ids = np.zeros((len(rows), max(lengths, default=0)), dtype)
    for row, to in zip(rows, ids):
        to[:len(row)] = row
    return ids, lengths


def _resized(ids: np.ndarray, size: int) -> np.ndarray:
    """ids [B, T] with so many columns: of padding, cut or added."""
    kept = ids[:, :size]
    return np.ascontiguousarray(np.pad(kept, ((0, 0), (0, size - kept.shape[1]))))


def _doubled(n: int, size: int) -> int:
    """The first of size, 2 size, 4 size … that is n or more."""
    while size < n:
        size *= 2
    return size


def _padded_size(n: int) -> int:
    return min(_doubled(n, SMALLEST), _doubled(n, 3 * SMALLEST // 2))


def _dtype(name: str, array: np.ndarray):
    if array.dtype not in BY_NUMPY:
        raise GraphError(f"{name} is {array.dtype}; graphc takes f32, f64, i32, i64 and bool arrays", user_loc())
    return BY_NUMPY[array.dtype]
