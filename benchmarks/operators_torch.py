"""The families of `operators.py` in PyTorch."""
from __future__ import annotations

import torch
from torch.nn import functional as F

UNARY = {"exp": torch.exp, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "gelu": F.gelu, "silu": F.silu,
         "relu": torch.relu, "abs": torch.abs,
         "square": torch.square, "neg": torch.neg}
BINARY = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "maximum": torch.maximum,
          "where": lambda x, y: torch.where(x > y, x * 0.5, y)}
ACTIVATIONS = {"bias": lambda y: y, "relu": torch.relu, "silu": F.silu, "gelu": F.gelu}


def conv(batch, channels, out, size, kernel, stride, padding, dilation, groups, before, then):
    rank = len(size)
    product = getattr(F, f"conv{rank}d")

    def f(x, w, b):
        x = torch.relu(x) if before else x
        y = product(x, w, b if then in ACTIVATIONS else None, stride, padding, dilation, groups)
        if then == "batch_norm":
            return torch.relu(F.batch_norm(y, None, None, b, b, training=True))
        if then == "rms_norm":
            return F.rms_norm(y.movedim(1, -1), (out,), eps=1e-6).movedim(-1, 1)
        if then == "group_norm":
            return F.silu(F.group_norm(y, 1))
        if then == "layer_norm":
            return F.layer_norm(y.movedim(1, -1), (out,)).movedim(-1, 1)
        return ACTIVATIONS[then](y) if then else y
    return f


def pool(shape, kind, kernel, stride, padding):
    apply = getattr(F, f"{kind}_pool{len(shape) - 2}d")
    return lambda x: apply(x, kernel, stride, padding)


def matmul(batch_shape, m, n, k, turned, then):
    def f(a, b, bias):
        a, b = (a.mT if turned == "a" else a), (b.mT if turned == "b" else b)
        if not then:
            return a @ b
        return ACTIVATIONS[then](torch.addmm(bias, a, b) if not batch_shape else a @ b + bias)
    return f


def einsum(equation, sizes):
    return lambda x, y: torch.einsum(equation, x, y)


def rows(shape, perm, axes, op):
    calls = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax, "var": lambda x, a: torch.var(x, a, correction=0),
             "logsumexp": torch.logsumexp,
             "softmax": lambda x, a: torch.softmax(x, a[0]), "log_softmax": lambda x, a: torch.log_softmax(x, a[0])}
    return lambda x: calls[op](x.permute(perm), axes)


def standardize(shape, perm, axes, op):
    def f(x):
        x = x.permute(perm)
        if op == "scale":
            return x * torch.rsqrt((x * x).mean(axes, keepdim=True) + 1e-5)
        var, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
        return (x - mean) * torch.rsqrt(var + 1e-5)
    return f


def norm(shape, op, groups):
    calls = {"group_norm": lambda x, g, b: F.group_norm(x, groups, g, b),
             "rms_norm": lambda x, g, b: F.rms_norm(x, (shape[-1],), g, 1e-6),
             "batch_norm": lambda x, g, b: F.batch_norm(x, None, None, g, b, training=True),
             "layer_norm": lambda x, g, b: F.layer_norm(x, (shape[-1],), g, b)}
    return calls[op]


def elementwise(shape, operands, chain):
    def f(x, *others):
        for step in chain:
            x = UNARY[step](x) if isinstance(step, str) else BINARY[step[0]](x, others[step[1]])
        return x
    return f


def move(shape, op, perm, axis, amount):
    at = (slice(None),) * axis
    padding = [n for i in reversed(range(len(shape))) for n in ((amount, amount) if i == axis else (0, 0))]
    moves = {"transpose": lambda x, y: x.permute(perm).contiguous() if perm != tuple(range(len(perm))) else x * 1.0,
             "flip": lambda x, y: torch.flip(x, (axis,)),
             "strided": lambda x, y: x[(*at, slice(None, None, amount + 1))].contiguous(),
             "concat": lambda x, y: torch.cat([x, y], axis),
             "roll": lambda x, y: torch.roll(x, amount, axis),
             "repeat": lambda x, y: torch.repeat_interleave(x, amount + 1, axis),
             "pad": lambda x, y: F.pad(x, padding), "broadcast": lambda x, y: x.expand(amount + 1, *shape).contiguous()}
    return moves[op]


def index(op, rows, width, count, axis):
    return {"take": lambda t, i: torch.index_select(t, axis, i), "embedding": lambda t, i: F.embedding(i, t),
            "take_along_axis": lambda t, i: torch.gather(t, axis, i),
            "scatter_add": lambda t, i, u: t.index_add(axis, i, u)}[op]


