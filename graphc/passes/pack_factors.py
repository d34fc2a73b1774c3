"""Products of bf16 numbers in pairs and of bytes in fours, where the target multiplies and adds so many at a time."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from graphc.ir.builder import Builder, Rewriter
from graphc.ir.dims import Dims, exact_quotient, static_dim
from graphc.ir.graph import Graph, Node, Value, users
from graphc.ir.image import BATCH_AXIS, CHANNEL_AXIS, FIRST_SPATIAL_AXIS
from graphc.ir.op import Op
from graphc.ir.ops.contract import LabelledProduct
from graphc.ir.ops.control import Cond, Scan, WhileLoop
from graphc.ir.ops.conv import Conv, ConvInputGrad, ConvOp, ConvWeightGrad
from graphc.ir.ops.packed import Pack, PackFour
from graphc.ir.ops.elementwise import COPY, Cast
from graphc.ir.ops.reduce import Sum
from graphc.ir.ops.shape import Pad, Transpose
from graphc.ir.types import PACKED_OF, bf16, f32, i8, i32, u8
from graphc.passes.pipeline import Pass
from graphc.passes.precompute import Kind, value_kinds
from graphc.passes.read_stored import converted, stored
from graphc.records import dataclass
from graphc.schedule.target import Target

# convolutions -> the axes of both operands along which pairs of bf16 are made
PAIRED_ALONG: Mapping[type[ConvOp], tuple[int, int]] = {
    Conv: (CHANNEL_AXIS, CHANNEL_AXIS), ConvInputGrad: (0, CHANNEL_AXIS), ConvWeightGrad: (BATCH_AXIS, BATCH_AXIS)}
LEAST_CHANNELS = 3                  # that convolutions pack: of three, a quarter of each element is wasted
# operators with bodies -> the first operand that stays the same throughout, and how many of the first operands are no
# arguments of a body
CAPTURED: dict[type[Op], Callable[[Any], tuple[int, int]]] = {
    Scan: lambda op: (op.carries + op.xs, 0), WhileLoop: lambda op: (op.carries, 0), Cond: lambda op: (1, 1)}


@dataclass(frozen=True)
class PackFactors(Pass):
    """a [M, K] @ b [K, N] of bf16 in f32 -> a [M, K/2] @ b [K/2, N] of pairs, and of bytes in i32 -> a [M, K/4] @
    b [K/4, N] of fours: K is the innermost axis in memory of both then, with zeros after it where it is no multiple.
    Where it is the innermost of neither, the numbers of a pair are half an axis apart, and nothing is moved. All that
    knows of products goes on as for any element type. Factors that loops and branches capture are packed before them.
    Convolutions and their gradients likewise, along channels, features, or images.

    Where instructions take bytes of other signs, one factor's are turned (by 128), and the product is corrected by sums
    of the other: exact, because sums in i32 wrap.

    Needs products with types of their own (after `read_stored`). Pairs are for targets on which they are faster.
    """
    name: ClassVar[str] = "pack_factors"
    target: Target

    def run(self, graph: Graph) -> Graph:
        products = {node: found for node in graph.nodes if (found := _summed(node, self.target)) is not None}
        convs = {node: node.op for node in graph.nodes
                 if isinstance(node.op, Conv) and _is_packable_conv(node, node.op, self.target)}
        pairs = {node: node.op for node in graph.nodes
                 if isinstance(node.op, ConvOp) and is_conv_of_pairs(node, self.target)}
        if not products and not convs and not pairs and not any(type(node.op) in CAPTURED for node in graph.nodes):
            return graph
        w, kinds, readers = Rewriter(graph), value_kinds(graph), users(graph)
        for node in graph.nodes:
            with w.at(node.loc, node.scope):
                if node in products:
                    w.replace(node, [_packed_product(w, node, *products[node], kinds, self.target)])
                elif node in convs:
                    framed = _may_be_framed(node, readers)
                    w.replace(node, [_packed_conv(w, node, convs[node], kinds, framed, self.target)])
                elif node in pairs:
                    w.replace(node, [_conv_of_pairs(w, node, pairs[node], kinds)])
                elif type(node.op) in CAPTURED:
                    w.replace(node, _packing_before(w, node, kinds))
                else:
                    w.keep(node)
        return w.done()


def _summed(node: Node, target: Target) -> tuple[LabelledProduct, str] | None:
    """A product of bf16 in f32 or of bytes in i32, and the label of the axis along which elements are made; None for
    other nodes, and where it is not known whether the axis is a multiple. Of several axes that are summed, as in the
    gradient of weights that many steps read, one along which nothing must be moved."""
    op = node.op
    if not isinstance(op, LabelledProduct) or not _is_packable(node, target):
        return None
    x, y, out = op.labels(*(v.type.rank for v in node.inputs))
    summed = [label for label in x if label not in out]
    if not summed or any(y.count(label) != 1 for label in summed) or set(y) - set(x) - set(out):
        return None
    if len(summed) > 1 and node.outputs[0].type.dtype is i32 or not all(0 not in v.type.shape for v in node.inputs):
        return None
    return next(((op, label) for label in sorted(summed, key=lambda label: _moved(node, label, (x, y)))
                 if _is_known(node, label, (x, y))), None)


def _is_known(node: Node, label: str, labels: Sequence[Sequence[str]]) -> bool:
    """Whether it is known that elements fill the axis, or how many numbers are missing."""
    left, right = (v.type.shape[own.index(label)] for v, own in zip(node.inputs, labels))
    numbers = PACKED_OF[node.inputs[0].type.dtype].numbers
    return left == right and (isinstance(left, int) or exact_quotient(left, numbers) is not None)


def _moved(node: Node, label: str, labels: Sequence[Sequence[str]]) -> int:
    """How many factors must be moved for elements along the axis: none where it is the innermost of both, or of neither
    (`_by_halves`)."""
    return sum(_is_innermost(v, own.index(label)) for v, own in zip(node.inputs, labels)) % 2


def _by_halves(node: Node, label: str, labels: Sequence[Sequence[str]]) -> bool:
    """Whether elements are best made of numbers half an axis apart, which lie as they did: where the axis is the
    innermost of neither factor, as in gradients of weights. Both are computed here: what a loop captures is packed
    before it in the other way."""
    axes = [own.index(label) for own in labels]
    size = node.inputs[0].type.shape[axes[0]]
    return node.inputs[0].type.dtype is bf16 and isinstance(size, int) and size > 1 and not any(
        _is_innermost(v, axis) or _source(v).node is None for v, axis in zip(node.inputs, axes))


def _is_innermost(v: Value, axis: int) -> bool:
    """Whether the axis is the innermost in memory, of what a transpose shows."""
    while v.node is not None and isinstance(v.node.op, Transpose):
        axis, v = v.node.op.perm[axis], v.node.inputs[0]
    return axis == v.type.rank - 1


def _source(v: Value) -> Value:
    while v.node is not None and v.node.op.is_view:
        v = v.node.inputs[0]
    return v


def _is_packable(node: Node, target: Target) -> bool:
    """Whether the types are those of packed products, which this target has."""
    types, sums = {v.type.dtype for v in node.inputs}, node.outputs[0].type.dtype
    return types == {bf16} and sums is f32 and target.multiplies_pairs or (
        types <= {i8, u8} and sums is i32 and target.vector_bytes > 1)


def _packed_product(w: Rewriter, node: Node, op: LabelledProduct, label: str, kinds: Mapping[Value, Kind],
                    target: Target) -> Value:
    labels = op.labels(*(v.type.rank for v in node.inputs))
    factors, correction = [w[v] for v in node.inputs], None
    place = _turned_place(node, kinds, target)
    if place is not None:
        other, own = factors[1 - place], labels[1 - place]
        sums = w.sum(w.cast(other, dtype=i32), axes=(own.index(label),), keepdims=False)
        correction = spread(w, sums, [i for i in own if i != label], labels[2])
        factors[place], by = _turned(w, factors[place])
        correction = w.mul(correction, by)
    if _by_halves(node, label, labels[:2]):
        packed = [_halves_in_pairs(w, v, own.index(label)) for v, own in zip(factors, labels)]
    else:
        packed = [_packed(w, v, own.index(label), kinds[old] is not Kind.CHANGING)
                  for v, own, old in zip(factors, labels, node.inputs)]
    product, = w.apply(op.replace(dtype=node.outputs[0].type.dtype), packed)
    return product if correction is None else w.add(product, correction)


def _is_packable_conv(node: Node, op: Conv, target: Target) -> bool:
    """Whether it is a convolution of bytes in i32 along channels that nearly fill elements: others stay as they are."""
    if not _is_packable(node, target) or op.groups != 1:
        return False
    place = _turned_place(node, {}, target)
    channels = node.inputs[1].type.shape[FIRST_SPATIAL_AXIS - 1]
    return place in (None, 0) and isinstance(channels, int) and channels >= LEAST_CHANNELS and all(
        0 not in v.type.shape for v in node.inputs)


def _packed_conv(w: Rewriter, node: Node, op: Conv, kinds: Mapping[Value, Kind], framed: bool, target: Target) -> Value:
    """Along channels. Around an image that is turned stands what 0 became. framed: what stands around the image becomes
    part of it."""
    (x, kernels), correction, around = (w[v] for v in node.inputs), None, 0
    turned = _turned_place(node, {}, target) is not None
    if turned:
        x, by = _turned(w, x)
        sums = w.sum(w.cast(kernels, dtype=i32), axes=tuple(range(1, kernels.type.rank)), keepdims=False)
        correction, around = w.mul(w.reshape(sums, shape=(*sums.type.shape, *(1,) * op.axes)), by), -by
    low, high = ((0, 0, *(pair[end] for pair in op.padding)) for end in (0, 1))
    if any(low + high) and (turned or framed):
        x, op = w.pad(x, low=low, high=high, value=around), op.replace(padding=((0, 0),) * op.axes)
    image, weights = node.inputs
    few = static_dim(x.type.shape[CHANNEL_AXIS]) <= PACKED_OF[x.type.dtype].numbers
    x = (_channels_in_fours(w, x) if few and not _is_innermost(image, CHANNEL_AXIS)
         else _packed(w, x, CHANNEL_AXIS, kinds[image] is not Kind.CHANGING))
    y, = w.apply(op, (x, _packed(w, kernels, CHANNEL_AXIS, kinds[weights] is not Kind.CHANGING)))
    return y if correction is None else w.add(y, correction)


def _may_be_framed(node: Node, readers: Mapping[Value, list[Node]]) -> bool:
    """Whether what computes a convolution's image may write it into a frame, as `MaterializePadding` has it for those
    that are not packed: element by element, for no other convolution."""
    x = node.inputs[0]
    return x.node is not None and x.node.op.is_elementwise and x.type.is_static and all(
        reader is node or reader.op.is_elementwise for reader in readers[x])


def is_conv_of_pairs(node: Node, target: Target) -> bool:
    """Whether it is a convolution in f32, or a gradient of one, of numbers of bf16, of which the target multiplies two
    at a time: along channels or features, and towards kernels along the images of a batch."""
    if not isinstance(node.op, ConvOp) or not target.multiplies_pairs or node.outputs[0].type.dtype is not f32:
        return False
    sources = [found[0] for v in node.inputs if (found := converted(v)) is not None]
    if len(sources) < 2 or {v.type.dtype for v in sources} != {bf16}:
        return False
    return conv_terms_pair(node, node.op) and all(0 not in v.type.shape for v in (*node.inputs, *node.outputs))


def conv_terms_pair(node: Node, op: ConvOp) -> bool:
    """Whether there is more than one term along the axis of a convolution that pairs of its factors are made along."""
    along = node.inputs[0].type.shape[_summed_axes(op)[0]]
    return op.groups == 1 and isinstance(along, int) and along > 1


def _summed_axes(op: ConvOp) -> tuple[int, int]:
    """The axis of each operand along which pairs of numbers are multiplied."""
    return next(axes for kind, axes in PAIRED_ALONG.items() if isinstance(op, kind))


def _conv_of_pairs(w: Rewriter, node: Node, op: ConvOp, kinds: Mapping[Value, Kind]) -> Value:
    """Zeros fill up an odd number of terms."""
    factors = [v for old in node.inputs if (v := stored(w, old)) is not None]
    if isinstance(op, ConvWeightGrad):
        packed = [_halves_in_pairs(w, v, BATCH_AXIS) for v in factors]
    else:
        packed = [_packed(w, v, axis, kinds[old] is not Kind.CHANGING)
                  for v, axis, old in zip(factors, _summed_axes(op), node.inputs)]
    return w.apply(op.replace(dtype=f32), packed)[0]


def _halves_in_pairs(w: Rewriter, v: Value, axis: int) -> Value:
    """Numbers with those half an axis later; elements lie as the numbers did."""
    count, shape = static_dim(v.type.shape[axis]), v.type.shape
    half, start, step = -(-count // 2), (0,) * len(shape), (1,) * len(shape)
    first = w.slice(v, start=start, stop=_with(shape, axis, half), step=step)
    second = w.slice(v, start=_with(start, axis, half), stop=shape, step=step)
    if count % 2:
        second = w.pad(second, low=start, high=_with(start, axis, 1))
    return w.pack_pair(first, second)


def _channels_in_fours(w: Rewriter, x: Value) -> Value:
    """An image of four channels or fewer, which lie one after the other, as one channel of elements."""
    shape, step = x.type.shape, (1,) * x.type.rank
    start = (0,) * x.type.rank
    return w.apply(PackFour(), [
        w.slice(x, start=_with(start, CHANNEL_AXIS, i), stop=_with(shape, CHANNEL_AXIS, i + 1), step=step)
        for i in range(static_dim(shape[CHANNEL_AXIS]))])[0]


def _with(sizes: Dims, axis: int, size: int) -> Dims:
    return (*sizes[:axis], size, *sizes[axis + 1:])


def _turned_place(node: Node, kinds: Mapping[Value, Kind], target: Target) -> int | None:
    """Which factor's sign must change for an instruction; None where there is one for these signs, or none at all. That
    which lasts stays as it is: its sums are then computed once."""
    signs = {v.type.dtype.is_signed for v in node.inputs}
    has = target.byte_dots(min(8 * target.vector_bytes, 512))
    wanted = "us" if len(signs) > 1 else "ss" if True in signs else "uu"
    if node.inputs[0].type.dtype is bf16 or wanted in has or not has:
        return None
    if wanted != "us" and isinstance(node.op, Conv):
        return 0                            # the image: sums of kernels are one number for each feature
    if wanted != "us":
        return 1 if _lasts(node.inputs[0], kinds) and not _lasts(node.inputs[1], kinds) else 0
    to_signed = "ss" in has                 # the unsigned one is turned then, else the signed one
    return next(i for i, v in enumerate(node.inputs) if v.type.dtype.is_signed is not to_signed)


def _lasts(v: Value, kinds: Mapping[Value, Kind]) -> bool:
    """Whether it is the same in many calls; of bodies, what they do not compute themselves."""
    while v.node is not None and v.node.op.is_view:
        v = v.node.inputs[0]
    return kinds[v] is not Kind.CHANGING or v.node is None


def _turned(w: Rewriter, v: Value) -> tuple[Value, int]:
    """The bytes with the other sign: those of unsigned ones less 128, of signed ones more; and what to multiply the
    other factor's sums by, to be added to the product."""
    to, by = (u8, -128) if v.type.dtype.is_signed else (i8, 128)
    return w.cast(w.bitxor(v, w.constant(by, v.type.dtype)), dtype=to), by


