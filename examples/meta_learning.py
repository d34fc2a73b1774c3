"""Learning to learn: an LSTM trained to optimise quadratics (Andrychowicz et al. 2016), and the gradient of a
validation loss with respect to every learning rate and momentum of 100 steps of SGD (Maclaurin, Duvenaud and Adams
2015).

    python examples/meta_learning.py [--meta-steps 600] [--unrolled 60] [--hyper-steps 40]
"""
from __future__ import annotations

import argparse

import numpy as np
from sklearn.datasets import load_digits

import graphc as gc
from graphc import nn, optim
from graphc.progress import Progress

SIZE, BATCH = 10, 64                # unknowns of a quadratic; how many are optimised at once


@gc.graph
def quadratics(theta: gc.f32[BATCH, SIZE], w: gc.f32[BATCH, SIZE, SIZE], y: gc.f32[BATCH, SIZE]):
    """Sum over the problems of |W theta - y|²."""
    return gc.sum(((w @ gc.expand_dims(theta, 2)).squeeze(2) - y) ** 2)


gradient = gc.grad(quadratics, "theta")
learned = nn.LSTM(20)               # every coordinate on its own: sequences of one step, BATCH * SIZE of them
step_size = nn.Linear(1)


def update(g, state):
    """g_t, m(gradient, state) of the paper: how to change theta."""
    y, state = learned(g.reshape(1, -1, 1), state)
    return 0.1 * step_size(y).reshape(BATCH, SIZE), state


def optimised(w, y, steps: int):
    """f(theta_t) / BATCH for t = 1 … steps, theta_0 = 0."""
    def body(carry, _):
        theta, *state = carry
        change, state = update(gc.stop_gradient(gradient(theta, w, y)), state)     # the paper drops second derivatives
        theta = theta + change
        return (theta, *state), quadratics(theta, w, y) / BATCH
    zeros = gc.zeros((1, BATCH * SIZE, learned.hidden))
    return gc.scan(body, (gc.zeros((BATCH, SIZE)), zeros, zeros), gc.iota((steps,)))[1]


def learn_to_optimise(meta_steps: int, unrolled: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Trains the LSTM on random quadratics; mean f(theta_t) on new ones, 100 steps of it and of SGD and Adam with their
    best rates."""
    random = np.random.default_rng(seed)

    def problems():
        return (random.standard_normal((BATCH, SIZE, SIZE), np.float32),
                random.standard_normal((BATCH, SIZE), np.float32))

    def loss(w, y):
        return gc.sum(optimised(w, y, unrolled))
    types = {"w": gc.f32[BATCH, SIZE, SIZE], "y": gc.f32[BATCH, SIZE]}
    step = gc.train_step(loss, optimizer=optim.Adam(optim.cosine(1e-2, meta_steps), clip_norm=1.0), seed=seed, **types)
    bar = Progress(range(meta_steps), "learning to optimise")
    for _ in bar:
        bar.loss(step(*problems()))
    w, y = problems()
    curves = {"LSTM": gc.compile(lambda w, y: optimised(w, y, 100), state=step.state, **types)(w, y)}
    for name, rule in (("SGD", optim.SGD), ("Adam", optim.Adam)):
        curves[name] = min((descent(rule(rate), w, y) for rate in (0.003, 0.006, 0.01, 0.015, 0.02, 0.03, 0.1, 0.2)),
                           key=lambda curve: np.nan_to_num(curve[-1], nan=np.inf))
    return curves


class Unknowns(nn.Module):
    """theta as parameters, for the optimizers that graphc has."""

    def forward(self, w, y):
        return quadratics(self.parameter("theta", (BATCH, SIZE), nn.Constant(0)), w, y)


def descent(optimizer: optim.Optimizer, w: np.ndarray, y: np.ndarray) -> np.ndarray:
    """f(theta_t) / BATCH for t = 0 … 99."""
    step = gc.train_step(Unknowns(), optimizer=optimizer, w=gc.f32[w.shape], y=gc.f32[y.shape])
    return np.array([step(w, y) / BATCH for _ in range(100)])


# --- hyper-gradients
# -------------------------------------------------------------------------------------------------------

@gc.graph
def loss(w: gc.f64[64, 10], x: gc.f64["N", 64], digit: gc.i32["N"]):
    return nn.cross_entropy(x @ w, digit)


@gc.graph
def validation_loss(rates: gc.f64[100], momenta: gc.f64[100], x: gc.f64["N", 64], digit: gc.i32["N"],
                    x_val: gc.f64["M", 64], digit_val: gc.i32["M"]):
    """Of a softmax regression after 100 steps of SGD with these learning rates and momenta."""
    def body(carry, schedule):
        (w, v), (rate, momentum) = carry, schedule
        v = momentum * v + gc.grad(loss, "w")(w, x, digit)
        return (w - rate * v, v), None
    (w, _), _ = gc.scan(body, (gc.zeros((64, 10), gc.f64), gc.zeros((64, 10), gc.f64)), (rates, momenta))
    return loss(w, x_val, digit_val)


def tune_schedules(hyper_steps: int) -> list[float]:
    """Checks the hyper-gradients by differences, then follows them: the validation loss before every step."""
    data = load_digits()
    x, digit = data.data[:400] / 16, data.target[:400].astype(np.int32)
    sets = {"x": x[:200], "digit": digit[:200], "x_val": x[200:], "digit_val": digit[200:]}
    rates, momenta, losses = np.full(100, 0.5), np.full(100, 0.5), []
    print(gc.check_gradients(validation_loss, rates=rates, momenta=momenta, wrt=["rates", "momenta"],
                             raises=True, **sets))
    hyper = gc.compile(gc.value_and_grad(validation_loss, ["rates", "momenta"]))
    for _ in range(hyper_steps):
        value, by_rate, by_momentum = hyper(rates, momenta, *sets.values())
        losses.append(float(value))
        rates, momenta = rates - 50 * by_rate, np.clip(momenta - 10 * by_momentum, 0, 0.99)
    print(f"validation loss {losses[0]:.4f} -> {losses[-1]:.4f}; learning rates now from {rates.min():.2f} to "
          f"{rates.max():.2f}, momenta from {momenta.min():.2f} to {momenta.max():.2f}")
    return losses


def main(arguments: list[str] | None = None) -> tuple[dict[str, np.ndarray], list[float]]:
    """Prints and returns the curves of f on new quadratics, and the validation losses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("meta-steps", 600), ("unrolled", 60), ("hyper-steps", 40)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(arguments)
    curves = learn_to_optimise(options.meta_steps, options.unrolled)
    for name, curve in curves.items():
        print(f"f after 10, 40 and 100 steps of {name:>4}: {curve[9]:.3f}, {curve[39]:.3f}, {curve[99]:.3f}")
    return curves, tune_schedules(options.hyper_steps)


if __name__ == "__main__":
    main()