def sort(op, shape, axis, k):
    return {"topk": lambda x: torch.topk(x, k).values, "sort": lambda x: torch.sort(x, dim=axis, stable=True).values,
            "argsort": lambda x: torch.gather(x, -1, torch.argsort(x, stable=True)),
            "cumsum": lambda x: torch.cumsum(x * 1e-3, axis),
            "cumprod": lambda x: torch.cumprod(1 + x * 1e-3, axis)}[op]


def _fixed_loops(length, rows):
    """Loops over nothing: the same operands in each step."""
    def sliced(table, h):
        for _ in range(length):
            h = torch.tanh(h * 0.5 + table[3] + table[rows // 2])
        return h

    def solve(a, h):
        few = len(h)
        lower = torch.tril(a, -1) * (0.5 / few) + torch.eye(few)
        for _ in range(length):
            h = torch.linalg.solve_triangular(lower, torch.tanh(h)[:, None], upper=False)[:, 0]
        return h

    return {"slice": sliced, "solve": solve}


def scan(kind, length, batch_rows, width, chain, rows):
    def chained(xs, h):
        for x in xs:
            y = h
            for step in chain:
                y = UNARY[step](y) if isinstance(step, str) else BINARY[step[0]](y, (x, h)[step[1]])
            h = torch.tanh(y) * 0.5
        return h

    def product(xs, h, w):
        for x in xs:
            h = torch.tanh(h @ w * width ** -0.5 + x)
        return h

    def linear(a, xs):
        h, out = torch.zeros_like(xs[0]), []
        for a, x in zip(torch.sigmoid(a), xs):
            h = a * h + x
            out.append(h)
        return torch.stack(out)

    def update(rows_in, buffer, at):
        """A later row in the same place wins."""
        buffer = buffer.clone()
        for row, i in zip(rows_in, at.tolist()):
            buffer[i] = row
        return buffer

    def scatter(rows_in, buffer, at):
        buffer = buffer.clone()
        for row, i in zip(rows_in, at.tolist()):
            buffer[i] += row
        return buffer
    return {"chain": chained, "product": product, "linear": linear, "update": update, "scatter": scatter,
            **_fixed_loops(length, rows)}[kind]


def attention(batch_size, heads, size, queries, keys, mask):
    """Causal as the last queries of all keys see them."""
    if mask == "keys":
        return lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m > 0)
    if mask == "causal" and queries != keys:
        hidden = torch.ones(queries, keys, dtype=torch.bool).tril()
        return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, hidden)
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=mask == "causal")


def loss(op, rows, classes):
    return {"cross_entropy": F.cross_entropy, "mse": F.mse_loss, "cosine": F.cosine_similarity,
            "bce": lambda x, t: F.binary_cross_entropy_with_logits(x, torch.sigmoid(t))}[op]


def update(op, sizes):
    def sgd(*arrays):
        return tuple(torch._foreach_add(arrays[::2], arrays[1::2], alpha=-0.1))

    def momentum(*arrays):
        p, g, m = (list(arrays[i::3]) for i in range(3))
        m = torch._foreach_add(torch._foreach_mul(m, 0.9), g)
        p = torch._foreach_add(p, m, alpha=-0.1)
        return tuple(x for row in zip(p, m) for x in row)

    def adam(*arrays):
        p, g, m, v = (list(arrays[i::4]) for i in range(4))
        m = torch._foreach_lerp(m, g, 0.1)
        v = torch._foreach_mul(torch._foreach_abs(v), 0.999)
        torch._foreach_addcmul_(v, g, g, 0.001)
        roots = torch._foreach_sqrt(v)
        torch._foreach_add_(roots, 1e-8)
        p = torch._foreach_addcdiv(p, m, roots, -1e-3)
        return tuple(x for row in zip(p, m, v) for x in row)
    return {"sgd": sgd, "momentum": momentum, "adam": adam}[op]


def random(op, shape):
    draws = {"normal": lambda x: torch.randn(shape), "uniform": lambda x: torch.rand(shape),
             "dropout": lambda x: F.dropout(x, 0.1)}
    return lambda x: x + 1e-6 * draws[op](x)


OPERATORS = {"op.conv": conv, "op.pool": pool, "op.matmul": matmul, "op.einsum": einsum, "op.reduce": rows,
             "op.softmax": rows, "op.standardize": standardize, "op.norm": norm,
             "op.elementwise": elementwise, "op.move": move, "op.index": index, "op.sort": sort, "op.scan": scan,
             "op.attention": attention, "op.loss": loss,
             "op.update": update, "op.random": random}
