"""Making a sequence token by token: what layers keep from one call of a network to the next.

A network is traced twice. The first call takes the whole prompts, [B, T], padded behind; each later one takes one
token, [B, 1]. Layers that look back ask `decoding()`: outside of generation it is None; else it has the arrays that
they kept, in state that is updated in place.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import field
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

import graphc as gc
from graphc.dsl.array import Array, as_array
from graphc.dsl.context import current_trace
from graphc.dsl.form import formed
from graphc.dsl.tree import Structure, flatten, tree_map, unflatten
from graphc.errors import GraphError
from graphc.ir.dims import Dim
from graphc.ir.types import TensorType, i64
from graphc.nn.path import parameter_path
from graphc.records import dataclass

if TYPE_CHECKING:
    from graphc.nn.recurrent import Recurrent

DECODING: ContextVar["Decoding | None"] = ContextVar("graphc decoding", default=None)


@formed
def decoding() -> "Decoding | None":
    """What the running trace generates with; None when it does not generate."""
    return DECODING.get()


def stepping() -> "Decoding | None":
    """As `decoding`, in the calls after the first only: the others take whole sequences, as always."""
    now = DECODING.get()
    return None if now is None or now.first else now


@contextmanager
def decoding_with(value: "Decoding | None") -> Iterator[None]:
    """Networks called inside generate with `value`."""
    token = DECODING.set(value)
    try:
        yield
    finally:
        DECODING.reset(token)


@dataclass(frozen=True)
class Kept:
    """Owner of an array that a layer (or generation itself: None) keeps from call to call; `number`: of the calls of
    that layer."""
    layer: object
    what: str
    number: int = 0


@dataclass(frozen=True)
class Batch:
    """What both calls know of the prompts: how many there are, how many tokens of each the caches hold, whether their
    lengths differ."""
    size: int
    capacity: int
    ragged: bool = False


@dataclass
class Decoding:
    """One of the two traces. `lengths`, i64 [B], are those of the prompts and `longest` their maximum.

    A token's *slot* is where a cache has it: that in the padded prompt, and from `longest` on for what is generated.
    Its *place* is how many tokens of its own sequence precede it. They differ where prompts differ in length. `slot`
    is None in the first call, else that of the token, which looks at the first `window` slots: all that are filled
    are among them. Where `window` is a name, `slots` are their numbers, i64 [window].
    `structures`: of the values that are kept whole, filled by the first trace and read by the second. `places`: how
    many the network knows.
    """
    batch: Batch
    lengths: Array
    longest: Array
    slot: Array | None = None
    window: Dim = 0
    slots: Array | None = None
    structures: dict[Kept, tuple[Structure, tuple[TensorType, ...]]] = field(default_factory=dict)
    places: int | None = None
    _calls: dict[tuple[int, str], int] = field(default_factory=dict)

    @property
    def first(self) -> bool:
        """Whether this is the call that takes the prompts."""
        return self.slot is None

    # what layers keep

    def carried(self, layer: object, what: str, start: Any) -> tuple[list[Kept], Any]:
        """What `layer` left with `keep` in the call before; `start`, arrays in tuples and lists, in the first call."""
        leaves, structure = flatten(start)
        keys = [self._key(layer, f"{what}.{i}") for i in range(len(leaves))]
        states = [current_trace().state(key, self._name(key), x.type) for key, x in zip(keys, leaves)]
        return keys, start if self.first else unflatten(structure, states)

    def keep(self, keys: list[Kept], values: Any) -> None:
        for key, x in zip(keys, flatten(values)[0], strict=True):
            current_trace().update_state(key, x)

    def appended(self, layer: object, what: str, x: Array) -> Array:
        """x [B, …, T, D] behind what `layer` has seen before: [B, …, window, D], in slots; `visible` says which
        count."""
        key = self._key(layer, what)
        cache = current_trace().state(key, self._name(key),
                                      x.type.with_shape((*x.shape[:-2], self.batch.capacity, x.shape[-1])))
        at: list[Array | int] = [0] * len(x.shape)
        at[-2] = 0 if self.first else self._slot
        cache = gc.dynamic_update_slice(cache, x, at)
        self.keep([key], cache)
        return cache[..., :self.window, :]

    def once(self, layer: object, what: str, make: Callable[[], object]) -> Any:
        """make(), arrays in tuples and dicts, computed in the first call alone and outside of generation; kept for
        later ones."""
        key, trace = self._key(layer, what), current_trace()
        leaves: list[Any] = []
        if self.first:
            with decoding_with(None):
                leaves, structure = flatten(tree_map(as_array, make()))
            self.structures[key] = structure, tuple(x.type for x in leaves)
        structure, types = self.structures[key]
        parts = [Kept(layer, f"{key.what}.{i}", key.number) for i in range(len(types))]
        states = [trace.state(part, self._name(part), type) for part, type in zip(parts, types)]
        if not self.first:
            return unflatten(structure, states)
        for part, x in zip(parts, leaves):
            trace.update_state(part, x)
        return unflatten(structure, leaves)

    def joined(self, layer: object, x: Array, rule: Callable[[Array, Array, Array], Array]) -> Array:
        """x [B, C] of the prompts in the first call; then rule(the result before, x, how many tokens that was of, [B,
        1])"""
        kept, before = self.carried(layer, "joined", x)
        y = x if self.first else rule(before, x, gc.expand_dims(self._place(), 1).astype(x.dtype))
        self.keep(kept, y)
        return y

    # where tokens are

    def learned(self, weight: Array, length: Dim) -> Array:
        """The rows of weight [places, W] for the tokens of this call; the network knows no more places than that."""
        places = weight.shape[0]
        self.places = cast(int, min(places, self.places or places))
        if not self.first:
            return self.rows(weight, 3)
        most = length if isinstance(length, int) else self.batch.capacity
        if most > places:           # the prompts are padded, too
            weight = gc.pad(weight, ((0, most - places), (0, 0)))
        return weight[:length]

    def rows(self, table: Array | np.ndarray, rank: int) -> Array:
        """The row of table [places, W] for the place of each token, as an array of `rank` axes that broadcasts to [B,
        …, 1, W]."""
        table = as_array(table)
        width = table.shape[1]
        if not self.batch.ragged:
            return gc.dynamic_slice(table, [self._slot, 0], (1, width))
        rows = gc.embedding(table, gc.minimum(self._place(), cast(int, table.shape[0]) - 1))
        return rows.reshape(self.batch.size, *(1,) * (rank - 2), width)

    def visible(self, rank: int, within: int | None = None) -> Array:
        """bool, `rank` axes, broadcasts to [B, …, 1, window]: the slots that a token sees: those of its sequence up
        to its own, of the last `within` places alone where that is given."""
        slots = gc.iota((self.window,), dtype=i64) if self.slots is None else self.slots
        seen = slots <= self._slot
        if not self.batch.ragged:
            return seen if within is None else seen & (slots > self._slot - within)
        lengths = gc.expand_dims(self.lengths, 1)
        seen = seen & ((slots < lengths) | (slots >= self.longest))
        if within is not None:
            places = gc.where(slots < self.longest, slots, slots - self.longest + lengths)
            seen = seen & (places > gc.expand_dims(self._place(), 1) - within)
        return seen.reshape(self.batch.size, *(1,) * (rank - 2), self.window)

    def by_distance(self, table: Array) -> Array:
        """table [H, window] has a number for each distance back; -> that for every slot, [H, 1, window] or [B, H, 1,
        window]."""
        heads, window = table.shape
        # seen from place p, slot j is in column window - 1 - p + j
        turned = gc.pad(gc.flip(table, axis=1), ((0, 0), (0, window - 1)))

        def seen_from(place: Array) -> Array:
            return gc.expand_dims(gc.dynamic_slice(turned, [0, window - 1 - place], (heads, window)), 1)
        if not self.batch.ragged:
            return seen_from(self._slot)
        place = self._place()
        prompt = gc.stack([seen_from(place[b]) for b in range(self.batch.size)])
        return gc.where(gc.iota((window,), dtype=i64) < self.longest, prompt, seen_from(self._slot))

    def real(self, steps: int) -> Array:
        """bool [B, T]: which tokens of this call are of the prompts, not padding."""
        return gc.iota((steps,), dtype=i64) < gc.expand_dims(self.lengths, 1)

    def last(self, x: Array) -> Array:
        """x [B, T, …] of a call -> [B, 1, …], that of the last token of each sequence."""
        if not self.first or x.shape[1] == 1:
            return x
        if not self.batch.ragged:
            return gc.dynamic_slice(x, [0, self.longest - 1, *(0,) * (len(x.shape) - 2)], (x.shape[0], 1, *x.shape[2:]))
        here = gc.iota((x.shape[1],), dtype=i64) == gc.expand_dims(self.lengths - 1, 1)
        return gc.sum(gc.where(here.reshape(*here.shape, *(1,) * (len(x.shape) - 2)), x, 0), axis=1, keepdims=True)

    def _place(self) -> Array:
        return self._slot - self.longest + self.lengths

    @property
    def _slot(self) -> Array:
        """The slot of the token, in the second call."""
        return cast(Array, self.slot)

    def _key(self, layer: object, what: str) -> Kept:
        count = self._calls.get((id(layer), what), 0)
        self._calls[id(layer), what] = count + 1
        return Kept(layer, what, count)

    def _name(self, key: Kept) -> str:
        return f"kept.{parameter_path(key.what)}" + (f".{key.number}" if key.number else "")


def check_recurrent(layer: Recurrent, batch: Dim) -> None:
    """GraphError for a recurrent layer that looks ahead, or takes time for the batch, while tokens are generated."""
    now, name = decoding(), type(layer).__name__
    if now and layer.bidirectional:
        raise GraphError(f"generation: a bidirectional {name} looks at later tokens; only an encoder may")
    if now and batch != now.batch.size:
        raise GraphError(f"generation takes ids [batch, time]: make this {name} with batch_first=True")


class CausalLayer(Protocol):
    """An attention layer that may look at earlier tokens alone."""
    causal: bool


def attended(layer: CausalLayer, own: bool, k: Array, v: Array, mask: Array | None, lengths: Array | None,
             within: int | None = None) -> tuple[Array, Array, Array | None, bool]:
    """(keys, values, mask, causal) for an attention layer with k and v [B, …, T, D]; `own`: a sequence attends to
    itself, to the last `within` places alone where that is given (the layer's own mask says so of whole sequences).

    As they are, except in generation: then a sequence's own keys and values are those of all its tokens. GraphError
    where that cannot be.
    """
    now, name = decoding(), type(layer).__name__
    if now is None or not own and not layer.causal:
        return k, v, mask, layer.causal
    if not own:
        raise GraphError(f"generation: a causal {name} attends to its own sequence, not across")
    if not layer.causal:
        raise GraphError(f"generation needs causal attention: tokens cannot look at later ones; make this {name} with "
                         "causal=True")
    if mask is not None or lengths is not None:
        raise GraphError(f"{name}: generation makes its own masks; give the prompts' lengths to gc.generate")
    keys, values = now.appended(layer, "keys", k), now.appended(layer, "values", v)
    return (k, v, None, True) if now.first else (keys, values, now.visible(len(k.shape), within), False)
