"""Schedules of contractions, as plain data: chosen by pure functions, read by the lowering, printed with the graph."""
from __future__ import annotations

from dataclasses import field
from typing import NamedTuple, overload

from graphc.ir.dims import Dim, Poly, Size, ceil_div, typical
from graphc.ir.types import DType
from graphc.records import dataclass
from graphc.schedule.blocking import Blocking, ColumnPacking, Cut, PackingMode
from graphc.schedule.cost import Ranking
from graphc.schedule.contraction_form import Form, LinearMap, Phase, spread
from graphc.schedule.machine import Machine
from graphc.schedule.schedule import OPERANDS, ProductSchedule

MAX_TAPS = 49
STEPS = 4                       # of a sum that the micro-kernel takes at a time: fewer instructions for control


class PhaseSchedule:
    """How one phase of a contraction runs."""

    @property
    def ranking(self) -> Ranking[object] | None:
        """As in `Schedule`."""
        return None


@dataclass(frozen=True)
class TileSchedule(PhaseSchedule):
    """One phase of a contraction by micro-tiles, whose rows are broadcast and whose columns are vectors of `lanes`.

    a, b: how the operands reach the micro-kernel. splits: > 1: the blocks of the sum are divided among this number of
        tiles, whose partial results are added in order (split-K).
    transposed_store: if the output is contiguous along m: how m is cut into tiles (of MC rows at most); their sums are
        transposed before they are stored.
    by_rows: consecutive tiles share their rows; otherwise they share their columns.
    by_lines: in a tile, a panel of rows passes by all columns before the next one does: results are then stored, and
        what the epilogue reads is read, in longer runs.
    prefetch_lines, last_lines: lines of the next panel of packed b prefetched every STEPS steps, and by last rows.
    edge_mr: rows of the last micro-tile; 0 if it has as many as the others (rows past the last one are padded).
    any_edge: the number of rows is known when the kernel runs: there is a micro-kernel for each number of last rows.
    part_blocks: of a sum whose length is not known, the blocks of a part; 0: as `splits` says.
    packed_in_runs: b is packed once, a few steps of k for all tiles at a time, as memory has it, not tile after tile.
    busy: vectors of sums that keep the units busy. ranking: the candidates among which this one was chosen.
    """
    blocking: Blocking
    lanes: int
    a: PackingMode
    b: PackingMode
    splits: Dim = 1
    transposed_store: Cut | None = None
    by_rows: bool = False
    prefetch_lines: int = 0
    last_lines: int = 0
    edge_mr: int = 0
    packed_in_runs: bool = False
    any_edge: bool = False
    part_blocks: int = 0
    by_lines: bool = False
    busy: int = Machine().busy_sums
    ranking: Ranking[object] | None = field(default=None, compare=False, repr=False)

    @property
    def vectors(self) -> int:
        """Of the columns of a micro-tile."""
        return self.blocking.nr // self.lanes

    @property
    def is_split(self) -> bool:
        """Whether parts of sums are added after all tiles."""
        return self.splits != 1

    @property
    def has_edges(self) -> bool:
        """Whether fewer last rows have micro-kernels of their own: then none past the end are read."""
        return self.any_edge or self.edge_mr > 0

    def width(self, phase: Phase[Dim]) -> Dim:
        """Columns of the widest tile, in whole micro-tiles."""
        return round_up(self.blocking.nc.length(group_sizes(phase, phase.n)), self.blocking.nr)

    @property
    def micro_tile(self) -> str:
        mr, nr = self.blocking.mr, self.blocking.nr
        edge = f"1…{mr - 1}" if self.any_edge else self.edge_mr
        return f"{mr}×{nr}" + (f" and {edge}×{nr}" if edge else "")

    def __str__(self) -> str:
        options = {f"split-k {self.splits}": self.is_split,
                   "transposed store": self.transposed_store, "by rows": self.by_rows, "by lines": self.by_lines,
                   f"prefetch {self.prefetch_lines}": self.prefetch_lines, "packed in runs": self.packed_in_runs}
        chosen = "".join(f" {option}" for option, holds in options.items() if holds)
        return f"{self.micro_tile} (lanes {self.lanes}) {self.blocking} a:{self.a.value} b:{self.b.value}{chosen}"


@dataclass(frozen=True)
class StreamSchedule(TileSchedule):
    """The same for few rows, with unpacked operands: whole rows of b are scaled and added to sums in L1, so that memory
    is read in long runs."""

    @property
    def micro_tile(self) -> str:
        return f"{self.blocking.mr} rows streamed"


