"""Compiled code on disk: checksummed entries in a folder of the cache's own, bounded in size, oldest use thrown away
first.

An entry that is broken, foreign or unreadable counts as missing; a folder that cannot be used switches the cache off.
Nothing here raises. Files that belong to another user, or that others may write, are not read: they could be code of an
attacker. Only files with names that the cache made are touched.
"""
from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import field
from functools import cache as once
from itertools import count
from pathlib import Path
from typing import BinaryIO, TypeVar, overload

import numpy as np

from graphc.codegen.llvm.lazy import llvmlite_version
from graphc.config import BOOLS, config
from graphc.records import dataclass
from graphc.schedule.target import Target

FOLDER = "graphc-cache"         # below the folder that the user names, which may hold other things
MAGIC = b"graphc cache entry, form 2\n".ljust(32)
DIGEST_BYTES = 32
HEAD = len(MAGIC) + DIGEST_BYTES
ENTRY = re.compile(r"[0-9a-f]{64}\Z")
TEMPORARY = re.compile(r"new\.[a-z0-9_]{8}\Z")
ABANDONED = 3600                # seconds after which a file that is still being written is one of a process that died
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
KEPT_SHARE = 0.75               # how much of the bound is left after a clean-up, so that not every store cleans
SCAN_EVERY = 16                 # stores of a process between two checks of the folder's size, the first store included
T = TypeVar("T")
Memory = Callable[[int], bytearray | memoryview]


