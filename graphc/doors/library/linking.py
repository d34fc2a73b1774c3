"""Shared libraries, by the linker of this machine."""
from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-shared", "-Wl,-z,nodelete", "-Wl,--no-undefined", "-Wl,-z,defs")
LIBRARIES = ("-lm", "-lpthread")


def linker() -> list[str] | None:
    """The command of a C compiler that links, or of zig's, which comes with the extra `export`; None where there is
    none."""
    for name in COMPILERS:
        if found := shutil.which(name):
            return [found]
    return [sys.executable, "-m", "ziglang", "cc"] if find_spec("ziglang") else None


def link(objects: Sequence[Path], target: Path) -> str:
    """Makes the shared library `target` of object files; what to do instead where there is no linker, or what it said.
    Threads that run its code end with the process only, so it is never unmapped."""
    flags, command = [*FLAGS, f"-Wl,-soname,{target.name}", "-o"], linker()
    if command is None:
        names = " ".join(o.name for o in objects)
        return (f"{target.name} was not made, because there is no C compiler to link it. Install one, or the extra "
                f"`export` (pip install 'graphc[export]'), or link it yourself: cc {shlex.join(flags)} {target.name} "
                f"{names} {' '.join(LIBRARIES)}")
    arguments = [*command, *map(str, objects), *flags, str(target), *LIBRARIES]
    done = subprocess.run(arguments, capture_output=True, text=True)
    return "" if done.returncode == 0 else f"{target.name} was not made: {command[0]} says {done.stderr.strip()}"
