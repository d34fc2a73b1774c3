"""Object files of macOS, read as Apple's linker reads them (mach-o/loader.h, nlist.h, reloc.h, arm64/reloc.h)."""
from __future__ import annotations

import struct
from dataclasses import dataclass

MAGIC, ARM64, OBJECT, SUBSECTIONS = 0xFEEDFACF, 0x0100000C, 1, 0x2000
SEGMENT, SYMBOLS, BUILD_VERSION, MACOS = 0x19, 0x2, 0x32, 1
ZEROFILL = 1                            # the type of a section that has no bytes in the file
STAB, PRIVATE, KIND, EXTERNAL = 0xE0, 0x10, 0x0E, 0x01          # bits of a symbol's type
UNDEFINED, IN_SECTION = 0x0, 0xE
INSTRUCTIONS = 0x80000400               # attributes of sections that hold code
UNSIGNED, SUBTRACTOR, BRANCH, PAGE, OFFSET, GOT_PAGE, GOT_OFFSET, ADDEND = 0, 1, 2, 3, 4, 5, 6, 10
OPCODES = {                             # kinds of relocations: mask and value of the instruction that they change
    BRANCH: (0x7C000000, 0x14000000), PAGE: (0x9F000000, 0x90000000), GOT_PAGE: (0x9F000000, 0x90000000),
    GOT_OFFSET: (0xFFC00000, 0xF9400000), OFFSET: (0x1F000000, 0x11000000)}
LOADS = (0x3B000000, 0x39000000)        # what OFFSET may change too: a load or store


@dataclass(frozen=True)
class MachSection:
    name: str
    address: int
    size: int
    at: int                             # in the file
    relocations: tuple[int, int]        # where, and how many
    flags: int

    @property
    def holds_code(self) -> bool:
        return bool(self.flags & INSTRUCTIONS)


@dataclass(frozen=True)
class MachSymbol:
    name: str
    kind: int
    section: int                        # from 1
    address: int

    @property
    def defined(self) -> bool:
        return self.kind & KIND == IN_SECTION

    @property
    def visible(self) -> bool:
        return bool(self.kind & EXTERNAL) and not self.kind & PRIVATE


class MachObject:
    """`sections`, `symbols`, and `relocations(section)`: (offset, symbol or section, kind, bytes as a power of two)."""

    def __init__(self, data: bytes):
        self.data, self.sections, self.symbols, self.minimum = data, [], [], 0
        magic, processor, _, kind, commands, nbytes, flags, _ = struct.unpack_from("<IIIIIIII", data)
        assert (magic, processor, kind) == (MAGIC, ARM64, OBJECT) and flags & SUBSECTIONS
        at, end = 32, 32 + nbytes
        for _ in range(commands):
            command, size = struct.unpack_from("<II", data, at)
            assert size % 8 == 0 and at + size <= end
            if command == SEGMENT:
                self._segment(at)
            elif command == SYMBOLS:
                self._symbols(*struct.unpack_from("<IIII", data, at + 8))
            elif command == BUILD_VERSION:
                system, self.minimum = struct.unpack_from("<II", data, at + 8)
                assert system == MACOS
            at += size
        assert at == end

    def _segment(self, at: int) -> None:
        count, = struct.unpack_from("<I", self.data, at + 64)
        for place in range(at + 72, at + 72 + 80 * count, 80):
            name, _, address, size, offset, _, relocations, number, flags = struct.unpack_from(
                "<16s16sQQIIIII", self.data, place)
            assert flags & 0xFF == ZEROFILL or offset + size <= len(self.data)
            self.sections.append(MachSection(name.rstrip(b"\0").decode(), address, size, offset, (relocations, number),
                                             flags))

    def _symbols(self, at: int, count: int, texts: int, nbytes: int) -> None:
        for place in range(at, at + 16 * count, 16):
            name, kind, section, _, address = struct.unpack_from("<IBBHQ", self.data, place)
            assert name < nbytes and not kind & STAB
            end = self.data.index(b"\0", texts + name)
            symbol = MachSymbol(self.data[texts + name:end].decode(), kind, section, address)
            if symbol.defined:
                within = self.sections[section - 1]
                assert within.address <= address <= within.address + within.size
            self.symbols.append(symbol)

    def relocations(self, section: MachSection):
        at, count = section.relocations
        for place in range(at, at + 8 * count, 8):
            offset, word = struct.unpack_from("<II", self.data, place)
            number, external, kind = word & 0xFFFFFF, word >> 27 & 1, word >> 28
            size = word >> 25 & 3
            assert offset + (1 << size) <= section.size
            target = None if kind == ADDEND else self.symbols[number] if external else self.sections[number - 1]
            if kind in OPCODES:
                code, = struct.unpack_from("<I", self.data, section.at + offset)
                mask, value = OPCODES[kind]
                assert code & mask == value or kind == OFFSET and code & LOADS[0] == LOADS[1], (hex(code), kind)
            yield offset, target, kind, size
