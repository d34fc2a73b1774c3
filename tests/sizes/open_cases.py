"""The table of kernels for all sizes: every operator that is no contraction, and the clusters that networks are made
of."""
from __future__ import annotations

from collections.abc import Callable, Iterator

from open_kernels import Build, Case

from graphc.autodiff.backward import backward
from graphc.ir.builder import Builder
from graphc.ir.dim_text import parse_dim
from graphc.ir.graph import Value
from graphc.ir.ops import OPS
from graphc.ir.types import bool_, f32, f64, i32, i64

B, T, C = map(parse_dim, "BTC")
KEY = i64[2]


def op(name: str, **attributes) -> Build:
    return lambda b, *ins: getattr(b, name)(*ins, **attributes)


def gradient(name: str, **attributes) -> Build:
    """The gradients of an operator, of which the last input is the gradient of its result."""
    def build(b: Builder, *ins: Value) -> tuple[Value, ...]:
        *operands, seed = ins
        out = b.apply(OPS[name](**attributes), operands)[0]
        wanted = [v for v in operands if v.type.dtype.is_float]
        return tuple(g for g in backward(b, list(b.nodes), {out: seed}, wanted) if g is not None)
    return build


def chain(*steps: Callable[[Builder, Value], Value]) -> Build:
    def build(b: Builder, *ins: Value) -> Value:
        v, rest = ins[0], list(ins[1:])
        for step in steps:
            v = step(b, v, *[rest.pop(0) for _ in range(step.__code__.co_argcount - 2)])
        return v
    return build


def elementwise() -> Iterator[Case]:
    yield Case("add", op("add"), (f32["B", "T"], f32["B", "T"]))
    yield Case("add row", op("add"), (f32["B", "T"], f32["T"]))
    yield Case("add features", op("add"), (f32["B", 48], f32[48]))
    yield Case("add odd features", op("add"), (f32["B", "T", 7], f32[7]))
    yield Case("mul column", op("mul"), (f32["B", "T"], f32["B", 1]))
    yield Case("f64 and bool", op("where"), (bool_["B", 1], f64["B", "T"], f64["T"]))
    yield Case("integers", op("floordiv"), (i32["B", "2*T + 1"], i32[()]), positions={1: 9})
    yield Case("cast", op("cast", dtype=f64), (i64["B", 5],))
    yield Case("bitcast", op("bitcast", dtype=f32), (i32["B", 5],))
    yield Case("stop", op("stop_gradient"), (f32["B"],))
    yield Case("sum over shards", op("shard_sum"), (f32["B"],))
    yield Case("gelu", op("gelu"), (f32["B", 64],))
    yield Case("other order", op("add"), (f32["B", "T"], f32["B", "T"]), orders={1: (1, 0)})
    yield Case("image order", op("mul"), (f32["B", 3, "T", "C"], f32["B", 3, "T", "C"]),
               orders={0: (0, 2, 3, 1)}, most=1 << 15)
    yield Case("bias gelu", lambda b, x, y: b.gelu(b.add(x, y)), (f32["B", "T", 48], f32[48]))
    yield Case("iota", lambda b, x: b.add(x, b.iota(shape=(B, T), axis=1, dtype=f32)), (f32["B", "T"],))
    yield Case("a count", op("add"), (f32["B*T + 3"], f32["B*T + 3"]))


def views() -> Iterator[Case]:
    heads = lambda b, x: b.transpose(b.reshape(x, shape=(B, T, 4, 16)), perm=(0, 2, 1, 3))       # noqa: E731
    yield Case("heads", lambda b, x, y: b.add(heads(b, x), y), (f32["B*T", 64], f32["B", 4, "T", 16]))
    yield Case("transpose", lambda b, x, y: b.add(b.transpose(x, perm=(1, 0)), y), (f32["B", "T"], f32["T", "B"]))
    yield Case("flatten", lambda b, x, y: b.mul(b.reshape(x, shape=(B * T * 12,)), y), (f32["B", "T", 12],
                                                                                       f32["12*B*T"]))
    yield Case("cut", lambda b, x, y: b.mul(b.reshape(x, shape=(B, T)), y), (f32["B*T"], f32["B", "T"]))
    yield Case("broadcast", lambda b, x, y: b.add(b.broadcast_to(x, shape=(B, T, 3)), y), (f32["T", 1],
                                                                                          f32["B", "T", 3]))