@dataclass(frozen=True)
class DotSchedule(PhaseSchedule):
    """One phase with few rows, both operands contiguous along the innermost k, as dot products: `rows` × `columns` with
    `vectors` accumulators of `lanes` each at a time, `tile` columns a tile. ranking: what it costs, where compared."""
    rows: int
    columns: int
    vectors: int
    lanes: int
    tile: int
    ranking: Ranking[object] | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"dots {self.rows}×{self.columns} ({self.vectors} vectors of {self.lanes}) tile {self.tile}"


@dataclass(frozen=True)
class MatrixSchedule(TileSchedule):
    """The same by matrix registers of 16 × 16 elements: MR is as many rows as a tile has, any number may be left."""

    @property
    def micro_tile(self) -> str:
        return f"matrices of 1…{self.blocking.mr}×{self.blocking.nr}"


class MixedChannels(NamedTuple):
    """Vectors along the channels of several groups: the dim of the sum that counts the `width` channels of a group, and
    how far apart the factors of b for two groups are."""
    channel: int
    width: int
    apart: Dim


@dataclass(frozen=True)
class LaneSchedule(PhaseSchedule):
    """One phase without reuse that a micro-tile could use (depthwise convolutions): vectors along `dim`, for `columns`
    positions of `inner` in each of `lines` of the dim around it, which share what they read. Tiles take `block`
    elements of `dim` and `tile` times so many lines. ranking: the candidates among which this one was chosen.

    terms: of the innermost dim of the sum that are unrolled, in loops over the others and over the rest of it; 0: all
    terms of the sum are unrolled. mixed: a vector of `a` has the channels of several groups, of which a term needs one.
    """
    dim: int
    inner: int
    lanes: int
    columns: int
    block: int
    tile: int
    terms: int = 0
    mixed: MixedChannels | None = None
    lines: int = 1
    ranking: Ranking[object] | None = field(default=None, compare=False, repr=False)

    def outer(self, phase: Phase[Dim]) -> tuple[int, ...]:
        """The dims around, from the outermost loop to the innermost."""
        return tuple(d for d in phase.batch + phase.m + phase.n if d not in (self.dim, self.inner))

    def packs(self, phase: Phase[Dim], operand: LinearMap[Dim]) -> bool:
        """Whether factors that are not contiguous along the vectors are copied: if they depend on no other dim."""
        others = (d for d in phase.batch + phase.m + phase.n if d != self.dim)
        step = operand.strides[self.dim]
        jumps = self.mixed is not None and operand is phase.b and self.mixed.apart != self.mixed.width * step
        return (jumps or step not in (0, 1)) and not any(operand.strides[d] for d in others)

    def line(self, phase: Phase[Dim]) -> Dim:
        """Distance of the copied factors of two terms of a sum."""
        return spread(round_up(phase.sizes[self.dim], self.lanes), self.lanes)

    def __str__(self) -> str:
        loops, lines = f" {self.terms} terms at a time" * (self.terms > 0), f" in {self.lines} lines" * (self.lines > 1)
        mixed = f" of groups of {self.mixed.width}" if self.mixed else ""
        return (f"lanes of {self.lanes} along d{self.dim}{mixed}, {self.columns} of d{self.inner}{lines}, tile "
                f"{self.block}@d{self.dim} × {self.tile}{loops}")


@dataclass(frozen=True)
class NarrowSchedule(PhaseSchedule):
    """One phase with few outputs in each batch entry and long sums (weight gradients of depthwise convolutions):
    outputs of an entry in registers; vectors along batch dim `dim`, or (`along_k`) along the innermost k dim. block:
    vectors of entries for each tile, which are read side by side, `columns` positions of the innermost k dim at a time.
    splits: as in `TileSchedule`, by ranges of all k dims but the innermost.

    piece: an output dim and how many of its indices, with all of the dims after it, a tile has in registers; None: all
    outputs. mixed: a vector of `b` has the channels of several groups, of which an output needs one. ranking: the
    candidates among which the piece was chosen.
    """
    dim: int
    along_k: bool
    lanes: int
    splits: int
    block: int = 1
    columns: int = 0
    piece: tuple[int, int] | None = None
    mixed: MixedChannels | None = None
    ranking: Ranking[object] | None = field(default=None, compare=False, repr=False)

    def entries(self, phase: Phase[Size]) -> Size:
        """Batch entries, or vectors of them."""
        batches = phase.extent(phase.batch)
        others = phase.extent([d for d in phase.batch if d != self.dim])
        return batches if self.along_k else others * self.groups(phase)

    def groups(self, phase: Phase[Size]) -> Size:
        """Vectors along the dim."""
        return 1 if self.along_k else ceil_div(phase.sizes[self.dim], self.lanes)

    @property
    def width(self) -> int:
        """Lanes of a finished sum."""
        return 1 if self.along_k else self.lanes

    def __str__(self) -> str:
        along = "k" if self.along_k else f"d{self.dim}"
        mixed = f" of groups of {self.mixed.width}" if self.mixed else ""
        shape = f"narrow, lanes of {self.lanes} along {along}{mixed}, {self.columns} at a time, tiles of {self.block}"
        shape += f", outputs {self.piece[1]}@d{self.piece[0]}" if self.piece else ""
        return shape + (f" split-k {self.splits}" if self.splits > 1 else "")


