"""Convolutions by 3 × 3 kernels in Winograd's form, where that is cheaper."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from graphc.ir.builder import Rewriter
from graphc.ir.dims import Poly, lower, static_dim, typical
from graphc.ir.graph import Graph, Node, NodeOf, Value
from graphc.ir.op import Op
from graphc.ir.ops.conv import Conv, ConvInputGrad, ConvOp, ConvWeightGrad
from graphc.ir.ops.winograd import WinogradConv2d, WinogradWeightGrad, WinogradWeights
from graphc.ir.types import TensorType, f32
from graphc.ir.winograd import TAPS
from graphc.passes.pack_factors import is_conv_of_pairs
from graphc.passes.pipeline import Pass
from graphc.passes.precompute import Kind, value_kinds
from graphc.records import dataclass
from graphc.schedule.choose_winograd import ConvolutionSizes, panel_width
from graphc.schedule.target import Target
from graphc.schedule.winograd_cost import (
    KernelTraffic, convolution_forms, faster_at_once, forms_of_shards, kernel_traffic, weight_gradient_forms)

TRANSFORMED_GROWTH = 4          # from kernels of 3 × 3 numbers to 6 × 6
Frame = tuple[tuple[int, int], tuple[int, int]]         # zeros before and after rows and columns
MIN_CHANNELS = 8                # of the image and of the result: fewer leave most lanes of a vector empty


@dataclass(frozen=True)
class WinogradConvolution:
    """What must be known of a convolution; of the gradient towards an image, which is a convolution by the turned
    kernel; or of that towards kernels. second: the weights, or the gradient of the result.
    """
    image: Value
    second: Value
    result: TensorType
    padding: Frame
    turned: bool = False
    by_kernel: bool = False         # the gradient towards kernels

    def tile(self, target: Target, kernels: KernelTraffic, pairs: bool = False, shards: int = 1) -> int | None:
        """The size of tiles that takes the fewest cycles, of all `shards` of a batch; None: the direct algorithm, of
        `pairs` of bf16 perhaps. Where the number of images comes with the call, that which loses least where it loses
        most: with one image, or with a typical number."""
        if shards > 1 and self.is_static and not self.by_kernel:
            return forms_of_shards(self.sizes, shards, target, kernels, pairs).best.schedule
        forms = weight_gradient_forms if self.by_kernel else convolution_forms
        rankings = [forms(replace(self.sizes, batch=n), target, kernels, pairs)
                    for n in dict.fromkeys((self.sizes.batch, lower(self.result.shape[0])))]
        if len(rankings) == 1:
            return rankings[0].best.schedule
        cycles = [{c.schedule: c.total for c in ranking.candidates} for ranking in rankings]
        return min(cycles[0], key=lambda m: max([each[m] / min(each.values()) for each in cycles]))

    @property
    def is_static(self) -> bool:
        return all(isinstance(d, int) for d in self.result.shape)

    @property
    def sizes(self) -> ConvolutionSizes:
        """Typical ones."""
        batch, features, height, width = map(typical, self.result.shape)
        return ConvolutionSizes(static_dim(self.image.type.shape[1]), features, batch, height, width, self.result.dtype)


@dataclass(frozen=True)
class Winograd(Pass):
    """Needs a simplified graph. Gives one in which the transform of weights is a node of its own. shards: the graph is
    that of one of so many parts of a batch, and takes the form that suits them all, whoever computes how many of them.

    Stands after all passes that change the weights of a convolution (fold_batch_norm), and before `split_derived`,
    which moves values computed from constant weights out of the calls.
    """
    name: ClassVar[str] = "winograd"
    target: Target
    shards: int = 1

    def run(self, graph: Graph) -> Graph:
        chosen = {node: (c, m) for node, c, m in _by_tiles(graph, self.target, is_conv_of_pairs, self.shards)}
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

    def _made(self, w: Rewriter, c: WinogradConvolution, m: int,
              made: dict[tuple[Value, WinogradWeights], Value]) -> Sequence[Value]:
        if c.by_kernel:
            return w.apply(WinogradWeightGrad(m, c.padding), (w[c.image], w[c.second]))
        width = panel_width(self.shards * c.sizes.tiles(m), c.sizes.features, c.sizes.dtype, self.target)
        transform = WinogradWeights(m, width, c.turned)
        key = (c.second, transform)
        if key not in made:
            made[key], = w.apply(transform, (w[c.second],))
        return w.apply(WinogradConv2d(m, c.sizes.features, c.padding), (w[c.image], made[key]))


def faster_by_tiles(graph: Graph, target: Target) -> set[Node]:
    """The convolutions of f32 whose form by tiles is faster than the direct one of pairs of bf16."""
    return {node for node, _, _ in _by_tiles(graph, target, lambda node, target: target.multiplies_pairs)}


def any_faster_at_once(graph: Graph, target: Target, shards: int) -> bool:
    """Whether some convolution of a shard's graph takes fewer cycles where all shards are computed at once."""
    traffic = kernel_traffic(True, _transformed_bytes(c for _, c in _convolutions(graph)), target.machine)
    return any(faster_at_once(c.sizes, m, shards, target, traffic)
               for _, c, m in _by_tiles(graph, target, is_conv_of_pairs, shards) if not c.by_kernel and c.is_static)