def reductions() -> Iterator[Case]:
    for name in ("sum", "prod", "max", "min"):
        yield Case(f"{name} of rows", op(name, axes=(1,)), (f32["B", "T"],))
    yield Case("sum of features", op("sum", axes=(1,), keepdims=True), (f32["B", 100],))
    yield Case("sum of columns", op("sum", axes=(0,)), (f32["B", "T"],))
    yield Case("sum of columns of features", op("sum", axes=(0,)), (f32["B", 96],), most=1 << 19)
    yield Case("sum of positions", op("sum", axes=(0, 1)), (f32["B", "T", 40],))
    yield Case("sum of all", op("sum", axes=(0, 1)), (f32["B", "T"],), most=1 << 20)
    yield Case("sum of one axis", op("sum", axes=(0,)), (f64["B"],))
    yield Case("sum in the middle", op("sum", axes=(1,)), (f32["B", "T", 24],))
    yield Case("sum around", op("sum", axes=(0, 2)), (f32["B", 12, "T"],))
    yield Case("integer sum", op("sum", axes=(0,)), (i32["B", 3],))
    yield Case("any", op("max", axes=(1,)), (bool_["B", "T"],))
    yield Case("argmax", op("argmax", axis=1), (f32["B", "T"],))
    yield Case("argmax of classes", op("argmax", axis=1), (f32["B", 10],))
    yield Case("argmin of columns", op("argmin", axis=0), (f64["B", "T"],))
    yield Case("var", op("var", axes=(1,)), (f32["B", "T"],))
    yield Case("mean", op("mean", axes=(0, 1)), (f32["B", "T"],))


def clusters() -> Iterator[Case]:
    yield Case("softmax", op("softmax"), (f32["B", "T"],))
    yield Case("softmax of classes", op("softmax"), (f32["B", 10],))
    yield Case("softmax of scores", op("softmax"), (f32["B", 4, "T", "T"],), most=1 << 15)
    yield Case("log softmax of columns", op("log_softmax", axis=0), (f32["B", "T"],))
    yield Case("softmax gradient", gradient("softmax"), (f32["B", "T"], f32["B", "T"]))
    yield Case("layer norm", op("layer_norm"), (f32["B", "T", 96], f32[96], f32[96]))
    yield Case("layer norm of names", op("layer_norm"), (f32["B", "T"], f32["T"], f32["T"]))
    yield Case("layer norm gradient", gradient("layer_norm"), (f32["B", 96], f32[96], f32[96], f32["B", 96]),
               most=1 << 18)
    yield Case("rms norm", op("rms_norm"), (f32["B", 80], f32[80]))
    yield Case("group norm", op("group_norm", groups=2), (f32["B", 4, "T"], f32[4], f32[4]))
    yield Case("batch norm inference", op("batch_norm_inference"),
               (f32["B", 8, "T"], f32[8], f32[8], f32[8], f32[8, ]))
    yield Case("mse", op("mse"), (f32["B", "T"], f32["B", "T"]))
    yield Case("bce", op("bce_with_logits"), (f32["B"], f32["B"]))
    yield Case("dropout", op("dropout", rate=0.5), (f32["B", "T"], KEY))
    yield Case("random bits", lambda b, key, x: b.add(b.random_uniform(key, shape=(B, 20), dtype=f32), x),
               (KEY, f32["B", 20]))


def moves() -> Iterator[Case]:
    yield Case("concat", op("concat", axis=0), (f32["B", 6], f32["T", 6], f32["B", 6]))
    yield Case("concat of columns", op("concat", axis=1), (f32["B", "T"], f32["B", "C"], f32["B", 3]), most=1 << 15)
    yield Case("pad", op("pad", low=(0, 2), high=(1, 3), value=1.5), (f32["B", "T"],))
    yield Case("pad by names", op("pad", low=(T, 0), high=(0, B)), (f32["B", "T"],))
    yield Case("pad images", op("pad", low=(0, 0, 1, 1), high=(0, 0, 1, 1)), (f32["B", 3, "T", "C"],), most=1 << 15)
    yield Case("flip", op("flip", axes=(0,)), (f32["B", "T"],))
    yield Case("flip rows", op("flip", axes=(1,)), (f32["B", "T"],))
    yield Case("dynamic slice", op("dynamic_slice", sizes=(1, T)), (f32["B", "T"], i64[()], i64[()]))
    yield Case("dynamic update", op("dynamic_update_slice"), (f32["B", "T"], f32[1, "T"], i64[()], i64[()]))


def lookups() -> Iterator[Case]:
    yield Case("take", op("take", axis=0), (f32[30, 40], i64["B", "T"]), positions={1: 30}, most=1 << 12)
    yield Case("take of names", op("take", axis=0), (f32["C", "T"], i32["B"]), positions={1: C}, most=1 << 15)
    yield Case("take along columns", op("take", axis=1), (f32["B", "T"], i64["C"]), positions={1: T}, most=1 << 15)
    yield Case("take along axis", op("take_along_axis", axis=1), (f32["B", 10], i64["B", 1]), positions={1: 10})
    yield Case("take along named axis", op("take_along_axis", axis=1), (f32["B", "T"], i64["B", "C"]),
               positions={1: T}, most=1 << 15)
    yield Case("scatter", op("scatter_add", axis=0), (f32[30, 100], i64["B"], f32["B", 100]), positions={1: 30})
    yield Case("scatter of names", op("scatter_add", axis=0), (f32["C", "T"], i64["B"], f32["B", "T"]),
               positions={1: C}, most=1 << 15)
    yield Case("scatter to columns", op("scatter_add", axis=1), (f32["B", "T"], i64["C"], f32["B", "C"]),
               positions={1: T}, most=1 << 15)
    yield Case("scatter along axis", op("scatter_add_along_axis", axis=1), (f32["B", "T"], i64["B", "C"],
                                                                           f32["B", "C"]), positions={1: T},
               most=1 << 15)
    yield Case("row places", op("row_places", size=30), (i64["B", "T"],), positions={0: 30})
    yield Case("row places of names", op("row_places", size=C, checked=True), (i64["B"],), positions={0: C}, also=("C",))
    yield Case("check rows", op("check_rows", size=30), (i32["B", 2],), positions={0: 30})
    yield Case("add rows", op("add_rows"), (f32[30, 64], i64["B"], f32["B", 64]), positions={1: 30})
    yield Case("pick rows", lambda b, x, at, y: b.add(b.pick_rows(x, at), y), (f32[30, 40], i64["B"], f32["B", 40]),
               positions={1: 30})


