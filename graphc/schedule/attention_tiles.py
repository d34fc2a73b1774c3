"""The register tiles of attention and of its gradient: candidates, and what each costs."""
from __future__ import annotations

from collections.abc import Callable, Iterator

from graphc.ir.dims import Dim, typical
from graphc.records import dataclass
from graphc.schedule.contraction_schedule import round_up
from graphc.schedule.cost import Candidate, Ranking, ranked
from graphc.schedule.target import MATRIX_LANES, Target

LENGTHS = (1, 2, 4, 8)          # quarters of the typical number of columns, of which each may come
EXPOSED_LOADS = 0.25            # of a product's loads, the part that its multiply-adds do not hide
# vector operations of scores that become probabilities: a maximum, a difference, a power of 2, a sum
POWER_OPS = 14


def columns_made(count: Dim, nr: int, causal: bool) -> float:
    """Columns that are computed, in whole register tiles; of a triangle twice as many as on average, and one tile that
    crosses its edge. Where their number comes with the call, as many for each as of shorter and longer blocks."""
    usual = typical(count)
    tried = [count] if isinstance(count, int) else [max(1, usual * part // 4) for part in LENGTHS]
    return sum([(round_up(n, nr) + nr * causal) * usual / n for n in tried]) / len(tried)


def register_tiles(
    target: Target, work: Callable[[int, int], float], lanes: int, steps: int, matrices: bool = False
) -> Ranking[tuple[int, int]]:
    """Rows and vectors with the fewest cycles, padding and loads included. As many rows as registers beside a row of
    columns hold, less one for the factor, and as there are for their addresses. steps: of the sums of all heads.
    matrices: two matrix registers each way."""
    def candidates() -> Iterator[Candidate[tuple[int, int]]]:
        for vectors in (2,) if matrices else (2, 3, 4):
            mr = _tile_rows(target, vectors, matrices)
            yield _register_tile(target, mr, vectors, lanes, work(mr, vectors * lanes) * steps)
    return ranked(candidates(), 1.0)


def _register_tile(target: Target, mr: int, vectors: int, lanes: int, work: float) -> Candidate[tuple[int, int]]:
    """With few sums units wait for their results."""
    machine = target.machine
    sums = work / (lanes * machine.fma_per_cycle * machine.planned_cores)
    waited = (machine.fma_latency + 1) * machine.fma_per_cycle / (mr * vectors) - 1
    return Candidate(f"{mr}×{vectors * lanes}", (mr, vectors), (
        ("sums", sums), ("latency", sums * max(0.0, waited)),
        ("loads", sums * EXPOSED_LOADS * (1 / mr + 1 / vectors))))


def _tile_rows(target: Target, vectors: int, matrices: bool) -> int:
    return 2 * MATRIX_LANES if matrices else min(target.tile_rows(vectors), target.machine.address_rows)


@dataclass(frozen=True)
class ForwardTiles:
    """mr keys × vectors of queries whose scores are in registers at a time; by_rows: as of `AttentionSchedule`."""
    mr: int
    vectors: int
    by_rows: tuple[int, int] | None

    def __str__(self) -> str:
        return f"{self.mr} keys × {self.vectors} vectors" + (
            "" if self.by_rows is None else ", {} queries × {} vectors".format(*self.by_rows))


@dataclass(frozen=True)
class ForwardProblem:
    """Attention of so many heads, queries, keys, features and values. reads_rows: values lie side by side, and are
    multiplied as they are; matrices: by matrix registers."""
    target: Target
    lanes: int
    heads: int
    queries: Dim
    keys: int
    features: int
    values: int
    causal: bool
    reads_rows: bool
    matrices: bool

    @property
    def ranking(self) -> Ranking[ForwardTiles]:
        """Sums of values lie as those of scores do, or as the results. Where the number of queries comes with the call,
        few of them have a schedule of their own."""
        closed = isinstance(self.queries, int)

        def candidates() -> Iterator[Candidate[ForwardTiles]]:
            for vectors in (2,) if self.matrices else (2, 3, 4, *[1] * closed):
                mr = _tile_rows(self.target, vectors, self.matrices)
                yield self._candidate("values by columns", ForwardTiles(mr, vectors, None))
                if self.reads_rows:
                    yield self._candidate("values by rows", ForwardTiles(mr, vectors, self.value_tile(vectors)))
        return ranked(candidates(), 1.0)

    def value_tile(self, vectors: int) -> tuple[int, int]:
        """Queries and vectors of values with the fewest cycles, for panels so many vectors of queries wide."""
        return min(self._value_tiles(vectors), key=lambda tile: self._by_rows(vectors, tile))

    def _value_tiles(self, vectors: int) -> Iterator[tuple[int, int]]:
        """Those whose sums, a row of values and a factor fit the registers; whole ones make a panel of queries."""
        width, room = -(-self.values // self.lanes), self.target.vector_registers - 1
        for rows in range(1, self.lanes + 1):
            most = room // (rows + 1)
            if vectors * self.lanes % rows == 0 and most > 0:
                yield rows, -(-width // -(-width // most))

    def cycles(self, tiles: ForwardTiles) -> float:
        """What it costs with these tiles."""
        return self._candidate("", tiles).total

    def _candidate(self, name: str, tiles: ForwardTiles) -> Candidate[ForwardTiles]:
        machine, vectors = self.target.machine, tiles.vectors
        panels = columns_made(self.queries, vectors * self.lanes, self.causal) / (vectors * self.lanes)
        down = -(-self.keys // tiles.mr)
        turned = self.features + (self.values if tiles.by_rows is None else 0)
        cost = {
            "scores": panels * down * self.features * self._step(tiles.mr, vectors),
            "values": self.keys * (self._by_rows(vectors, tiles.by_rows) if tiles.by_rows else panels * (
                self.values // tiles.mr * self._step(tiles.mr, vectors)
                + self._step(self.values % tiles.mr, vectors))),
            "powers": self.keys * panels * vectors * POWER_OPS * machine.vector_op_cycles,
            "turn": panels * vectors * self.lanes * turned * machine.transpose_cycles,
        }
        return Candidate(name, tiles, tuple([
            (term, self.heads * cycles / machine.planned_cores) for term, cycles in cost.items()]))

    def _step(self, rows: int, vectors: int) -> float:
        """Cycles of one step of a register tile's sums: units wait for the results of few."""
        machine, sums = self.target.machine, rows * vectors
        late = machine.fma_latency + 1 if sums <= machine.busy_sums else 0
        loads = (rows + vectors) / machine.loads_per_cycle
        return max(sums / machine.fma_per_cycle, loads, late) + machine.step_cycles if rows else 0.0

    def _by_rows(self, panel: int, tile: tuple[int, int]) -> float:
        """Cycles of one key's values for all queries, in panels of so many vectors of these."""
        rows, vectors = tile
        groups = (columns_made(self.queries, rows, False) + panel * self.lanes * self.causal) / rows
        width = -(-self.values // self.lanes)
        parts = -(-width // vectors)
        return groups * sum([self._step(rows, len(range(part, width, parts))) for part in range(parts)])


def gradient_ranking(target: Target, lanes: int, steps: int, keys: Dim, widths: tuple[int, int], causal: bool,
                     matrices: bool) -> Ranking[tuple[int, int]]:
    """The register tiles of the gradient, whose columns are keys; features are columns of one product, too. widths:
    features and values; steps: queries of all heads."""
    return register_tiles(target, lambda mr, nr: _gradient_work(keys, widths, causal, mr, nr), lanes, steps, matrices)


def gradient_cycles(target: Target, lanes: int, steps: int, keys: Dim, widths: tuple[int, int], causal: bool,
                    tile: tuple[int, int]) -> float:
    """What one of them costs: mr rows × vectors of columns."""
    mr, vectors = tile
    work = _gradient_work(keys, widths, causal, mr, vectors * lanes)
    return _register_tile(target, mr, vectors, lanes, work * steps).total


def _gradient_work(keys: Dim, widths: tuple[int, int], causal: bool, mr: int, nr: int) -> float:
    """Multiply-adds of one query."""
    features, values = widths
    rows = features + values + round_up(features, mr) + round_up(values, mr) + round_up(features, nr)
    return columns_made(keys, nr, causal) * rows
