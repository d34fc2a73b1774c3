"""State: the arrays that a network and its training own (parameters, running statistics, optimizer slots, step, random
key)."""
from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, cast
from weakref import ref
from zlib import crc32

import numpy as np

from graphc.dsl.context import user_loc
from graphc.dsl.form import formed, formed_methods
from graphc.errors import GraphError
from graphc.ir.dims import Sizes
from graphc.ir.shown import Pictured
from graphc.ir.types import TensorType, f64, includes, of_numpy, shape_text
from graphc.nn.entry import Entry
from graphc.nn.module import Module
from graphc.records import dataclass
from graphc.runtime.lock import StateLock
from graphc.runtime.memory import aligned_copy, aligned_empty


@dataclass(frozen=True)
class Own:
    """Owner of an array that belongs to one training step alone: its number of steps, an optimizer's array for a
    parameter."""
    step: object
    what: str
    parameter: Hashable = None

    def numbered(self, name: str, number: int) -> str:
        """`name` of the second, third … step of one state: "step.2", "optim.2.exp_avg.0.weight"."""
        first, dot, rest = name.partition(".")
        return name if number == 1 else f"{first}.{number}{dot}{rest}"


@dataclass(frozen=True)
class Setting(Own):
    """Owner of a hyperparameter of one step, which starts as it was declared."""
    declared: tuple[float, ...] = ()

    def initial(self, type: TensorType, seed: int, name: str) -> np.ndarray:
        return np.array(self.declared, type.dtype.np).reshape(type.shape)