def runs() -> Iterator[Case]:
    yield Case("cumsum of columns", op("cumsum", axis=0, exclusive=True), (f32["B", "T"],))
    yield Case("cumsum", op("cumsum", axis=1), (f32["B", "T"],))
    yield Case("cumprod", op("cumprod", axis=0, reverse=True), (f64["B", 5],))
    yield Case("running extreme", op("running_arg_extremum", axis=1), (f32["B", "T"],))
    yield Case("running extreme of columns", op("running_arg_extremum", axis=0, least=True), (f32["B", "T"],))
    yield Case("linear scan", op("linear_scan", axis=1), (f64["B", "T", 70], f64["B", "T", 70]), most=1 << 15)


def sorts() -> Iterator[Case]:
    for dtype in (f32, f64):
        yield Case(f"sort of {dtype}", op("sort", axis=1), (dtype["B", "T"],), most=1 << 15)
    yield Case("argsort", op("argsort", axis=1, descending=True), (i32["B", "T"],), most=1 << 15)
    yield Case("argsort of i64", op("argsort", axis=1), (i64["B", "T"],), most=1 << 15)
    yield Case("sort of columns", op("sort", axis=0), (f32["B", "T"],), most=1 << 15)
    yield Case("sort in batches", op("sort", axis=1), (f32["B", 50],))
    yield Case("topk", op("topk", k=3, axis=1), (f32["B", "T"],), least={"T": 3}, most=1 << 15)
    yield Case("topk of classes", op("topk", k=5, axis=1), (f32["B", 100],))


def windows() -> Iterator[Case]:
    half = {"kernel": (2, 2), "stride": (2, 2)}
    three = {"kernel": (3, 3), "stride": (2, 2), "padding": ((1, 1), (1, 1))}
    wide = {"kernel": (5, 5), "stride": (1, 1), "padding": ((2, 2), (2, 2))}
    last = (0, 2, 3, 1)
    for name in ("max_pool2d", "avg_pool2d"):
        yield Case(f"{name} of a batch", op(name, **half), (f32["B", 5, 8, 6],))
        yield Case(f"{name} of a batch with padding", op(name, **three), (f32["B", 5, 7, 7],), orders={0: last})
        yield Case(f"{name} of images", op(name, **half), (f32["B", 8, "T", "C"],), least={"T": 2, "C": 2},
                   orders={0: last}, most=1 << 15, early=True)
        yield Case(f"{name} of images with padding", op(name, **three), (f32["B", 3, "T", "C"],), most=1 << 15, early=True)
        yield Case(f"{name} by large windows", op(name, **wide), (f32["B", 3, "T", 9],), most=1 << 15)
        yield Case(f"{name} gradient", gradient(name, **half), (f32["B", 5, 8, 6], f32["B", 5, 4, 3]))
        yield Case(f"{name} gradient with padding", gradient(name, **three), (f32["B", 5, 7, 7], f32["B", 5, 4, 4]),
                   orders={0: last, 1: last})
        yield Case(f"{name} gradient of images", gradient(name, **half), (f32["B", 8, "2*T", 6], f32["B", 8, "T", 3]),
                   orders={0: last, 1: last}, most=1 << 15)
    for rank, shape, out in ((1, ("T",), ("T",)), (3, (4, "T", 6), (2, "T", 3))):
        half = {"kernel": (2,) * rank, "stride": (2,) * rank}
        three = {"kernel": (3,) * rank, "stride": (1,) * rank, "padding": ((1, 1),) * rank}
        doubled = tuple(f"2*{n}" if n == "T" else n for n in shape)
        for name in (f"max_pool{rank}d", f"avg_pool{rank}d"):
            yield Case(f"{name} with padding", op(name, **three), (f32["B", 3, *shape],), most=1 << 16)
            yield Case(f"{name} gradient", gradient(name, **half), (f32["B", 3, *doubled], f32["B", 3, *out]),
                       most=1 << 16)
        yield Case(f"pick of windows of rank {rank}", op(f"max_pool{rank}d_pick", **half),
                   (f32["B", 3, *doubled], f32["B", 3, *doubled]), most=1 << 16)
    half = {"kernel": (2, 2), "stride": (2, 2)}
    yield Case("pick of windows", op("max_pool2d_pick", **half), (f32["B", 5, 8, 6], f32["B", 5, 8, 6]))


CASES = tuple(c for family in (elementwise, views, reductions, clusters, moves, lookups, runs, sorts, windows) for c in family())
