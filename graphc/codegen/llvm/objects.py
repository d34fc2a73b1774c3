"""Object code for machines other than this one, to be linked by their tools."""
from __future__ import annotations

from graphc.codegen.llvm.jit import compile_object
from graphc.errors import GraphError
from graphc.schedule.platforms import PLATFORMS, Platform
from graphc.schedule.target import Target


def platform(name: str) -> Platform:
    """The platform of this name. GraphError when there is none."""
    if name not in PLATFORMS:
        raise GraphError(f"{name!r} is not a platform that graphc makes code for; those are {', '.join(PLATFORMS)}")
    return PLATFORMS[name]


def object_code(text: str, target: Target) -> bytes:
    """Relocatable object code of LLVM text that was emitted for `target`, in the format of its system."""
    return compile_object(text, target)
