"""Archives of object files, as `ar` makes them, with the table of symbols that linkers read."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

MAGIC = b"!<arch>\n"
HEAD_BYTES = 60


@dataclass(frozen=True)
class ObjectFile:
    """Object code, the name of its file, and the symbols that it defines for other files."""
    name: str
    code: bytes
    symbols: tuple[str, ...]


def archive(objects: Sequence[ObjectFile]) -> bytes:
    """The bytes of the archive, which depend on nothing but the objects."""
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


def _padded(nbytes: int) -> int:
    return HEAD_BYTES + nbytes + nbytes % 2


def _member(name: str, content: bytes) -> bytes:
    head = f"{name:<16}{0:<12}{0:<6}{0:<6}{'644':<8}{len(content):<10}`\n".encode()
    return head + content + b"\n" * (len(content) % 2)
