"""Normal form of a contraction over strided tensors: phases whose three operands are *linear* in the dims.

    divided indices (gradient of a strided convolution)  ->  one phase for each residue, without division
    padded indices                                        ->  a padded copy of the operand, read without tests
    size-1 dims, adjacent dims that step evenly           ->  gone, merged

The result is  out[o(d)] = sum over k of a[x(d)] * b[y(d)]  with o, x, y linear: schedules and kernels see nothing else.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Generic

from graphc.errors import InternalError, Unsized
from graphc.ir.contraction import AxisMap, Contraction, Maps
from graphc.ir.dims import Dim, Dims, Poly, Size, ceil_div, largest, product_of, typical
from graphc.ir.size_proofs import is_nonnegative
from graphc.records import dataclass
from graphc.schedule.machine import Machine
from graphc.schedule.open_sizes import is_many
from graphc.schedule.operand_roles import Copies, Tensor, operand_roles, run_axis


@dataclass(frozen=True)
class PaddedCopy:
    """A copy of an operand from which every index reads: element i of axis x is source element i + low[x], or 0
    outside.

    channels: the axis that is contiguous in the copy and not in the source, if there is one.
    """
    shape: Dims
    strides: Dims
    low: Dims
    channels: int | None = None

    @property
    def size(self) -> Dim:
        return product_of(self.shape)


@dataclass(frozen=True)
class LinearMap(Generic[Size]):
    """Element offset of an operand: base + sum of strides[d] * dim d."""
    base: Size
    strides: tuple[Size, ...]

    @property
    def numbers(self) -> tuple[Size, ...]:
        """All that the offset is computed with."""
        return (self.base,) + self.strides

    def span(self, sizes: Sequence[Size]) -> tuple[Size, Size]:
        """Smallest and largest offset."""
        steps = [s * (n - 1) for s, n in zip(self.strides, sizes)]
        above = [largest(0, s) for s in steps]
        return sum((s - up for s, up in zip(steps, above)), self.base), sum(above, self.base)

    def steps_evenly(self, dims: Sequence[int], sizes: Sequence[Size]) -> bool:
        """Whether the elements along the dims, flattened, lie at equal distances."""
        return all(self.strides[x] == self.strides[y] * sizes[y] for x, y in zip(dims, dims[1:]))


Part = tuple[Dim, int, int, int]


@dataclass(frozen=True)
class Phase(Generic[Size]):
    """A contraction whose operands are linear. Dim ids in each group run from the outermost loop to the innermost.

    parts[d] says which original dims dim d is made of, outer to inner: (size, original dim, step, start), where the
    original dim walks start, start + step, …
    """
    sizes: tuple[Size, ...]
    batch: tuple[int, ...]
    m: tuple[int, ...]
    n: tuple[int, ...]
    k: tuple[int, ...]
    a: LinearMap[Size]
    b: LinearMap[Size]
    out: LinearMap[Size]
    parts: tuple[tuple[Part, ...], ...]

    def extent(self, dims: Sequence[int]) -> Size:
        return product_of(self.sizes[d] for d in dims)

    def tapped(self, dims: Sequence[int]) -> tuple[Size, Size]:
        """Of the places that b has along the dims, the lowest and the highest, counted from that of their indices 0."""
        return LinearMap(self.b.base * 0, tuple([self.b.strides[d] for d in dims])).span([self.sizes[d] for d in dims])

    @property
    def flops(self) -> Size:
        return 2 * product_of(self.sizes)

    @property
    def is_open(self) -> bool:
        """Whether some sizes, or steps in memory (of a part of an array), are known only when the program runs."""
        return any(isinstance(n, Poly) for n in (*self.sizes, *self.a.numbers, *self.b.numbers, *self.out.numbers))


@dataclass(frozen=True)
class Form:
    """`c` is the contraction whose roles the phases follow: the given one, or its transpose when `swap`. together: so
    many last axes of the output are one in all that an epilogue reads and writes: vectors may go on along them."""
    c: Contraction
    swap: bool
    copies: tuple[PaddedCopy | None, PaddedCopy | None]
    phases: tuple[Phase[Dim], ...]
    together: int = 0


def normal_form(c: Contraction, a: Tensor, b: Tensor, out: Tensor, lanes: int, fused: bool,
                invariant: tuple[bool, bool] = (False, False), machine: Machine = Machine(),
                copies: Copies = Copies.CHANNELS, together: int = 0) -> Form:
    """The normal form in which the output's contiguous dim is among n, so that vectors run along it.

    An image whose channels are not contiguous (NCHW) may be copied with contiguous channels: windows are then read from
    the copy directly, which costs one copy of the image instead of one for each kernel position.
    fused: an epilogue needs the output's own index, so dims along which vectors may run merge only in whole vectors,
    but those of the last `together` axes (see `Form`).
    invariant: operands that cost nothing to pack. copies: RUNS: rows are copied where their sums would not lie in runs
    as those of the columns do.
    """
    swap, channels = operand_roles(c, a, b, out, lanes, invariant, machine, copies)
    if swap:
        c, a, b, channels = c.swapped, b, a, channels[::-1]
    if copies is Copies.RUNS:
        channels = [run_axis(c, a, b), channels[1]]
    if 0 in (c.sizes[d] for d in c.batch + c.m + c.n):
        return Form(c, swap, (None, None), ())
    split = list(_split_phases(c))
    live = [p for p in split if 0 not in p.c.sizes]
    a_copy = _padded_copy(c, a, [(p.c.sizes, p.c.a) for p in live], channels[0], lanes)
    b_copy = _padded_copy(c, b, [(p.c.sizes, p.c.b) for p in live], channels[1], lanes)
    sources = _source(a, a_copy), _source(b, b_copy), _Source(out.strides, (0,) * len(out.shape))
    one = frozenset(d for m in c.out[len(c.out) - together:] for d in m.dims)
    phases = [_tidy(_linear(p, *sources), lanes if fused else 1, one) for p in split]
    return Form(c, swap, (a_copy, b_copy), tuple(phases), together)


# ---- division

@dataclass(frozen=True)
class _Split:
    """A part of a contraction: dim d of `c` is dim d of the original at start + step * index."""
    c: Contraction
    steps: tuple[int, ...]
    starts: tuple[int, ...]


def _split_phases(c: Contraction) -> Iterator[_Split]:
    """Parts of the contraction in which every division is exact; together they write each output once."""
    divided = [m for maps in (c.a, c.b) for m in maps if m.divisor != 1]
    steps = c.residue_steps
    kept = [d for d in c.batch + c.m + c.n if steps[d] > 1]
    summed = [d for d in c.k if steps[d] > 1]
    for outer in product(*[range(steps[d]) for d in kept]):
        solutions = [starts for inner in product(*[range(steps[d]) for d in summed])
                     for starts in [dict(zip(kept + summed, outer + inner))]
                     if all(_divides(m, starts) for m in divided)]
        if len(solutions) > 1:
            raise InternalError(f"{c} has several terms in one residue class", "contraction")
        part = _part(c, steps, solutions[0] if solutions else dict(zip(kept, outer)), not solutions)
        if 0 not in (part.c.sizes[d] for d in c.batch + c.m + c.n):
            yield part


def _divides(m: AxisMap, starts: dict[int, int]) -> bool:
    return (m.offset + sum(coefficient * starts.get(d, 0) for coefficient, d in m.terms)) % m.divisor == 0


def _part(c: Contraction, steps: Sequence[int], starts: dict[int, int], empty: bool) -> _Split:
    first = [starts.get(d, 0) for d in range(len(c.sizes))]
    sizes = tuple(0 if empty and d in c.k else _steps_from(n, s, step)
                  for d, (n, s, step) in enumerate(zip(c.sizes, first, steps)))

    def divide(m: AxisMap) -> AxisMap:
        offset = m.offset + sum(coefficient * first[d] for coefficient, d in m.terms)
        terms = tuple((coefficient * steps[d] // m.divisor, d) for coefficient, d in m.terms)
        return AxisMap(terms, offset // m.divisor, 1, m.padded)
    maps = [tuple(map(divide, tensor)) for tensor in (c.a, c.b, c.out)]
    if empty:
        sizes = _with_empty_sum(c, sizes)
    return _Split(Contraction(sizes, c.batch, c.m, c.n, c.k, *maps), tuple(steps), tuple(first))


def _steps_from(size: Dim, start: int, step: int) -> Dim:
    """Of start, start + step, … how many are below `size`."""
    count = ceil_div(size - start, step)
    if not isinstance(count, int) and not is_nonnegative(count - 1):
        raise Unsized(f"every {step}th of {size} positions from number {start} on may be none",
                      condition=size - (start + 1))
    return largest(0, count)


def _with_empty_sum(c: Contraction, sizes: Dims) -> Dims:
    if not c.k:
        raise InternalError(f"{c} has no term in a residue class and no sum to be empty", "contraction")
    return tuple(0 if d in c.k else n for d, n in enumerate(sizes))


# ---- padding

@dataclass(frozen=True)
class _Source:
    """Where an operand is read: strides, and the index of its first element on each axis."""
    strides: Dims
    low: Dims


def _source(t: Tensor, copy: PaddedCopy | None) -> _Source:
    return _Source(t.strides, (0,) * len(t.shape)) if copy is None else _Source(copy.strides, copy.low)


def _padded_copy(c: Contraction, t: Tensor, uses: Sequence[tuple[Dims, Maps]], channels: int | None,
                 lanes: int) -> PaddedCopy | None:
    """The copy that holds whatever the uses read, in the memory order of the source but for the `channels` axis, which
    comes innermost; None if no use reads outside and no axis has to move. Channels that are not summed are read at many
    positions at once.
    """
    spans = [[maps[x].span(sizes) for sizes, maps in uses] for x in range(len(t.shape))]
    low = [-largest(*[0 if not maps[x].padded else -s[0] for s, (_, maps) in zip(spans[x], uses)] or [0])
           for x in range(len(t.shape))]
    high = [largest(*[n - 1 if not maps[x].padded else s[1] for s, (_, maps) in zip(spans[x], uses)] or [n - 1])
            for x, n in enumerate(t.shape)]
    inside = [is_nonnegative(lo) and is_nonnegative(n - 1 - hi) for lo, hi, n in zip(low, high, t.shape)]
    if channels is None and all(inside):
        return None
    shape = [hi - lo + 1 for lo, hi in zip(low, high)]
    order = sorted(range(len(shape)), key=lambda x: (x != channels, abs(typical(t.strides[x])), -x))
    if uses and all(d in c.batch or c.sizes[d] == 1 for _, d in uses[0][1][order[0]].terms):
        shape[order[0]] = spread(shape[order[0]], lanes)
    strides: list[Dim] = [0] * len(shape)
    step: Dim = 1
    for x in order:
        strides[x], step = step, step * shape[x]
    return PaddedCopy(tuple(shape), tuple(strides), tuple(low), channels)


def spread(size: Dim, lanes: int) -> Dim:
    """Elements from line to line where many lines are read side by side: a multiple of 16 vectors would put them into
    few sets of the L1 cache."""
    return size + 2 * lanes if size % (16 * lanes) == 0 else size


# ---- linear form

def _linear(part: _Split, a: _Source, b: _Source, out: _Source) -> Phase[Dim]:
    c = part.c

    def operand(maps: Maps, source: _Source) -> LinearMap[Dim]:
        strides: list[Dim] = [0] * len(c.sizes)
        base: Dim = 0
        for m, stride, low in zip(maps, source.strides, source.low):
            base += stride * (m.offset - low)
            for coefficient, d in m.terms:
                strides[d] += stride * coefficient
        return LinearMap(base, tuple(strides))
    parts = tuple(((n, d, step, start),) for d, (n, step, start) in enumerate(zip(c.sizes, part.steps, part.starts)))
    return Phase(c.sizes, c.batch, c.m, c.n, c.k, operand(c.a, a), operand(c.b, b), operand(c.out, out), parts)


def _tidy(p: Phase[Dim], whole: int, one: frozenset[int]) -> Phase[Dim]:
    """whole: as of `_merge`, of dims that are not all among `one`."""
    p = _drop_units(_shared_batch_to_m(_forward_sums(p)))
    p = replace(p, batch=_ordered(p, p.batch, p.out, p.a), m=_ordered(p, p.m, p.out, p.a), n=_ordered_n(p),
                k=_ordered(p, p.k, p.a, p.b))
    p, batch = _merge(p, p.batch, (p.a, p.b, p.out), whole, one)
    p, m = _merge(p, p.m, (p.a, p.out), whole if any(p.out.strides[d] == 1 for d in p.m) else 1, one)
    p, n = _merge(p, p.n, (p.b, p.out), whole, one)
    p, k = _merge(p, p.k, (p.a, p.b), 1, one)
    return replace(p, batch=batch, m=m, n=n, k=k)


def _forward_sums(p: Phase[Dim]) -> Phase[Dim]:
    """Sums that walk `a` (or, where it stands still, `b`) backwards are walked forwards."""
    a, b = p.a, p.b
    for d in p.k:
        if (typical(a.strides[d]) or typical(b.strides[d])) < 0:
            a, b = _reverse(a, d, p.sizes[d]), _reverse(b, d, p.sizes[d])
    return replace(p, a=a, b=b)


def _reverse(t: LinearMap[Dim], d: int, size: Dim) -> LinearMap[Dim]:
    strides = tuple(-s if e == d else s for e, s in enumerate(t.strides))
    return LinearMap(t.base + t.strides[d] * (size - 1), strides)


def _shared_batch_to_m(p: Phase[Dim]) -> Phase[Dim]:
    """Batch dims over which b stands still are rows of a larger product."""
    shared = tuple(d for d in p.batch if p.b.strides[d] == 0 and is_many(p.sizes[d]))
    return replace(p, batch=tuple(d for d in p.batch if d not in shared), m=shared + p.m)


def _drop_units(p: Phase[Dim]) -> Phase[Dim]:
    """Without dims of size 1, except that m, n and k keep one dim each: a fresh one that nothing depends on."""
    p, m = _longer_or_unit(p, p.m)
    p, n = _longer_or_unit(p, p.n)
    p, k = _longer_or_unit(p, p.k)
    return replace(p, batch=_longer(p, p.batch), m=m, n=n, k=k)


def _longer(p: Phase[Dim], dims: tuple[int, ...]) -> tuple[int, ...]:
    """Those of the dims whose size is not 1."""
    return tuple(d for d in dims if p.sizes[d] != 1)


def _longer_or_unit(p: Phase[Dim], dims: tuple[int, ...]) -> tuple[Phase[Dim], tuple[int, ...]]:
    """Those of the dims whose size is not 1; where there are none, a fresh one, and the phase that has it."""
    longer = _longer(p, dims)
    if longer:
        return p, longer
    a, b, out = (LinearMap(t.base, t.strides + (0,)) for t in (p.a, p.b, p.out))
    return replace(p, sizes=p.sizes + (1,), parts=p.parts + ((),), a=a, b=b, out=out), (len(p.sizes),)


def _ordered(p: Phase[Dim], dims: Sequence[int], first: LinearMap[Dim], second: LinearMap[Dim]) -> tuple[int, ...]:
    """Large steps outside; equal steps in the first operand: by the second."""
    return tuple(sorted(dims, key=lambda d: (-abs(typical(first.strides[d])), -abs(typical(second.strides[d])), d)))


def _ordered_n(p: Phase[Dim]) -> tuple[int, ...]:
    """By steps in the output, but if sums are long enough to pack b, a dim that is contiguous in b comes innermost."""
    by_out = _ordered(p, p.n, p.out, p.b)
    if typical(p.extent(p.k)) <= typical(p.extent(p.m)) or not any(p.b.strides[d] == 1 for d in p.n):
        return by_out
    return _ordered(p, p.n, p.b, p.out)


def _merge(p: Phase[Dim], group: Sequence[int], operands: Sequence[LinearMap[Dim]],
           whole: int, one: frozenset[int]) -> tuple[Phase[Dim], tuple[int, ...]]:
    """Adjacent dims of a group that step evenly in all operands become one (where the inner size is a multiple of
    `whole`, or all original dims are among `one`): the phase with their sizes, and the dims that are left."""
    dims = list(group)
    position = len(dims) - 2
    while position >= 0:
        outer, inner = dims[position], dims[position + 1]
        free = p.sizes[inner] % whole == 0 or one.issuperset(d for _, d, _, _ in p.parts[outer] + p.parts[inner])
        if free and all(t.strides[outer] == t.strides[inner] * p.sizes[inner] for t in operands):
            sizes, parts = list(p.sizes), list(p.parts)
            sizes[inner], parts[inner] = p.sizes[outer] * p.sizes[inner], parts[outer] + parts[inner]
            sizes[outer], parts[outer] = 1, ()
            p = replace(p, sizes=tuple(sizes), parts=tuple(parts))
            del dims[position]
        position -= 1
    return p, tuple(dims)
