"""Schedules of loop nests: plain data, the same for any number of threads."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from graphc.ir.dims import Dim, ceil_div
from graphc.ir.types import DType
from graphc.records import dataclass
from graphc.schedule.cost import Ranking
from graphc.schedule.schedule import InplacePairs, Schedule
from graphc.schedule.target import ALIGNMENT
from graphc.schedule.view import ViewType

Partial = tuple[DType, Dim]             # element type and number of elements of a shared buffer


@dataclass(frozen=True)
class Fetch:
    """Software prefetch: the loop of `stage` (-1: of each) brings the inputs `distance` indices of `dim` later into
    cache `level`.
    """
    dim: int
    distance: int
    level: int
    stage: int = -1


@dataclass(frozen=True)
class NestSchedule(Schedule):
    """How the dims of an `schedule.loop_nest.Nest` are looped over.

    A tile is a block of `tile` rows (the dims `outer`, flattened), of `columns` elements of `vector` when that is a
    kept dim outside of `inner` (0: all), and of `chunk` indices of the dim `cut` of `inner` (0: all). In a row the
    stages of the nest each loop over `inner`, of which `vector` is vectorised. With reductions and a chunk, tiles
    leave their results in `partials`, which a second loop combines in order. `stored`: body nodes whose value is kept
    in a scratch row from one stage to the next.
    `squares`: what is contiguous along the last dim of `inner` instead of the vector's goes through squares of so many
    rows and columns, which are transposed in registers; 0: it is gathered and scattered.
    `stream`: outputs written past the caches. `inplace`: (output, input) that may share memory when their views are
    equal, one output for each input.
    `crosswise`: the reductions run over the rows, into a row of sums per tile, in `partials`.
    `alone`: where sizes come with the call, the number of elements of the nest up to which the caller runs all tiles.
    `ranking`: the grids among which this one was chosen.
    """
    outer: tuple[int, ...] = ()
    inner: tuple[int, ...] = ()
    vector: int = -1
    lanes: int = 1
    tile: int = 1
    columns: int = 0
    chunk: int = 0
    cut: int = -1
    serial: bool = True
    stored: tuple[int, ...] = ()
    partials: tuple[Partial, ...] = ()
    stream: tuple[int, ...] = ()
    inplace: InplacePairs = ()
    crosswise: bool = False
    fetch: Fetch | None = None
    alone: int = 0
    squares: int = 0
    ranking: Ranking[object] | None = field(default=None, compare=False, repr=False)

    @property
    def shared_bytes(self) -> Dim:
        return buffer_bytes(self.partials)

    def inplace_pairs(self, ins: Sequence[ViewType], outs: Sequence[ViewType]) -> InplacePairs:
        return self.inplace

    def __str__(self) -> str:
        parts = [f"rows {_dims(self.outer)} by {self.tile}",
                 f"inner {_dims(self.inner)}" + (f", d{self.cut} by {self.chunk}" if self.chunk else ""),
                 self._vector_text()]
        parts += ["serial"] if self.serial else []
        parts += [f"serial up to {self.alone}"] if self.alone else []
        parts += [f"keeps {len(self.stored)}"] if self.stored else []
        parts += [f"partials {self.shared_bytes} B"] if self.partials else []
        parts += [f"squares of {self.squares}"] if self.squares else []
        parts += ["crosswise"] if self.crosswise else []
        parts += ["streams"] if self.stream else []
        parts += [f"fetches {self.fetch.distance} of d{self.fetch.dim} ahead"] if self.fetch else []
        return "nest(" + ", ".join(parts) + ")"

    def _vector_text(self) -> str:
        if self.vector < 0:
            return "scalar"
        return f"vector d{self.vector} x{self.lanes}" + (f" by {self.columns}" if self.columns else "")


def last_lanes(rest: int, lanes: int) -> int:
    """Of a vector for what whole ones of so many lanes leave."""
    return min(lanes, max(2, 1 << (rest - 1).bit_length()))


def buffer_bytes(partials: tuple[Partial, ...]) -> Dim:
    """Bytes of the shared buffers, laid one after the other, each aligned."""
    return sum(map(_rounded, partials))


def shared_offsets(partials: tuple[Partial, ...]) -> tuple[Dim, ...]:
    """The byte offset of each shared buffer."""
    offsets: list[Dim] = []
    at: Dim = 0
    for p in partials:
        offsets.append(at)
        at = at + _rounded(p)
    return tuple(offsets)


def _rounded(partial: Partial) -> Dim:
    dtype, elements = partial
    return ceil_div(dtype.itemsize * elements, ALIGNMENT) * ALIGNMENT


def _dims(dims: tuple[int, ...]) -> str:
    return "(" + " ".join(f"d{d}" for d in dims) + ")"