def spread(w: Rewriter, sums: Value, own: Sequence[str], out: Sequence[str]) -> Value:
    """An array with axes of these labels, as one that broadcasts along all others of the result."""
    order = sorted(range(len(own)), key=lambda i: out.index(own[i]))
    sizes = {label: sums.type.shape[i] for i, label in enumerate(own)}
    turned = sums if order == [*range(len(own))] else w.transpose(sums, perm=tuple(order))
    return w.reshape(turned, shape=tuple(sizes.get(label, 1) for label in out))


def _packed(w: Rewriter, v: Value, axis: int, lasts: bool) -> Value:
    """The numbers along an axis, so many to an element."""
    rank, size, numbers = v.type.rank, v.type.shape[axis], PACKED_OF[v.type.dtype].numbers
    if isinstance(size, int) and size % numbers:
        v = w.pad(v, low=(0,) * rank, high=tuple(-size % numbers * int(i == axis) for i in range(rank)))
    order = (*(i for i in range(rank) if i != axis), axis)
    back = tuple(order.index(i) for i in range(rank))
    return _transposed(w, _pack(w, _transposed(w, v, order), lasts), back)


def _transposed(w: Rewriter, v: Value, perm: tuple[int, ...]) -> Value:
    """With these axes; of transposes that undo each other nothing is left, lest fusion find too much between two nodes.
    """
    while v.node is not None and isinstance(v.node.op, Transpose):
        perm, v = tuple(v.node.op.perm[i] for i in perm), v.node.inputs[0]
    return v if perm == tuple(range(v.type.rank)) else w.transpose(v, perm=perm)


