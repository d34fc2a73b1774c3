"""Object code (ELF of x86-64) into this process.

LLVM's linker asks the system for memory section by section. References between sections reach 2 GB, and in a process
with many large libraries the memory of two sections may lie further apart; LLVM then ends the process. Here all
sections, also those of several object files, lie in one block, behind them a stub for each function of another library.
"""
from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import cache as once
from typing import Any

import numpy as np

from graphc.errors import InternalError
from graphc.records import dataclass

MAGIC = b"\x7fELF\x02"           # of 64 bits
X86_64, RELOCATABLE = 62, 1
SYMBOLS, RELOCATIONS, NO_BITS = 2, 4, 8         # kinds of sections
WRITE, ALLOC = 1, 2                             # flags of sections
PAGE = mmap.PAGESIZE
STUB = b"\xff\x25\x00\x00\x00\x00"              # jmp *(next 8 bytes)
STUB_BYTES = 16
SECTION = np.dtype([("name", "<u4"), ("kind", "<u4"), ("flags", "<u8"), ("address", "<u8"), ("offset", "<u8"),
                    ("size", "<u8"), ("link", "<u4"), ("info", "<u4"), ("align", "<u8"), ("entry", "<u8")])
SYMBOL = np.dtype([("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"),
                   ("size", "<u8")])
RELOCATION = np.dtype([("offset", "<u8"), ("kind", "<u4"), ("symbol", "<u4"), ("addend", "<i8")])
ABSOLUTE, OUTSIDE = 0xFFF1, 0                   # sections of symbols
LOCAL = 0                                       # a symbol that other object files do not see
ABS64, PC32, PLT32, GOT_PC32 = 1, 2, 4, (9, 41, 42)


def is_loadable(code: bytes) -> bool:
    """Whether this is relocatable code of x86-64."""
    return len(code) >= 64 and code.startswith(MAGIC) and struct.unpack_from("<HH", code, 16) == (RELOCATABLE, X86_64)


@dataclass(frozen=True)
class Block:
    """Code in this process, and where it lies; unmapped with the last reference."""
    memory: mmap.mmap
    address: int


def load(codes: Sequence[bytes], names: tuple[str, ...], imports: Mapping[str, int]) -> tuple[Block, dict[str, int]]:
    """The code, ready to run, and the addresses of its symbols `names`. Object files refer to each other's symbols.
    `imports`: addresses of symbols of others; all the rest are those of the process. InternalError for damaged code, or
    what is missing."""
    try:
        return _loaded([_Object(code) for code in codes], names, imports)
    except (ValueError, IndexError, struct.error) as error:
        raise InternalError(f"the object code is damaged: {error}", "load") from error


