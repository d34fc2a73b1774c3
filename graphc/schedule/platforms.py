"""The systems for which code can be made ahead of time: plain data, one entry each.

A platform may have several instruction sets, of which a program chooses one when it starts; every other fact is that of
the `Target`: triple, features, pointers, vectors, and the machine on which schedules count cycles.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphc.schedule.target import AVX2, AVX512, SSE2, Target


@dataclass(frozen=True)
class Platform:
    """An operating system, or none, on an architecture. `instruction_sets`: the plainest first, which every machine of
    the platform has. `object_format`: of object code."""
    name: str
    instruction_sets: tuple[Target, ...]
    object_format: str

    @property
    def baseline(self) -> Target:
        return self.instruction_sets[0]


PLATFORMS: Mapping[str, Platform] = {p.name: p for p in (
    Platform("x86_64-linux", (SSE2, AVX2, AVX512), "elf"),)}
