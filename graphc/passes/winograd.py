"""Convolutions by 3 × 3 kernels in Winograd's form, where that is cheaper."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from graphc.ir.builder import Rewriter
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad, Pair
from graphc.ir.ops.winograd import WinogradConv2d, WinogradWeightGrad, WinogradWeights
from graphc.ir.types import f32
from graphc.ir.winograd import POINTS, TAPS
from graphc.passes.pipeline import Pass
from graphc.passes.precompute import Kind, value_kinds
from graphc.schedule.choose_winograd import GRADIENT_BLOCK, GRADIENT_ROWS, gradient_tile, panel_width
from graphc.schedule.contraction_schedule import round_up
from graphc.schedule.contraction_context import TILES
from graphc.schedule.target import Target

DIRECT_PEAK = 0.85              # of the multiply-adds that a core can issue: what the direct algorithm reaches
PEAK = 0.9                      # the same, of products inside of a micro-kernel
CALL_CYCLES = 16                # of a micro-kernel, beside its products
PASS_CYCLES = 4                 # for each point of a tile: a vector through the transform of image, results or weights
MEMORY_RATE = 6                 # bytes of weights that one of several cores gets from memory in a cycle
CACHE_RATE = 16                 # the same, if the weights of all convolutions stay in the shared cache
GAIN = 0.85                     # of the direct algorithm's time: less is not worth the greater rounding error
MIN_CHANNELS = 8                # of the image and of the result: fewer leave most lanes of a vector empty


@dataclass(frozen=True)
class WinogradConvolution:
    """What must be known of a convolution; of the gradient towards an image, which is a convolution by the turned kernel; or of that towards
    kernels. second: the weights, or the gradient of the result.
    """
    image: Value
    second: Value
    features: int
    channels: int
    batch: int
    out: Pair
    padding: tuple[Pair, Pair]
    turned: bool = False
    by_kernel: bool = False         # the gradient towards kernels


@dataclass(frozen=True)
class Winograd(Pass):
    """Needs a simplified graph. Gives one in which the transform of weights is a node of its own.

    Stands after all passes that change the weights of a convolution (fold_batch_norm), and before `split_derived`, which moves values computed
    from constant weights out of the calls.
    """
    name: ClassVar[str] = "winograd"
    target: Target

    def run(self, graph: Graph) -> Graph:
        kinds, found = value_kinds(graph), list(_convolutions(graph))
        weights = sum(4 * c.second.type.nbytes for _, c in found if not c.by_kernel)
        rate = CACHE_RATE if weights < self.target.l3 // 2 else MEMORY_RATE
        chosen = {node: (c, m) for node, c in found if (m := choose(c, self.target, kinds[c.second] is Kind.LASTING, rate))}
        return self._rewritten(graph, chosen) if chosen else graph

    def _rewritten(self, graph: Graph, chosen: Mapping[Node, tuple[WinogradConvolution, int]]) -> Graph:
        w = Rewriter(graph)
        made: dict[tuple[Value, WinogradWeights], Value] = {}
        for node in graph.nodes:
            if node not in chosen:
                w.keep(node)
                continue
            with w.at(node.loc, node.scope):
                w.replace(node, self._made(w, *chosen[node], made))
        return w.done()

    def _made(self, w: Rewriter, c: WinogradConvolution, m: int, made: dict[tuple[Value, WinogradWeights], Value]) -> Sequence[Value]:
        if c.by_kernel:
            return w.apply(WinogradWeightGrad(m, c.padding), (w[c.image], w[c.second]))
        transform = WinogradWeights(m, panel_width(_tiles(c, m), c.features, c.image.type.dtype, self.target), c.turned)
        key = (c.second, transform)
        if key not in made:
            made[key], = w.apply(transform, (w[c.second],))
        return w.apply(WinogradConv2d(m, c.features, c.padding), (w[c.image], made[key]))


def _convolutions(graph: Graph) -> Iterator[tuple[Node, WinogradConvolution]]:
    for node in graph.nodes:
        form = FORMS.get(type(node.op))
        if form is not None and _fits(node):
            c = form(node)
            if min(p for pair in c.padding for p in pair) >= 0 and min(c.channels, c.features) >= MIN_CHANNELS and c.batch > 0:
                yield node, c


def _fits(node: Node) -> bool:
    op, kernel = node.op, node.op.parts(node).w.type.shape
    return node.inputs[0].type.dtype == f32 and kernel[2:] == (TAPS, TAPS) and op.stride == op.dilation == (1, 1) and op.groups == 1


def _forward(node: Node) -> WinogradConvolution:
    x, w = node.inputs
    y = node.outputs[0].type.shape
    return WinogradConvolution(x, w, y[1], x.type.shape[1], y[0], y[2:], node.op.padding)


def _towards_image(node: Node) -> WinogradConvolution:
    w, dy = node.inputs
    x = node.outputs[0].type.shape
    padding = tuple((TAPS - 1 - before, TAPS - 1 - after) for before, after in node.op.padding)
    return WinogradConvolution(dy, w, x[1], dy.type.shape[1], x[0], x[2:], padding, turned=True)


def _towards_kernels(node: Node) -> WinogradConvolution:
    x, dy = node.inputs
    y = dy.type.shape
    return WinogradConvolution(x, dy, y[1], x.type.shape[1], y[0], y[2:], node.op.padding, by_kernel=True)


FORMS: dict[type, Callable[[Node], WinogradConvolution]] = {Conv2d: _forward, Conv2dInputGrad: _towards_image, Conv2dWeightGrad: _towards_kernels}


# --- what it costs ---------------------------------------------------------------------------------------------------------------

def choose(c: WinogradConvolution, target: Target, lasting: bool, rate: float) -> int | None:
    """The size of tiles that takes the fewest cycles; None: the direct algorithm. lasting: weights are transformed once for many calls.
    rate: bytes of weights that a core gets in a cycle.
    """
    cycles = {m: gradient_cycles(c, m, target) if c.by_kernel else winograd_cycles(c, m, target, lasting, rate) for m in POINTS}
    best = min(cycles, key=cycles.__getitem__)
    return best if cycles[best] < GAIN * direct_cycles(c, target, rate) else None


def direct_cycles(c: WinogradConvolution, target: Target, rate: float) -> float:
    """Of one core: products, and weights read."""
    weights = c.channels * c.features * TAPS * TAPS
    return _products(c.batch * c.out[0] * c.out[1] * weights, target) / DIRECT_PEAK + weights * f32.itemsize / rate


def winograd_cycles(c: WinogradConvolution, m: int, target: Target, lasting: bool, rate: float) -> float:
    """The same, and the transforms: of image and result, and of weights that do not last, which are then written too."""
    lanes, points, tiles = target.lanes(f32.itemsize), (m + 2)**2, _tiles(c, m)
    width = panel_width(tiles, c.features, f32, target)
    mr = max(1, target.tile_rows(width // lanes))
    features = round_up(c.features, width)
    calls = points * -(-tiles // mr) * features // width
    vectors = -(-c.channels // lanes) + -(-c.features // lanes)
    weights = points * c.channels * features
    moved = weights * f32.itemsize / rate
    made = 0 if lasting else PASS_CYCLES * weights / lanes + moved
    return _products(round_up(tiles, mr) * weights, target) / PEAK + CALL_CYCLES * calls + PASS_CYCLES * points * tiles * vectors + moved + made


def gradient_cycles(c: WinogradConvolution, m: int, target: Target) -> float:
    """The same of the gradient towards kernels: each block of channels is transformed for each block of features, and the other way round."""
    lanes, points, tiles = target.lanes(f32.itemsize), (m + 2)**2, _tiles(c, m)
    mr, vectors = gradient_tile(f32, target)
    channels, features = round_up(c.channels, mr), round_up(c.features, vectors * lanes)
    calls = points * -(-tiles // GRADIENT_ROWS) * channels // mr * features // (vectors * lanes)
    transforms = sum(-(-x // lanes) * -(-y // GRADIENT_BLOCK) for x, y in ((c.channels, c.features), (c.features, c.channels)))
    kernels = channels * features / lanes * min(TILES, -(-tiles // GRADIENT_ROWS))
    return (_products(points * tiles * channels * features, target) / PEAK + CALL_CYCLES * calls
            + PASS_CYCLES * points * (tiles * transforms + kernels))


def _products(count: int, target: Target) -> float:
    return count / (target.lanes(f32.itemsize) * target.fma_per_cycle)


def _tiles(c: WinogradConvolution, m: int) -> int:
    return c.batch * -(-c.out[0] // m) * -(-c.out[1] // m)
