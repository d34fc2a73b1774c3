"""llvmlite is loaded at the first compile, through this one accessor."""
from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType


@cache
def llvm() -> ModuleType:
    """`llvmlite.binding`, with the native target initialised."""
    binding = import_module("llvmlite.binding")
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding


@cache
def llvm_all_targets() -> ModuleType:
    """`llvmlite.binding` with every target it was built with, for code that is generated and not run."""
    binding = llvm()
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    return binding
