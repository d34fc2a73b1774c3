"""Single operators as workloads: families of shapes drawn from a seed, and the arrays that each takes. What they
compute stands in `operators_graphc.py`, `operators_torch.py` and `operators_jax.py` under the same names.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from benchmarks.arrays import Array

LARGEST_BYTES, LARGEST_FLOPS = 48 << 20, 2e9        # of one call: milliseconds, not seconds
Options = dict[str, object]
UNARY = ("exp", "tanh", "sigmoid", "gelu", "silu", "relu", "abs", "square", "neg")
BINARY = ("add", "sub", "mul", "maximum", "where")
EQUATIONS = ("bij,bjk->bik", "bij,bkj->bik", "bji,bjk->bik", "bqhd,bkhd->bhqk", "bhqk,bkhd->bqhd", "nct,oc->not",
             "ij,ij->i", "bi,bj->bij",
             "abc,cd->abd", "ij,j->i", "bij,bij->b", "abcd,bd->ac")


class Draw:
    """Numbers of a shape, log-uniform, odd ones included."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng

    def size(self, low: int, high: int) -> int:
        return min(high, int(np.exp(self.rng.uniform(np.log(low), np.log(high + 1)))))

    def one(self, *choices):
        return choices[int(self.rng.integers(len(choices)))]

    def chance(self, p: float = 0.5) -> bool:
        return bool(self.rng.random() < p)

    def shape(self, rank: int, elements: int) -> tuple[int, ...]:
        """So many axes whose product is at most `elements`."""
        axes, room = [], self.size(min(1024, elements), elements)
        for left in range(rank, 1, -1):
            axes.append(self.size(1, max(1, int(room ** (2 / (left + 1))))))
            room = max(1, room // axes[-1])
        axes.append(max(1, room))
        return tuple(int(n) for n in self.rng.permutation(axes))


@dataclass(frozen=True)
class Family:
    """`draw` gives the options of one problem, `arrays` its inputs and the shape of its (first) result. `modes`: what
    is measured.
    """
    draw: Callable[[Draw], Options]
    arrays: Callable[..., tuple[tuple[Array, ...], tuple[int, ...]]]
    modes: tuple[str, ...] = ("infer", "gradients")
    loops: bool = False                     # compared with jitted JAX too

    def workload_arrays(self, _, **options) -> tuple[tuple[Array, ...], Array]:
        """As `workloads.ARRAYS` has it: inputs, and an array of the result's shape. Batches are among the options."""
        inputs, result = self.arrays(**options)
        return inputs, Array(tuple(result))


def _window(n: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> int:
    return (n + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _draw_conv(d: Draw) -> Options:
    rank = d.one(1, 2, 2, 3)
    groups = d.one("one", "one", "one", "some", "depthwise")
    if groups == "depthwise":
        channels = out = d.size(4, 1024)
        count = channels
    else:
        count = 1 if groups == "one" else d.one(2, 4, 8, 16, 32)
        channels, out = count * d.size(1, 1024 // count), count * d.size(1, 1024 // count)
        if d.chance(0.15):
            channels, count = d.one(1, 3), 1
    kernel = d.one(1, 3, 3, 3, d.size(2, {1: 65, 2: 15, 3: 7}[rank]))
    stride, dilation = d.one(1, 1, 1, 2, 3), d.one(1, 1, 1, 1, 2)
    batch = d.size(1, 64)
    size = d.size(max(4, kernel), {1: 4096, 2: 256, 3: 64}[rank])
    while True:
        reach = dilation * (kernel - 1) + 1
        size = max(size, reach)
        options = {"batch": batch, "channels": channels, "out": out, "size": (size,) * rank, "kernel": (kernel,) * rank,
                   "stride": stride,
                   "padding": d.one(0, kernel // 2), "dilation": dilation, "groups": count,
                   "before": d.one("", "relu"),
                   "then": d.one("", "bias", "relu", "silu", "batch_norm", "group_norm", "layer_norm", "rms_norm")}
        result = conv_arrays(**options)[1]
        flops = 2.0 * prod(result) * channels // count * kernel ** rank
        if flops <= LARGEST_FLOPS and 4 * max(prod(result), batch * channels * size ** rank) <= LARGEST_BYTES:
            return options
        if batch > 1:
            batch = max(1, batch // 2)
        elif size > reach:
            size = max(reach, size * 2 // 3)
        else:
            channels, out = (channels // 2 // count or 1) * count, (out // 2 // count or 1) * count


def conv_arrays(batch, channels, out, size, kernel, stride, padding, dilation, groups, before, then):
    """before: what computes the image, whose layout is then free (an inner layer)."""
    x, w, b = Array((batch, channels, *size)), Array((out, channels // groups, *kernel)), Array((out,))
    result = (batch, out, *(_window(n, k, stride, padding, dilation) for n, k in zip(size, kernel)))
    return (x, w, b), result


def _draw_pool(d: Draw) -> Options:
    rank = d.one(1, 2, 2, 3)
    kernel = d.size(2, 9 if rank < 3 else 4)
    stride = d.one(1, 2, kernel)
    shape = (d.size(1, 32), d.size(3, 256), *(d.size(max(8, kernel), {1: 2048, 2: 128, 3: 32}[rank]),) * rank)
    while 4 * prod(shape) > LARGEST_BYTES:
        shape = (max(1, shape[0] // 2), max(1, shape[1] // 2), *shape[2:])
    return {"shape": shape, "kind": d.one("max", "avg"), "kernel": kernel, "stride": stride,
            "padding": d.one(0, kernel // 2)}


def pool_arrays(shape, kind, kernel, stride, padding):
    return (Array(shape),), (*shape[:2], *(_window(n, kernel, stride, padding) for n in shape[2:]))


def _draw_matmul(d: Draw) -> Options:
    kind = d.one("any", "any", "row", "small", "tall", "wide", "batched", "batched")
    m, n, k = {"any": lambda: (d.size(8, 2048), d.size(8, 2048), d.size(8, 2048)),
               "row": lambda: (1, d.size(16, 8192), d.size(16, 8192)),
               "small": lambda: (d.size(1, 16), d.size(1, 16), d.size(1, 16)),
               "tall": lambda: (d.size(1000, 50000), d.size(1, 64), d.size(1, 64)),
               "wide": lambda: (d.size(1, 64), d.size(1000, 50000), d.size(1, 64)),
               "batched": lambda: (d.size(1, 256), d.size(1, 256), d.size(1, 256))}[kind]()
    batch = (d.size(2, 256),) if kind == "batched" or kind == "small" and d.chance() else ()
    while 2.0 * prod(batch) * m * n * k > LARGEST_FLOPS or 4 * prod(batch) * max(m * n, m * k, k * n) > LARGEST_BYTES:
        m, n, k, batch = (m + 1) // 2, (n + 1) // 2, (k + 1) // 2, tuple((b + 1) // 2 for b in batch)
    return {"batch_shape": batch, "m": m, "n": n, "k": k, "turned": d.one("", "", "a", "b"),
            "then": d.one("", "", "bias", "relu", "gelu")}


def matmul_arrays(batch_shape, m, n, k, turned, then):
    a, b = ((k, m) if turned == "a" else (m, k)), ((n, k) if turned == "b" else (k, n))
    return (Array((*batch_shape, *a)), Array((*batch_shape, *b)), Array((n,))), (*batch_shape, m, n)


def _draw_einsum(d: Draw) -> Options:
    equation = d.one(*EQUATIONS)
    labels = sorted(set(equation) - set(",->"))
    sizes = {i: d.size(1, 512 if len(labels) < 4 else 128) for i in labels}
    arrays = equation.replace("->", ",").split(",")
    elements = lambda: max(prod(sizes[i] for i in part) for part in arrays)
    while prod(sizes.values()) > LARGEST_FLOPS / 2 or 4 * elements() > LARGEST_BYTES:
        largest = max(sizes, key=sizes.get)
        sizes[largest] = (sizes[largest] + 1) // 2
    return {"equation": equation, "sizes": tuple(sizes.items())}


def einsum_arrays(equation, sizes):
    size = dict(sizes)
    inputs, result = equation.split("->")
    return tuple(Array(tuple(size[i] for i in part)) for part in inputs.split(",")), tuple(size[i] for i in result)


def _draw_rows(d: Draw, ops: tuple[str, ...]) -> Options:
    """An operator over some axes of an array whose axes may be turned before."""
    rank = d.one(1, 2, 2, 3, 4)
    shape = d.shape(rank, LARGEST_BYTES // 8)
    perm = tuple(int(i) for i in d.rng.permutation(rank)) if d.chance(0.3) else tuple(range(rank))
    axes = tuple(sorted(int(i) for i in d.rng.choice(rank, size=int(d.rng.integers(1, rank + 1)), replace=False)))
    return {"shape": shape, "perm": perm, "axes": axes, "op": d.one(*ops)}


def reduce_arrays(shape, perm, axes, op):
    return (Array(shape),), tuple(n for i, n in enumerate(shape[p] for p in perm) if i not in axes)


def _draw_softmax(d: Draw) -> Options:
    options = _draw_rows(d, ("softmax", "log_softmax"))
    return {**options, "axes": options["axes"][-1:]}


def _draw_standardize(d: Draw) -> Options:
    """Norms over any axes of an array in any order, of several numbers each."""
    while True:
        options = _draw_rows(d, ("standardize", "scale"))
        if prod(options["shape"][options["perm"][i]] for i in options["axes"]) >= 4:
            return options


def same_arrays(shape, perm, axes, op):
    return (Array(shape),), tuple(shape[p] for p in perm)


def _draw_norm(d: Draw) -> Options:
    """Of several numbers each: what is left of one without its mean is rounding alone."""
    op = d.one("layer_norm", "rms_norm", "batch_norm", "group_norm")
    if op in ("layer_norm", "rms_norm"):
        *outer, width = d.shape(d.one(2, 3), LARGEST_BYTES // 8)
        shape = (*outer, max(4, width))
        return {"shape": shape, "op": op, "groups": 1}
    groups = d.one(1, 2, 4, 8)
    shape = (d.size(1, 64), groups * d.size(1, 64), *(d.size(4, 64),) * d.one(1, 2))
    while 4 * prod(shape) > LARGEST_BYTES:
        shape = (max(1, shape[0] // 2), *shape[1:])
    return {"shape": shape, "op": op, "groups": groups}


def norm_arrays(shape, op, groups):
    width = shape[1] if op in ("batch_norm", "group_norm") else shape[-1]
    return (Array(shape), Array((width,)), Array((width,))), shape


def _draw_elementwise(d: Draw) -> Options:
    shape = d.shape(d.one(1, 2, 3, 4), LARGEST_BYTES // 8)
    axes = lambda: int(d.rng.integers(0, len(shape))) if d.chance(0.2) else 0          # how many in front are missing
    operands = tuple(tuple(n if d.chance(0.7) else 1 for n in shape)[axes():] for _ in range(d.one(1, 2, 3)))
    chain = tuple(d.one(*UNARY) if d.chance(0.5) else (d.one(*BINARY), d.one(*range(len(operands))))
                  for _ in range(d.size(1, 10)))
    return {"shape": shape, "operands": operands, "chain": chain}


def elementwise_arrays(shape, operands, chain):
    return (Array(shape), *(Array(tuple(o)) for o in operands)), shape


def _draw_move(d: Draw) -> Options:
    op = d.one("transpose", "transpose", "transpose", "flip", "strided", "concat", "pad", "roll", "repeat", "broadcast")
    rank = d.one(2, 2, 3, 4)
    shape = d.shape(rank, LARGEST_BYTES // 16)
    perm = tuple(int(i) for i in d.rng.permutation(rank)) if op == "transpose" else tuple(range(rank))
    axis = int(d.rng.integers(rank))
    return {"shape": shape, "op": op, "perm": perm, "axis": axis, "amount": d.size(1, 4)}


def move_arrays(shape, op, perm, axis, amount):
    along = {"concat": lambda n: 2 * n, "strided": lambda n: -(-n // (amount + 1)), "pad": lambda n: n + 2 * amount,
             "repeat": lambda n: n * (amount + 1)}
    result = [shape[p] for p in perm]
    if op in along:
        result[axis] = along[op](result[axis])
    if op == "broadcast":
        result = [amount + 1, *result]
    return (Array(shape), Array(shape)), tuple(result)


def _draw_index(d: Draw) -> Options:
    op = d.one("take", "take", "take_along_axis", "scatter_add", "embedding")
    rows, width, count = d.size(2, 50000), d.size(1, 1024), d.size(1, 8192)
    while 4 * width * max(rows, count) > LARGEST_BYTES:
        rows, width, count = max(2, rows // 2), max(1, width // 2), max(1, count // 2)
    return {"op": op, "rows": rows, "width": width, "count": count,
            "axis": 0 if op == "embedding" else d.one(0, 0, 1)}


def index_arrays(op, rows, width, count, axis):
    """axis: along which of the table's is looked up."""
    turned = lambda n: (width, n) if axis else (n, width)
    table, one, many = Array(turned(rows)), Array((count,), rows), Array(turned(count), rows)
    return {"take": ((table, one), turned(count)), "embedding": ((table, one), turned(count)),
            "take_along_axis": ((table, many), turned(count)),
            "scatter_add": ((table, one, Array(turned(count))), turned(rows))}[op]


def _draw_sort(d: Draw) -> Options:
    op = d.one("sort", "argsort", "topk", "topk", "cumsum", "cumprod")
    rows, width = d.size(1, 512), d.size(2, 50000)
    while 4 * rows * width > LARGEST_BYTES // 8:
        rows, width = max(1, rows // 2), max(2, width // 2)
    axis = -1 if op in ("topk", "argsort") or d.chance(0.7) else 0
    return {"op": op, "shape": (rows, width) if axis else (width, rows), "axis": axis, "k": d.size(1, min(64, width))}


def sort_arrays(op, shape, axis, k):
    return (Array(shape),), (*shape[:-1], k) if op == "topk" else shape


def _draw_scan(d: Draw) -> Options:
    batch, width = d.size(1, 64), d.size(1, 512)
    kind = d.one("chain", "chain", "product", "linear", "linear", "update", "scatter", "slice", "solve")
    length = d.size(2, 256) if kind != "linear" or d.chance() else d.size(256, 20000)
    if kind == "linear":
        width = d.one(1, width)
        batch = max(1, min(batch, LARGEST_BYTES // (8 * length * width))) if width > 1 else 1
        width = max(1, min(width, LARGEST_BYTES // (8 * length)))
    chain = tuple(d.one(*UNARY[1:]) if d.chance(0.5) else (d.one("add", "mul", "maximum"), d.one(0, 1))
                  for _ in range(d.size(1, 30)))
    return {"kind": kind, "length": length, "batch_rows": batch, "width": width,
            "chain": chain if kind == "chain" else (), "rows": d.size(16, 2048)}


def scan_arrays(kind, length, batch_rows, width, chain, rows):
    xs, start = Array((length, batch_rows, width)), Array((batch_rows, width))
    if kind == "product":
        return (xs, start, Array((width, width))), (batch_rows, width)
    if kind == "linear":
        return (xs, Array((length, batch_rows, width))), (length, batch_rows, width)
    if kind == "slice":
        return (Array((rows, width)), Array((width,))), (width,)
    if kind == "solve":
        few = min(width, 16)
        return (Array((few, few)), Array((few,))), (few,)
    if kind in ("update", "scatter"):
        return (Array((length, width)), Array((rows, width)), Array((length,), rows)), (rows, width)
    return (xs, start), (batch_rows, width)


def _draw_attention(d: Draw) -> Options:
    size, heads, batch = d.one(8, 16, 32, 40, 64, 80, 96, 128, 256), d.size(1, 16), d.size(1, 8)
    keys = d.size(8, 8192)
    queries = d.one(keys, keys, d.size(1, 64), d.size(1, keys))
    while (4.0 * batch * heads * queries * keys * size > LARGEST_FLOPS
           or 4 * batch * heads * keys * size > LARGEST_BYTES):
        batch, heads = (batch + 1) // 2, (heads + 1) // 2
        keys, queries = max(1, keys * 2 // 3), max(1, queries * 2 // 3)
    mask = d.one("", "", "causal", "keys")
    if mask == "causal" and queries == 1:                   # one key is left, and every gradient of scores is rounding
        mask = ""
    return {"batch_size": batch, "heads": heads, "size": size, "queries": min(queries, keys), "keys": keys,
            "mask": mask}


def attention_arrays(batch_size, heads, size, queries, keys, mask):
    q, kv = Array((batch_size, heads, queries, size)), Array((batch_size, heads, keys, size))
    return (q, kv, kv,
            *((Array((batch_size, 1, 1, keys), 8),) if mask == "keys" else ())), (batch_size, heads, queries, size)


def _draw_loss(d: Draw) -> Options:
    rows, classes = d.size(1, 4096), d.size(2, 50000)
    while 4 * rows * classes > LARGEST_BYTES // 4:
        rows, classes = max(1, rows // 2), max(2, classes // 2)
    return {"op": d.one("cross_entropy", "cross_entropy", "mse", "bce", "cosine"), "rows": rows, "classes": classes}


def loss_arrays(op, rows, classes):
    scores = Array((rows, classes))
    if op == "cosine":
        return (scores, scores), (rows,)
    return (scores, Array((rows,), classes) if op == "cross_entropy" else scores), ()


def _draw_update(d: Draw) -> Options:
    return {"op": d.one("sgd", "momentum", "adam"), "sizes": tuple(d.size(1, 20000) for _ in range(d.size(2, 60)))}


def update_arrays(op, sizes):
    return tuple(Array((n,)) for n in sizes for _ in range({"sgd": 2, "momentum": 3, "adam": 4}[op])), (sizes[0],)


def _draw_random(d: Draw) -> Options:
    return {"op": d.one("normal", "uniform", "dropout"), "shape": d.shape(d.one(1, 2, 3), LARGEST_BYTES // 16)}


def random_arrays(op, shape):
    return (Array(shape),), shape


FAMILIES: Mapping[str, Family] = {
    "op.conv": Family(_draw_conv, conv_arrays),
    "op.pool": Family(_draw_pool, pool_arrays),
    "op.matmul": Family(_draw_matmul, matmul_arrays),
    "op.einsum": Family(_draw_einsum, einsum_arrays),
    "op.reduce": Family(lambda d: _draw_rows(d, ("sum", "mean", "max", "var", "logsumexp")), reduce_arrays),
    "op.softmax": Family(_draw_softmax, same_arrays),
    "op.standardize": Family(_draw_standardize, same_arrays),
    "op.norm": Family(_draw_norm, norm_arrays),
    "op.elementwise": Family(_draw_elementwise, elementwise_arrays),
    "op.move": Family(_draw_move, move_arrays),
    "op.index": Family(_draw_index, index_arrays),
    "op.sort": Family(_draw_sort, sort_arrays),
    "op.scan": Family(_draw_scan, scan_arrays, loops=True),
    "op.attention": Family(_draw_attention, attention_arrays),
    "op.loss": Family(_draw_loss, loss_arrays),
    "op.update": Family(_draw_update, update_arrays, ("infer",)),
    "op.random": Family(_draw_random, random_arrays, ("infer",)),
}
