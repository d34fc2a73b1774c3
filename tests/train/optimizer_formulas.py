"""Optimizers as formulas in numpy: `update(p, g, s, t)` gives the new parameter after t updates; s keeps arrays."""
from __future__ import annotations

import numpy as np

from graphc import optim


def kept(s, name, like):
    return s.setdefault(name, np.zeros_like(like))


def means(g, s, b1, b2):
    s["m"], s["v"] = b1 * kept(s, "m", g) + (1 - b1) * g, b2 * kept(s, "v", g) + (1 - b2) * g * g
    return s["m"], s["v"]


def dampened(p, g, s, t):
    s["v"] = g if t == 0 else 0.9 * s["v"] + 0.7 * g
    return p - 0.1 * s["v"]


def amsgrad(p, g, s, t):
    m, v = means(g, s, 0.9, 0.5)
    s["most"] = np.maximum(kept(s, "most", g), v)
    return p - 0.01 * m / (1 - 0.9 ** (t + 1)) / (np.sqrt(s["most"] / (1 - 0.5 ** (t + 1))) + 1e-8)


def centered(p, g, s, t):
    s["v"], s["m"] = 0.99 * kept(s, "v", g) + 0.01 * g * g, 0.99 * kept(s, "m", g) + 0.01 * g
    return p - 0.01 * g / (np.sqrt(s["v"] - s["m"] ** 2) + 1e-4)


def adamax(p, g, s, t):
    m, _ = means(g, s, 0.9, 0)
    s["u"] = np.maximum(0.999 * kept(s, "u", g), np.abs(g) + 1e-8)
    return p - 2e-3 / (1 - 0.9 ** (t + 1)) * m / s["u"]


def nadam(p, g, s, t):
    m, v = means(g, s, 0.9, 0.999)
    mu, after = (0.9 * (1 - 0.5 * 0.96 ** (0.04 * (t + i))) for i in (1, 2))
    s["product"] = s.get("product", 1) * mu
    root = np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8
    return p - 2e-3 * ((1 - mu) / (1 - s["product"]) * g + after / (1 - s["product"] * after) * m) / root


def radam(p, g, s, t):
    p = p * (1 - 0.01 * 0.1)
    m, v = means(g, s, 0.9, 0.99)
    most, n = 2 / (1 - 0.99) - 1, t + 1
    rho, m = most - 2 * n * 0.99 ** n / (1 - 0.99 ** n), m / (1 - 0.9 ** n)
    if rho <= 5:
        return p - 0.01 * m
    rectified = np.sqrt((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho))
    return p - 0.01 * m * rectified * np.sqrt(1 - 0.99 ** n) / (np.sqrt(v) + 1e-8)


def adagrad(p, g, s, t):
    s["sum"] = s.get("sum", 0.5) + g * g
    return p - 0.1 / (1 + 0.2 * t) * g / (np.sqrt(s["sum"]) + 1e-10)


def adadelta(p, g, s, t):
    s["v"] = 0.9 * kept(s, "v", g) + 0.1 * g * g
    d = np.sqrt(kept(s, "a", g) + 1e-6) / np.sqrt(s["v"] + 1e-6) * g
    s["a"] = 0.9 * s["a"] + 0.1 * d * d
    return p - d


def adafactor(p, g, s, t):
    def size(x):
        return np.sqrt((x * x).mean())
    n, least = t + 1, 2.0 ** -23
    share, alpha = n ** -0.8, max(1e-3, size(p)) * min(0.1, n ** -0.5)
    if p.ndim < 2:
        v = s["v"] = kept(s, "v", g) + (g * g - kept(s, "v", g)) * share
    else:
        row, col = (g * g).mean(-1, keepdims=True), (g * g).mean(-2, keepdims=True)
        s["row"], s["col"] = kept(s, "row", row) * (1 - share) + row * share, kept(s, "col", col) * (1 - share) + col * share
        v = s["row"] @ s["col"] / max(s["row"].mean(), least)
    u = g / np.sqrt(np.maximum(v, least ** 2))
    return p * (1 - 0.1 * 0.01) - alpha / max(1, size(u)) * u


def asgd(p, g, s, t):
    eta = 0.1 / (1 + 0.01 * 0.1 * t) ** 0.75
    return p * (1 - 0.01 * eta) - eta * g


def rprop(p, g, s, t):
    turn, size = g * kept(s, "prev", g), s.get("size", np.full_like(g, 0.01))
    s["size"] = np.clip(size * np.where(turn > 0, 1.2, np.where(turn < 0, 0.5, 1)), 1e-6, 0.05)
    s["prev"] = np.where(turn < 0, 0, g)
    return p - s["size"] * np.sign(s["prev"])


def lion(p, g, s, t):
    m = kept(s, "m", g)
    s["m"] = 0.99 * m + 0.01 * g
    return p * (1 - 0.01 * 0.1) - 0.01 * np.sign(0.9 * m + 0.1 * g)


