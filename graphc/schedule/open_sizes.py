"""Numbers for sizes that come with the call: what costs are counted with. Whatever is chosen by them is right for all
sizes."""
from __future__ import annotations

from collections.abc import Iterable
from math import prod

from graphc.ir.dims import Dim, Dims, Poly, Sizes, evaluate, size_names, typical
from graphc.ir.size_atoms import SizeName
from graphc.schedule.machine import Machine

BUSY = 4                        # times the least work that several cores do as fast as one
DOUBLINGS = 20


def is_many(size: Dim) -> bool:
    """Whether there may be more than one."""
    return size > 1 if isinstance(size, int) else True


def typical_sizes(dims: Iterable[Dim]) -> Sizes:
    """The sizes where all names have their typical values; 1 where that is none (of padding, say), as costs of nothing
    say nothing."""
    return tuple([d if isinstance(d, int) else max(1, typical(d)) for d in dims])


def busy_sizes(dims: Dims, cycles: float, machine: Machine) -> dict[str, int]:
    """Values of the names with which it is decided how work, of so many cycles for each of the elements that `dims`
    count, is divided among cores: typical ones, or all larger by the same factor, as far as they may be, so that there
    is work for several. Of less work one thread does everything, however it is divided.
    """
    names = {name for d in dims for name in size_names(d)}
    values: dict[str, int] = {}
    for doubling in range(DOUBLINGS if names else 0):
        values = {str(name): _larger(name, 1 << doubling) for name in names}
        if cycles * evaluate(prod(dims), values) >= BUSY * machine.least_parallel_cycles:
            break
    return values


def alone(elements: Dim, cycles: float, machine: Machine) -> int:
    """Up to how many elements, of so many cycles each, one thread is to do everything; 0 where that need not be asked:
    the number is known."""
    return int(machine.least_parallel_cycles / max(cycles, 1e-3)) if isinstance(elements, Poly) else 0


def _larger(name: SizeName, factor: int) -> int:
    value = name.typical * factor
    return value if name.high is None else min(value, name.high)
