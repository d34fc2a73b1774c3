"""The pieces that pretrained networks are made of: matrices in the type of their file, and layers at the places that
its names say."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import graphc as gc
from graphc import nn
from graphc.doors.pretrained.stored import Storage, WholeStorage
from graphc.errors import GraphError
from graphc.nn.parameter import ZEROS

ACTIVATIONS: dict[str, Callable[[gc.Array], gc.Array]] = {
    "gelu": nn.gelu, "gelu_python": nn.gelu, "relu": nn.relu, "silu": nn.silu, "swish": nn.silu, "tanh": nn.tanh,
    **dict.fromkeys(("gelu_new", "gelu_pytorch_tanh", "gelu_fast"), nn.gelu(approximate="tanh")),
    "quick_gelu": lambda x: x * gc.sigmoid(1.702 * x)}
"""By the names of transformers."""


class Holder(nn.Module):
    """Layers by name, which somebody else calls."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        vars(self).update(layers)


class Planted(nn.Module):
    """A layer whose parts stand at paths of a table: `layout[role]` is the path of the part that has this role."""

    def __init__(self, layout: Mapping[str, str], **parts: nn.Module) -> None:
        super().__init__()
        self._layout = layout
        for role, part in parts.items():
            plant(self, layout[role], part)

    def part(self, role: str) -> nn.Module:
        """The part with this role."""
        return found(self, self._layout[role])


def found(root: nn.Module, path: str) -> nn.Module:
    """The part of `root` at a path such as "attention.self.query"."""
    for name in path.split("."):
        root = vars(root)[name]
    return root


def plant(root: nn.Module, path: str, layer: nn.Module) -> None:
    """Makes `layer` the part of `root` at a path, which `found` then finds."""
    *outer, last = path.split(".")
    for name in outer:
        root = vars(root).setdefault(name, Holder())
    vars(root)[last] = layer


class Matrix(nn.Module):
    """Base of layers with one matrix, which is kept as `stored` says."""
    stored: Storage = WholeStorage()


class Projection(Matrix):
    """x [..., in] -> x @ weight.T + bias [..., features]; `turned`: weight is [in, features], as in GPT-2's files."""
    maps_last_axis = True

    def __init__(self, features: int, *, bias: bool = True, turned: bool = False) -> None:
        super().__init__()
        self.features, self.biased, self.turned = features, bias, turned

    def forward(self, x: gc.Array) -> gc.Array:
        if self.turned:
            y = x @ self.stored.matrix(self, int(x.shape[-1]), self.features)
        else:
            y = self.stored.product(self, x, self.features)
        return y + self.parameter("bias", (self.features,), ZEROS) if self.biased else y


class Table(Matrix):
    """ids [...] -> rows of weight f32 [..., features]; `scores(x)` of x [..., features] against every row."""

    def __init__(self, count: int, features: int) -> None:
        super().__init__()
        self.count, self.features = count, features

    def forward(self, ids: gc.Array) -> gc.Array:
        if not ids.dtype.is_int:
            raise GraphError(f"tokens are integers, got {ids.dtype}; convert with ids.astype(gc.i32)")
        return self.stored.rows(self, ids, self.count, self.features)

    def scores(self, x: gc.Array) -> gc.Array:
        return self.within(lambda: self.stored.product(self, x, self.count))


class Bias(nn.Module):
    """x + bias [count], under the name `bias` of its place."""

    def forward(self, x: gc.Array) -> gc.Array:
        return x + self.parameter("bias", (int(x.shape[-1]),), ZEROS)


class OffsetNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) * (1 + weight), as in the files of Gemma."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: gc.Array) -> gc.Array:
        return gc.rms_norm(x, 1 + self.parameter("weight", (int(x.shape[-1]),), ZEROS), eps=self.eps)


def matrices(root: nn.Module) -> Iterator[tuple[str, Matrix]]:
    """The layers with a matrix, by the name of their weight."""
    for path, layer in root.named_modules():
        if isinstance(layer, Matrix):
            yield f"{path}.weight" if path else "weight", layer


def heads_of(x: gc.Array, count: int) -> gc.Array:
    """[B, T, count * D] as [B, count, T, D]."""
    return x.reshape(*x.shape[:2], count, int(x.shape[2]) // count).transpose(0, 2, 1, 3)


def joined_heads(x: gc.Array) -> gc.Array:
    """[B, count, T, D] as [B, T, count * D]."""
    batch, count, steps, width = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch, steps, int(count) * int(width))


def shown_tokens(attention_mask: gc.Array | None, rank: int) -> gc.Array | None:
    """attention_mask [B, T], 0 for padding, as a bool mask that broadcasts to scores of `rank` axes."""
    if attention_mask is None:
        return None
    if attention_mask.ndim != 2:
        raise GraphError(f"attention_mask is [batch, time], 1 for tokens and 0 for padding, got {attention_mask.type}")
    seen = attention_mask if attention_mask.dtype == gc.bool_ else attention_mask != 0
    batch, steps = seen.shape
    return seen.reshape(batch, *(1,) * (rank - 2), steps)


def last_real(scores: gc.Array, ids: gc.Array, padding: int | None) -> gc.Array:
    """scores [B, T, C] of the last token of each sequence that is no padding, [B, C]; transformers counts so."""
    if padding is None:
        if ids.shape[0] != 1:
            raise GraphError("config.json has no pad_token_id, so where a sequence of a batch ends is not known: take "
                             "a batch of 1, or add the field")
        return scores[:, -1]
    places = gc.iota((ids.shape[1],), dtype=gc.i64)
    last = gc.max(gc.where(ids != padding, places, 0), axis=1, keepdims=True)
    return gc.sum(gc.where(gc.expand_dims(places == last, -1), scores, 0.0), axis=1)