@dataclass(frozen=True)
class ShiftedSchedule(PhaseSchedule):
    """One phase with few rows, whose columns are windows that slide over b (convolutions of few features): each index
    of the k dims `taps` has rows of its own, which micro-tiles of mr × `vectors` vectors multiply with whole runs of b,
    unpacked; then the taps of each output, which lie apart in these products, are added. A sum takes up to `steps`
    steps of the k dim `inner` at a time.

    dims: how many of the last column dims make a run of memory, with what lies between their lines; chunk: of the
    outermost of these for each tile. ranking: the candidates among which this one was chosen.
    """
    taps: tuple[int, ...]
    inner: int
    dims: int
    chunk: int
    mr: int
    vectors: int
    lanes: int
    steps: int
    ranking: Ranking[object] | None = field(default=None, compare=False, repr=False)

    def rest(self, phase: Phase[Size]) -> tuple[int, ...]:
        """The dims of the sums of one tap."""
        return tuple(d for d in phase.k if d not in (*self.taps, self.inner)) + (self.inner,)

    def cut(self, phase: Phase[Size]) -> Cut:
        return Cut(len(phase.n) - self.dims, self.chunk)

    def lowest(self, phase: Phase[Size]) -> Size:
        """How far before the first tap the others reach (0 or less)."""
        return phase.tapped(self.taps)[0]

    def reach(self, phase: Phase[Size], count: int) -> Size:
        """Elements from the first to the last that `count` of the outermost dim of a run need."""
        low, high = phase.tapped(self.taps)
        run = phase.n[-self.dims:]
        return (count - 1) * phase.b.strides[run[0]] + phase.tapped(run[1:])[1] + high - low + 1

    def packed_rows(self, phase: Phase[Size]) -> Size:
        """Elements of packed a."""
        panels = ceil_div(phase.extent(phase.m + self.taps), self.mr)
        return phase.extent(phase.batch) * panels * self.mr * phase.extent(self.rest(phase))

    def __str__(self) -> str:
        taps = ",".join(f"d{d}" for d in self.taps)
        return (f"shifted by {taps}: {self.mr}×{self.vectors * self.lanes} (lanes {self.lanes}), runs of "
                f"{self.chunk}@n-{self.dims}, {self.steps} of d{self.inner}")


@dataclass(frozen=True)
class LoopSchedule(PhaseSchedule):
    """One phase as plain loops, one output at a time: sums in 8 or 16 bits, and of nothing. `tile` outputs for each
    tile."""
    tile: int

    def __str__(self) -> str:
        return f"loops tile {self.tile}"


