"""Every loss of one's own name: operands, options, and the formula in numpy for each single loss."""
from __future__ import annotations

import numpy as np

from graphc import nn

RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(4, 5)), RNG.normal(size=(4, 5))
P, Q = RNG.uniform(0.05, 0.95, (4, 5)), RNG.uniform(0.05, 0.95, (4, 5))
SIGN, BIT = np.sign(RNG.normal(size=(4, 5))), (RNG.random((4, 5)) < 0.5).astype(float)
IDS = np.array([0, 4, 2, 2], np.int32)
LABELS = np.array([[3, 0, -1, 1, -1], [-1, 2, 2, 2, 2], [0, 1, 2, 3, 4], [4, -1, 0, 0, 0]], np.int32)
WEIGHT = RNG.uniform(0.5, 2, 5)


def log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def softplus(x):
    return np.logaddexp(0, x)


def huber(x, y, d):
    e = np.abs(x - y)
    return np.where(e <= d, e * e / 2, d * (e - d / 2))


def cosine(x, y):
    return (x * y).sum(-1) / np.sqrt((x * x).sum(-1) * (y * y).sum(-1))


def distance(x, y, p=2):
    return (np.abs(x - y + 1e-6) ** p).sum(-1) ** (1 / p)


def multi_margin(x, ids, p=1, w=np.ones(5)):
    return np.stack([sum(max(0, 1 - x[b, t] + x[b, i]) ** p for i in range(5) if i != t) * w[t] / 5
                     for b, t in enumerate(ids)])


def multilabel_margin(x, labels):
    found = []
    for row, ids in zip(x, labels):
        own = list(ids[:list(ids).index(-1)] if -1 in ids else ids)
        found.append(sum(max(0, 1 - row[j] + row[i]) for j in own for i in range(5) if i not in own) / 5)
    return np.array(found)


