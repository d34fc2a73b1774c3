"""Archives of object files, with the table of symbols that linkers read: as GNU's `ar` makes them, or Apple's."""
from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from graphc.records import dataclass

MAGIC = b"!<arch>\n"
HEAD_BYTES = 60
APPLES_UNIT = 8                 # content begins at multiples of it


@dataclass(frozen=True)
class ObjectFile:
    """Object code, the name of its file, and the symbols that it defines for other files."""
    name: str
    code: bytes
    symbols: tuple[str, ...]


def archive(objects: Sequence[ObjectFile], object_format: str = "elf") -> bytes:
    """The bytes of the archive, which depend on nothing but the objects. All linkers but Apple's read GNU's form."""
    if object_format == "macho":
        return _apples(objects)
    names = "".join(f"{o.name}/\n" for o in objects).encode()
    starts = list(accumulate([len(o.name) + 2 for o in objects], initial=0))
    listed = [(symbol, n) for n, o in enumerate(objects) for symbol in o.symbols]
    words = b"".join(symbol.encode() + b"\0" for symbol, _ in listed)
    table_bytes = 4 + 4 * len(listed) + len(words)
    first = len(MAGIC) + _padded(table_bytes) + _padded(len(names))
    at = list(accumulate([_padded(len(o.code)) for o in objects], initial=first))
    table = b"".join(n.to_bytes(4, "big") for n in (len(listed), *(at[n] for _, n in listed))) + words
    members = [_member("/", table), _member("//", names)]
    members += [_member(f"/{start}", o.code) for start, o in zip(starts, objects)]
    return MAGIC + b"".join(members)


def _apples(objects: Sequence[ObjectFile]) -> bytes:
    """Names stand before the content; the table has a row for each symbol: where its name and its member begin."""
    listed = [("_" + symbol, n) for n, o in enumerate(objects) for symbol in o.symbols]
    words = b"".join(symbol.encode() + b"\0" for symbol, _ in listed)
    words += bytes(-len(words) % APPLES_UNIT)
    starts = list(accumulate([len(symbol) + 1 for symbol, _ in listed], initial=0))
    table_bytes = len(_apples_member("__.SYMDEF", bytes(8 + 8 * len(listed) + len(words)), len(MAGIC)))
    members, at, places = [], len(MAGIC) + table_bytes, []
    for o in objects:
        places.append(at)
        members.append(_apples_member(o.name, o.code, at))
        at += len(members[-1])
    rows = [number for start, (_, n) in zip(starts, listed) for number in (start, places[n])]
    table = b"".join(n.to_bytes(4, "little") for n in (8 * len(listed), *rows, len(words))) + words
    return MAGIC + _apples_member("__.SYMDEF", table, len(MAGIC)) + b"".join(members)


def _apples_member(name: str, content: bytes, at: int) -> bytes:
    """A member that begins at `at`."""
    named = name.encode() + b"\0"
    named += bytes(-(at + HEAD_BYTES + len(named)) % APPLES_UNIT)
    return _member(f"#1/{len(named)}", named + content + bytes(-len(content) % APPLES_UNIT))


def _padded(nbytes: int) -> int:
    return HEAD_BYTES + nbytes + nbytes % 2


def _member(name: str, content: bytes) -> bytes:
    head = f"{name:<16}{0:<12}{0:<6}{0:<6}{'644':<8}{len(content):<10}`\n".encode()
    return head + content + b"\n" * (len(content) % 2)
