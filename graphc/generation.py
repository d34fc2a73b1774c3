"""`gc.generate`: sequences, one native call a token. The values of earlier tokens that layers need stay in native
buffers between the calls."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from numbers import Real
from typing import Any, cast

import numpy as np

from graphc.config import MOST_I64, thread_count
from graphc.dsl.arguments import converted
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed_methods
from graphc.dsl.literal import array_of
from graphc.errors import GraphError
from graphc.execute import Runnable
from graphc.given import integer
from graphc.ir.convert import is_sequence
from graphc.ir.types import BY_NAME, DType, TensorType, dtype_of, of_numpy
from graphc.memory.usage import Memory
from graphc.nn.decode import Batch
from graphc.nn.entry import Entry
from graphc.nn.module import as_module
from graphc.nn.network import network_name
from graphc.once import loaded, recent
from graphc.prompts import grown, padded_prompts
from graphc.session import Sampling, Session, SessionPlan, prompt_name
from graphc.specialised import Specialised
from graphc.state import Model, State
from graphc.weight_storage import StoreOption, store_choice

KEPT_GENERATORS = 4                 # networks that generate from one state
MOST_TOKENS = 1 << 31
SMALLEST_CACHE = 64                 # tokens that caches hold, or 4, 16 … times as many: for later, longer calls
ROUNDING = 1e-3                     # of the largest score: what `check` lets pass
KEPT_SESSIONS = 4                   # caches and programs for batches of different sizes


@converted
def generate(model: Callable[..., Any] | Model, prompt: Any, steps: int, *, temperature: float = 0.0,
             top_k: int | None = None, top_p: float | None = None, stop: int | None = None, lengths: Any = None,
             capacity: int | None = None, seed: int | None = None,
             state: str | os.PathLike[str] | Mapping[str, np.ndarray] | None = None, threads: int | str = 0,
             store: StoreOption = None, **inputs: Any) -> np.ndarray:
    """The tokens that follow `prompt`, up to `steps` of them: integers [B, n], or [n] for one prompt.

    `model`: a network, ids [B, T] -> scores of the next token [B, T, count] (or [B, count], of the last step), with its
    parameters as in `gc.compile`: `step.model`, `state=`, or `seed=` for fresh ones. `prompt`: integers [T], [B, T], or
    lists of different lengths; `lengths`, integers [B], of a padded array. Other arguments of the network are given by
    name, arrays: `source=` of nn.Seq2Seq, whose prompt is the start token. temperature 0 takes the likeliest token each
    time; otherwise tokens are drawn as by `nn.sample`, by `seed` (0 unless given). After the token `stop` a sequence is
    filled with it; all having stopped, the result ends. `capacity`: tokens that the caches hold.
    `store`: "bf16", "f16", "int8" or "int4", in which weights are kept, or these by names, as in `gc.compile`.

    The network looks back only by causal attention, recurrent layers and Collapse; a layer of your own keeps what it
    needs by `nn.decoding`. `gc.Generator(model).check(prompt)` says whether all is kept.
    """
    generator = _generator(model, state, seed, capacity, threads, store)
    return generator(prompt, steps, temperature=temperature, top_k=top_k, top_p=top_p, stop=stop, lengths=lengths,
                     seed=seed or 0, **inputs)


class Generator:
    """A network that generates, as `gc.generate`, with its programs and caches: for many calls. `state`: what it runs
    on."""

    @converted
    def __init__(self, model: Callable[..., Any] | Model, *,
                 state: State | str | os.PathLike[str] | Mapping[str, np.ndarray] | None = None,
                 seed: int | None = None, capacity: int | None = None, threads: int | str = 0,
                 store: StoreOption = None):
        self._model = model if isinstance(model, Model) else None
        self._state: State | None = None
        net, loc = model, user_loc()
        if isinstance(model, Model):
            net, self._state = model.bare()
        seed = None if seed is None else integer(seed, "seed", 0, MOST_I64, loc)
        capacity = None if capacity is None else integer(capacity, "capacity", 1, MOST_TOKENS, loc)
        self.root = as_module(net)
        self._source, self._capacity, self._threads = (state, seed), capacity, thread_count(threads, loc=loc)
        self._store = store_choice(store)
        self._sessions: Specialised[list[Session]] = Specialised(lambda plan: [], KEPT_SESSIONS)    # idle ones
        self._last: Session | None = None

    @property
    def state(self) -> State | None:
        """What it runs on; None before the first call of a network that came without."""
        return self._model.state if self._model is not None else self._state

    def __call__(self, prompt: Any, steps: int, **options: Any) -> np.ndarray:
        """As `gc.generate`."""
        single = is_sequence(prompt) and len(prompt) > 0 and not is_sequence(prompt[0])
        stop = options.get("stop")
        tokens: list[np.ndarray] = []
        for token in self.stream(prompt, steps, **options):
            tokens.append(token if stop is None or not tokens else np.where(tokens[-1] == stop, stop, token))
        made = np.stack(tokens, axis=1)
        return made[0] if single else made

    @converted
    def stream(self, prompt: Any, steps: int, *, temperature: float = 0.0, top_k: int | None = None,
               top_p: float | None = None, stop: int | None = None,
               lengths: Any = None, seed: int = 0, **inputs: Any) -> Iterator[np.ndarray]:
        """The tokens [B] one after the other, as they are made; it ends when every sequence has had `stop`."""
        arrays = {name: array_of(a) for name, a in inputs.items()}
        ids, lengths = padded_prompts(prompt, lengths, arrays)
        loc = user_loc()
        steps, seed = integer(steps, "steps", 1, MOST_TOKENS, loc), integer(seed, "seed", 0, MOST_I64, loc)
        stop = None if stop is None else integer(stop, "stop", 0, MOST_I64, loc)
        top_k = None if top_k is None else integer(top_k, "top_k", 1, MOST_TOKENS, loc)
        knobs = _knobs(temperature, top_k, top_p)
        needed = int(lengths.max()) + steps - 1         # the last token is not looked back at
        plan = self._plan(ids, lengths, needed, arrays, Sampling(temperature > 0, top_k, top_p is not None))
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

    def check(self, prompt: Any, steps: int = 8, **inputs: Any) -> None:
        """GraphError unless each of the likeliest tokens, made one by one, is the likeliest for the whole network on
        all tokens before it, up to rounding. Takes a network that gives scores [B, T, count], and prompts of one
        length."""
        ids = np.atleast_2d(prompt)
        tokens = self(ids, steps, **inputs)
        arrays = {prompt_name(self.root): np.concatenate([ids, tokens[:, :-1]], axis=1),
                  **{n: np.asarray(a) for n, a in inputs.items()}}
        types: dict[str, Any] = {n: TensorType(_dtype(n, a), a.shape) for n, a in arrays.items()}
        run = loaded("graphc.api", "compile")(self.root, state=self.state or {}, store=self._store, **types)
        scores = run(**arrays)[:, -steps:]
        chosen = np.take_along_axis(scores, tokens[..., None], axis=2)[..., 0]
        wrong = np.flatnonzero((chosen < scores.max(axis=2) - ROUNDING * np.abs(scores).max()).any(axis=0))
        if wrong.size:
            raise GraphError(f"token number {wrong[0] + 1} is not what the whole network says: something in it looks "
                             "back at other tokens, but keeps nothing from call to call; see nn.decoding", user_loc())

    def dump(self, stage: str = "graph", prompt: bool = False) -> str:
        """The program of one token (`prompt`: of the prompts), that used last, as text at a stage: graph, fused, loops,
        llvm or asm."""
        return self._used(prompt).dump(stage)

    @property
    def memory(self) -> Memory | None:
        """Bytes of the program of one token, that used last; its caches count as state. The oracle knows none."""
        return self._used().memory

    def _used(self, prompt: bool = False) -> Runnable:
        """The program used last, of one token or of the prompts."""
        session, used = self._last, None
        if session is not None:
            used = session.prompts.last if prompt else session.last
        if used is None:
            raise GraphError(f"the program of {'the prompts' if prompt else 'a token'} is not known before the first "
                             "call", user_loc())
        return used

    def _plan(self, ids: np.ndarray, lengths: np.ndarray, needed: int, inputs: Mapping[str, np.ndarray],
              choice: Sampling) -> SessionPlan:
        capacity = self._capacity or grown(needed, SMALLEST_CACHE, 4)
        if needed > capacity:
            raise GraphError(f"the longest prompt has {lengths.max()} tokens, with those to generate {needed} must be "
                             f"kept; the caches hold {capacity}: give capacity={needed}", user_loc())
        batch = Batch(len(ids), capacity, bool(lengths.min() < lengths.max()))
        types = tuple((name, TensorType(_dtype(name, a), a.shape)) for name, a in inputs.items())
        return SessionPlan(batch, TensorType(dtype_of(ids), (len(ids),)), types, choice, self._store)

    def _session(self, plan: SessionPlan) -> Session:
        """A session that nobody uses."""
        session = None
        with suppress(IndexError):          # another thread may take the last one at any moment
            session = self._sessions.at(plan=plan).pop()
        self._last = session = session or Session(self.root, plan, self._owner, self._threads)
        return session

    def _give_back(self, plan: SessionPlan, session: Session) -> None:
        self._sessions.at(plan=plan).append(session)

    def _owner(self, needed: Sequence[Entry]) -> State | None:
        """The state that has the parameters `needed`; made when they are first known."""
        if self._state is None and needed:
            state, seed = self._source
            self._state = loaded("graphc.api", "state_for")(network_name(self.root), needed, seed, state)
        return self._state


formed_methods(Generator)


def _generator(model: Callable[..., Any] | Model,
               state: str | os.PathLike[str] | Mapping[str, np.ndarray] | None, seed: int | None,
               capacity: int | None, threads: int | str, store: StoreOption) -> Generator:
    """For a network on a `State` the one that was made before."""
    net, owner = model.bare() if isinstance(model, Model) else (model, state)
    if not isinstance(owner, State):
        return Generator(model, state=state, seed=seed, capacity=capacity, threads=threads, store=store)
    programs = owner.programs
    key = "generate", net, capacity, threads, store_choice(store)
    # what is kept under "generate" are generators
    return cast(Generator, recent(programs, key, lambda: Generator(model, state=owner, capacity=capacity,
                                                                   threads=threads, store=store), KEPT_GENERATORS))


def _knobs(temperature: float, top_k: int | None, top_p: float | None) -> list[np.ndarray]:
    """Numbers for `Choice.knobs`; GraphError unless they make sense."""
    for name, value in (("temperature", temperature), ("top_p", 1.0 if top_p is None else top_p)):
        if isinstance(value, bool) or not isinstance(value, Real):
            raise GraphError(f"{name} must be a number, got {value!r}", user_loc())
    info = np.finfo(np.float32)
    if not (temperature == 0 or float(info.tiny) <= temperature <= float(info.max)):
        raise GraphError(f"temperature must be 0 (the likeliest token) or a positive f32, got {temperature}",
                         user_loc())
    if top_p is not None and not 0 < top_p <= 1:
        raise GraphError(f"top_p is a probability above 0, got {top_p}", user_loc())
    if temperature == 0 and (top_k, top_p) != (None, None):
        raise GraphError("temperature is 0, so the likeliest token is taken each time; top_k and top_p need a "
                         "temperature above 0, such as 1.0", user_loc())
    knobs = (temperature, top_p) if top_p is not None else (temperature,) if temperature else ()
    return [np.array(x, np.float32) for x in knobs]


def _dtype(name: str, array: np.ndarray) -> DType:
    found = of_numpy(array.dtype)
    if found is None:
        raise GraphError(f"{name} is {array.dtype}; graphc takes arrays of {', '.join(BY_NAME)}", user_loc())
    return found
