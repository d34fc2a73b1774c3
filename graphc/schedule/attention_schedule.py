"""The schedules of attention and of its gradient, each as one kernel."""
from __future__ import annotations

from dataclasses import field

from graphc.ir.dims import Dim
from graphc.records import dataclass
from graphc.schedule.contraction_schedule import round_up
from graphc.schedule.cost import Ranking
from graphc.schedule.schedule import Schedule
from graphc.schedule.target import ALIGNMENT


@dataclass(frozen=True)
class AttentionSchedule(Schedule):
    """Scores exist a block of `rows` × `columns` at a time, mr rows × vectors of columns in a register tile. Of
    attention a column is a query, a row a key; of its gradient a column is a key, a row a query.

    serial: all on the caller; `alone`: where sizes come with the call, so is up to so much arithmetic (in operations).
    far: what the rows of a head read (and, of the gradient, add to) does not stay in L2. Of
    the gradient: the keys of a head are dealt to so many `parts`, each with sums of its own for the gradient of the
    queries: `partials` elements in all, behind `deltas` elements, a number for each query and what aligns the sums.
    any_length: the number of keys comes with the call; sums over a query's keys are made so that their bits do not
    depend on how many there are beyond those that it sees. fewer: where the number of columns comes with the call,
    (mr, vectors) of the register tiles of the last columns, which would fill a part of the others, narrow ones first.
    brief: by micro-kernels of little code. by_rows: sums are vectors of values, of so many columns and vectors at a
    time; None: they are vectors of columns. ranking: the candidates among which this one was chosen.
    """
    columns: int
    rows: int
    mr: int
    vectors: int
    lanes: int
    serial: bool
    far: bool = False
    parts: int = 1
    deltas: Dim = 0
    partials: Dim = 0
    itemsize: int = 4
    alone: int = 0
    any_length: bool = False
    fewer: tuple[tuple[int, int], ...] = ()
    brief: bool = False
    by_rows: tuple[int, int] | None = None
    ranking: Ranking[object] | None = field(default=None, compare=False, repr=False)

    @property
    def shared_bytes(self) -> Dim:
        return round_up((self.deltas + self.partials) * self.itemsize, ALIGNMENT)

    def sum_rows(self, queries: Dim) -> Dim:
        """Rows of the gradient of `queries` queries, with room for a last register tile."""
        return queries + self.mr - 1

    @property
    def nr(self) -> int:
        return self.vectors * self.lanes

    @property
    def tile(self) -> str:
        tile = f"{self.mr}×{self.nr}"
        return tile if self.by_rows is None else f"{tile}, values {self.by_rows[0]}×{self.by_rows[1] * self.lanes}"

    def __str__(self) -> str:
        parts = f", {self.parts} parts, shared scratch {self.shared_bytes} B" if self.partials != 0 else ""
        where = ", serial" if self.serial else f", serial up to {self.alone}" if self.alone else ""
        where += ", far" if self.far else ""
        where += "".join([f", tile {mr}×{vectors * self.lanes} of few columns" for mr, vectors in self.fewer])
        return f"attention(blocks {self.rows}×{self.columns}, tile {self.tile}{parts}{where})"
