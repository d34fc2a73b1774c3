"""Support vector machines of ai.onnx.ml."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

import graphc as gc
from graphc.doors.onnx.ops.ml import chosen, constant_of, labels_of, rows, transformed
from graphc.dsl.array import Array
from graphc.errors import GraphError
from graphc.records import dataclass

MOST_ROUNDS = 100                   # of coupling, as in libsvm; with more classes as many as there are
NEAR = 0.005                        # where it ends: this divided by the number of classes
LEAST = 1e-7                        # a probability between two classes is this far from 0 and 1
Floats = Sequence[float]


@dataclass(frozen=True)
class Kernel:
    """K(x, v) by its name: x · v, (gamma x · v + coef0)^degree, tanh of the same, or exp(-gamma |x - v|²)."""
    name: str
    gamma: float
    coef0: float
    degree: float

    @staticmethod
    def of(name: str, numbers: Floats) -> Kernel:
        if name not in ("LINEAR", "POLY", "RBF", "SIGMOID"):
            raise GraphError(f"there is no kernel_type {name!r}")
        if len(numbers) not in (0, 3):
            raise GraphError(f"kernel_params are gamma, coef0 and degree, got {len(numbers)} numbers")
        return Kernel(name, *(numbers or (0.0, 0.0, 0.0)))

    def __call__(self, x: Array, vectors: np.ndarray) -> Array:
        """[N, F] and [V, F]: [N, V]."""
        if self.name == "RBF":
            apart = gc.expand_dims(x, 1) - constant_of(vectors)
            return gc.exp(gc.sum(apart * apart, -1) * -self.gamma)
        y = x @ constant_of(vectors.T.copy())
        if self.name == "LINEAR":
            return y
        y = y * self.gamma + self.coef0
        return gc.tanh(y) if self.name == "SIGMOID" else y ** self.degree


def svm_regressor(x: Array, *, coefficients: Floats, kernel_params: Floats = (), kernel_type: str = "LINEAR",
                  n_supports: int = 0, one_class: int = 0, post_transform: str = "NONE", rho: Floats,
                  support_vectors: Floats = ()) -> Array:
    """[N, 1]: the sum of kernels with support vectors, or a linear function; of one class 1 inside and -1 outside."""
    x, factors = rows(x), np.asarray(coefficients, np.float32).reshape(-1, 1)
    if n_supports:
        x = Kernel.of(kernel_type, kernel_params)(x, np.asarray(support_vectors, np.float32).reshape(n_supports, -1))
    y = x @ constant_of(factors) + float(rho[0])
    return gc.where(y > 0, 1.0, gc.full((), -1.0)) if one_class else transformed(y, post_transform)


def svm_classifier(x: Array, *, classlabels_ints: Sequence[int] = (), classlabels_strings: Sequence[str] = (),
                   coefficients: Floats, kernel_params: Floats = (), kernel_type: str = "LINEAR",
                   post_transform: str = "NONE", prob_a: Floats = (), prob_b: Floats = (), rho: Floats,
                   support_vectors: Floats = (), vectors_per_class: Sequence[int] = ()) -> tuple[Array, Array]:
    """The label, and scores: of each pair of classes, or where the file has `prob_a` the probability of each class."""
    labels, x = labels_of(classlabels_ints, classlabels_strings), rows(x)
    factors = np.asarray(coefficients, np.float32)
    if not sum(vectors_per_class):
        scores = x @ constant_of(factors.reshape(max(len(labels), 1), -1).T.copy()) + float(rho[0])
        return _label(scores, labels, factors, rho, bool(prob_a)), _both(scores, post_transform)
    vectors = np.asarray(support_vectors, np.float32).reshape(sum(vectors_per_class), -1)
    pairs = list(combinations(range(len(vectors_per_class)), 2))
    scores = Kernel.of(kernel_type, kernel_params)(x, vectors) @ constant_of(
        _of_pairs(factors.reshape(-1, len(vectors)), vectors_per_class, pairs)) + constant_of(rho)
    wins, losses = (np.zeros((len(pairs), len(vectors_per_class)), np.float32) for _ in range(2))
    for at, (i, j) in enumerate(pairs):
        wins[at, i] = losses[at, j] = 1.0
    won = (scores > 0).astype(gc.f32)
    votes = won @ constant_of(wins) + (1.0 - won) @ constant_of(losses)
    label = _label(votes, labels, factors, rho, bool(prob_a))
    if not prob_a:
        return label, _both(scores, post_transform)
    return label, transformed(_coupled(scores, prob_a, prob_b, pairs, len(vectors_per_class)), post_transform)


def _of_pairs(factors: np.ndarray, counts: Sequence[int], pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """[vectors, pairs]: what each support vector adds to the score of i against j. Row j - 1 of the file's factors has
    those of the vectors of i, row i those of the vectors of j."""
    ends = np.cumsum([0, *counts])
    made = np.zeros((factors.shape[1], len(pairs)), np.float32)
    for at, (i, j) in enumerate(pairs):
        for row, own in ((j - 1, i), (i, j)):
            made[ends[own]:ends[own + 1], at] = factors[row, ends[own]:ends[own + 1]]
    return made


def _label(scores: Array, labels: np.ndarray, factors: np.ndarray, rho: Floats, has_shares: bool) -> Array:
    """The first label of the largest score; of a single score, and of two classes, as ONNX Runtime has it."""
    if len(rho) != 1 or len(labels) == 2 and (has_shares or np.min(factors) < 0):
        return chosen(scores, labels)
    best = gc.max(scores, -1)
    if len(labels) == 2:
        return gc.where(best >= 0.5, gc.full((), int(labels[1]), gc.i64), chosen(scores, labels))
    return (best > 0).astype(gc.i64)


def _both(scores: Array, post_transform: str) -> Array:
    """A single score is that of the second of two classes."""
    return transformed(scores if scores.shape[1] != 1 else gc.concat([-scores, scores], 1), post_transform)


def _coupled(scores: Array, a: Floats, b: Floats, pairs: Sequence[tuple[int, int]], count: int) -> Array:
    """Probabilities [N, count] from those between pairs: Wu, Lin and Weng, Probability estimates for multi-class
    classification by pairwise coupling (2004), their second approach, round after round as in libsvm."""
    share = gc.clip(gc.sigmoid(-(scores * constant_of(a) + constant_of(b))), LEAST, 1.0 - LEAST)
    first, second = (np.zeros((len(pairs), count, count), np.float32) for _ in range(2))
    for at, (i, j) in enumerate(pairs):
        first[at, i, j] = second[at, j, i] = 1.0
    r = gc.einsum("np,pij->nij", share, constant_of(first)) + gc.einsum(
        "np,pij->nij", 1.0 - share, constant_of(second))
    turned = gc.swapaxes(r, 1, 2)
    own = constant_of(np.eye(count, dtype=np.float32))
    q = gc.expand_dims(gc.sum(turned * turned, -1), 2) * own - turned * r

    def going(carry: tuple[Array, ...]) -> Array:
        return gc.any(carry[1])

    def step(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        p, _ = carry
        qp = gc.sum(q * gc.expand_dims(p, 1), -1)
        pqp = gc.sum(p * qp, -1, True)
        open_ = gc.max(gc.abs(qp - pqp), -1, True) >= NEAR / count

        def move(state: tuple[Array, ...], slices: tuple[Array, ...]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
            (p, qp, pqp), (row, one) = state, slices
            here, diagonal = gc.sum(qp * one, -1, True), gc.sum(row * one, -1, True)
            change = (pqp - here) / diagonal
            by = 1.0 + change
            return ((p + change * one) / by, (qp + change * row) / by,
                    (pqp + change * (change * diagonal + 2.0 * here)) / (by * by)), ()
        (moved, _, _), _ = gc.scan(move, (p, qp, pqp), (gc.moveaxis(q, 1, 0), own))
        return gc.where(open_, moved, p), open_
    start = gc.full((scores.shape[0], count), 1.0 / count), gc.full((scores.shape[0], 1), True, gc.bool_)
    _, (p, _) = gc.while_loop(going, step, start, max(MOST_ROUNDS, count))
    return p


RULES: Mapping[str, Callable[..., Any]] = {"ai.onnx.ml:SVMRegressor": svm_regressor,
                                           "ai.onnx.ml:SVMClassifier": svm_classifier}
