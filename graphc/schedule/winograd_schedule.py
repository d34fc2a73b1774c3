"""The schedules of a convolution in Winograd's form and of its weights."""
from __future__ import annotations

from dataclasses import field, replace

from graphc.ir.dims import Dim, ceil_div
from graphc.ir.types import DType
from graphc.records import dataclass
from graphc.schedule.contraction_schedule import round_up
from graphc.schedule.cost import Ranking
from graphc.schedule.plain_schedule import PlainSchedule
from graphc.schedule.schedule import ProductSchedule
from graphc.schedule.target import LINE_BYTES


def line_elements(dtype: DType) -> int:
    """Elements by which planes are apart more than they need, a cache line: they begin on other cache sets."""
    return LINE_BYTES // dtype.itemsize


@dataclass(frozen=True)
class FewTiles:
    """How up to `most` tiles are divided: into blocks of `rows`, and features into groups of `panels` panels."""
    most: int
    rows: int
    panels: int


@dataclass(frozen=True)
class WinogradSchedule(ProductSchedule):
    """Tiles of the image are taken `rows` at a time, features `panels` panels at a time: one task is a block of tiles
    × a group of panels.

    It transforms its tiles, multiplies them at each point by register tiles of mr rows × vectors of columns, `sums`
    channels at a time, and transforms the products back. shared: transformed tiles lie in shared scratch, made before
    all tasks, because several groups read them. prefetch_lines: cache lines of the next panel of weights that a
    register tile prefetches every STEPS channels; last_lines: the same of the last rows, of any number. few: where the
    number of tiles comes with the call, how few of them are divided, ascending; tasks then transform their tiles
    themselves. ahead: how many tiles before it is transformed a tile is prefetched, if it is and their number is known.
    """
    mr: int
    vectors: int
    lanes: int
    rows: int
    panels: int
    sums: int
    blocks: Dim
    groups: int
    points: int
    channels: int
    shared: bool
    dtype: DType
    prefetch_lines: int = 0
    last_lines: int = 0
    few: tuple[FewTiles, ...] = ()
    ahead: int = 0

    def of_few(self, tiles: FewTiles, features: int, count: Dim) -> WinogradSchedule:
        """That of so few tiles, `count` of them."""
        pieces = -(-features // self.nr)
        return replace(self, rows=tiles.rows, panels=tiles.panels, blocks=ceil_div(count, tiles.rows),
                       groups=-(-pieces // tiles.panels), shared=False, few=())

    @property
    def nr(self) -> int:
        return self.vectors * self.lanes

    @property
    def width(self) -> int:
        """Features of a group."""
        return self.panels * self.nr

    @property
    def row(self) -> int:
        """Elements from one transformed tile to the next, in one plane."""
        return round_up(self.channels, self.lanes)

    @property
    def plane(self) -> int:
        """Elements from one point to the next: a block of transformed tiles."""
        return self.rows * self.row + line_elements(self.dtype)

    @property
    def sum_plane(self) -> int:
        """Likewise of the products of a task."""
        return self.rows * self.width + line_elements(self.dtype)

    @property
    def block(self) -> int:
        """Elements of a block of transformed tiles."""
        return self.points * self.plane

    @property
    def shared_bytes(self) -> Dim:
        return self.blocks * (self.block * self.dtype.itemsize) if self.shared else 0

    def __str__(self) -> str:
        shared = f"; shared scratch {self.shared_bytes} B" if self.shared else ""
        prefetch = f", prefetch {self.prefetch_lines}" if self.prefetch_lines else ""
        prefetch += f", fetches {self.ahead} ahead" if self.ahead else ""
        few = "".join(f", {tiles.rows} × {tiles.panels * self.nr} up to {tiles.most} tiles" for tiles in self.few)
        return (f"winograd {self.points} points, {self.mr}×{self.nr} (lanes {self.lanes}), "
                f"{self.blocks} blocks of {self.rows} tiles × {self.groups} groups of {self.width} features{few}, "
                f"sums of {self.sums}{prefetch}{shared}")


@dataclass(frozen=True)
class WeightsSchedule(PlainSchedule):
    """How weights are transformed; stream: past the caches, which they would not fit into."""
    stream: bool = False

    def __str__(self) -> str:
        return f"{super().__str__()}{', streamed' if self.stream else ''}"


@dataclass(frozen=True)
class WinogradGradSchedule(ProductSchedule):
    """The gradient towards kernels: a task is a block of `channels` × a block of `features` × a part of the tiles.

    It transforms `rows` tiles of image and result at a time, and adds their products at each point by register tiles
    of mr channels × vectors of features. A task has `share` blocks of tiles; where these are not all, its kernels
    (`kernels` numbers) are added to those of the others in order. stream: kernels go past the caches, where no epilogue
    takes them. shards: of so many, each of `blocks` blocks of tiles, a task makes the kernels one after the other, all
    parts of them, and adds them while they are in the caches. ahead: how many tiles before it is transformed a tile is
    prefetched, if it is. ranking: the blocks and parts among which one was chosen.
    """
    mr: int
    vectors: int
    lanes: int
    rows: int
    channels: int
    features: int
    blocks: Dim
    share: Dim
    points: int
    kernels: int
    dtype: DType
    stream: bool = False
    shards: int = 1
    ahead: int = 0
    ranking: Ranking[object] | None = field(default=None, compare=False, repr=False)

    @property
    def nr(self) -> int:
        return self.vectors * self.lanes

    @property
    def parts(self) -> Dim:
        """Of the tiles of a shard."""
        return ceil_div(self.blocks, self.share) if isinstance(self.share, int) else 1

    @property
    def splits(self) -> Dim:
        """Parts that are tasks of their own."""
        return self.parts if self.shards == 1 else 1

    @property
    def channel_row(self) -> int:
        """Elements from one transformed tile of the image to the next, with room for a last register tile."""
        return round_up(self.channels + self.mr, self.lanes)

    @property
    def image_plane(self) -> int:
        return self.rows * self.channel_row + line_elements(self.dtype)

    @property
    def result_plane(self) -> int:
        return self.rows * self.features + line_elements(self.dtype)

    @property
    def sum_plane(self) -> int:
        return round_up(self.channels, self.mr) * self.features + line_elements(self.dtype)

    @property
    def shared_bytes(self) -> Dim:
        return self.splits * (self.kernels * self.dtype.itemsize) if self.splits != 1 else 0

    def __str__(self) -> str:
        parts = f", split {self.splits}; shared scratch {self.shared_bytes} B" if self.splits != 1 else ""
        stream = ", streamed" if self.stream else ""
        ahead = f", fetches {self.ahead} ahead" if self.ahead else ""
        shards = f" of each of {self.shards} shards, {self.parts} parts" if self.shards > 1 else ""
        return (f"winograd gradient {self.points} points, {self.mr}×{self.nr} (lanes {self.lanes}), "
                f"{self.channels} channels × {self.features} features, "
                f"{self.blocks} blocks of {self.rows} tiles{shards}{stream}{ahead}{parts}")
