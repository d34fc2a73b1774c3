"""Loads and stores as LLVM text. bool is one byte in memory and one bit in registers."""
from __future__ import annotations

from collections.abc import Callable, Iterator

from graphc.codegen.llvm.body import BodyEmitter
from graphc.codegen.llvm.lanes import build_vector, part_of_lanes, select_text
from graphc.codegen.llvm.types import FLOATS, MANGLED, MEMORY, lanes_constant, vector
from graphc.codegen.loops.index import Ix
from graphc.codegen.loops.loop_ir import Load, Prefetch, Store, View
from graphc.ir.dims import Dim
from graphc.schedule.spaced_loads import Read, spaced_reads


def load(b: BodyEmitter, s: Load) -> None:
    """By the last stride: one vector, one element splatted, a vector reversed, or element by element."""
    dtype, lanes = s.dst.dtype, s.dst.lanes
    mask = None if s.mask is None else b.val(s.mask)
    stride = s.view.strides[-1] if lanes > 1 else 1
    rule = LOADS.get(stride, _load_strided)
    text = rule(b, s.view, s.index, lanes, mask)
    if dtype.kind == "bool":
        text = b.emit(f"icmp ne {vector('i8', lanes)} {text}, {'0' if lanes == 1 else 'zeroinitializer'}")
    b.set_val(s.dst, text)


def store(b: BodyEmitter, s: Store) -> None:
    dtype, lanes, text = s.value.dtype, s.value.lanes, b.val(s.value)
    if dtype.kind == "bool":
        text = b.emit(f"zext {vector('i1', lanes)} {text} to {vector('i8', lanes)}")
    mask = None if s.mask is None else b.val(s.mask)
    stride = s.view.strides[-1] if lanes > 1 else 1
    STORES.get(stride, _store_strided)(b, s.view, s.index, lanes, mask, text, s.hint)


def prefetch(b: BodyEmitter, s: Prefetch) -> None:
    pointer = b.address(s.view, s.index, MEMORY[s.view.dtype.name])
    b.line(f"call void @llvm.prefetch.p0(ptr {pointer}, i32 0, i32 {4 - s.level}, i32 1)")


# ---- loads
def _load_contiguous(b: BodyEmitter, view: View, index: tuple[Ix, ...], lanes: int, mask: str | None) -> str:
    element, size = MEMORY[view.dtype.name], view.dtype.itemsize
    ty, pointer = vector(element, lanes), b.address(view, index, element)
    if mask is None:
        return b.emit(f"load {ty}, ptr {pointer}, align {size}")
    if lanes == 1:
        return _load_if(b, view, index, mask)
    count = _first_lanes(mask)
    if count is not None and not b.module.target.can_mask_loads(size):
        return _load_pieces(b, view, index, lanes, count)
    name = f"@llvm.masked.load.v{lanes}{MANGLED[element]}.p0"
    return b.emit(f"call {ty} {name}(ptr align {size} {pointer}, <{lanes} x i1> {mask}, {ty} zeroinitializer)")


def _load_pieces(b: BodyEmitter, view: View, index: tuple[Ix, ...], lanes: int, count: int) -> str:
    """The first `count` elements by a load for each power of two, zeros behind them."""
    element, ty = MEMORY[view.dtype.name], vector(MEMORY[view.dtype.name], lanes)
    whole = "zeroinitializer"
    for start, width in _powers(count):
        place = (*index[:-1], index[-1] + start)
        part = _load_contiguous(b, view, place, width, None)
        if width == 1:
            whole = b.emit(f"insertelement {ty} {whole}, {element} {part}, i64 {start}")
            continue
        part_ty = vector(element, width)
        order = lanes_constant("i32", [min(k, width - 1) for k in range(lanes)])
        wide = b.emit(f"shufflevector {part_ty} {part}, {part_ty} poison, <{lanes} x i32> {order}")
        order = lanes_constant("i32", [lanes + k - start if 0 <= k - start < width else k for k in range(lanes)])
        whole = b.emit(f"shufflevector {ty} {whole}, {ty} {wide}, <{lanes} x i32> {order}")
    return whole


def _powers(count: int) -> Iterator[tuple[int, int]]:
    """Start and width of pieces that are powers of two, the largest first."""
    start = 0
    while start < count:
        width = 1 << (count - start).bit_length() - 1
        yield start, width
        start += width


