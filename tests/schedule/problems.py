"""Problems whose schedules are written down in choices.txt: products, gradients, recurrences, attention, nests and rows
of everyday sizes."""
from __future__ import annotations

from collections.abc import Iterator

from graphc.ir import contraction as C
from graphc.ir.builder import Builder
from graphc.ir.graph import Node
from graphc.ir.ops.attention import Attention
from graphc.ir.types import TensorType, bf16x2, f32, i32
from graphc.passes.fuse import Fuse
from graphc.schedule.choose import schedule_node
from graphc.schedule.choose_contraction import contraction_schedule
from graphc.schedule.choose_winograd import ConvolutionSizes
from graphc.schedule.cost import Ranking
from graphc.schedule.schedule import Schedule
from graphc.schedule.target import Target
from graphc.schedule.view import ViewType, contiguous_strides
from graphc.schedule.winograd_cost import convolution_forms, kernel_traffic

PRODUCTS = {  # name: (rows, columns, steps, whether a is transposed, whether b is packed before)
    "large": (1024, 1024, 1024, False, False),
    "weights, batch of 1": (1, 512, 784, False, True),
    "weights, batch of 64": (64, 512, 784, False, True),
    "weights, few rows of a long sum": (128, 768, 3072, False, True),
    "weights, many rows": (2048, 1000, 512, False, True),
    "gradient of a small weight": (128, 128, 25088, True, False),
    "gradient of a large weight": (1024, 512, 2048, True, False),
    "small": (24, 32, 40, False, False),
    "wide": (48, 4096, 64, False, False),
    "tall": (25088, 64, 64, False, False),
    "narrow": (1000, 8, 1024, False, False),
}


def view(*shape: int, dtype=f32) -> ViewType:
    return ViewType(dtype, shape, contiguous_strides(shape))


def product(m: int, n: int, k: int, transposed: bool, packed: bool, target: Target, b_strides: tuple[int, int] = (),
            factors=()):
    strides = (1, m) if transposed else (k, 1)
    return contraction_schedule(
        C.matmul((m, k), (k, n)),
        (m, k),
        strides,
        (k, n),
        b_strides or (n, 1),
        (n, 1),
        f32,
        target,
        invariant=(False, packed),
        factors=factors,
    )


def node(build, *types: TensorType) -> Node:
    b = Builder("problem")
    return build(b, *[b.input(f"x{i}", t) for i, t in enumerate(types)]).node


def softmax(t: TensorType) -> Node:
    b = Builder("problem")
    x = b.input("x", t)
    e = b.exp(b.sub(x, b.broadcast_to(b.max(x, axes=(1,), keepdims=True), shape=t.shape)))
    graph = b.finish([b.div(e, b.broadcast_to(b.sum(e, axes=(1,), keepdims=True), shape=t.shape))])
    fused, = Fuse().run(graph).nodes
    return fused


def nodes() -> Iterator[tuple[str, Node]]:
    large, small = TensorType(f32, (4096, 1024)), TensorType(f32, (64, 10))
    yield "exp of much", node(lambda b, x: b.exp(x), large)
    yield "exp of little", node(lambda b, x: b.exp(x), small)
    yield "sum of rows", node(lambda b, x: b.sum(x, axes=(1,)), large)
    yield "sum of columns", node(lambda b, x: b.sum(x, axes=(0,)), large)
    yield "sum of all", node(lambda b, x: b.sum(x, axes=(0, 1)), large)
    yield "sum of columns far apart", node(lambda b, x: b.sum(x, axes=(1,)), TensorType(f32, (2048, 24, 300)))
    yield "sum of few rows", node(lambda b, x: b.sum(x, axes=(0,)), TensorType(f32, (24, 300_000)))
    yield "softmax", softmax(large)
    yield "rows of a table", node(lambda b, x, i: b.take(x, i, axis=0), large, TensorType(i32, (64, 128)))
    heads = TensorType(f32, (1, 8, 512, 64))
    yield "attention", node(lambda b, q, k, v: b.apply(Attention(), [q, k, v])[0], heads, heads, heads)


def schedules(target: Target) -> Iterator[tuple[str, Schedule]]:
    for name, problem in PRODUCTS.items():
        yield name, product(*problem, target)
    if target.multiplies_pairs:
        for name, problem in PRODUCTS.items():
            yield f"pairs, {name}", product(*problem, target, factors=(bf16x2, bf16x2))
    yield "stored weights, unpacked", product(64, 512, 784, False, False, target, (1, 784))
    yield "stored weights, packed, few rows", product(5, 3072, 1024, False, True, target, (1, 1024))
    for name, n in nodes():
        views = [[view(*v.type.shape, dtype=v.type.dtype) for v in values] for values in (n.inputs, n.outputs)]
        yield name, schedule_node(n, *views, target)


def forms(target: Target) -> Iterator[tuple[str, Ranking]]:
    """Whether convolutions run in Winograd's form, and by tiles of which size."""
    kernels = kernel_traffic(True, 1 << 20, target.machine)
    yield "convolution", convolution_forms(ConvolutionSizes(64, 64, 1, 56, 56, f32), target, kernels)