def _by_tiles(graph: Graph, target: Target, in_pairs: Callable[[Node, Target], bool],
              shards: int = 1) -> Iterator[tuple[Node, WinogradConvolution, int]]:
    """Convolutions that tiles make faster, and the size of the tiles. in_pairs: which would else be computed of pairs
    of bf16."""
    kinds, found = value_kinds(graph), list(_convolutions(graph))
    weights = _transformed_bytes(c for _, c in found)
    for node, c in found:
        traffic = kernel_traffic(kinds[c.second] is not Kind.CHANGING, weights, target.machine)
        m = c.tile(target, traffic, in_pairs(node, target), shards)
        if m is not None:
            yield node, c, m


def _transformed_bytes(convolutions: Iterable[WinogradConvolution]) -> int:
    return sum(TRANSFORMED_GROWTH * typical(c.second.type.nbytes) for c in convolutions if not c.by_kernel)


def _convolutions(graph: Graph) -> Iterator[tuple[Node, WinogradConvolution]]:
    for node in graph.nodes:
        form = FORMS.get(type(node.op))
        if form is not None and _fits(node):
            c = form(node)
            sizes, pads_only = c.sizes, min(p for pair in c.padding for p in pair) >= 0
            if pads_only and min(sizes.channels, sizes.features) >= MIN_CHANNELS and sizes.batch > 0:
                yield node, c


def _fits(node: Node) -> bool:
    """3 × 3 kernels at stride 1. In f64 convolutions stay direct: who asks for it wants the smaller error."""
    op = node.op
    if not isinstance(op, ConvOp):
        return False
    kernel = op.parts(node).w.type.shape
    plain = op.stride == op.dilation == (1, 1) and op.groups == 1 and kernel[2:] == (TAPS, TAPS)
    sizes = [d for v in (*node.inputs, *node.outputs) for d in v.type.shape if isinstance(d, Poly)]
    return plain and all(d.is_open for d in sizes) and node.inputs[0].type.dtype == f32


def _forward(node: NodeOf[Conv]) -> WinogradConvolution:
    (x, w), (rows, columns) = node.inputs, node.op.padding
    return WinogradConvolution(x, w, node.outputs[0].type, (rows, columns))


def _towards_image(node: NodeOf[ConvInputGrad]) -> WinogradConvolution:
    w, dy = node.inputs
    rows, columns = ((TAPS - 1 - before, TAPS - 1 - after) for before, after in node.op.padding)
    return WinogradConvolution(dy, w, node.outputs[0].type, (rows, columns), turned=True)


def _towards_kernels(node: NodeOf[ConvWeightGrad]) -> WinogradConvolution:
    (x, dy), (rows, columns) = node.inputs, node.op.padding
    return WinogradConvolution(x, dy, dy.type, (rows, columns), by_kernel=True)


# of nodes with the operator of its key (`NodeOf`), which the type of a table cannot say
FORMS: dict[type[Op], Callable[[Any], WinogradConvolution]] = {
    Conv.at(2): _forward, ConvInputGrad.at(2): _towards_image, ConvWeightGrad.at(2): _towards_kernels}