@dataclass(frozen=True)
class Cache:
    """Entries are files `<key>` in `folder`, at most `limit` bytes together (checked now and then)."""
    folder: Path
    limit: int
    _stores: Iterator[int] = field(default_factory=count, repr=False, compare=False)

    @overload
    def get(self, key: str) -> bytes | None: ...

    @overload
    def get(self, key: str, read: Callable[[memoryview], T], memory: Memory = ...) -> T | None: ...

    def get(self, key: str, read: Callable[[memoryview], object] = bytes, memory: Memory = bytearray) -> object:
        """What `read` makes of the payload stored under `key`, or None. An entry that is broken, or for which `read`
        raises ValueError, is removed. The payload lies in `memory(bytes of the entry)`, HEAD bytes from its start."""
        with suppress(OSError), _folder(self.folder) as folder:
            try:
                payload = self._payload(key, folder, memory)
                found = None if payload is None else read(payload)
            except ValueError:
                _remove(key, folder)
                return None
            os.utime(key, dir_fd=folder, follow_symlinks=False)
            return found
        return None

    def put(self, key: str, *payload: bytes | bytearray | memoryview) -> None:
        """Store the parts of a payload: readers see the whole entry or none."""
        with suppress(OSError), _folder(self.folder) as folder:
            name, file = _new_file(folder)
            try:
                with file:
                    file.write(MAGIC + _sum(key, *payload))
                    for part in payload:
                        file.write(part)
                os.replace(name, key, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                _remove(name, folder)
                raise
        if next(self._stores) % SCAN_EVERY == 0 or sum(map(len, payload)) > self.limit // SCAN_EVERY:
            self.trim()

    def trim(self) -> None:
        """Remove what was used longest ago until the folder fits its bound, and what nobody goes on writing."""
        with suppress(OSError), _folder(self.folder) as folder:
            entries = sorted(_files(folder))
            total = sum(size for _, size, _ in entries)
            bound = self.limit if total <= self.limit else self.limit * KEPT_SHARE
            for used, size, name in entries:
                if total > bound or TEMPORARY.match(name) and used < time.time() - ABANDONED:
                    _remove(name, folder)
                    total -= size

    def clear(self) -> None:
        with suppress(OSError), _folder(self.folder) as folder:
            for _, _, name in _files(folder):
                _remove(name, folder)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        with suppress(OSError), _folder(self.folder) as folder:
            return sum(size for _, size, _ in _files(folder))
        return 0

    def _payload(self, key: str, folder: int, memory: Memory) -> memoryview | None:
        """None when nobody may trust the entry. ValueError when it is broken, or no file at all, OSError when it is not
        there."""
        # no link, and no waiting for who writes into a pipe
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        handle = os.open(key, flags, dir_fd=folder)
        try:
            info = os.fstat(handle)
            if _others(info):
                return _refuse(self.folder, "holds files that belong to another user or that others may write")
            if not stat.S_ISREG(info.st_mode) or not HEAD <= info.st_size <= self.limit:
                raise ValueError("no entry")
            data = memoryview(memory(info.st_size))
            with open(handle, "rb", closefd=False) as file:
                if file.readinto(data) != info.st_size or data[:HEAD] != MAGIC + _sum(key, data[HEAD:]):
                    raise ValueError("a broken entry")
            return data[HEAD:]
        finally:
            os.close(handle)


def default() -> Cache | None:
    """The cache in the folder that GRAPHC_CACHE names (or "off", or another word for no); None when there is none or it
    cannot be trusted."""
    knobs = config()
    if BOOLS.get(knobs.cache.lower()) is False:
        return None
    folder = Path(knobs.cache, FOLDER) if knobs.cache else _users_folder()
    return _opened(folder.absolute(), knobs.cache_mb << 20) if folder else None


def make_key(*parts: str | bytes) -> str:
    """A key for something derived from `parts` by graphc's own code: changes with any source file of graphc."""
    return _digest(_versions(), _source_stamp(), *parts)


def code_key(text: str, target: Target, options: str) -> str:
    """A key for object code: it depends on the LLVM text, the instruction set and LLVM's version, on no tuning."""
    machine = target.triple, target.least_cpu, target.features, target.abi, target.relocation
    return _digest(_versions(), *machine, options, text)


def _users_folder() -> Path | None:
    """~/.cache/graphc, which is the cache's own."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    base = base if os.path.isabs(base) else os.path.expanduser("~/.cache")
    return Path(base, "graphc") if os.path.isabs(base) else None        # a user without a home


@once
def _opened(folder: Path, limit: int) -> Cache | None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        with _folder(folder) as handle:
            return Cache(folder, limit) if os.access(".", os.W_OK | os.X_OK, dir_fd=handle) else None
    except OSError:
        return None


@contextmanager
def _folder(path: Path) -> Iterator[int]:
    """The open folder. OSError when there is none; PermissionError, and a warning, when it could hold what others
    wrote."""
    link = os.lstat(path)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        info = os.fstat(handle)
        if _others(info) or link.st_uid != info.st_uid:
            _refuse(path, "belongs to another user, or others may write it")
            raise PermissionError(path)
        yield handle
    finally:
        os.close(handle)


def _others(info: os.stat_result) -> bool:
    """Whether others may have made it what it is."""
    return info.st_uid != os.geteuid() or bool(info.st_mode & OTHERS_WRITE)


@once
def _refuse(folder: Path, why: str) -> None:
    """Warns, once in a process."""
    warnings.warn(f"graphc takes no compiled code from {folder}, which {why}; GRAPHC_CACHE names another folder",
                  RuntimeWarning, stacklevel=2)


def _remove(name: str, folder: int) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=folder)


def _new_file(folder: int) -> tuple[str, BinaryIO]:
    """An empty file that only we may read, and its name."""
    while True:
        name = f"new.{secrets.token_hex(4)}"
        with suppress(FileExistsError):
            return name, open(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder),
                              "wb")


def _sum(key: str, *payload: bytes | bytearray | memoryview) -> bytes:
    """Of the payload and of the name that it is stored under: an entry under another name is broken."""
    total = hashlib.sha256(key.encode())
    for part in payload:
        total.update(part)
    return total.digest()


def _files(folder: int) -> list[tuple[float, int, str]]:
    """(time of last use, bytes, name) of every file that the cache made."""
    found = []
    with os.scandir(folder) as files:
        for file in files:
            if ENTRY.match(file.name) or TEMPORARY.match(file.name):
                with suppress(OSError):
                    info = file.stat(follow_symlinks=False)
                    found.append((info.st_mtime, info.st_size, file.name))
    return found


def _digest(*parts: str | bytes) -> str:
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return total.hexdigest()


@once
def _versions() -> str:
    """Of what the code is made with; graphc's own is told by its files."""
    return f"llvmlite={llvmlite_version()} numpy={np.__version__}"


@once
def _source_stamp() -> str:
    """Names, sizes and times of graphc's files: an edited compiler does not find what the old one stored."""
    root = str(Path(__file__).resolve().parents[2])
    folders, rows = [root], []
    while folders:
        with os.scandir(folders.pop()) as found:
            for file in found:
                if file.name.endswith(".py"):
                    info = file.stat()
                    rows.append(f"{file.path[len(root) + 1:]} {info.st_size} {info.st_mtime_ns}")
                elif "." not in file.name and file.is_dir():
                    folders.append(file.path)
    return "\n".join(sorted(rows))
