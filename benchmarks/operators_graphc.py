"""The families of `operators.py` in graphc: options -> a function of symbolic arrays."""
from __future__ import annotations

import graphc as gc

UNARY = {name: getattr(gc, name) for name in ("exp", "tanh", "sigmoid", "gelu", "silu", "relu", "abs", "square", "neg")}
BINARY = {"add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y, "maximum": gc.maximum,
          "where": lambda x, y: gc.where(x > y, x * 0.5, y)}
THEN = {"": lambda y, b: y, "bias": lambda y, b: y + b, "relu": lambda y, b: gc.relu(y + b),
        "silu": lambda y, b: gc.silu(y + b),
        "gelu": lambda y, b: gc.gelu(y + b)}


def conv(batch, channels, out, size, kernel, stride, padding, dilation, groups, before, then):
    rank = len(size)
    product = getattr(gc, f"conv{rank}d")

    def f(x, w, b):
        y = product(gc.relu(x) if before else x, w, stride, padding, dilation, groups)
        if then == "batch_norm":
            return gc.relu(gc.batch_norm(y, b, b)[0])
        if then == "rms_norm":
            return gc.rms_norm(gc.moveaxis(y, 1, -1)).transpose(0, rank + 1, *range(1, rank + 1))
        if then == "group_norm":
            return gc.silu(gc.group_norm(y, groups=1))
        if then == "layer_norm":
            return gc.layer_norm(gc.moveaxis(y, 1, -1)).transpose(0, rank + 1, *range(1, rank + 1))
        return THEN[then](y, b.reshape(out, *(1,) * rank))
    return f


def pool(shape, kind, kernel, stride, padding):
    apply = getattr(gc, f"{kind}_pool{len(shape) - 2}d")
    return lambda x: apply(x, kernel, stride, padding)


def matmul(batch_shape, m, n, k, turned, then):
    def f(a, b, bias):
        y = (a.mT if turned == "a" else a) @ (b.mT if turned == "b" else b)
        return THEN[then](y, bias)
    return f


def einsum(equation, sizes):
    return lambda x, y: gc.einsum(equation, x, y)


def rows(shape, perm, axes, op):
    def f(x):
        x = gc.transpose(x, perm)
        return getattr(gc, op)(x, axis=axes[0] if op in ("softmax", "log_softmax") else axes)
    return f


def standardize(shape, perm, axes, op):
    def f(x):
        x = gc.transpose(x, perm)
        if op == "scale":
            return x * gc.rsqrt(gc.mean(x * x, axes, keepdims=True) + 1e-5)
        return (x - gc.mean(x, axes, keepdims=True)) * gc.rsqrt(gc.var(x, axes, keepdims=True) + 1e-5)
    return f


def norm(shape, op, groups):
    def f(x, gamma, beta):
        if op == "group_norm":
            return gc.group_norm(x, gamma, beta, groups=groups)
        if op == "rms_norm":
            return gc.rms_norm(x, gamma)
        return gc.batch_norm(x, gamma, beta)[0] if op == "batch_norm" else gc.layer_norm(x, gamma, beta)
    return f


def elementwise(shape, operands, chain):
    def f(x, *others):
        for step in chain:
            x = UNARY[step](x) if isinstance(step, str) else BINARY[step[0]](x, others[step[1]])
        return x
    return f


def move(shape, op, perm, axis, amount):
    at = (slice(None),) * axis
    moves = {"transpose": lambda x, y: gc.transpose(x, perm), "flip": lambda x, y: gc.flip(x, axis),
             "strided": lambda x, y: x[(*at, slice(None, None, amount + 1))],
             "concat": lambda x, y: gc.concat([x, y], axis), "roll": lambda x, y: gc.roll(x, amount, axis),
             "repeat": lambda x, y: gc.repeat(x, amount + 1, axis),
             "pad": lambda x, y: gc.pad(x, [(amount, amount) if i == axis else (0, 0) for i in range(len(shape))]),
             "broadcast": lambda x, y: gc.broadcast_to(x, (amount + 1, *shape))}
    if op == "transpose" and perm == tuple(range(len(perm))):
        return lambda x, y: x * 1.0                 # no move: a copy that is not folded away
    return moves[op]


def index(op, rows, width, count, axis):
    return {"take": lambda t, i: gc.take(t, i, axis), "embedding": gc.embedding,
            "take_along_axis": lambda t, i: gc.take_along_axis(t, i, axis),
            "scatter_add": lambda t, i, u: gc.scatter_add(t, i, u, axis)}[op]


