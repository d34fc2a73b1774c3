"""llvmlite is loaded at the first compile, through this one accessor."""
from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache, wraps
from importlib import import_module
from pathlib import Path
from threading import RLock
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

from graphc.once import LOADING, held_by_forks, loaded

P = ParamSpec("P")
T = TypeVar("T")
_ready: list[ModuleType] = []


@cache
def llvm() -> ModuleType:
    """`llvmlite.binding`, with the native target initialised."""
    with LOADING:
        if not _ready:
            binding = loaded("llvmlite.binding")
            binding.initialize_native_target()
            binding.initialize_native_asmprinter()
            if lock := _lock():
                held_by_forks(lock)
            _ready.append(binding)
    return _ready[0]


@cache
def llvm_all_targets() -> ModuleType:
    """`llvmlite.binding` with every target it was built with, for code that is generated and not run."""
    binding = llvm()
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    return binding


def llvmlite_version() -> str:
    """Of the installed package; LLVM itself is not loaded for it."""
    return str(import_module("llvmlite").__version__)


def llvmlite_folder() -> str:
    """Where the package is found."""
    return str(Path(*import_module("llvmlite").__path__).parent)


def gives_back(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator of what calls LLVM. llvmlite takes its lock and gives it back in Python, where Ctrl-C may come between;
    afterwards this thread has it as often as before: not at all, unless this is a signal handler, and LLVM was being
    called when it came."""
    @wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> T:
        before = _held(_lock())
        try:
            return function(*arguments, **named)
        finally:
            lock = _lock()
            while lock is not None and _held(lock) > before:
                lock.release()
    return call


def _held(lock: RLock | None) -> int:
    """How often this thread has it; where CPython doesn't count, 1 for once or more."""
    return getattr(lock, "_recursion_count", getattr(lock, "_is_owned", int))()


def _lock() -> RLock | None:
    """The lock that llvmlite holds during every call of LLVM; None before it is imported, which calls nothing."""
    found: Any = sys.modules.get("llvmlite.binding")
    for name in ("ffi", "lib", "_lock", "_lock"):
        found = getattr(found, name, None)
    return found
