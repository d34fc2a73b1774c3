"""What convolutions by 3 × 3 kernels cost, directly and in Winograd's form: cycles of one core, by cause."""
from __future__ import annotations

from collections import Counter
from dataclasses import replace

from graphc.ir.dims import typical
from graphc.ir.types import TensorType, bf16, f32
from graphc.ir.winograd import POINTS
from graphc.records import dataclass
from graphc.schedule.choose_winograd import (
    GRADIENT_BLOCK, GRADIENT_TILES, ROWS, ConvolutionSizes, gradient_tile, panel_width)
from graphc.schedule.contraction_schedule import round_up
from graphc.schedule.cost import TOLERANCE, Candidate, Ranking, ranked
from graphc.schedule.machine import Machine
from graphc.schedule.target import LINE_BYTES, MATRIX_LANES, Target
from graphc.schedule.tile_cost import COPY_CYCLES

PAGE = 4096                     # bytes: where a line is in its page says which set of L1 it goes to
SPACED_CYCLES = 0.4             # of an element of a vector that is loaded by itself
ROUNDING_PREFERENCE = 0.15      # of the direct algorithm's time, for which its smaller rounding error is worth having
CORE_SHARE = 8 << 20            # bytes of L3 that a core can count on: what is larger serves many more, of others too
PAIR_OPS = 12                   # vector operations that round a vector of numbers to bf16 and store it
Form = Candidate[int | None]    # the size of tiles; None: the direct algorithm


@dataclass(frozen=True)
class KernelTraffic:
    """lasting: kernels are transformed once for many calls. bytes_per_cycle: how fast a core gets them."""
    lasting: bool
    bytes_per_cycle: float


def kernel_traffic(lasting: bool, kernel_bytes: int, machine: Machine) -> KernelTraffic:
    """Kernels come from the shared cache where those of all convolutions of the program, `kernel_bytes` when
    transformed, leave room in it for images; else from memory."""
    stay = kernel_bytes < min(machine.l3_bytes, machine.planned_cores * CORE_SHARE) // 2
    return KernelTraffic(lasting, machine.l3_bytes_per_cycle if stay else machine.memory_bytes_per_cycle)


def convolution_forms(c: ConvolutionSizes, target: Target, kernels: KernelTraffic,
                      pairs: bool = False) -> Ranking[int | None]:
    """Of a convolution, or of the gradient towards its image. pairs: directly of pairs of bf16."""
    direct = _in_pairs(c, target, kernels) if pairs else _direct(c, target, kernels)
    return ranked((direct, *(_by_tiles(c, m, target, kernels) for m in POINTS)))


def forms_of_shards(c: ConvolutionSizes, count: int, target: Target, kernels: KernelTraffic,
                    pairs: bool = False) -> Ranking[int | None]:
    """Of a convolution that `count` shards of a batch need: each by itself, or by tiles of all of them at once."""
    apart = [_times(count, form) for form in convolution_forms(c, target, kernels, pairs).candidates]
    at_once = [form_at_once(c, m, count, target, kernels) for m in POINTS]
    return ranked((*sorted(apart, key=lambda form: form.schedule is not None), *at_once))


def faster_at_once(c: ConvolutionSizes, m: int, count: int, target: Target, kernels: KernelTraffic) -> bool:
    """Whether so many shards by tiles of m × m take fewer cycles at once, as far as the model can tell."""
    apart = _times(count, _by_tiles(c, m, target, kernels))
    return TOLERANCE * form_at_once(c, m, count, target, kernels).total < apart.total


def form_at_once(c: ConvolutionSizes, m: int, count: int, target: Target, kernels: KernelTraffic) -> Form:
    """All shards: kernels are read once. What follows works on the results of a shard, which are stored for it."""
    form = _by_tiles(replace(c, batch=count * c.batch), m, target, kernels)
    moved = 2 * count * c.batch * c.height * c.width * c.features * c.dtype.itemsize
    read = moved / target.machine.l3_bytes_per_cycle
    return Candidate(f"{form.name}, all shards at once", m, (*form.terms, ("results stored", read)))


def _times(count: int, form: Form) -> Form:
    return replace(form, terms=tuple((cause, count * cycles) for cause, cycles in form.terms))


def weight_gradient_forms(c: ConvolutionSizes, target: Target, kernels: KernelTraffic,
                          pairs: bool = False) -> Ranking[int | None]:
    """Of the gradient towards the kernels."""
    direct = _gradient_in_pairs(c, target) if pairs else _direct(c, target, kernels)
    return ranked((direct, *(_gradient_by_tiles(c, m, target) for m in POINTS)))


def _direct(c: ConvolutionSizes, target: Target, kernels: KernelTraffic) -> Form:
    count = c.batch * c.height * c.width * c.kernel_elements
    products = _multiply_adds(c, count, target) / target.machine.contraction_peak
    read = c.kernel_elements * c.dtype.itemsize / kernels.bytes_per_cycle
    return Candidate("direct", None, (
        ("products", products), ("kernels read", read), ("smaller rounding error",
                                                         -ROUNDING_PREFERENCE * (products + read))))


