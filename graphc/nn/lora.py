"""Low-rank changes to layers that stay as they are."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from graphc.dsl.arguments import converted
from graphc.dsl.array import Array
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.ir.convert import callable_, shown
from graphc.nn.held import held
from graphc.nn.module import Module, as_module
from graphc.nn.norm import Dropout
from graphc.nn.parameter import ZEROS, fan_in_uniform


class LoRA(Module):
    """layer(x) + alpha / rank * (dropout(x) @ lora_a.T) @ lora_b.T: a layer that is kept, and a change of low rank that
    is trained in its stead (Hu et al. 2021, arXiv:2106.09685). x [..., in] -> [..., out], both floats.

    `layer`: a layer or function that maps the last axis, as `Linear` does, in whatever bits it has its weights. Its
    parameters keep their names, so that a file of the network without the change can be read with `partial=True`, and
    are not trained by anyone. lora_a [rank, in] starts uniform within 1 / sqrt(in), as peft's, and lora_b [out, rank]
    as zeros: at first the result is the layer's. `alpha`: `rank` unless given. `dropout`: a share of x in training.
    """

    def __init__(self, layer: Callable[..., Any], rank: int, *, alpha: float | None = None,
                 dropout: float = 0.0) -> None:
        super().__init__()
        if not callable(layer):
            raise GraphError(f"LoRA takes a layer and a rank, nn.LoRA(nn.Linear(64), 8), got {shown(layer)}",
                             user_loc())
        if rank < 1:
            raise GraphError(f"LoRA takes a rank >= 1, got {rank}", user_loc())
        self._layer, self.rank, self.alpha, self.dropout = as_module(layer), rank, alpha, Dropout(dropout)

    def forward(self, x: Array) -> Array:
        with held():
            y = self._layer(x)
        _check_maps(self, x, y)
        a = self.parameter("lora_a", (self.rank, x.shape[-1]), fan_in_uniform(int(x.shape[-1])), x.dtype)
        b = self.parameter("lora_b", (y.shape[-1], self.rank), ZEROS, x.dtype)
        return y + (self.dropout(x) @ a.T) @ (b.T * self.scale)

    @property
    def scale(self) -> float:
        return (self.rank if self.alpha is None else self.alpha) / self.rank

    def children(self) -> Iterator[tuple[str, Module]]:
        """The layer has the path that it would have without the change."""
        return iter((("", self._layer),))

    def __repr__(self) -> str:
        return f"LoRA({self._layer!r}, {self.rank})"


@formed
@converted
def add_lora(net: Module, rank: int, *, where: Callable[[str, Module], bool] | None = None,
             alpha: float | None = None, dropout: float = 0.0) -> Module:
    """The network itself, whose layers that map the last axis by a matrix (`Linear`, and those of pretrained models)
    are now each a `LoRA` of this rank; with `where`, the layers for which `where(path, layer)` holds. What has no such
    change is trained as before: a step's `trainable=lambda name: "lora_" in name` trains the changes alone.

    GraphError if there is no such layer among the attributes and items of the network and of its layers.
    """
    if not isinstance(net, Module):
        raise GraphError(f"add_lora takes a network, got {shown(net)}", user_loc())
    if where is not None:
        callable_(where, "where= of add_lora")
    modules = list(net.named_modules())
    made = {id(m): LoRA(m, rank, alpha=alpha, dropout=dropout) for path, m in modules
            if (m.maps_last_axis if where is None else where(path, m)) and id(m) not in _changed(net)}
    if not made:
        raise GraphError(f"add_lora found no layer to change: none of {', '.join(p for p, _ in modules if p) or net} "
                         "is chosen; it takes layers that map the last axis by a matrix, or those that where= chooses")
    if id(net) in made:
        return made[id(net)]
    for _, module in modules:
        vars(module).update({name: _with(value, made) for name, value in vars(module).items()})
    for key in made.keys() - _changed(net):
        raise GraphError(f"add_lora cannot change {made[key]._layer!r}, which is a variable of a function: write "
                         f"nn.LoRA(…, {rank}) there")
    return net


def _changed(net: Module) -> set[int]:
    """The layers in `net` that a LoRA changes, by id."""
    return {id(m._layer) for _, m in net.named_modules() if isinstance(m, LoRA)}


def _with(value: Any, made: Mapping[int, Module]) -> Any:
    """An attribute, with changed layers in the place of others; those in lists, tuples and dicts too."""
    if isinstance(value, Module):
        return made.get(id(value), value)
    if type(value) in (list, tuple):
        return type(value)(_with(item, made) for item in value)
    return {key: _with(item, made) for key, item in value.items()} if type(value) is dict else value


def _check_maps(layer: LoRA, x: Array, y: Array) -> None:
    """GraphError unless `y` has the axes of `x`, but for the last one."""
    if not x.shape or not x.dtype.is_float:
        raise GraphError(f"LoRA takes floats with at least one axis, got {x.type}")
    if not isinstance(y, Array) or y.shape[:-1] != x.shape[:-1] or y.ndim != x.ndim or y.dtype != x.dtype:
        raise GraphError(f"LoRA changes a layer that maps the last axis, {x.dtype}[..., in] -> {x.dtype}[..., out]; "
                         f"{layer._layer!r} gave {shown(y)} for {x.type}")
