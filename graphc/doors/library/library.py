"""A library before it is code: its functions, its state, and how an instance is laid out."""
from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate

from graphc.doors.library.programs import LibraryFunction, LibraryProgram
from graphc.doors.library.state_image import StateImage
from graphc.records import dataclass
from graphc.runtime.instances.instance_memory import FunctionRecord, InstanceMemory
from graphc.runtime.memory import round_up
from graphc.schedule.platforms import Platform


@dataclass(frozen=True, eq=False)
class Library:
    """`name` begins all that C sees. `embedded`: the values of the state are in the library, not in a file.
    `threads`: it brings a thread pool."""
    name: str
    functions: tuple[LibraryFunction, ...]
    image: StateImage
    embedded: bool = True
    threads: bool = True

    @property
    def sizes(self) -> tuple[str, ...]:
        """The names of sizes of all functions."""
        return tuple(sorted({name for f in self.functions for name in f.sizes}))

    @property
    def has_image(self) -> bool:
        """Whether an instance has the state, which changes or comes from a file; else it is read where it is
        embedded."""
        return bool(self.image.arrays) and (not self.embedded or any(f.graph.writes for f in self.functions))

    def symbol(self, what: str) -> str:
        return f"{self.name}_{what}"


@dataclass(frozen=True, eq=False)
class Built:
    """A library for one platform: `programs[i][j]` is function j for instruction set i."""
    library: Library
    platform: Platform
    programs: Sequence[Sequence[LibraryProgram]]

    def of_function(self, number: int) -> list[LibraryProgram]:
        """The programs of a function."""
        return [programs[number] for programs in self.programs]

    @cached_property
    def tables(self) -> list[tuple[int, int, int]]:
        """For each function, where in an instance its table of state, its known sizes and its table of sizes are."""
        *starts, _ = self._starts
        return list(zip(starts[::3], starts[1::3], starts[2::3]))

    @cached_property
    def _starts(self) -> list[int]:
        """Of all tables, and where they end."""
        lengths = []
        for n, function in enumerate(self.library.functions):
            programs = self.of_function(n)
            states = len(function.state) + max(len(p.derived) for p in programs)
            lengths += [states, len(function.sizes), 2 + max(len(p.emitted.sizes) for p in programs)]
        first = InstanceMemory.size + FunctionRecord.size * len(self.library.functions)
        return list(accumulate([8 * length for length in lengths], initial=first))

    @property
    def image_offset(self) -> int:
        """Of the state in an instance."""
        return round_up(self._starts[-1])

    @property
    def fixed_bytes(self) -> int:
        """Of an instance up to its derived arrays."""
        return self.image_offset + (round_up(self.library.image.nbytes) if self.library.has_image else 0)
