"""Hyperparameters of a training step, by name: read and written between two steps, kept in checkpoints."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import replace
from math import isfinite
from typing import Any, Protocol

import numpy as np

from graphc.dsl.context import user_loc
from graphc.dsl.live_number import value_at
from graphc.errors import GraphError
from graphc.ir.convert import is_sequence, items, real
from graphc.optim import is_schedule
from graphc.state import Own, State
from graphc.training_graph import RATE, STEP, Recipe

Number = float | tuple[float, ...]


class Remakeable(Protocol):
    """A training step, as far as it is asked here."""
    state: State

    @property
    def recipe(self) -> Recipe: ...

    def remade(self, recipe: Recipe) -> None: ...


class Hyperparameters(MutableMapping[str, Any]):
    """`hyper["lr"]`, `hyper["momentum"]`, `hyper["betas"]` …: the numbers of the optimizer; `hyper["groups.0.lr"]`:
    what its first group changes. A schedule is read as the number of the next update, and is not written.

    Numbers are arrays of the state, "optim.lr", so that a step reads what was written before it, without compiling.
    All but the learning rate become so when they are first written: the step is compiled once more, and then no more.
    """

    def __init__(self, step: Remakeable):
        self._step = step

    def __getitem__(self, name: str) -> Number:
        declared = self._declared(name)
        if is_schedule(declared):
            return value_at(declared, self._updates())
        array = self._step.state.name(self._step.recipe.setting(name, declared))
        if array is None:
            return declared
        value = self._step.state[array]
        return tuple(map(float, value)) if isinstance(declared, tuple) else float(value[()] if value.ndim else value)

    def __setitem__(self, name: str, value: Any) -> None:
        declared = self._declared(name)
        if is_schedule(declared):
            raise GraphError(f"{name} of this step is a schedule, a function of the number of updates, and cannot be "
                             "written: make the step with a number to change it from Python, or make a schedule that "
                             "does what you want", user_loc())
        numbers = self._checked(name, declared, value)
        self._step.recipe.optimizer_with(name, tuple(map(float, numbers)) if numbers.ndim else float(numbers))
        self.make_live([name])
        self._step.state[self.saved_as(name)] = numbers

    def __delitem__(self, name: str) -> None:
        raise GraphError(f"hyperparameters of a step are written, not deleted: step.hyper[{name!r}] = …", user_loc())

    def __iter__(self) -> Iterator[str]:
        return iter(self._step.recipe.hyperparameters())

    def __len__(self) -> int:
        return len(self._step.recipe.hyperparameters())

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{name!r}: {value!r}' for name, value in self.items())}}}"

    @property
    def numbers(self) -> list[str]:
        """The names of those that are no schedules, and so may be arrays of the state."""
        return [name for name, value in self._step.recipe.hyperparameters().items() if not is_schedule(value)]

    @property
    def rates(self) -> list[str]:
        """The names of all learning rates: "lr", and those of groups."""
        return [name for name in self if name.rpartition(".")[2] == RATE]

    def make_live(self, names: Iterable[str]) -> None:
        """From now on these are arrays of the state. GraphError, and nothing changed, for one that the optimizer cannot
        have as such."""
        recipe, declared = self._step.recipe, self._step.recipe.hyperparameters()
        new = [name for name in names
               if not is_schedule(declared[name])
               and self._step.state.name(recipe.setting(name, declared[name])) is None]
        if not new:
            return
        try:
            self._step.remade(replace(recipe, live=recipe.live.union(new)))
        except GraphError as error:
            raise GraphError(f"{type(recipe.optimizer).__name__} cannot have {', '.join(new)} as a number that changes "
                             f"({error.text}): make a step with the other number, and give it the state: "
                             "step.state.load(other.state.copy(), partial=True)", user_loc()) from None
        unused = [name for name in new if self._step.state.name(recipe.setting(name, declared[name])) is None]
        if unused:
            raise GraphError(f"no parameter is updated with {unused[0]}: their groups have their own, or the optimizer "
                             "does without it", user_loc())

    def saved_as(self, name: str) -> str:
        """What its array is called in the state and in files."""
        recipe = self._step.recipe
        known = self._step.state.name(recipe.setting(name, self._declared(name)))
        counter = self._step.state.name(Own(recipe.key, STEP)) or STEP
        number = counter.removeprefix(STEP)                 # ".2" of the second step of one state
        return known or f"optim{number}.{name}"

    def _declared(self, name: str) -> Any:
        known = self._step.recipe.hyperparameters()
        if name not in known:
            raise GraphError(f"{type(self._step.recipe.optimizer).__name__} has no hyperparameter {name!r}; it has "
                             f"{', '.join(known)}", user_loc())
        return known[name]

    def _checked(self, name: str, declared: Any, value: Any) -> np.ndarray:
        count = len(declared) if isinstance(declared, tuple) else None
        given = items(value, name) if is_sequence(value) else [value]
        if is_sequence(value) != (count is not None) or len(given) != (count or 1):
            raise GraphError(f"{name} is {f'{count} numbers' if count else 'a number'}, got {value!r}", user_loc())
        numbers = [real(v, name) for v in given]
        if not all(map(isfinite, numbers)) or (name.rpartition(".")[2] == RATE and numbers[0] < 0):
            raise GraphError(f"{name} is a finite number{' >= 0' if RATE in name else ''}, got {value!r}", user_loc())
        return np.array(numbers).reshape(() if count is None else (count,))

    def _updates(self) -> int:
        """The number of updates done so far."""
        calls = int(self._step.state[self._step.state.name(Own(self._step.recipe.key, STEP)) or STEP])
        return calls // self._step.recipe.optimizer.accumulate