def _load_splat(b: BodyEmitter, view: View, index: tuple[Ix, ...], lanes: int, mask: str | None) -> str:
    element = MEMORY[view.dtype.name]
    ty = vector(element, lanes)
    if mask is None:
        return _splat(b, ty, element, _load_contiguous(b, view, index, 1, None), lanes)
    some = b.emit(f"call i1 @llvm.vector.reduce.or.v{lanes}i1(<{lanes} x i1> {mask})")
    one = _load_if(b, view, index, some)
    return select_text(b, lanes, mask, ty, _splat(b, ty, element, one, lanes), "zeroinitializer")


def _load_if(b: BodyEmitter, view: View, index: tuple[Ix, ...], condition: str) -> str:
    element, size = MEMORY[view.dtype.name], view.dtype.itemsize
    pointer = b.address(view, index, element)
    mask = _one_lane(b, "i1", condition)
    one = b.emit(f"call <1 x {element}> @llvm.masked.load.v1{MANGLED[element]}.p0(ptr align {size} {pointer}, "
                 f"<1 x i1> {mask}, <1 x {element}> zeroinitializer)")
    return b.emit(f"extractelement <1 x {element}> {one}, i64 0")


def _one_lane(b: BodyEmitter, element: str, scalar: str) -> str:
    return b.emit(f"insertelement <1 x {element}> poison, {element} {scalar}, i64 0")


def _splat(b: BodyEmitter, ty: str, element: str, scalar: str, lanes: int) -> str:
    one = b.emit(f"insertelement {ty} poison, {element} {scalar}, i64 0")
    return b.emit(f"shufflevector {ty} {one}, {ty} poison, <{lanes} x i32> zeroinitializer")


def _load_reversed(b: BodyEmitter, view: View, index: tuple[Ix, ...], lanes: int, mask: str | None) -> str:
    first = (*index[:-1], index[-1] + (lanes - 1))
    flipped = None if mask is None else _reversed(b, "i1", lanes, mask)
    return _reversed(b, MEMORY[view.dtype.name], lanes, _load_contiguous(b, view, first, lanes, flipped))


def _reversed(b: BodyEmitter, element: str, lanes: int, text: str) -> str:
    ty = f"<{lanes} x {element}>"
    return b.emit(f"shufflevector {ty} {text}, {ty} poison, <{lanes} x i32> "
                  f"{lanes_constant('i32', range(lanes - 1, -1, -1))}")


def _load_strided(b: BodyEmitter, view: View, index: tuple[Ix, ...], lanes: int, mask: str | None) -> str:
    """Elements a few places apart by whole vectors; others one by one, or by an instruction that gathers."""
    element, size = MEMORY[view.dtype.name], view.dtype.itemsize
    spaced = _load_spaced(b, view, index, lanes, lanes if mask is None else _first_lanes(mask))
    if spaced is not None:
        return spaced
    if mask is None:
        parts = [b.emit(f"load {element}, ptr {p}, align {size}")
                 for p in _lane_pointers(b, view, index, lanes, element)]
        return build_vector(b, element, parts)
    ty, pointers = vector(element, lanes), _pointer_vector(b, view, index, lanes, element)
    return b.emit(f"call {ty} @llvm.masked.gather.v{lanes}{MANGLED[element]}.v{lanes}p0(<{lanes} x ptr> align {size} "
                  f"{pointers}, <{lanes} x i1> {mask}, {ty} zeroinitializer)")