def _pack(w: Rewriter, v: Value, lasts: bool) -> Value:
    """Packed rows. Of what lasts they are a copy, unless they lie so: it is made once, as all that is computed."""
    return w.pack(w.apply(COPY, (v,))[0] if lasts and not _lies_so(v) else v)


def _lies_so(v: Value) -> bool:
    """Whether it is what a node computes, turned and turned back."""
    order = tuple(range(v.type.rank))
    while v.node is not None and isinstance(v.node.op, Transpose):
        order = tuple(v.node.op.perm[i] for i in order)
        v = v.node.inputs[0]
    return v.node is not None and not v.node.op.is_view and order == tuple(range(v.type.rank))


def _packing_before(w: Rewriter, node: Node, kinds: Mapping[Value, Kind]) -> tuple[Value, ...]:
    """The loop or branch, with what it packs of captured operands as more of these."""
    first, start = CAPTURED[type(node.op)](node.op)
    bodies = {name: getattr(node.op, name) for name in node.op.REGIONS}
    lifted: dict[tuple[int, tuple[Op, ...]], Value] = {}
    for body in bodies.values():
        for _, chain, i in _packs_of_arguments(body):
            if i + start >= first and (i, chain) not in lifted:
                v, lasts = w[node.inputs[i + start]], kinds[node.inputs[i + start]] is not Kind.CHANGING
                for op in chain:
                    v = _pack(w, v, lasts) if isinstance(op, Pack) else w.apply(op, (v,))[0]
                lifted[i, chain] = v
    new = {name: _without_packs(body, lifted) for name, body in bodies.items()} if lifted else {}
    return w.apply(node.op.replace(**new) if new else node.op, [*(w[v] for v in node.inputs), *lifted.values()])


