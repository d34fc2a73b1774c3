"""What an earlier process has found out by tracing a network, kept in the disk cache beside the code: a later one finds
its code there, and traces nothing."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.llvm import cache
from graphc.codegen.llvm.host import host_target
from graphc.codegen.llvm.packing import pack
from graphc.compiler import kept
from graphc.config import config
from graphc.dsl.context import user_loc
from graphc.ir.types import TensorType
from graphc.nn.described import description
from graphc.nn.entry import Entry
from graphc.nn.module import Module
from graphc.records import dataclass


@dataclass(frozen=True)
class Recalled:
    """The arrays of the state in their order. code: the key of the program (`SizedGraph.key`). own: which arrays are
    those of a session (see `Session`), and what it knows of its programs."""
    names: tuple[str, ...]
    types: tuple[TensorType, ...]
    code: str = ""
    own: tuple[bool, ...] = ()
    places: int | None = None
    lasting: bool = False

    @property
    def entries(self) -> tuple[Entry, ...]:
        """By their names alone: who owns them is not known."""
        return tuple(Entry(name, type, name) for name, type in zip(self.names, self.types))

    @property
    def foreign(self) -> tuple[Entry, ...]:
        """Those that a session does not own."""
        return tuple(entry for entry, own in zip(self.entries, self.own) if not own)


def recall_key(net: Module, *more: object) -> str | None:
    """Of what the network is traced for, in the disk cache. None where there is none, or where the network is not all
    graphc's own."""
    if cache.default() is None or config().oracle:
        return None
    text = description(net)
    if text is None:
        return None
    return cache.make_key("recalled", text, repr(user_loc()), repr(host_target()), repr(config()), *map(repr, more))


def recalled(key: str | None) -> Recalled | None:
    """What was kept, if anything."""
    return None if key is None else kept(key, Recalled)


def keep(key: str | None, found: Recalled) -> None:
    """For later processes."""
    store = cache.default()
    if key is not None and store is not None:
        store.put(key, *pack(found))


def named(entries: Sequence[Entry]) -> tuple[tuple[str, ...], tuple[TensorType, ...]]:
    """The first two fields of `Recalled`."""
    return tuple(e.name for e in entries), tuple(e.type for e in entries)