def _in_pairs(c: ConvolutionSizes, target: Target, kernels: KernelTraffic) -> Form:
    """As directly, of half as many elements, made of the image and of kernels that do not last."""
    halved = replace(c, channels=-(-c.channels // 2))
    pixels = c.batch * c.height * c.width
    read = halved.kernel_elements * c.dtype.itemsize / kernels.bytes_per_cycle
    made = c.batch * c.height * c.width * c.channels + c.kernel_elements * (not kernels.lasting)
    return Candidate("direct, pairs of bf16", None, (
        ("products", _pair_products(pixels * halved.kernel_elements, pixels * halved.window_elements, target)),
        ("kernels read", read), ("pairs made", _pairs(made, target))))


def _gradient_in_pairs(c: ConvolutionSizes, target: Target) -> Form:
    """The same of pairs of images, and of the gradients of their results."""
    pixels = -(-c.batch // 2) * c.height * c.width
    made = c.batch * c.height * c.width * (c.channels + c.features)
    return Candidate("direct, pairs of bf16", None, (
        ("products", _pair_products(pixels * c.kernel_elements, pixels * c.window_elements, target)),
        ("pairs made", _pairs(made, target))))


def _pair_products(count: int, windows: int, target: Target) -> float:
    """Cycles of so many products of pairs. Matrix registers load windows from copies, of so many elements."""
    machine, lanes = target.machine, target.lanes(f32.itemsize)
    if target.multiplies_matrices(bf16.name):
        copies = windows * COPY_CYCLES / lanes
        return (count * machine.matrix_dot_cycles / MATRIX_LANES**3 + copies) / machine.contraction_peak
    return count / (lanes * machine.fma_per_cycle) / machine.contraction_peak


def _pairs(numbers: int, target: Target) -> float:
    """Cycles in which so many are rounded and stored as pairs."""
    return numbers / target.lanes(f32.itemsize) * PAIR_OPS * target.machine.vector_op_cycles


def _by_tiles(c: ConvolutionSizes, m: int, target: Target, kernels: KernelTraffic) -> Form:
    """Transforms of image and result, products at each point; kernels that do not last are transformed and written,
    too. Each block of tiles reads all kernels, from L3 where L2 has no room for those of a panel beside the block."""
    machine, lanes, points, tiles = target.machine, target.lanes(c.dtype.itemsize), (m + 2)**2, c.tiles(m)
    width = panel_width(tiles, c.features, c.dtype, target)
    mr = max(1, target.tile_rows(width // lanes))
    features = round_up(c.features, width)
    weights = points * c.channels * features
    nbytes = weights * c.dtype.itemsize
    read = nbytes / kernels.bytes_per_cycle
    task = points * (c.channels * width + min(tiles, ROWS) * (c.channels + width)) * c.dtype.itemsize
    again = (-(-tiles // ROWS) - 1) * nbytes / machine.l3_bytes_per_cycle if task > machine.l2_bytes else 0
    made = 0 if kernels.lasting else machine.transform_point_cycles * weights / lanes + read
    vectors = -(-c.channels // lanes) + -(-c.features // lanes)
    return Candidate(f"tiles of {m} × {m}", m, (
        ("products", _multiply_adds(c, round_up(tiles, mr) * weights, target) / machine.micro_kernel_peak),
        ("calls", machine.call_cycles * points * -(-tiles // mr) * features // width),
        ("transforms", machine.transform_point_cycles * points * tiles * vectors),
        ("kernels read", read + again), ("kernels made", made)))


def _gradient_by_tiles(c: ConvolutionSizes, m: int, target: Target) -> Form:
    """Each block of channels is transformed for each block of features, and the other way round."""
    machine, lanes, points, tiles = target.machine, target.lanes(c.dtype.itemsize), (m + 2)**2, c.tiles(m)
    mr, vectors = gradient_tile(c.dtype, target)
    channels, features = round_up(c.channels, mr), round_up(c.features, vectors * lanes)
    blocks = -(-tiles // GRADIENT_TILES)
    transforms = sum(-(-x // lanes) * -(-y // GRADIENT_BLOCK)
                     for x, y in ((c.channels, c.features), (c.features, c.channels)))
    kernels = channels * features / lanes * min(machine.planned_tiles, blocks)
    return Candidate(f"tiles of {m} × {m}", m, (
        ("products", _multiply_adds(c, points * tiles * channels * features, target) / machine.micro_kernel_peak),
        ("calls", machine.call_cycles * points * blocks * channels // mr * features // (vectors * lanes)),
        ("transforms", machine.transform_point_cycles * points * tiles * transforms),
        ("kernels made", machine.transform_point_cycles * points * kernels)))


def spaced_cycles(image: TensorType, m: int, target: Target) -> float:
    """What the planned cores take to read the tiles of a row-major image, each vector of channels element by element.
    The tile beside reads the same lines; those for which their sets have no room come from another cache again."""
    machine, side = target.machine, m + 2
    batch, channels, height, width = map(typical, image.shape)
    tiles, itemsize = batch * -(-height // m) * -(-width // m), image.dtype.itemsize
    lines = {(channel * height + row) * width * itemsize // LINE_BYTES
             for channel in range(channels) for row in range(side)}
    crowds = Counter(line % (PAGE // LINE_BYTES) for line in lines).values()
    again = sum(max(0, n - machine.l1_bytes // PAGE) for n in crowds) / len(lines)
    each = side * SPACED_CYCLES + again * machine.remote_line_cycles
    return tiles * channels * side * each / machine.planned_cores


def _multiply_adds(c: ConvolutionSizes, count: int, target: Target) -> float:
    """Cycles at the peak."""
    return count / (target.lanes(c.dtype.itemsize) * target.machine.fma_per_cycle)
