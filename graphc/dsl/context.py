"""Which trace is running, and which line of the user's code is asking."""
from __future__ import annotations

import linecache
import os
import sys
import sysconfig
from contextvars import ContextVar
from functools import lru_cache
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

from graphc.errors import GraphError, Loc

if TYPE_CHECKING:
    from graphc.dsl.trace import Trace

PACKAGE = os.path.dirname(os.path.dirname(os.path.realpath(__file__))) + "/"
LIBRARY = os.path.dirname(os.__file__) + "/"            # Python's own, which has folders of what users install
INSTALLED = (f"{LIBRARY}site-packages/", f"{LIBRARY}dist-packages/")

LIBRARIES = tuple({sysconfig.get_path(name) + "/" for name in ("stdlib", "platstdlib", "purelib", "platlib")})

# whether a file is graphc's or Python's own, for those that frames were of: each operator looks at some forty frames
KNOWN: dict[str, bool] = {}

DECLARED: ContextVar[tuple[FrameType | None, Loc] | None] = ContextVar("graphc declared layer", default=None)
STACK: ContextVar[tuple["Trace", ...]] = ContextVar("graphc traces", default=())


def tracing() -> bool:
    """Whether a trace is running in this thread."""
    return bool(STACK.get())


def current_trace() -> "Trace":
    """The innermost running trace; GraphError outside of one."""
    stack = STACK.get()
    if not stack:
        raise GraphError("graphc functions build a graph and work only while one is traced: call them inside a "
                         "function decorated with @gc.graph (or a layer, or a training step); on numpy arrays call "
                         "the decorated function. Layers run when they are compiled: "
                         "gc.compile(net, x=gc.f32[32, 784], seed=0)(x)", user_loc())
    return stack[-1]


def user_frame() -> FrameType | None:
    """The innermost frame outside graphc; one of the user's rather than one of an installed package or of Python's
    library that it called."""
    first: FrameType | None = sys._getframe(1)
    while first is not None and (KNOWN.get(first.f_code.co_filename) or _ours(first)):
        first = first.f_back
    frame = first
    while frame is not None and (_ours(frame) or _installed(frame.f_code.co_filename)):
        frame = frame.f_back
    return frame or first


def user_loc() -> Loc | None:
    """The line of the user's code that called into graphc; for a layer in a chain, which graphc itself calls, the
    line that made the layer."""
    frame, declared = user_frame(), DECLARED.get()
    if declared and declared[0] is frame:
        return declared[1]
    return _loc(frame.f_code.co_filename, frame.f_lineno) if frame else None


class declared_at:
    """`with declared_at(loc)`: what graphc calls inside was declared by the user at `loc`. (No generator: its frames
    would be the innermost.)"""

    def __init__(self, loc: Loc | None):
        self.loc = loc

    def __enter__(self) -> None:
        self.token = DECLARED.set((user_frame(), self.loc) if self.loc else DECLARED.get())

    def __exit__(self, *exception: object) -> None:
        DECLARED.reset(self.token)


def error_loc(traceback: TracebackType | None) -> Loc | None:
    """The innermost line of the user's code that an exception passed through; where it passed through installed code
    alone, the line that called into graphc."""
    found: Loc | None = None
    other: Loc | None = None
    while traceback is not None:
        name = traceback.tb_frame.f_code.co_filename
        if not _ours(traceback.tb_frame):
            line = _loc(name, traceback.tb_lineno)
            found, other = (found, line) if _installed(name) else (line, other)
        traceback = traceback.tb_next
    return found or (other and user_loc())


def _ours(frame: FrameType) -> bool:
    """Frames of graphc itself, of Python's library, and of code that `dataclass` and its like generate."""
    name = frame.f_code.co_filename
    if name not in KNOWN:
        KNOWN[name] = _inside(name)
    return KNOWN[name] or (name == "<string>" and frame.f_globals.get("__name__", "").startswith("graphc."))


def _inside(filename: str) -> bool:
    return filename.startswith((PACKAGE, "<frozen")) or (
        filename.startswith(LIBRARY) and not filename.startswith(INSTALLED))


@lru_cache(maxsize=None)
def _installed(filename: str) -> bool:
    """Whether it is a file of Python's library, or of a package installed beside it."""
    return filename.startswith(LIBRARIES)


@lru_cache(maxsize=65536)
def _loc(filename: str, line: int) -> Loc:
    return Loc(filename, line, linecache.getline(filename, line).strip())
