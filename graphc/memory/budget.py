"""What a call may take of memory, as users say it."""
from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from graphc.errors import GraphError
from graphc.ir.convert import is_integer, shown
from graphc.ir.dims import Dim, evaluate, static_dim
from graphc.memory.usage import UNITS, human
from graphc.records import dataclass

TEXT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGTP]?)(i?)B\s*", re.ASCII | re.IGNORECASE)
MOST = 1 << 60


@dataclass(frozen=True)
class Budget:
    """Bytes that a call may take in all, as `Memory.total` counts them; of a program for all sizes, that of the
    `largest` ones. `given`: as the user wrote it. `beside`: what the call takes beside this program."""
    nbytes: int
    given: str
    largest: tuple[tuple[str, int], ...] = ()
    beside: int = 0

    @staticmethod
    def of(given: object) -> Budget | None:
        """What `memory=` says: bytes, or a text such as "300 MB" (1 KB is 1024 B, as everywhere here)."""
        if given is None:
            return None
        if isinstance(given, str) and (found := TEXT.fullmatch(given)):
            unit = [u.rstrip("B") for u in UNITS].index(found[2].upper())
            nbytes = int(min(float(found[1]) * 1024 ** unit, 2 * MOST))
        elif is_integer(given):
            nbytes = int(given)
        else:
            raise GraphError(f'memory= takes bytes, or a text such as "300 MB" or "1.5 GB", got {shown(given)}')
        if not 0 < nbytes <= MOST:
            raise GraphError(f"memory= takes at least one byte, and at most {human(MOST)}, got {shown(given)}")
        return Budget(nbytes, str(given) if isinstance(given, str) else human(nbytes))

    def for_sizes(self, graph: str, names: Iterable[str], highs: Mapping[str, int | None]) -> Budget:
        """The budget of a program for all sizes of these names, which are at most so large. GraphError where one has no
        bound."""
        largest = {name: highs.get(name) for name in sorted(names)}
        free = [name for name, high in largest.items() if high is None]
        if free:
            raise GraphError(f"memory={self.given!r}: {graph} is for all sizes of {', '.join(free)}, which have no "
                             f"upper bound, so no budget would hold: give numbers, or gc.compile bounds such as "
                             f"{free[0]}=(1, 64)")
        return replace(self, largest=tuple((name, high) for name, high in largest.items() if high is not None))

    def size(self, dim: Dim) -> int:
        """Bytes where the sizes are largest."""
        return evaluate(dim, dict(self.largest)) if self.largest else static_dim(dim)
