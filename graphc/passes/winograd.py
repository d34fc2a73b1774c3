"""Convolutions by 3 × 3 kernels in Winograd's form, where that is cheaper."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from graphc.ir.builder import Rewriter
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.ops.conv import Conv2d, Conv2dInputGrad, Pair
from graphc.ir.ops.winograd import WinogradConv2d, WinogradWeights
from graphc.ir.schedule import round_up
from graphc.ir.target import Target
from graphc.ir.types import f32
from graphc.ir.winograd import POINTS, TAPS
from graphc.passes.derive import Kind, value_kinds
from graphc.passes.pipeline import Pass
from graphc.passes.schedule_winograd import panel_width

DIRECT_PEAK = 0.85              # of the multiply-adds that a core can issue: what the direct algorithm reaches
PEAK = 0.9                      # the same, of products inside of a micro-kernel
CALL_CYCLES = 16                # of a micro-kernel, beside its products
PASS_CYCLES = 4                 # for each point of a tile: a vector through the transform of image, results or weights
MEMORY_RATE = 6                 # bytes of weights that one of several cores gets from memory in a cycle
CACHE_RATE = 16                 # the same, if the weights of all convolutions stay in the shared cache
GAIN = 0.85                     # of the direct algorithm's time: less is not worth the greater rounding error
MIN_CHANNELS = 8                # of the image and of the result: fewer leave most lanes of a vector empty


@dataclass(frozen=True)
class Convolution:
    """What must be known of a convolution, or of the gradient towards an image, which is a convolution by the turned kernel."""
    image: Value
    weights: Value
    features: int
    channels: int
    batch: int
    out: Pair
    padding: tuple[Pair, Pair]
    turned: bool


@dataclass(frozen=True)
class Winograd(Pass):
    """Needs a simplified graph. Gives one in which the transform of weights is a node of its own.

    Stands after all that changes the weights of a convolution (fold_scales), and before `split_derived`, which moves what is made of
    weights that do not change out of the calls.
    """
    name: ClassVar[str] = "winograd"
    target: Target

    def run(self, graph: Graph) -> Graph:
        kinds, found = value_kinds(graph), list(_convolutions(graph))
        rate = CACHE_RATE if sum(4 * c.weights.type.nbytes for _, c in found) < self.target.l3 // 2 else MEMORY_RATE
        chosen = {node: (c, m) for node, c in found if (m := choose(c, self.target, kinds[c.weights] is Kind.LASTING, rate))}
        if not chosen:
            return graph
        w = Rewriter(graph)
        made: dict[tuple[Value, WinogradWeights], Value] = {}
        for node in graph.nodes:
            if node not in chosen:
                w.keep(node)
                continue
            c, m = chosen[node]
            with w.at(node.loc, node.scope):
                transform = WinogradWeights(m, panel_width(_tiles(c, m), c.features, self.target), c.turned)
                key = (c.weights, transform)
                if key not in made:
                    made[key], = w.apply(transform, (w[c.weights],))
                w.replace(node, w.apply(WinogradConv2d(m, c.features, c.padding), (w[c.image], made[key])))
        return w.done()


def _convolutions(graph: Graph) -> Iterator[tuple[Node, Convolution]]:
    for node in graph.nodes:
        rule = FORMS.get(type(node.op))
        if rule is not None and _fits(node):
            c = rule(node)
            if min(p for pair in c.padding for p in pair) >= 0 and min(c.channels, c.features) >= MIN_CHANNELS and c.batch > 0:
                yield node, c


def _fits(node: Node) -> bool:
    op, kernel = node.op, node.inputs[1 if isinstance(node.op, Conv2d) else 0].type
    return kernel.dtype == f32 and kernel.shape[2:] == (TAPS, TAPS) and op.stride == op.dilation == (1, 1) and op.groups == 1


def _forward(node: Node) -> Convolution:
    x, w = node.inputs
    y = node.outputs[0].type.shape
    return Convolution(x, w, y[1], x.type.shape[1], y[0], y[2:], node.op.padding, False)


def _towards_image(node: Node) -> Convolution:
    w, dy = node.inputs
    x = node.outputs[0].type.shape
    padding = tuple((TAPS - 1 - before, TAPS - 1 - after) for before, after in node.op.padding)
    return Convolution(dy, w, x[1], dy.type.shape[1], x[0], x[2:], padding, True)


FORMS: dict[type, Callable[[Node], Convolution]] = {Conv2d: _forward, Conv2dInputGrad: _towards_image}


# --- what it costs ---------------------------------------------------------------------------------------------------------------

def choose(c: Convolution, target: Target, lasting: bool, rate: float) -> int | None:
    """The size of tiles that takes the fewest cycles; None: the direct algorithm. lasting: weights are transformed once for many calls.
    rate: bytes of weights that a core gets in a cycle.
    """
    cycles = {m: winograd_cycles(c, m, target, lasting, rate) for m in POINTS}
    best = min(cycles, key=cycles.__getitem__)
    return best if cycles[best] < GAIN * direct_cycles(c, target, rate) else None


def direct_cycles(c: Convolution, target: Target, rate: float) -> float:
    """Of one core: products, and weights read."""
    weights = c.channels * c.features * TAPS * TAPS
    return _products(c.batch * c.out[0] * c.out[1] * weights, target) / DIRECT_PEAK + weights * f32.itemsize / rate


def winograd_cycles(c: Convolution, m: int, target: Target, lasting: bool, rate: float) -> float:
    """The same, and the transforms: of image and result, and of weights that do not last, which are then written too."""
    lanes, points, tiles = target.lanes(f32.itemsize), (m + 2)**2, _tiles(c, m)
    width = panel_width(tiles, c.features, target)
    mr = max(1, (target.vector_registers - 1) * lanes // width - 1)
    features = round_up(c.features, width)
    calls = points * -(-tiles // mr) * features // width
    vectors = -(-c.channels // lanes) + -(-c.features // lanes)
    weights = points * c.channels * features
    moved = weights * f32.itemsize / rate
    made = 0 if lasting else PASS_CYCLES * weights / lanes + moved
    return _products(round_up(tiles, mr) * weights, target) / PEAK + CALL_CYCLES * calls + PASS_CYCLES * points * tiles * vectors + moved + made


def _products(count: int, target: Target) -> float:
    return count / (target.lanes(f32.itemsize) * target.fma_per_cycle)


def _tiles(c: Convolution, m: int) -> int:
    return c.batch * -(-c.out[0] // m) * -(-c.out[1] // m)
