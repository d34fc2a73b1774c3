"""Frames: what one call in flight needs besides its arguments, namely context, arena and scratch."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from graphc.codegen.abi import OFFSETS, STATUS_OK
from graphc.runtime.entry_layout import FRAME_NEXT
from graphc.runtime.fork import renew_after_fork
from graphc.runtime.memory import address, aligned_empty, mapped, round_up
from graphc.runtime.native import native

PAGE = 4096
POLL_SECONDS = 0.0002           # how often a call beyond the bound looks for a free frame


@dataclass(frozen=True)
class Layout:
    """Sizes of a frame."""
    arena_bytes: int
    scratch_bytes: int          # per thread, a multiple of 64
    threads: int


class Frame:
    """Context, arena and scratch of one call in flight; `address` is what native code gets. `fixed`: fields that never change."""

    def __init__(self, layout: Layout, fixed: dict[str, int]):
        self.words = aligned_empty(FRAME_NEXT // 8 + 1, np.int64)
        self.words[:] = 0
        self.address = address(self.words)
        start = round_up(layout.arena_bytes, PAGE)
        self.memory = mapped(start + layout.scratch_bytes * layout.threads)
        base = address(self.memory)
        own = dict(arena=base, scratch=base + start, scratch_bytes=layout.scratch_bytes, threads=layout.threads)
        for name, value in (fixed | own).items():
            self[name] = value

    def __setitem__(self, field: str, value: int) -> None:
        self.words[OFFSETS[field] // 8] = value

    def __getitem__(self, field: str) -> int:
        return int(self.words[OFFSETS[field] // 8])

    def prepare(self, inputs: int, outputs: int) -> None:
        """Addresses of the pointer tables of this call; clears what the last call left."""
        self["inputs"], self["outputs"] = inputs, outputs
        self["status"], self["cancel"] = STATUS_OK, 0


class FrameList:
    """At most `bound` frames, made when needed. The free ones form the list at `head` in a descriptor, which native code uses too."""

    def __init__(self, descriptor: int, make: Callable[[], Frame], bound: int):
        self._descriptor, self._make, self._bound = descriptor, make, bound
        self._frames: dict[int, Frame] = {}
        self._lost = 0
        self._growing = threading.Lock()
        renew_after_fork(self)

    def take(self) -> Frame:
        """A free frame; waits while `bound` calls are in flight."""
        while True:
            found = native().pop_frame(self._descriptor)
            if found is not None:
                return self._frames[found]
            with self._growing:
                if len(self) < self._bound:
                    frame = self._make()
                    self._frames[frame.address] = frame
                    return frame
            time.sleep(POLL_SECONDS)

    def give(self, frame: Frame) -> None:
        native().push_frame(self._descriptor, frame.address)

    def __len__(self) -> int:
        return len(self._frames) - self._lost

    def after_fork(self) -> None:
        """Frames in use by the parent's other threads do not come back: the free ones count, the bound starts anew beyond them."""
        self._growing = threading.Lock()
        free = []
        while (found := native().pop_frame(self._descriptor)) is not None:
            free.append(self._frames[found])
        self._lost = len(self._frames) - len(free)
        for frame in free:
            self.give(frame)
