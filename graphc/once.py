"""Values that are computed or loaded at their first use, and kept."""
from __future__ import annotations

import gc
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from importlib import import_module
from threading import RLock
from typing import Any, Generic, TypeVar, overload

from graphc.contained import contained

# held while modules are imported at their first use; a fork waits for it: half a module never becomes whole in the
# child
LOADING = RLock()

T = TypeVar("T")
Key = TypeVar("Key", bound=Hashable)


def held_by_forks(lock: RLock) -> None:
    """A fork takes the lock first, so that no other thread is inside what it guards, and both processes go on with it
    free."""
    def release() -> None:
        if lock._is_owned():            # type: ignore[attr-defined]   # another thread may have brought the lock here
            lock.release()              # while the fork waited for the next
    renew = lock._at_fork_reinit        # type: ignore[attr-defined]   # CPython's, as `logging` uses it
    os.register_at_fork(before=lock.acquire, after_in_parent=release, after_in_child=renew)


held_by_forks(LOADING)


@contained                  # what modules define lives as long as they do: no collector needs to look at it meanwhile
def loaded(module: str, name: str = "") -> Any:
    """The module, imported at its first use; with `name`, what it defines under this name."""
    with LOADING:
        known = module in sys.modules
        found = import_module(module)
        if not known:
            _count_as_old()
        return getattr(found, name) if name else found


def _count_as_old() -> None:
    """Moves all objects to the collector's oldest generation, where its next small collections do not visit them, nor
    afterwards those that modules have defined. Not where somebody has frozen objects, whom this would thaw."""
    if not gc.get_freeze_count():
        gc.freeze()
        gc.unfreeze()


class once_property(Generic[T]):
    """As `functools.cached_property`, without the lock that it has in Python 3.11: one for all objects, held while the
    value is computed, and in the child of a fork for ever if another thread held it. Threads that ask at the same time
    each compute the value; all get the one that was there first.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self.compute, self.__doc__ = compute, compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> once_property[T]: ...

    @overload
    def __get__(self, instance: object, owner: type | None = None) -> T: ...

    def __get__(self, instance: object | None, owner: type | None = None) -> once_property[T] | T:
        return self if instance is None else instance.__dict__.setdefault(self.name, self.compute(instance))


def recent(table: OrderedDict[Key, T], key: Key, make: Callable[[], T], most: int) -> T:
    """table[key], made when missing; the table keeps the `most` that were used last. Threads may share it, and
    exceptions come at any moment: what two make at once is that of the first, and no step counts on what the one before
    it has seen."""
    value = table.get(key)
    if value is None:
        value = table.setdefault(key, make())
    with suppress(KeyError):
        table.move_to_end(key)
        while len(table) > most:
            table.popitem(last=False)
    return value
