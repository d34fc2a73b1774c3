"""Compiled code on disk: a private folder of checksummed entries, bounded in size, oldest use thrown away first.

An entry that is broken, foreign or unreadable counts as missing; a folder that cannot be used switches the cache off. Nothing here raises.
"""
from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache as once
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path

from graphc.config import config
from graphc.ir.target import Target

MAGIC = b"graphc1\n"
DIGEST_BYTES = 32
KEPT_SHARE = 0.75               # how much of the bound is left after a clean-up, so that not every store cleans
SCAN_EVERY = 16                 # stores of a process between two looks at the folder's size, the first store included


@dataclass(frozen=True)
class Cache:
    """Entries are files `<key>` in `folder`, at most `limit` bytes together (checked now and then)."""
    folder: Path
    limit: int
    _stores: Iterator[int] = field(default_factory=count, repr=False, compare=False)

    def get(self, key: str) -> bytes | None:
        """The payload stored under `key`, or None; a broken entry is removed."""
        path = self.folder / key
        try:
            data = path.read_bytes()
            payload = _unwrap(data)
            if payload is None:
                path.unlink()
            else:
                os.utime(path)
            return payload
        except OSError:
            return None

    def put(self, key: str, payload: bytes) -> None:
        """Store `payload`: readers see the whole entry or none."""
        temporary = None
        try:
            descriptor, temporary = tempfile.mkstemp(dir=self.folder, prefix="new.")
            with os.fdopen(descriptor, "wb") as file:
                file.write(MAGIC + hashlib.sha256(payload).digest() + payload)
            os.replace(temporary, self.folder / key)
        except OSError:
            _remove(temporary)
        if next(self._stores) % SCAN_EVERY == 0 or len(payload) > self.limit // SCAN_EVERY:
            self.trim()

    def trim(self) -> None:
        """Remove what was used longest ago until the folder fits its bound."""
        entries = sorted(_entries(self.folder))
        total = sum(size for _, size, _ in entries)
        if total <= self.limit:
            return
        for _, size, path in entries:
            _remove(path)
            total -= size
            if total <= self.limit * KEPT_SHARE:
                return

    def clear(self) -> None:
        for _, _, path in _entries(self.folder):
            _remove(path)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(size for _, size, _ in _entries(self.folder))


def default() -> Cache | None:
    """The cache that GRAPHC_CACHE names (a folder, or "off"); None when there is none or the folder is not private to us."""
    knobs = config()
    if knobs.cache == "off":
        return None
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return _opened(Path(knobs.cache or Path(base) / "graphc"), knobs.cache_mb << 20)


def make_key(*parts: str | bytes) -> str:
    """A key for something derived from `parts` by graphc's own code: changes with any source file of graphc."""
    return _digest(_versions(), _source_stamp(), *parts)


def code_key(text: str, target: Target, options: str) -> str:
    """A key for object code: it depends on the LLVM text, the instruction set and LLVM's version, on no tuning."""
    return _digest(_versions(), target.triple, target.features, options, text)


@once
def _opened(folder: Path, limit: int) -> Cache | None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = folder.stat()
        if info.st_uid != os.geteuid():
            return None
        if stat.S_IMODE(info.st_mode) & 0o077:
            folder.chmod(0o700)
        return Cache(folder, limit) if os.access(folder, os.W_OK | os.X_OK) else None
    except OSError:
        return None


def _unwrap(data: bytes) -> bytes | None:
    start = len(MAGIC) + DIGEST_BYTES
    payload = data[start:]
    intact = data.startswith(MAGIC) and data[len(MAGIC):start] == hashlib.sha256(payload).digest()
    return payload if intact else None


def _entries(folder: Path) -> list[tuple[float, int, Path]]:
    """(time of last use, bytes, path) of every file."""
    found = []
    try:
        with os.scandir(folder) as files:
            for file in files:
                info = file.stat(follow_symlinks=False)
                if stat.S_ISREG(info.st_mode):
                    found.append((info.st_mtime, info.st_size, Path(file.path)))
    except OSError:
        pass
    return found


def _remove(path: str | Path | None) -> None:
    try:
        if path is not None:
            os.unlink(path)
    except OSError:
        pass


def _digest(*parts: str | bytes) -> str:
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return total.hexdigest()


@once
def _versions() -> str:
    return " ".join(f"{name}={_version(name)}" for name in ("graphc", "llvmlite", "numpy"))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "source"


@once
def _source_stamp() -> str:
    """Names, sizes and times of graphc's files: an edited compiler does not find what the old one stored."""
    root = Path(__file__).resolve().parent.parent
    rows = []
    for path in sorted(root.rglob("*.py")):
        info = path.stat()
        rows.append(f"{path.relative_to(root)} {info.st_size} {info.st_mtime_ns}")
    return "\n".join(rows)
