"""llvmlite is loaded at the first compile, through this one accessor."""
from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from importlib import import_module
from pathlib import Path
from threading import RLock
from types import ModuleType
from typing import ParamSpec, TypeVar

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
            if lock := _lock(binding):
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
    afterwards this thread has it no more."""
    @wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return function(*arguments, **named)
        finally:
            lock = _lock(_ready[0]) if _ready else None
            # CPython's, as for Condition
            while lock is not None and lock._is_owned():    # type: ignore[attr-defined]
                lock.release()
    return call


def _lock(binding: ModuleType) -> RLock | None:
    """The lock that llvmlite holds during every call of LLVM."""
    return getattr(getattr(binding.ffi.lib, "_lock", None), "_lock", None)