# name of the case: loss, operands, options, each single loss in numpy
LOSSES = {
    "l1_loss": (nn.l1_loss, (X, Y), {}, lambda: np.abs(X - Y)),
    "huber_loss": (nn.huber_loss, (X, Y), {}, lambda: huber(X, Y, 1)),
    "huber_loss, delta": (nn.huber_loss, (X, Y), {"delta": 0.4}, lambda: huber(X, Y, 0.4)),
    "smooth_l1_loss": (nn.smooth_l1_loss, (X, Y), {"beta": 0.4}, lambda: huber(X, Y, 0.4) / 0.4),
    "smooth_l1_loss, beta 0": (nn.smooth_l1_loss, (X, Y), {"beta": 0.0}, lambda: np.abs(X - Y)),
    "log_cosh_loss": (nn.log_cosh_loss, (X, Y), {}, lambda: np.log(np.cosh(X - Y))),
    "kl_div": (nn.kl_div, (np.log(P), Q), {}, lambda: Q * np.log(Q / P)),
    "kl_div, zeros": (nn.kl_div, (np.log(P), Q * BIT), {}, lambda: BIT * Q * np.log(Q / P)),
    "kl_div, log_target": (nn.kl_div, (np.log(P), np.log(Q)), {"log_target": True}, lambda: Q * np.log(Q / P)),
    "poisson_nll_loss": (nn.poisson_nll_loss, (X, Q), {}, lambda: np.exp(X) - Q * X),
    "poisson_nll_loss, full": (nn.poisson_nll_loss, (P, 3 * Q), {"log_input": False, "full": True},
                               lambda: P - 3 * Q * np.log(P + 1e-8) + np.where(
                                   3 * Q > 1, 3 * Q * np.log(3 * Q) - 3 * Q + np.log(2 * np.pi * 3 * Q) / 2, 0)),
    "gaussian_nll_loss": (nn.gaussian_nll_loss, (X, Y, P), {}, lambda: (np.log(P) + (X - Y) ** 2 / P) / 2),
    "gaussian_nll_loss, full": (nn.gaussian_nll_loss, (X, Y, P[:, :1]), {"full": True},
                                lambda: (np.log(P[:, :1]) + (X - Y) ** 2 / P[:, :1] + np.log(2 * np.pi)) / 2),
    "binary_cross_entropy": (nn.binary_cross_entropy, (P, Q), {}, lambda: -Q * np.log(P) - (1 - Q) * np.log(1 - P)),
    "binary_cross_entropy, weight": (nn.binary_cross_entropy, (P, BIT, WEIGHT), {},
                                     lambda: -WEIGHT * np.log(np.where(BIT == 1, P, 1 - P))),
    "bce, weight": (nn.bce, (X, BIT), {"weight": WEIGHT}, lambda: WEIGHT * softplus(np.where(BIT == 1, -X, X))),
    "bce, pos_weight": (nn.bce, (X, BIT), {"pos_weight": WEIGHT},
                        lambda: np.where(BIT == 1, WEIGHT, 1) * softplus(np.where(BIT == 1, -X, X))),
    "sigmoid_focal_loss": (nn.sigmoid_focal_loss, (X, BIT), {},
                           lambda: np.where(BIT == 1, 0.25, 0.75) * softplus(np.where(BIT == 1, -X, X))
                           * (1 / (1 + np.exp(np.where(BIT == 1, X, -X)))) ** 2),
    "sigmoid_focal_loss, no alpha": (nn.sigmoid_focal_loss, (X, BIT), {"alpha": -1.0, "gamma": 0.0},
                                     lambda: softplus(np.where(BIT == 1, -X, X))),
    "dice_loss": (nn.dice_loss, (P, BIT), {}, lambda: 1 - (2 * (P * BIT).sum(1) + 1) / ((P + BIT).sum(1) + 1)),
    "soft_margin_loss": (nn.soft_margin_loss, (X, SIGN), {}, lambda: softplus(-SIGN * X)),
    "hinge_embedding_loss": (nn.hinge_embedding_loss, (X, SIGN), {"margin": 0.3},
                             lambda: np.where(SIGN == 1, X, np.maximum(0, 0.3 - X))),
    "margin_ranking_loss": (nn.margin_ranking_loss, (X, Y, SIGN), {"margin": 0.1},
                            lambda: np.maximum(0, -SIGN * (X - Y) + 0.1)),
    "cosine_embedding_loss": (nn.cosine_embedding_loss, (X, Y, SIGN[:, 0]), {"margin": -0.5},
                              lambda: np.where(SIGN[:, 0] == 1, 1 - cosine(X, Y), np.maximum(0, cosine(X, Y) + 0.5))),
    "triplet_margin_loss": (nn.triplet_margin_loss, (X, Y, P), {},
                            lambda: np.maximum(0, distance(X, Y) - distance(X, P) + 1)),
    "triplet_margin_loss, swap": (nn.triplet_margin_loss, (X, Y, P), {"swap": True, "p": 3.0, "margin": 0.2},
                                  lambda: np.maximum(0, distance(X, Y, 3) + 0.2 - np.minimum(
                                      distance(X, P, 3), distance(Y, P, 3)))),
    "triplet_margin_with_distance_loss": (
        nn.triplet_margin_with_distance_loss, (X, Y, P), {"distance_function": lambda x, y: ((x - y) ** 2).sum(-1)},
        lambda: np.maximum(0, ((X - Y) ** 2).sum(-1) - ((X - P) ** 2).sum(-1) + 1)),
    "multi_margin_loss": (nn.multi_margin_loss, (X, IDS), {}, lambda: multi_margin(X, IDS)),
    "multi_margin_loss, weight": (nn.multi_margin_loss, (X, IDS), {"p": 2, "weight": WEIGHT},
                                  lambda: multi_margin(X, IDS, 2, WEIGHT)),
    "multilabel_margin_loss": (nn.multilabel_margin_loss, (X, LABELS), {}, lambda: multilabel_margin(X, LABELS)),
    "multilabel_soft_margin_loss": (nn.multilabel_soft_margin_loss, (X, BIT), {},
                                    lambda: softplus(np.where(BIT == 1, -X, X)).mean(-1)),
    "multilabel_soft_margin_loss, weight": (nn.multilabel_soft_margin_loss, (X, BIT, WEIGHT), {},
                                            lambda: (WEIGHT * softplus(np.where(BIT == 1, -X, X))).mean(-1)),
    "nll_loss": (nn.nll_loss, (np.log(P), IDS), {}, lambda: -np.log(P)[np.arange(4), IDS]),
    "cross_entropy, weight, probabilities": (nn.cross_entropy, (X, Q), {"weight": WEIGHT},
                                             lambda: -(WEIGHT * Q * log_softmax(X)).sum(-1)),
}
# whose mean is that of so much weight: each single loss, and its weight
WEIGHED = {
    "nll_loss": (nn.nll_loss, (np.log(P), IDS, WEIGHT), {}, lambda: -np.log(P)[np.arange(4), IDS] * WEIGHT[IDS],
                 WEIGHT[IDS]),
    "nll_loss, ignored": (nn.nll_loss, (np.log(P), IDS, WEIGHT), {"ignore_index": 2},
                          lambda: np.where(IDS == 2, 0, -np.log(P)[np.arange(4), IDS] * WEIGHT[IDS]),
                          WEIGHT[IDS] * (IDS != 2)),
    "cross_entropy": (nn.cross_entropy, (X, IDS), {"weight": WEIGHT},
                      lambda: -log_softmax(X)[np.arange(4), IDS] * WEIGHT[IDS], WEIGHT[IDS]),
    "cross_entropy, smoothing, ignored": (
        nn.cross_entropy, (X, IDS), {"weight": WEIGHT, "label_smoothing": 0.2, "ignore_index": 2},
        lambda: (IDS != 2) * -(0.8 * log_softmax(X)[np.arange(4), IDS] * WEIGHT[IDS]
                               + 0.2 * (log_softmax(X) * WEIGHT).mean(-1)), WEIGHT[IDS] * (IDS != 2)),
}
