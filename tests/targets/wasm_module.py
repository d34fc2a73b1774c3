"""A WebAssembly object file as a module that engines load: one object needs no linker, only exports."""
from __future__ import annotations

from collections.abc import Iterator

HEAD_BYTES = 8
CUSTOM, EXPORT, SYMBOLS = 0, 7, 8
FUNCTION, DATA, SECTION = 0, 1, 3       # kinds of symbols
UNDEFINED, EXPLICIT_NAME = 0x10, 0x40   # flags of symbols


class Reader:
    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def number(self) -> int:
        """LEB128."""
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def take(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count:self.at]

    def name(self) -> str:
        return self.take(self.number()).decode()

    @property
    def more(self) -> bool:
        return self.at < len(self.data)


def module(code: bytes, functions: tuple[str, ...]) -> bytes:
    """The object with those functions exported that it defines."""
    defined = {name: index for name, index in _functions(code) if name in functions}
    exports = b"".join(_text(name) + bytes([FUNCTION]) + _leb(index) for name, index in defined.items())
    section = _leb(len(defined)) + exports
    before = [kind_and_body for kind_and_body in _sections(code) if CUSTOM < kind_and_body[0] < EXPORT]
    after = [kind_and_body for kind_and_body in _sections(code) if kind_and_body[0] > EXPORT]
    return code[:HEAD_BYTES] + b"".join(bytes([kind]) + _leb(len(body)) + body
                                        for kind, body in (*before, (EXPORT, section), *after))


def _sections(code: bytes) -> Iterator[tuple[int, bytes]]:
    reader = Reader(code[HEAD_BYTES:])
    while reader.more:
        kind = reader.take(1)[0]
        yield kind, reader.take(reader.number())


def _functions(code: bytes) -> Iterator[tuple[str, int]]:
    """Names and numbers of the functions that the object defines, from its table of symbols."""
    linking = next(r for r in (Reader(body) for kind, body in _sections(code) if kind == CUSTOM)
                   if r.name() == "linking")
    assert linking.number() == 2, "another version of the format"
    while linking.more:
        kind, part = linking.take(1)[0], Reader(linking.take(linking.number()))
        if kind != SYMBOLS:
            continue
        for _ in range(part.number()):
            symbol, flags = part.take(1)[0], part.number()
            if symbol == DATA:
                part.name()
                if not flags & UNDEFINED:
                    part.number(), part.number(), part.number()
            elif symbol == SECTION:
                part.number()
            else:
                index = part.number()
                if not flags & UNDEFINED or flags & EXPLICIT_NAME:
                    name = part.name()
                    if symbol == FUNCTION and not flags & UNDEFINED:
                        yield name, index


def _leb(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def _text(name: str) -> bytes:
    return _leb(len(name)) + name.encode()