@dataclass(frozen=True)
class ContractionSchedule(ProductSchedule):
    """How a contraction runs: normal form, a schedule for each phase, layout of its shared scratch (in `dtype`).

    copies[i]: offset of the padded copy of operand i (after the swap), or None.
    packed_a, packed_b, partials: offsets for each phase, or None. All phases use the same memory after the copies.
    prepacked: the operand (0: a, 1: b, before the swap) that is packed before the kernel runs, because it does not
        change in a loop around the kernel, or between calls. It has memory of its own, `packed_size` elements of type
        `packed_dtype` (None: `dtype`).
    gates: number of equal slices in which the epilogue reads the columns; n is (vectors of units, gates, lanes).
    operands: inputs that are no epilogue's, more than two with codes and scales. fetches: what the epilogue of a
        micro-tile reads and writes is prefetched before its sums.
    """
    form: Form
    phases: tuple[PhaseSchedule, ...]
    copies: tuple[Dim | None, Dim | None]
    packed_a: tuple[Dim | None, ...]
    packed_b: tuple[Dim | None, ...]
    partials: tuple[Dim | None, ...]
    shared_scratch: Dim
    dtype: DType
    prepacked: int | None = None
    packed_size: Dim = 0
    gates: int = 0
    packed_dtype: DType | None = None
    operands: int = OPERANDS
    fetches: bool = False

    @property
    def rankings(self) -> tuple[Ranking[object], ...]:
        return tuple(phase.ranking for phase in self.phases if phase.ranking is not None)

    @property
    def shared_bytes(self) -> Dim:
        return self.shared_scratch * self.dtype.itemsize

    @property
    def packed_bytes(self) -> Dim:
        return self.packed_size * (self.packed_dtype or self.dtype).itemsize

    @property
    def prepacked_role(self) -> str:
        """The prepacked operand after the swap: "a", "b" or ""."""
        return "" if self.prepacked is None else "ab"[self.prepacked ^ self.form.swap]

    def __str__(self) -> str:
        head = ("transposed " if self.form.swap else "") + (f"{self.gates} gates; " if self.gates else "")
        head += "".join(f"padded copy of {n}; " for n, c in zip("ab", self.copies) if c is not None)
        scratch = f"; shared scratch {self.shared_scratch}" if self.shared_scratch != 0 else ""
        scratch += f"; {'ab'[self.prepacked]} packed before the loop" if self.prepacked is not None else ""
        return f"{head}{' | '.join(map(str, self.phases)) or 'nothing'}{scratch}{'; fetches results' * self.fetches}"


def column_packing(p: Phase[Dim], lanes: int) -> ColumnPacking:
    """The packing that reads columns of b in the longest runs."""
    straight = p.b.strides[p.n[-1]] == 1
    if straight and len(p.n) == 1:
        return ColumnPacking.PANELS
    run = typical(p.sizes[p.n[-1]])
    if p.b.strides[p.k[-1]] == 1 and (not straight or run < lanes // 2 and typical(p.sizes[p.k[-1]]) > run):
        return ColumnPacking.TRANSPOSED
    return ColumnPacking.TAPS if not straight and taps(p) else ColumnPacking.RUNS


def taps(p: Phase[Dim]) -> tuple[int, ...]:
    """The k dims, outer to inner, side by side in b (either way), a few elements in all: taps of stored weights."""
    found, size = list[int](), 1
    for d in sorted(p.k[:-1], key=lambda d: abs(typical(p.b.strides[d]))):
        stride, count = p.b.strides[d], p.sizes[d]
        if stride in (size, -size) and isinstance(count, int) and size * count <= MAX_TAPS:
            found.insert(0, d)
            size *= count
    return tuple(found) if size >= 3 else ()


@dataclass(frozen=True)
class RowsSchedule(PhaseSchedule):
    """One phase whose number of rows is known when the kernel runs: by the first of `regimes` that takes as many.
    Regime i takes `most[i]` rows at most; the last one, for which `most` has no entry, any number. of_columns: it is
    the number of columns.

    All regimes add each sum in the same order, by the same blocks, so that a row's bits do not depend on how many rows
    there are; and they read an operand that is packed before the kernel from the same panels.
    """
    most: tuple[int, ...]
    regimes: tuple[TileSchedule, ...]
    of_columns: bool = False

    @property
    def ranking(self) -> Ranking[object] | None:
        return self.regimes[-1].ranking

    def __str__(self) -> str:
        counted = "columns" if self.of_columns else "rows"
        named = [f"up to {most} {counted}: {regime}" for most, regime in zip(self.most, self.regimes)]
        return "; ".join([*named, str(self.regimes[-1]) if not named else f"more: {self.regimes[-1]}"])


def packed_row_panels(m: Dim, s: TileSchedule) -> Dim:
    """Panels of rows that are packed once."""
    return ceil_div(m, s.blocking.mr)


def group_sizes(phase: Phase[Size], dims: tuple[int, ...]) -> tuple[Size, ...]:
    return tuple(phase.sizes[d] for d in dims)


@overload
def round_up(value: float, unit: int) -> int: ...


@overload
def round_up(value: float | Dim, unit: int) -> Dim: ...


def round_up(value: float | Dim, unit: int) -> Dim:
    """The least multiple of `unit` that is not below `value` (a float rounded down to an integer)."""
    return ceil_div(value if isinstance(value, Poly) else int(value), unit) * unit