class State(Mapping[str, np.ndarray], Pictured):
    """Named arrays. `state[name]` gives a copy, `state[name] = array` writes in place; dtype and shape never change.

    `lock` is held while native code runs on the state and while it is read or written here: signal handlers, finalizers
    and other threads, which may do so at any moment, meet the values of before or after a write or a step. Its
    `version` grows with every write, so that whatever was derived from the values can be made anew. `programs`: what
    was compiled for it and is worth keeping.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}
        self._names: dict[Hashable, str] = {}
        self._joined: list[tuple[ref[object], int, list[Hashable]]] = []    # steps, their numbers, what is their own
        self.lock = StateLock()
        self.programs: OrderedDict[Hashable, object] = OrderedDict()
        self.written: int | None = None         # where ranks compare it: a checksum of all that was written here

    @staticmethod
    def create(entries: Sequence[Entry], seed: int | None, arrays: Mapping[str, np.ndarray] | None = None,
               where: str = "state", mapped: bool = False) -> "State":
        """With values of `arrays`, which came from `where`, or fresh ones: such a value depends on the seed and the
        entry's name only, not on the order. `mapped`: the arrays are nobody else's, read from a file or views of one
        that may be written to, and become the state's own without a copy."""
        state = State()
        for entry, value in zip(entries, initial_values(entries, seed, arrays, where)):
            state.add(entry, value, mapped)
        return state

    def add(self, entry: Entry, value: np.ndarray, mapped: bool = False) -> None:
        if entry.name in self._arrays:
            raise _called_twice(entry.name)
        self._names[entry.key] = entry.name
        self._arrays[entry.name] = value if mapped else aligned_copy(value)

    def name_owners(self, entries: Sequence[Entry]) -> None:
        """Says who owns arrays that were known by their names alone."""
        self._names = {entry.key: entry.name for entry in entries}

    def join(self, entries: Sequence[Entry], seed: int, step: object) -> None:
        """Adds what `step` needs and the state has not, fresh; arrays whose owners it knows are shared. What belongs to
        the step alone goes when a further one joins after it has died; a step may join again. GraphError for a name
        that another layer has."""
        self._forget_dead()
        new = [entry for entry in entries if self._names.get(entry.key) not in self._arrays]
        own = [(entry, entry.key) for entry in new if isinstance(entry.key, Own)]
        number = next((n for known, n, _ in self._joined if known() is step), None) or next(
            n for n in count(1) if not any(key.numbered(e.name, n) in self._arrays for e, key in own))
        renamed = [replace(e, name=e.key.numbered(e.name, number)) if isinstance(e.key, Own) else e for e in new]
        if twice := next((e.name for e in renamed if e.name in self._arrays), None):
            raise GraphError(f"the state has {twice} of another layer: layers of steps that share a state need names "
                             "of their own; name them by the variables of a function that uses them, or, to start "
                             "with the values of the other layer, make a state of its own and load them: "
                             "step.state.load(other.copy(), partial=True)", user_loc())
        arrays = {e.name: aligned_copy(self._first_value(entry, entries, seed)) for e, entry in zip(renamed, new)}
        # names first: should Ctrl-C come between the two, a name without its array counts as new
        self._names |= {entry.key: entry.name for entry in renamed}
        self._arrays |= arrays
        self._joined.append((ref(step), number, [key for _, key in own]))

    def holds(self, entry: Entry) -> bool:
        """Whether it has the array of the entry, by its owner or by its name."""
        return self._names.get(entry.key, entry.name) in self._arrays

    def _first_value(self, entry: Entry, entries: Sequence[Entry], seed: int) -> np.ndarray:
        """Of a copy of a layer that the state has, the layer's value now; else fresh."""
        like = next((k for k in entry.originals() if k in self._names), None)
        if like is None:
            return entry.initial(seed, {e.key: e.name for e in entries})
        return self._arrays[self._names[like]].copy()

    def _forget_dead(self) -> None:
        dead = {key for step, _, keys in self._joined if step() is None for key in keys}
        gone = {self._names[key] for key in dead if key in self._names}
        self._arrays = {name: array for name, array in self._arrays.items() if name not in gone}
        self._names = {key: name for key, name in self._names.items() if key not in dead}
        self._joined = [joined for joined in self._joined if joined[0]() is not None]

    def array(self, entry: Entry) -> np.ndarray:
        """The live array of an entry: found by its owner, else by its name. GraphError when absent or of another
        type."""
        name = self._names.get(entry.key, entry.name)
        if name not in self._arrays:
            raise GraphError(f"the state has no {entry.name}: {entry.type}; it holds {_some(self._arrays)}", user_loc())
        check_array(name, self._arrays[name], entry.type)
        return self._arrays[name]

    def arrays(self, entries: Iterable[Entry]) -> list[np.ndarray]:
        """The live arrays of these entries."""
        return [self.array(entry) for entry in entries]

    def name(self, key: Hashable) -> str | None:
        """What the array of this owner is called; None if the state has none."""
        return self._names.get(key)

    def seen_as(self, others: Mapping[Hashable, Hashable]) -> State:
        """A view of the same arrays, with the same lock, in which some owners have the arrays of others."""
        view = State()
        view.lock = self.lock
        for key, name in self._names.items():
            array = self._arrays.get(self._names.get(others.get(key, key), name))
            if array is not None:
                view._names[key], view._arrays[name] = name, array
        return view

    def names_of(self, kind: type) -> list[str]:
        """The names of arrays whose owners are of this kind."""
        return [name for key, name in self._names.items() if isinstance(key, kind) and name in self._arrays]

    def saved(self) -> dict[str, np.ndarray]:
        """What a file keeps: copies of all arrays, hyperparameters only where they are not as declared. Whoever reads
        the file has those of the code that declares them, unless they were written."""
        as_declared = self._declared()
        return {name: a for name, a in self.copy().items()
                if name not in as_declared or not np.array_equal(a, as_declared[name])}

    def _declared(self) -> dict[str, np.ndarray]:
        """The hyperparameters as declared, by name."""
        return {name: key.initial(TensorType(f64, self._arrays[name].shape), 0, name)
                for key, name in self._names.items() if isinstance(key, Setting) and name in self._arrays}

    def copy(self) -> dict[str, np.ndarray]:
        """Copies of all arrays, taken between two steps."""
        arrays = dict(self._arrays)
        return dict(zip(arrays, self.lock.read(list(arrays.values()))))

    def __getitem__(self, name: str) -> np.ndarray:
        return self.lock.read([self._find(name)])[0]

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __setitem__(self, name: str, value: Any) -> None:
        array, value = self._find(name), np.asarray(value)
        if value.shape != array.shape:
            raise GraphError(f"{name} is {shape_text(array.shape)}, cannot take a value of shape "
                             f"{shape_text(value.shape)}", user_loc())
        if not np.can_cast(value.dtype, array.dtype, "same_kind"):
            raise GraphError(f"{name} is {array.dtype}, cannot take {value.dtype}; convert it with .astype", user_loc())
        self._write([name], [np.ascontiguousarray(value, array.dtype)])

    def _write(self, names: Sequence[str], values: Sequence[np.ndarray]) -> None:
        """Puts C-contiguous values of the right types in place."""
        self.lock.write([self._arrays[name] for name in names], values)
        if self.written is not None:
            for name, value in zip(names, values):
                self.written = crc32(value.reshape(-1).view(np.uint8).data, crc32(name.encode(), self.written))

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        rows = (f"  {name}: {a.dtype}{list(a.shape)}" for name, a in self._arrays.items())
        return "\n".join((f"State of {len(self)} arrays, {self.nbytes} bytes", *rows))

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in self._arrays.values())

    def load(self, arrays: Mapping[str, np.ndarray], where: str = "the mapping", *, partial: bool = False) -> None:
        """Takes every value from `arrays`, by name, such as a `copy` (`partial`: those that it has), in one step;
        nothing is written unless all of them fit. GraphError names the first that does not, of `where` the arrays came
        from. Hyperparameters that `arrays` lacks are as declared from then on, or, if `partial`, stay."""
        if not isinstance(arrays, Mapping):
            raise GraphError(f"state.load takes a mapping from names to arrays, such as state.copy(), got "
                             f"{type(arrays).__name__}; a file: step.load(path)", user_loc())
        lacking = {} if partial else {name: a for name, a in self._declared().items() if name not in arrays}
        names = [name for name in self._arrays if name in arrays or not partial]
        if not names:
            raise GraphError(f"{where} has none of the arrays of the state; it holds {_some(arrays)}", user_loc())
        values = [_fitting(where, lacking if name in lacking else arrays, name, self._arrays[name].shape,
                           self._arrays[name].dtype) for name in names]
        self._write(names, [np.ascontiguousarray(v) for v in values])

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, also by pickle, has a lock and arrays of its own."""
        return _restored, (self.copy(), dict(self._names))

    def _find(self, name: str) -> np.ndarray:
        try:
            return self._arrays[name]
        except KeyError:
            raise GraphError(f"the state has no {name!r}; it holds {_some(self._arrays)}", user_loc()) from None


formed_methods(State)


@dataclass(frozen=True)
class Model:
    """A network with its state, of which somebody else may have a part: what is compiled from it sees every later
    step."""
    net: Module
    state: State

    @formed
    def bare(self) -> tuple[Module, State]:
        """Both, for whoever changes nothing of the network and asks for arrays by name alone."""
        return self.net, self.state

    def __call__(self, *arrays: object, **named: object) -> None:
        """GraphError: it is no function of arrays before it is compiled."""
        raise GraphError("a model runs when it is compiled: gc.compile(step.model, x=gc.f32[32, 784])(x); or "
                         "step.predict(x)", user_loc())


def _restored(arrays: Mapping[str, np.ndarray], names: Mapping[Hashable, str]) -> State:
    state = State()
    state._arrays.update({name: aligned_copy(value) for name, value in arrays.items()})
    state._names.update(names)
    return state


def check_array(name: str, array: np.ndarray, type: TensorType) -> None:
    """GraphError unless `array` has `type`."""
    if array.shape != type.shape or array.dtype != type.dtype.np:
        raise GraphError(f"{name} is {array.dtype}{list(array.shape)} in the state, the network wants {type}",
                         user_loc())


def _called_twice(name: str) -> GraphError:
    return GraphError(f"two state arrays are called {name}; give the layers different names", user_loc())


def initial_values(entries: Sequence[Entry], seed: int | None, arrays: Mapping[str, np.ndarray] | None,
                   where: str) -> list[np.ndarray]:
    """What the entries start with, C-contiguous: values of `arrays`, which came from `where`, or fresh ones. GraphError
    names what does not fit."""
    names = Counter(entry.name for entry in entries)
    if twice := next((name for name, times in names.items() if times > 1), None):
        raise _called_twice(twice)
    if arrays is None:
        known = {entry.key: entry.name for entry in entries}
        return [entry.initial(cast(int, seed), known) for entry in entries]
    found = [_fitting(where, arrays, e.name, cast(Sizes, e.type.shape), e.type.dtype.np) for e in entries]
    return [np.ascontiguousarray(a).reshape(e.type.shape) for a, e in zip(found, entries)]


def _fitting(where: str, arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...],
             dtype: np.dtype) -> np.ndarray:
    """The array that a file or a mapping holds, if the network can take it."""
    if name not in arrays:
        raise GraphError(f"{where} has no {name} ({dtype}{list(shape)}); it holds {_some(arrays)}"
                         + _prefix_advice(name, arrays), user_loc())
    found = np.asarray(arrays[name])
    stored, wanted = of_numpy(found.dtype), of_numpy(dtype)
    if stored and wanted and stored.is_storage and includes(wanted, stored):    # every number of f16 and bf16 is an f32
        found, narrow = aligned_empty(found.shape, dtype), found
        found[...] = narrow
    if found.shape != shape or found.dtype != dtype:
        raise GraphError(f"{where}: {name} is {found.dtype}{list(found.shape)}, the network wants {dtype}{list(shape)}",
                         user_loc())
    return found


def _prefix_advice(name: str, arrays: Iterable[str]) -> str:
    """What to do where the names differ by what they begin with."""
    for found in arrays:
        if found.endswith(f".{name}"):
            begin = found.removesuffix(name)
            return f"; its names begin with {begin!r}: gc.load_weights(path, prefix={begin!r})"
        if name.endswith(f".{found}"):
            begin = name.removesuffix(found)
            return f"; its names lack {begin!r} at the beginning: gc.load_weights(path, under={begin!r})"
    return ""


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "nothing"
