"""Object code for Windows in a process of Linux: sections are mapped and relocated here, and one function is called as
Windows calls it. Code that needs functions of C is refused."""
from __future__ import annotations

import ctypes
import mmap
import struct

ADDRESS, RELATIVE_TO_IMAGE, RELATIVE = 1, 3, range(4, 10)       # kinds of relocations
# push rbp; mov rbp, rsp; and rsp, -16; sub rsp, 32; mov rcx, rdi; mov rax, function; call rax; leave; ret
CALL_HEAD, CALL_TAIL = bytes.fromhex("55 4889e5 4883e4f0 4883ec20 4889f9 48b8"), bytes.fromhex("ffd0 c9 c3")
RETURN = b"\xc3"                        # what probes the stack: a process of Linux needs no probes
IGNORED = {"_fltused": b"", "__chkstk": RETURN}


class Loaded:
    """`call(name, pointer)` is what the function returns; `address(name)`: for code that calls it."""

    def __init__(self, code: bytes):
        self.code = code
        _, self.count, _, self.symbol_at, self.symbol_count, _, _ = struct.unpack_from("<HHIIIHH", code)
        self.sections = [struct.unpack_from("<8sIIIIIIHHI", code, 20 + 40 * n) for n in range(self.count)]
        self.names: dict[str, int] = {}
        self.memory = mmap.mmap(-1, sum(s[3] + 64 for s in self.sections) + 4096,
                                prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.end, self.places = 0, []
        for _, _, _, size, at, *_ in self.sections:
            self.places.append(self._put(code[at:at + size] if at else bytes(size)))
        self._link()

    def _put(self, content: bytes) -> int:
        at = -(-self.end // 64) * 64
        self.memory[at:at + len(content)] = content
        self.end = at + len(content)
        return self.base + at

    def _symbols(self) -> list[tuple[str, int]]:
        """Name and address of each; 0 for what nobody here has."""
        strings, found, skip = self.symbol_at + 18 * self.symbol_count, [], 0
        for n in range(self.symbol_count):
            raw, value, section, _, _, more = struct.unpack_from("<8sIhHBB", self.code, self.symbol_at + 18 * n)
            if skip:
                skip, name, where = skip - 1, "", 0
            else:
                far = strings + struct.unpack_from("<I", raw, 4)[0]
                name = (self.code[far:self.code.index(b"\0", far)] if raw[:4] == bytes(4) else raw.rstrip(b"\0")).decode()
                where, skip = self.places[section - 1] + value if section > 0 else 0, more
            found.append((name, where))
        return found

    def _link(self) -> None:
        symbols = self._symbols()
        self.names = {name: where for name, where in symbols if where}
        for name, content in IGNORED.items():
            self.names.setdefault(name, self._put(content))
        for place, (_, _, _, _, _, at, _, count, _, _) in zip(self.places, self.sections):
            for n in range(count):
                offset, symbol, kind = struct.unpack_from("<IIH", self.code, at + 10 * n)
                name, target = symbols[symbol]
                target, spot = target or self.names[name], place + offset - self.base
                if kind == ADDRESS:
                    value = struct.unpack_from("<q", self.memory, spot)[0] + target
                    struct.pack_into("<q", self.memory, spot, value)
                elif kind in RELATIVE:
                    behind = place + offset + 4 + (kind - RELATIVE[0])
                    value = struct.unpack_from("<i", self.memory, spot)[0] + target - behind
                    struct.pack_into("<i", self.memory, spot, value)
                else:
                    assert kind == RELATIVE_TO_IMAGE, kind          # of tables for unwinding

    def address(self, name: str) -> int:
        return self.names[name]

    def call(self, name: str, pointer: int) -> int:
        thunk = self._put(CALL_HEAD + struct.pack("<q", self.address(name)) + CALL_TAIL)
        return ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)(thunk)(pointer)