def _packs_of_arguments(body: Graph) -> list[tuple[Node, tuple[Op, ...], int]]:
    """What is made of an argument alone for products: packs of it, transposed, with zeros more, or as it is, and sums
    of its bytes; the node, the operators from the argument on, its number."""
    numbers = {v: i for i, v in enumerate(body.inputs)}
    found: list[tuple[Node, tuple[Op, ...], int]] = []
    for node in body.nodes:
        if isinstance(node.op, Pack) or isinstance(node.op, Sum) and node.outputs[0].type.dtype is i32:
            chain, v = list[Op]([node.op]), node.inputs[0]
            while v.node is not None and isinstance(v.node.op, Transpose | Pad | Cast):
                chain.insert(0, v.node.op)
                v = v.node.inputs[0]
            if v in numbers:
                found.append((node, tuple(chain), numbers[v]))
    return found


def _without_packs(body: Graph, lifted: dict[tuple[int, tuple[Op, ...]], Value]) -> Graph:
    """The body, which takes these packed operands as its last arguments."""
    b = Builder(body.name)
    mapping = {v: b.input(v.name, v.type) for v in body.inputs}
    packed = {key: b.input(f"packed{n}", v.type) for n, (key, v) in enumerate(lifted.items())}
    ready = {node: packed[i, chain] for node, chain, i in _packs_of_arguments(body) if (i, chain) in packed}
    for node in body.nodes:
        if node in ready:
            mapping[node.outputs[0]] = ready[node]
        else:
            with b.at(node.loc, node.scope):
                mapping.update(zip(node.outputs, b.apply(node.op, [mapping[v] for v in node.inputs])))
    return b.finish([mapping[v] for v in body.outputs], body.output_names)
