"""Frames: what one call in flight needs besides its arguments, namely context, arena and scratch."""
from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np

from graphc.codegen.abi import OFFSETS, STATUS_OK
from graphc.records import dataclass
from graphc.runtime.entry_layout import FrameMemory, FreeFrames
from graphc.runtime.fork import renew_after_fork
from graphc.runtime.memory import address, aligned_empty, mapped, round_up
from graphc.runtime.native import native

PAGE = 4096
ROOM = 8                        # times the arena of the first size that does not fit
POLL_SECONDS = 0.0002           # how often a call beyond the bound looks for a free frame
MOST = (1 << 63) - 1            # more bytes than a frame has


@dataclass(frozen=True)
class Layout:
    """Sizes of a frame."""
    arena_bytes: int
    scratch_bytes: int          # per thread, a multiple of 64
    threads: int

    @property
    def with_room(self) -> Layout:
        """For larger sizes of the same program, too, until they are some times as large. What no call touches is
        address space without memory; what smaller sizes have touched serves the larger ones, which would wait for the
        system to clear all of it again."""
        return replace(self, arena_bytes=ROOM * round_up(self.arena_bytes, PAGE))


class Frame:
    """Context, arena and scratch of one call in flight; `address` is what native code gets. `fixed`: fields that never
    change."""

    def __init__(self, layout: Layout, fixed: dict[str, int]):
        self.words = aligned_empty(FrameMemory.size // 8, np.int64)
        self.words[:] = 0
        self.address = address(self.words)
        start = round_up(layout.arena_bytes, PAGE)
        self.memory = mapped(start + layout.scratch_bytes * layout.threads)
        base = address(self.memory)
        own = dict(arena=base, scratch=base + start, scratch_bytes=layout.scratch_bytes, threads=layout.threads)
        for name, value in (fixed | own).items():
            self[name] = value
        self.words[FrameMemory.arena_bytes.offset // 8] = layout.arena_bytes

    def __setitem__(self, field: str, value: int) -> None:
        self.words[OFFSETS[field] // 8] = value

    def __getitem__(self, field: str) -> int:
        return int(self.words[OFFSETS[field] // 8])

    @property
    def dropped(self) -> bool:
        """Whether nobody will use it any more."""
        return bool(self.words[FrameMemory.dropped.offset // 8])

    def prepare(self, inputs: int, outputs: int) -> None:
        """Addresses of the pointer tables of this call; clears what the last call left."""
        self["inputs"], self["outputs"] = inputs, outputs
        self["status"], self["cancel"] = STATUS_OK, 0


class FrameList:
    """At most `bound` frames, made when needed. The free ones form a list; native code takes them and gives them back.
    """

    def __init__(self, bound: int):
        self.words = np.zeros(FreeFrames.size // 8, np.int64)
        self.address = address(self.words)
        self._bound = bound
        self._frames: list[Frame] = []
        renew_after_fork(self)

    def grow(self, layout: Layout, make: Callable[[Layout], Frame]) -> None:
        """One more free frame, in place of free ones that are smaller; where `bound` are in flight, only waits a
        moment."""
        self.drop(layout.arena_bytes, layout.scratch_bytes)
        if self.words[FreeFrames.first.offset // 8]:
            return
        if len(self) >= self._bound and not sys.is_finalizing():    # what daemon threads have then does not come back
            time.sleep(POLL_SECONDS)
            return
        frame = make(layout)
        self._frames.append(frame)          # first: native code may have it from here on
        bound = max(self._bound, len(self) + sys.is_finalizing())
        if not native().add_frame(self.address, frame.address, bound):
            self._frames.remove(frame)

    def drop(self, arena_bytes: int = MOST, scratch_bytes: int = MOST) -> None:
        """Gives back the memory of free frames that have less."""
        native().drop_frames(self.address, arena_bytes, scratch_bytes)
        for frame in [frame for frame in self._frames if frame.dropped]:
            with suppress(ValueError):      # another thread has removed it
                self._frames.remove(frame)

    def __len__(self) -> int:
        return int(self.words[FreeFrames.made.offset // 8])

    def after_fork(self) -> None:
        """Frames in use by the parent's other threads do not come back: the free ones count."""
        free = []
        while (found := native().pop_frame(self.address)) is not None:
            free.append(found)
        for frame in free:
            native().push_frame(self.address, frame)
        self.words[FreeFrames.made.offset // 8] = len(free)