def _load_spaced(b: BodyEmitter, view: View, index: tuple[Ix, ...], lanes: int, count: int | None) -> str | None:
    """The first `count` elements, zeros behind them, register by register; None where whole vectors are no gain."""
    step, width = view.strides[-1], min(lanes, b.module.target.lanes(view.dtype.itemsize))
    if count is None or width == 1 or not isinstance(step, int):
        return None
    line = View(view.root, view.shape, (*view.strides[:-1], 1), view.start, view.dtype)
    counts = [max(0, min(width, count - first)) for first in range(0, lanes, width)]
    within = [0 < step * n <= width + step - 1 for n in counts]         # all in one vector
    if not all(one or not n or spaced_reads(step, width, n) for n, one in zip(counts, within)):
        return None
    parts = [_load_register(b, line, (*index[:-1], (index[-1] + i * width) * step), step, (width, n), one)
             for i, (n, one) in enumerate(zip(counts, within))]
    while len(parts) > 1:
        wide = 2 * lanes // len(parts)
        order, ty = lanes_constant("i32", range(wide)), vector(MEMORY[view.dtype.name], wide // 2)
        parts = [b.emit(f"shufflevector {ty} {low}, {ty} {high}, <{wide} x i32> {order}")
                 for low, high in zip(parts[::2], parts[1::2])]
    return parts[0]


def _load_register(b: BodyEmitter, line: View, index: tuple[Ix, ...], step: int, lanes: tuple[int, int],
                   within: bool) -> str:
    """lanes: of the vector, and those of use. within: whether one vector has all of these."""
    (width, count), element = lanes, MEMORY[line.dtype.name]
    ty = vector(element, width)
    some = lambda n: lanes_constant("i1", ["true" if lane < n else "false" for lane in range(width)])
    if count == 0:
        return "zeroinitializer"
    if within:
        whole = _load_contiguous(b, line, index, width, some((count - 1) * step + 1))
        order = lanes_constant("i32", [i * step if i < count else width for i in range(width)])
        return b.emit(f"shufflevector {ty} {whole}, {ty} zeroinitializer, <{width} x i32> {order}")
    reads = spaced_reads(step, width, count)
    vectors = [_load_contiguous(b, line, (*index[:-1], index[-1] + start), width, None) for start, _ in reads]
    merged = _merged(b, ty, vectors, reads, step, width)
    return merged if count == width else select_text(b, width, some(count), ty, merged, "zeroinitializer")


def _merged(b: BodyEmitter, ty: str, vectors: list[str], reads: tuple[Read, ...], step: int, width: int) -> str:
    """The elements in order. Where each has a place of its own they are merged there, which takes no permutation, and
    ordered at the end; else those of each vector are ordered as they are merged."""
    def shuffled(first: str, second: str, order: list[int | str]) -> str:
        return b.emit(f"shufflevector {ty} {first}, {ty} {second}, <{width} x i32> {lanes_constant('i32', order)}")
    places = {i: i * step - start for start, own in reads for i in own}
    apart, whole = len(set(places.values())) == len(places), vectors[0]
    if not apart:
        whole = shuffled(whole, "poison", [places[i] if i in reads[0][1] else "poison" for i in range(width)])
    for vector_text, (_, own) in zip(vectors[1:], reads[1:]):
        taken = {places[i] if apart else i: width + places[i] for i in own}
        whole = shuffled(whole, vector_text, [taken.get(lane, lane) for lane in range(width)])
    return shuffled(whole, "poison", [places.get(i, "poison") for i in range(width)]) if apart else whole


def _lane_pointers(b: BodyEmitter, view: View, index: tuple[Ix, ...], lanes: int, element: str) -> list[str]:
    """Each by a step from the one before where the distance comes with the call: as many registers as lanes would hold
    multiples of it."""
    stride = view.strides[-1]
    if isinstance(stride, int):
        return [b.address(view, (*index[:-1], index[-1] + k), element) for k in range(lanes)]
    pointers, step = [b.address(view, index, element)], b.number(stride)
    for _ in range(1, lanes):
        pointers.append(b.emit(f"getelementptr {element}, ptr {pointers[-1]}, {b.ix} {step}"))
    return pointers


def _pointer_vector(b: BodyEmitter, view: View, index: tuple[Ix, ...], lanes: int, element: str) -> str:
    offsets = _lane_offsets(b, view.strides[-1], lanes)
    return b.emit(f"getelementptr {element}, ptr {b.address(view, index, element)}, <{lanes} x {b.ix}> {offsets}")


def _lane_offsets(b: BodyEmitter, stride: Dim, lanes: int) -> str:
    """0, 1, 2, … times the stride."""
    if isinstance(stride, int):
        return lanes_constant(b.ix, [k * stride for k in range(lanes)])
    ty = vector(b.ix, lanes)
    strides = _splat(b, ty, b.ix, b.number(stride), lanes)
    return b.emit(f"mul nsw {ty} {strides}, {lanes_constant(b.ix, range(lanes))}")


# ---- stores
def _store_contiguous(b: BodyEmitter, view: View, index: tuple[Ix, ...], lanes: int, mask: str | None, text: str,
                      hint: str | None) -> None:
    element, size = MEMORY[view.dtype.name], view.dtype.itemsize
    if mask is not None and element not in FLOATS and (lane := _only_lane(mask)) is not None:
        _store_lane(b, view, (*index[:-1], index[-1] + lane), lane, vector(element, lanes), text)
        return
    count = None if mask is None or lanes == 1 else _first_lanes(mask)
    if count is not None and not b.module.target.can_mask_stores:
        return _store_pieces(b, view, index, lanes, count, text)
    ty, pointer = vector(element, lanes), b.address(view, index, element)
    if mask is not None:
        if lanes == 1:
            ty, text, mask = f"<1 x {element}>", *[_one_lane(b, t, x) for t, x in ((element, text), ("i1", mask))]
        b.line(f"call void @llvm.masked.store.v{lanes}{MANGLED[element]}.p0({ty} {text}, ptr align {size} {pointer}, "
               f"<{lanes} x i1> {mask})")
    elif hint == "nontemporal":
        b.line(f"store {ty} {text}, ptr {pointer}, align {size * lanes}, !nontemporal !3")
    else:
        b.line(f"store {ty} {text}, ptr {pointer}, align {size}")


def _only_lane(mask: str) -> int | None:
    """The lane of a constant mask of which one lane is active."""
    lanes = mask.strip("<>").split(", ")
    return lanes.index("i1 true") if mask.startswith("<") and lanes.count("i1 true") == 1 else None


def _first_lanes(mask: str) -> int | None:
    """How many lanes are active, of a constant mask of which these are the first."""
    lanes = mask.strip("<>").split(", ") if mask.startswith("<") else []
    count = lanes.count("i1 true")
    return count if lanes and lanes[:count] == ["i1 true"] * count else None


def _store_pieces(b: BodyEmitter, view: View, index: tuple[Ix, ...], lanes: int, count: int, text: str) -> None:
    """The first `count` lanes by a store for each power of two."""
    element = MEMORY[view.dtype.name]
    for start, width in _powers(count):
        part = part_of_lanes(b, vector(element, lanes), element, text, start, width)
        _store_contiguous(b, view, (*index[:-1], index[-1] + start), width, None, part, None)


def _store_lane(b: BodyEmitter, view: View, index: tuple[Ix, ...], lane: int, ty: str, text: str) -> None:
    """LLVM 22 does this by itself, but of integers that were truncated it stores the lane at its width before that."""
    element = MEMORY[view.dtype.name]
    one = b.emit(f"extractelement {ty} {text}, i64 {lane}")
    b.line(f"store {element} {one}, ptr {b.address(view, index, element)}, align {view.dtype.itemsize}")


def _store_reversed(b: BodyEmitter, view: View, index: tuple[Ix, ...], lanes: int, mask: str | None, text: str,
                    hint: str | None) -> None:
    first = (*index[:-1], index[-1] + (lanes - 1))
    flipped = None if mask is None else _reversed(b, "i1", lanes, mask)
    _store_contiguous(b, view, first, lanes, flipped, _reversed(b, MEMORY[view.dtype.name], lanes, text), hint)


def _store_strided(b: BodyEmitter, view: View, index: tuple[Ix, ...], lanes: int, mask: str | None, text: str,
                   hint: str | None) -> None:
    element, size = MEMORY[view.dtype.name], view.dtype.itemsize
    ty = vector(element, lanes)
    if mask is not None:
        pointers = _pointer_vector(b, view, index, lanes, element)
        name = f"@llvm.masked.scatter.v{lanes}{MANGLED[element]}.v{lanes}p0"
        b.line(f"call void {name}({ty} {text}, <{lanes} x ptr> align {size} {pointers}, <{lanes} x i1> {mask})")
        return
    for k, pointer in enumerate(_lane_pointers(b, view, index, lanes, element)):
        lane = b.emit(f"extractelement {ty} {text}, i64 {k}")
        b.line(f"store {element} {lane}, ptr {pointer}, align {size}")


# last stride -> rule; any other stride, also one that is no number, goes element by element
LOADS: dict[Dim, Callable[[BodyEmitter, View, tuple[Ix, ...], int, str | None], str]] = {
    1: _load_contiguous, 0: _load_splat, -1: _load_reversed}
STORES: dict[Dim, Callable[[BodyEmitter, View, tuple[Ix, ...], int, str | None, str, str | None], None]] = {
    1: _store_contiguous, -1: _store_reversed}