class _Object:
    """The tables of an object file, and where its sections lie in the block (-1: nowhere)."""

    def __init__(self, code: bytes):
        self.code = np.frombuffer(code, np.uint8)
        start, = struct.unpack_from("<Q", code, 40)
        count, = struct.unpack_from("<H", code, 60)
        self.sections = np.frombuffer(code, SECTION, count, start)
        table = self.sections[np.flatnonzero(self.sections["kind"] == SYMBOLS)[0]]
        self.symbols = self._rows(table, SYMBOL)
        texts = self.sections[table["link"]]
        self.texts = code[texts["offset"]:texts["offset"] + texts["size"]]
        seen = (self.symbols["info"] >> 4 != LOCAL) & (self.symbols["name"] != 0)
        self.outside = self._numbers(seen & (self.symbols["section"] == OUTSIDE))
        self.defined = self._numbers(seen & (self.symbols["section"] != OUTSIDE))
        self.places = np.full(count, -1, np.int64)

    def _rows(self, section: Any, dtype: np.dtype[Any]) -> np.ndarray:
        return np.frombuffer(self.code, dtype, int(section["size"]) // dtype.itemsize, int(section["offset"]))

    def _numbers(self, chosen: np.ndarray) -> dict[str, int]:
        """Of these symbols, by their names."""
        rows = np.flatnonzero(chosen)
        return {self.texts[start:self.texts.index(b"\0", start)].decode(): row
                for start, row in zip(self.symbols["name"][rows].tolist(), rows.tolist())}

    def place(self, at: int, written: bool) -> int:
        """Gives sections their places from `at` on, those that are `written` or the others; where they end."""
        flags = self.sections["flags"]
        for i in np.flatnonzero((flags & ALLOC != 0) & ((flags & WRITE != 0) == written)).tolist():
            at = _up(at, max(int(self.sections["align"][i]), 1))
            self.places[i] = at
            at += int(self.sections["size"][i])
        return at

    def fill(self, view: np.ndarray) -> None:
        for section, place in zip(self.sections, self.places.tolist()):
            if place >= 0 and section["kind"] != NO_BITS:
                begin, length = int(section["offset"]), int(section["size"])
                view[place:place + length] = self.code[begin:begin + length]

    def values(self, base: int) -> np.ndarray:
        """The address of each symbol; 0 of those of others."""
        inside = (self.symbols["section"] != OUTSIDE) & (self.symbols["section"] != ABSOLUTE)
        values = self.symbols["value"].astype(np.int64)
        sections = np.where(inside, self.symbols["section"], 0)
        return values + np.where(inside, base + self.places[sections], 0)

    def references(self, values: np.ndarray, stubs: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
        """Of each section: where references are, their kinds, what they refer to (`values` of symbols), the stubs of
        that (0: none), and what is added."""
        for section in self.sections[self.sections["kind"] == RELOCATIONS]:
            if (target := self.places[section["info"]]) >= 0:
                rows = self._rows(section, RELOCATION)
                symbols = rows["symbol"]
                yield (target + rows["offset"].astype(np.int64), rows["kind"], values[symbols], stubs[symbols],
                       rows["addend"])


def _relocate(view: np.ndarray, base: int, references: Sequence[tuple[np.ndarray, ...]]) -> None:
    """Writes what each reference refers to."""
    if not references:
        return
    at, kinds, refers, stubs, added = map(np.concatenate, zip(*references))
    refers = np.where((kinds == PLT32) & (stubs > 0), base + stubs, refers)
    slots = np.isin(kinds, GOT_PC32)
    if (slots & (stubs == 0)).any() or not np.isin(kinds, (ABS64, PC32, PLT32, *GOT_PC32)).all():
        raise InternalError(f"no rule for relocations {sorted(set(kinds.tolist()))}", "load")
    refers = np.where(slots, base + stubs + len(STUB), refers)      # the stub's address is the slot
    whole = refers + added - np.where(kinds == ABS64, 0, base + at)
    near = kinds != ABS64
    if (np.abs(whole[near]) >= 1 << 31).any():
        raise InternalError("a reference reaches further than 2 GB", "load")
    for byte in range(8):
        chosen = slice(None) if byte < 4 else ~near
        view[at[chosen] + byte] = (whole[chosen] >> 8 * byte) & 255


def _loaded(objects: Sequence[_Object], names: tuple[str, ...],
            imports: Mapping[str, int]) -> tuple[Block, dict[str, int]]:
    """Memory with the sections in it, relocated and no longer writable, but for the data that is written."""
    inside = {name for each in objects for name in each.defined}
    foreign = {name: _address(name, imports) for each in objects for name in each.outside if name not in inside}
    stubs = 0
    for each in objects:
        stubs = each.place(stubs, written=False)
    stubs = _up(stubs, STUB_BYTES)
    jumps = {name: stubs + k * STUB_BYTES for k, name in enumerate(foreign)}
    end = written = _up(stubs + len(foreign) * STUB_BYTES, PAGE)
    for each in objects:
        end = each.place(end, written=True)
    memory = mmap.mmap(-1, max(_up(end, PAGE), PAGE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    view = np.frombuffer(memory, np.uint8)
    for name, jump in jumps.items():
        view[jump:jump + 14] = np.frombuffer(STUB + foreign[name].to_bytes(8, "little"), np.uint8)
    values = [each.values(base) for each in objects]
    found = {name: int(own[i]) for each, own in zip(objects, values) for name, i in each.defined.items()}
    references: list[tuple[np.ndarray, ...]] = []
    for each, own in zip(objects, values):
        each.fill(view)
        jumping = np.zeros(len(own), np.int64)
        for name, i in each.outside.items():
            own[i], jumping[i] = found[name] if name in found else foreign[name], jumps.get(name, 0)
        references += each.references(own, jumping)
    _relocate(view, base, references)
    _protect(base, written, mmap.PROT_READ | mmap.PROT_EXEC)
    if missing := [name for name in names if name not in found]:
        raise InternalError(f"the code defines no {', '.join(missing)}", "load")
    return Block(memory, base), found


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _address(name: str, imports: Mapping[str, int]) -> int:
    """Of a symbol of the process, libm's included."""
    if name in imports:
        return imports[name]
    for library in _libraries():
        try:
            found = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        except AttributeError:
            continue
        if found:
            return found
    raise InternalError(f"nothing here is called {name}", "load")


@once
def _libraries() -> tuple[ctypes.CDLL, ...]:
    """The process itself, and libm, which it may lack."""
    return ctypes.CDLL(None), ctypes.CDLL("libm.so.6")


def _protect(base: int, size: int, protection: int) -> None:
    if size and _libraries()[0].mprotect(ctypes.c_void_p(base), ctypes.c_size_t(size), protection):
        raise InternalError("the system does not let this process run new code", "load")
