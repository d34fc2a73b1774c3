"""Atomic writing of a user's file: afterwards it has the complete new content or the old one, and no temporary file is
left beside it.
"""
from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

PREFIX, SUFFIX = ".graphc.", ".part"
# seconds after which a temporary file that nobody writes to is one of a process that was killed
ABANDONED = 3600
NEW_MODE = 0o666                # less the umask, as of any new file
UNNAMED = getattr(os, "O_TMPFILE", 0)
OPEN_FILES = "/proc/self/fd"


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """`with replacing(path) as file`: what is written to `file` becomes the content of `path` when the block ends, at
    once and on the disk; an exception leaves the old content.

    A link stays a link: what it leads to is replaced. The file keeps its mode and, where that is allowed, its owner and
    group; a new one gets those of any new file. What is no file (a pipe, /dev/stdout) is written to at the end. Raises
    OSError when it cannot be written.
    """
    target = Path(os.path.realpath(os.fsdecode(path)))
    old = _status(target)
    if old is None or stat.S_ISREG(old.st_mode):
        with _Replacement(target, old) as file:
            yield file
    else:
        # who writes may want to know its position, which pipes do not tell
        buffer = BytesIO()
        yield buffer
        with open(target, "wb") as file:
            file.write(buffer.getbuffer())


def write_file(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Replaces the content of `path`, text as UTF-8; see `replacing`."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


class _Replacement:
    """A file without a name where the system has such (one that is killed leaves nothing), else one with a short
    name of its own, in the target's folder; it takes the target's place when all is written.
    """

    def __init__(self, target: Path, old: os.stat_result | None):
        self.target, self.old = target, old
        self.named = target.with_name(f"{_stem(target)}{secrets.token_hex(8)}{SUFFIX}")

    def __enter__(self) -> BinaryIO:
        if self.old is not None and not os.access(self.target, os.W_OK):
            # as any other way of writing to it
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.target))
        _clean(self.target)
        self.file = self._unnamed() or self._created()
        return self.file

    def _unnamed(self) -> BinaryIO | None:
        if UNNAMED and os.path.isdir(OPEN_FILES):
            # a file system without them, or no such folder, which `_created` reports
            with suppress(OSError):
                return os.fdopen(os.open(self.target.parent, UNNAMED | os.O_RDWR | os.O_CLOEXEC, NEW_MODE), "w+b")
        return None

    def _created(self) -> BinaryIO:
        try:
            return os.fdopen(os.open(self.named, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, NEW_MODE), "wb")
        except OSError as error:
            # by the name that the user knows
            raise OSError(error.errno, error.strerror, str(self.target)) from None

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        try:
            with self.file:
                if kind is not None:
                    return
                self.file.flush()
                self._name()
                self._finish(self.file)
            os.replace(self.named, self.target)
        finally:
            with suppress(FileNotFoundError):
                self.named.unlink()
        _sync_folder(self.target.parent)

    def _finish(self, file: BinaryIO) -> None:
        """Takes owner, group and mode of the old file, as far as that is allowed (the owner first: a change of it
        may take bits of the mode), and waits for the disk.
        """
        if self.old is not None:
            with suppress(OSError):
                os.fchown(file.fileno(), self.old.st_uid, self.old.st_gid)
            with suppress(OSError):
                os.fchmod(file.fileno(), stat.S_IMODE(self.old.st_mode))
        os.fsync(file.fileno())

    def _name(self) -> None:
        """Gives the file its name; where files without one cannot get one, a copy."""
        if os.fstat(self.file.fileno()).st_nlink:
            return
        folder = os.open(self.target.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # given a folder, os.link follows the link to the open file
        try:
            os.link(f"{OPEN_FILES}/{self.file.fileno()}", self.named.name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            self.file.seek(0)
            with self._created() as copy:
                shutil.copyfileobj(self.file, copy)
                copy.flush()
                self._finish(copy)
        finally:
            os.close(folder)


def _stem(target: Path) -> str:
    """How the names of a target's temporary files begin: short, however long its own name is."""
    return f"{PREFIX}{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}."


def _clean(target: Path) -> None:
    """Removes what earlier writers of the target left that were killed."""
    stem = _stem(target)
    with suppress(OSError), os.scandir(target.parent) as files:
        for file in files:
            if (file.name.startswith(stem) and file.name.endswith(SUFFIX)
                and file.stat(follow_symlinks=False).st_mtime < time.time() - ABANDONED):
                os.unlink(file.path)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _sync_folder(folder: Path) -> None:
    """Makes the new name itself survive a power cut; a folder that may not be read cannot be synced."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
