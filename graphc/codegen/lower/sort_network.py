"""Sorts an array of distinct i64 keys in vectors: a sorting network in registers for blocks, then merges of sorted
runs.

Batcher, "Sorting networks and their applications", 1968 (odd-even and bitonic merges); Inoue et al., "AA-Sort", 2007 (a
merge of streams whose carry is one vector). Comparisons become minima and maxima, so that no branch depends on the
data.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import cache

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val
from graphc.ir.dims import Dim, Poly, round_up
from graphc.ir.types import i64

LAST = (1 << 63) - 1                # a key behind all others
PASSES = 32                         # there and back, at most: each makes runs four times as long


def padded(n: Dim, lanes: int) -> Dim:
    """Elements that a sort of n keys needs, a whole number of blocks; those behind n hold LAST."""
    return round_up(n, lanes * lanes)


@cache
def sort_kernel(n: Dim, lanes: int) -> LoopFunction:
    """(keys [n], spare [n]) -> keys in ascending order, in `keys`; `spare` is overwritten. n: a multiple of lanes ·
    lanes.
    """
    f = LoopFunction(f"sort_{n}x{lanes}")
    keys, spare = f.view("keys", i64, (n,)), f.view("spare", i64, (n,))
    block = lanes * lanes
    widths = [] if isinstance(n, Poly) else [block << i for i in range(n.bit_length()) if block << i < n]
    source, target = (keys, spare) if len(widths) % 2 == 0 else (spare, keys)
    with f.loop(0, n, block, name="block") as loop:
        vectors = [f.load(keys, [loop.index + r * lanes], lanes) for r in range(lanes)]
        for r, v in enumerate(_sorted_block(f, vectors)):
            f.store(source, [loop.index + r * lanes], v)
    merge = merge_kernel(n, lanes)
    for width in widths:
        with f.loop(0, n, 2 * width, name="run") as run:
            middle = f.min_(run.index + width, n)
            f.call(merge, [source, target, run.index, middle, f.min_(middle + width, n)])
        source, target = target, source
    if isinstance(n, Poly):
        all_merged(f, n // lanes, lanes, lambda back, lo, middle, hi: f.call(
            merge, [*((spare, keys) if back else (keys, spare)), lo * lanes, middle * lanes, hi * lanes]))
    return f


def all_merged(f: LoopFunction, n: Dim, width: int, merge: Callable[[bool, Ix, Ix, Ix], None]) -> None:
    """Merges n items, of which runs of `width` are in order, for a number that comes with the call. `merge(back, lo,
    middle, hi)` merges two runs, the second maybe empty, there or back: as often there as back."""
    count = f.value(Ix(n))

    def below(at: Val) -> Ix:
        return f.check_index(at, n, 0)

    def runs(width: Val, back: bool) -> None:
        with f.while_(n, carry=(f.const(0, i64),), name="run") as run:
            start, = run.carried
            run.condition(f.lt(start, count))
            middle = f.min(f.add(start, width), count)
            end = f.min(f.add(middle, width), count)
            merge(back, below(start), below(f.sub(middle, 1)) + 1, below(f.sub(end, 1)) + 1)
            run.next(end)
    with f.while_(PASSES, carry=(f.const(width, i64),), name="pass") as each:
        width_now, = each.carried
        each.condition(f.lt(width_now, count))
        double = f.mul(width_now, 2)
        runs(width_now, False)
        runs(double, True)
        each.next(f.mul(double, 2))


@cache
def merge_kernel(n: Dim, lanes: int) -> LoopFunction:
    """(source [n], target [n], lo, middle, hi): the runs lo … middle - 1 and middle … hi - 1 of the source as one run
    of the target.

    The carry holds the largest vector of what was read. The next vector comes from the run with the smaller head, so
    that everything read is below both heads, and the lower half of carry and vector is final.
    """
    f = LoopFunction(f"merge_{n}x{lanes}")
    source, target = f.view("source", i64, (n,)), f.view("target", i64, (n,))
    lo = f.param("lo", 0, n - lanes, lanes)
    middle, hi = f.param("middle", lanes, n, lanes), f.param("hi", lanes, n, lanes)
    end_left, end_right = f.value(middle), f.value(hi)
    last = f.value(Ix(n - 1))
    head = lambda at: f.load(source, [f.check_index(f.min(at, last), n, 0)])
    first = f.load(source, [lo], lanes)
    with f.loop(lo + lanes, hi, lanes, carry=(f.value(lo + lanes), end_left, first), name="merged") as loop:
        i, j, carry = loop.carried
        right = f.and_(f.lt(j, end_right), f.or_(f.ge(i, end_left), f.lt(head(j), head(i))))
        at = f.check_index(f.select(right, j, i), n - lanes + 1, 0)
        low, high = _merged(f, [carry], [f.load(source, [at], lanes)])
        f.store(target, [loop.index - lanes], low)
        loop.next(f.select(right, i, f.add(i, lanes)), f.select(right, f.add(j, lanes), j), high)
    f.store(target, [hi - lanes], loop.results[2])
    return f


def _sorted_block(f: LoopFunction, vectors: list[Val]) -> list[Val]:
    """As many vectors as each has lanes: their elements in order, row by row."""
    vectors = list(vectors)
    for a, b in comparators(len(vectors)):
        vectors[a], vectors[b] = f.min(vectors[a], vectors[b]), f.max(vectors[a], vectors[b])
    runs = [[v] for v in _transposed(f, vectors)]
    while len(runs) > 1:
        runs = [_merged(f, a, b) for a, b in zip(runs[::2], runs[1::2])]
    return runs[0]


def comparators(n: int) -> list[tuple[int, int]]:
    """Batcher's odd-even merge sort of n lines: of the next power of two, without the lines behind n, which would hold
    what is behind everything."""
    found, p, lines = [], 1, 1 << (n - 1).bit_length()
    while p < lines:
        k = p
        while k >= 1:
            found += [(i + j, i + j + k) for j in range(k % p, lines - k, 2 * k) for i in range(min(k, lines - j - k))
                      if (i + j) // (2 * p) == (i + j + k) // (2 * p) and i + j + k < n]
            k //= 2
        p *= 2
    return found


def _transposed(f: LoopFunction, rows: list[Val]) -> list[Val]:
    """A square of rows, as its columns: halves change places, then quarters within them, …"""
    n, half = len(rows), len(rows) // 2
    rows = list(rows)
    while half:
        for r in (r for r in range(n) if not r & half):
            a, b = rows[r], rows[r + half]
            rows[r] = f.shuffle(a, b, [k if not k & half else n + k - half for k in range(n)])
            rows[r + half] = f.shuffle(a, b, [k + half if not k & half else n + k for k in range(n)])
        half //= 2
    return rows


def _merged(f: LoopFunction, a: list[Val], b: list[Val]) -> list[Val]:
    """Two sorted lists of as many vectors each, a power of two, as one: a bitonic merge."""
    lanes = a[0].lanes
    turned = [f.shuffle(v, None, list(range(lanes))[::-1]) for v in reversed(b)]
    vectors, step = [*a, *turned], len(a)
    while step:
        for r in (r for r in range(len(vectors)) if not r & step):
            x, y = vectors[r], vectors[r + step]
            vectors[r], vectors[r + step] = f.min(x, y), f.max(x, y)
        step //= 2
    return [_bitonic(f, v) for v in vectors]


def _bitonic(f: LoopFunction, v: Val) -> Val:
    """The lanes of a bitonic vector in order."""
    half = v.lanes // 2
    while half:
        low = f.shuffle(v, None, [k & ~half for k in range(v.lanes)])
        high = f.shuffle(v, None, [k | half for k in range(v.lanes)])
        least, most = f.min(low, high), f.max(low, high)
        v = f.shuffle(least, most, [k + (v.lanes if k & half else 0) for k in range(v.lanes)])
        half //= 2
    return v
