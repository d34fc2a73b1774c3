"""A softmax over very many classes, of which rare ones have narrow products."""
from __future__ import annotations

from collections.abc import Sequence
from math import inf

import graphc as gc
from graphc.dsl.array import Array, as_float
from graphc.dsl.context import user_loc
from graphc.errors import GraphError
from graphc.ir.convert import integer, items
from graphc.ir.types import i64
from graphc.nn.linear import Linear
from graphc.nn.module import Module
from graphc.nn.reduction import ids_of


class AdaptiveLogSoftmaxWithLoss(Module):
    """Log-probabilities of `classes` classes in clusters (Grave et al. 2016, arXiv:1609.04309): x [B, in] and class ids
    [B] give (log-probability of each target [B], loss: the mean of their negatives).

    cutoffs: increasing numbers of classes. The first `cutoffs[0]` are in the head, beside one entry for each further
    cluster; cluster i has the classes from cutoffs[i] to the next, and a product of in / div_value ** (i + 1) features.
    Classes are sorted by how frequent they are. `log_prob(x)` gives all [B, classes], `predict(x)` the likeliest [B].

    Names of parameters, and first values, are torch's: head.weight, tail.0.0.weight, …. (Each cluster is computed for
    every row, where torch picks rows: sizes are fixed when the graph is made. What is saved are the narrow products.)
    """

    def __init__(self, classes: int, cutoffs: Sequence[int], *, div_value: float = 4.0,
                 head_bias: bool = False) -> None:
        super().__init__()
        what = "AdaptiveLogSoftmaxWithLoss: cutoffs"
        self.cutoffs = [*(integer(n, what) for n in items(cutoffs, what)), classes]
        if len(self.cutoffs) < 2 or self.cutoffs[0] < 1 or any(a >= b for a, b in zip(self.cutoffs, self.cutoffs[1:])):
            raise GraphError(f"AdaptiveLogSoftmaxWithLoss: cutoffs increase from 1 or more to less than the {classes} "
                             f"classes, got {self.cutoffs[:-1]}", user_loc())
        if not 0 < div_value < inf:
            raise GraphError(f"AdaptiveLogSoftmaxWithLoss: div_value is a number above 0, got {div_value}", user_loc())
        self.div_value = div_value
        self.head = Linear(self.cutoffs[0] + len(self.cutoffs) - 1, bias=head_bias)
        self.tail: list[Module] = []

    def forward(self, x: Array, target: Array) -> tuple[Array, Array]:
        ids = ids_of("AdaptiveLogSoftmaxWithLoss", target)
        if ids.shape != x.shape[:-1]:
            raise GraphError(f"AdaptiveLogSoftmaxWithLoss of {x.type} takes ids {i64[x.shape[:-1]]}, got {ids.type}")
        head, tails = self._parts(x)
        first = self.cutoffs[0]
        found = _chosen(head, gc.minimum(ids, first - 1))
        for i, (low, high, tail) in enumerate(zip(self.cutoffs, self.cutoffs[1:], tails)):
            inside = _chosen(tail, gc.clip(ids - low, 0, high - low - 1)) + head[..., first + i]
            found = gc.where(ids >= low, inside, found)
        nothing = gc.embedding(gc.zeros((self.cutoffs[-1], 1), found.dtype), ids)       # refuses ids of no class
        found = found + gc.squeeze(nothing, -1)
        return found, -gc.mean(found)

    def log_prob(self, x: Array) -> Array:
        """The log-probabilities of all classes, [..., classes]."""
        def of() -> Array:
            head, tails = self._parts(as_float(x))
            first = self.cutoffs[0]
            return gc.concat([head[..., :first], *(tail + head[..., first + i:first + i + 1]
                                                   for i, tail in enumerate(tails))], -1)
        return self.within(of)

    def predict(self, x: Array) -> Array:
        """The likeliest class of each row, i64."""
        return gc.argmax(self.log_prob(x), -1)

    def _parts(self, x: Array) -> tuple[Array, list[Array]]:
        """The log-probabilities of the head, and within each cluster."""
        if not self.tail:
            width = int(x.shape[-1])
            narrow = [int(width // self.div_value ** (i + 1)) for i in range(len(self.cutoffs) - 1)]
            if not all(narrow):
                raise GraphError(f"AdaptiveLogSoftmaxWithLoss: {width} features divided by {self.div_value} for each "
                                 f"of {len(narrow)} clusters leave none: fewer cutoffs, or a lower div_value")
            self.tail = [Linear(n, bias=False) >> Linear(high - low, bias=False)
                         for n, low, high in zip(narrow, self.cutoffs, self.cutoffs[1:])]
        return gc.log_softmax(self.head(x), -1), [gc.log_softmax(tail(x), -1) for tail in self.tail]


def _chosen(x: Array, ids: Array) -> Array:
    return gc.squeeze(gc.take_along_axis(x, gc.expand_dims(ids, -1), -1), -1)