def sort(op, shape, axis, k):
    if op == "topk":
        return lambda x: gc.topk(x, k, -1)[0]
    if op == "argsort":
        return lambda x: gc.take_along_axis(x, gc.argsort(x, -1), -1)
    if op == "sort":
        return lambda x: gc.sort(x, axis)
    return lambda x: gc.cumsum(x * 1e-3, axis) if op == "cumsum" else gc.cumprod(1 + x * 1e-3, axis)


def scan(kind, length, batch_rows, width, chain, rows):
    def chained(xs, start):
        def body(h, x):
            y = h
            for step in chain:
                y = UNARY[step](y) if isinstance(step, str) else BINARY[step[0]](y, (x, h)[step[1]])
            h = gc.tanh(y) * 0.5
            return h, h
        return gc.scan(body, start, xs)[0]

    def product(xs, start, w):
        return gc.scan(lambda h, x: (gc.tanh(h @ w * width ** -0.5 + x),) * 2, start, xs)[0]

    def update(rows_in, buffer, at):
        def body(state, x):
            row, i = x
            return gc.dynamic_update_slice(state, row[None], [i, 0]), row
        return gc.scan(body, buffer, (rows_in, at))[0]

    def sliced(table, start):
        """Each step reads the same two places of a table of any length."""
        def body(h, _):
            h = gc.tanh(h * 0.5 + table[3] + table[rows // 2])
            return h, None
        return gc.scan(body, start, length=length)[0]

    def solve(a, start):
        few = len(start)
        lower = gc.tril(a, -1) * (0.5 / few) + gc.eye(few)
        def body(h, _):
            return gc.solve_triangular(lower, gc.tanh(h), lower=True), None
        return gc.scan(body, start, length=length)[0]

    def scatter(rows_in, buffer, at):
        return gc.scan(lambda state, x: (gc.scatter_add(state, x[1][None], x[0][None]), x[0]), buffer, (rows_in, at))[0]
    return {"chain": chained, "product": product, "linear": lambda a, x: gc.linear_scan(gc.sigmoid(a), x),
            "update": update, "scatter": scatter, "slice": sliced, "solve": solve}[kind]


def attention(batch_size, heads, size, queries, keys, mask):
    if mask == "keys":
        return lambda q, k, v, m: gc.attention(q, k, v, m > 0)
    return lambda q, k, v: gc.attention(q, k, v, causal=mask == "causal")


def loss(op, rows, classes):
    return {"cross_entropy": gc.cross_entropy, "mse": gc.mse, "cosine": lambda x, t: gc.cosine_similarity(x, t, -1),
            "bce": lambda x, t: gc.bce_with_logits(x, gc.sigmoid(t))}[op]


def update(op, sizes):
    def sgd(*arrays):
        return tuple(p - 0.1 * g for p, g in zip(arrays[::2], arrays[1::2]))

    def momentum(*arrays):
        out = []
        for p, g, m in zip(*(arrays[i::3] for i in range(3))):
            m = 0.9 * m + g
            out += [p - 0.1 * m, m]
        return tuple(out)

    def adam(*arrays):
        out = []
        for p, g, m, v in zip(*(arrays[i::4] for i in range(4))):
            m, v = 0.9 * m + 0.1 * g, 0.999 * gc.abs(v) + 0.001 * g * g
            out += [p - 1e-3 * m / (gc.sqrt(v) + 1e-8), m, v]
        return tuple(out)
    return {"sgd": sgd, "momentum": momentum, "adam": adam}[op]


def random(op, shape):
    """Draws add too little to be seen in the result, which every engine shares."""
    draws = {"normal": lambda x: gc.normal(shape), "uniform": lambda x: gc.uniform(shape),
             "dropout": lambda x: gc.dropout(x, 0.1)}
    return lambda x: x + 1e-6 * draws[op](x)


OPERATORS = {"op.conv": conv, "op.pool": pool, "op.matmul": matmul, "op.einsum": einsum, "op.reduce": rows,
             "op.softmax": rows, "op.standardize": standardize, "op.norm": norm,
             "op.elementwise": elementwise, "op.move": move, "op.index": index, "op.sort": sort, "op.scan": scan,
             "op.attention": attention, "op.loss": loss,
             "op.update": update, "op.random": random}