def lamb(p, g, s, t):
    m, v = means(g, s, 0.9, 0.999)
    u = m / (1 - 0.9 ** (t + 1)) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-6) + 0.01 * p
    own, step = np.linalg.norm(p), np.linalg.norm(u)
    return p - 0.01 * (own / step if own and step else 1) * u


def muon(p, g, s, t):
    if p.ndim != 2:                             # AdamW, of a group
        m, v = means(g, s, 0.9, 0.999)
        return p * (1 - 1e-2 * 1e-2) - 1e-2 * m / (1 - 0.9 ** (t + 1)) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)
    s["m"] = 0.95 * kept(s, "m", g) + 0.05 * g
    u = g * 0.05 + s["m"] * 0.95
    u = u / np.linalg.norm(u)
    for _ in range(5):
        gram = u @ u.T
        u = 3.4445 * u + (-4.775 * gram + 2.0315 * gram @ gram) @ u
    return p * (1 - 0.01 * 0.1) - 0.01 * max(1, p.shape[0] / p.shape[1]) ** 0.5 * u


def free(p, d, s, t, lr, between):
    """The reference's form: y moves towards z, then along the direction."""
    s["most"] = max(s.get("most", 0), lr)
    s["sum"] = s.get("sum", 0) + s["most"] ** 2
    share, z = s["most"] ** 2 / s["sum"], s.get("z", p)
    y = p + (z - p) * share + d * lr * (between * (1 - share) - 1)
    s["z"] = z - lr * d
    s["x"] = (y - (1 - between) * s["z"]) / between
    return y


def free_adamw(p, g, s, t):
    s["v"] = 0.99 * kept(s, "v", g) + 0.01 * g * g
    d = g / (np.sqrt(s["v"] / (1 - 0.99 ** (t + 1))) + 1e-8) + 0.1 * p
    return free(p, d, s, t, 0.01 * min((t + 1) / 5, 1), 0.9)


def lbfgs(p, g, s, t, lr=0.3, size=3):
    """The two loops over the pairs, newest first and oldest first."""
    pairs = s.setdefault("pairs", [])
    y, move = g - s.get("g", g), s.get("move", 0 * g)
    if (y * move).sum() > 1e-10:
        pairs[:] = [*pairs, (move, y)][-size:]
    q, alphas = g, []
    for move, y in reversed(pairs):
        alphas.append((move * q).sum() / (move * y).sum())
        q = q - alphas[-1] * y
    q = q * ((pairs[-1][0] * pairs[-1][1]).sum() / (pairs[-1][1] ** 2).sum() if pairs else 1)
    for (move, y), alpha in zip(pairs, reversed(alphas)):
        q = q + move * (alpha - (y * q).sum() / (move * y).sum())
    s["g"], s["move"] = g, -q * lr * (min(1, 1 / np.abs(g).sum()) if t == 0 else 1)
    return p + s["move"]


FORMULAS = {
    "ScheduleFreeSGD": (optim.ScheduleFreeSGD(0.05, weight_decay=0.1, momentum=0.8),
                        lambda p, g, s, t: free(p, g + 0.1 * p, s, t, 0.05, 0.8)),
    "ScheduleFreeAdamW": (optim.ScheduleFreeAdamW(optim.warmup(0.01, 5), betas=(0.9, 0.99), weight_decay=0.1), free_adamw),
    "dampening": (optim.SGD(0.1, momentum=0.9, dampening=0.3), dampened),
    "maximize": (optim.SGD(0.01, maximize=True), lambda p, g, s, t: p + 0.01 * g),
    "clip_value": (optim.SGD(0.1, clip_value=0.3), lambda p, g, s, t: p - 0.1 * np.clip(g, -0.3, 0.3)),
    "amsgrad": (optim.Adam(0.01, betas=(0.9, 0.5), amsgrad=True), amsgrad),
    "centered": (optim.RMSprop(0.01, centered=True, eps=1e-4), centered),
    "Adamax": (optim.Adamax(), adamax), "NAdam": (optim.NAdam(momentum_decay=0.04), nadam),
    "RAdam": (optim.RAdam(0.01, betas=(0.9, 0.99), weight_decay=0.1, decoupled_weight_decay=True), radam),
    "Adagrad": (optim.Adagrad(0.1, lr_decay=0.2, initial_accumulator_value=0.5), adagrad),
    "Adadelta": (optim.Adadelta(), adadelta), "Adafactor": (optim.Adafactor(0.1, weight_decay=0.01), adafactor),
    "ASGD": (optim.ASGD(0.1, lambd=0.01), asgd), "Rprop": (optim.Rprop(step_sizes=(1e-6, 0.05)), rprop),
    "Lion": (optim.Lion(0.01, weight_decay=0.1), lion), "LAMB": (optim.LAMB(0.01), lamb),
    "Muon": (optim.Muon(0.01, groups=[optim.group(lambda n, s: len(s) != 2, optimizer=optim.AdamW(1e-2))]), muon),
}
