"""Optimizers against the same formulas written in numpy, over twenty steps of a small regression."""
import numpy as np
import pytest
from optimizer_formulas import FORMULAS, lbfgs

import graphc as gc
from graphc import nn, optim

STEPS = 20
X = np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)
Y = (X[:, :1] - 2 * X[:, 1:2] * X[:, 2:]).astype(np.float32)


def sgd(momentum=0.0, nesterov=False, weight_decay=0.0, lr=lambda t: 0.1):
    def update(p, g, s, t):
        g = g + weight_decay * p
        s["v"] = momentum * s.get("v", 0) + g
        return p - lr(t) * (g + momentum * s["v"] if nesterov else s["v"])
    return update


def adam(weight_decay=0.0, decoupled=False, lr=lambda t: 0.01, b1=0.9, b2=0.999, eps=1e-8):
    def update(p, g, s, t):
        p, g = (p * (1 - lr(t) * weight_decay), g) if decoupled else (p, g + weight_decay * p)
        s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0) + (1 - b2) * g * g
        m, v = s["m"] / (1 - b1 ** (t + 1)), s["v"] / (1 - b2 ** (t + 1))
        return p - lr(t) * m / (np.sqrt(v) + eps)
    return update


def rmsprop(momentum=0.0, alpha=0.99, eps=1e-8):
    def update(p, g, s, t):
        s["v"] = alpha * s.get("v", 0) + (1 - alpha) * g * g
        d = g / (np.sqrt(s["v"]) + eps)
        s["b"] = momentum * s.get("b", 0) + d
        return p - 0.01 * (s["b"] if momentum else d)
    return update


CASES = {
    "sgd": (optim.SGD(0.1), sgd()),
    "momentum": (optim.SGD(0.1, momentum=0.9, weight_decay=0.01), sgd(0.9, weight_decay=0.01)),
    "nesterov": (optim.SGD(0.1, momentum=0.9, nesterov=True), sgd(0.9, True)),
    "adam": (optim.Adam(0.01, weight_decay=0.1), adam(0.1)),
    "adamw": (optim.AdamW(0.01, weight_decay=0.1), adam(0.1, True)),
    "rmsprop": (optim.RMSprop(0.01), rmsprop()),
    "rmsprop momentum": (optim.RMSprop(0.01, momentum=0.9), rmsprop(0.9)),
    "exponential": (optim.SGD(optim.exponential(0.1, 0.9)), sgd(lr=lambda t: 0.1 * 0.9 ** t)),
    "step": (optim.SGD(optim.step_decay(0.1, 5, 0.5)), sgd(lr=lambda t: 0.1 * 0.5 ** (t // 5))),
    "cosine": (optim.Adam(optim.cosine(0.01, 10, 0.001)),
               adam(lr=lambda t: 0.001 + 0.009 * (1 + np.cos(np.pi * min(t / 10, 1))) / 2)),
    "warmup": (optim.SGD(optim.warmup(0.1, 4)), sgd(lr=lambda t: 0.1 * min((t + 1) / 4, 1))),
    "warmup cosine": (optim.SGD(optim.warmup(optim.cosine(0.1, 10), 4)),
                      sgd(lr=lambda t: 0.1 * min((t + 1) / 4, 1) * (1 + np.cos(np.pi * min(max(t - 4, 0) / 10, 1)))
                          / 2)),
    "constant": (optim.SGD(optim.constant(0.1)), sgd()),
}


def linear_step(optimizer, **options):
    return gc.train_step(nn.Linear(1), loss=nn.mse, optimizer=optimizer, x=gc.f32[16, 3], y=gc.f32[16, 1], seed=3,
                         **options)


def gradients(w, b):
    r = X.astype(np.float64) @ w.T + b - Y
    return (r ** 2).mean(), 2 * r.T @ X / len(X), 2 * r.mean(0)


@pytest.mark.parametrize("name", CASES)
def test_twenty_steps_match_the_formula(name, engine):
    check_twenty_steps(*CASES[name])


@pytest.mark.parametrize("name", FORMULAS)
def test_twenty_steps_of_others(name):
    check_twenty_steps(*FORMULAS[name])


def check_twenty_steps(optimizer, update):
    step = linear_step(optimizer)
    w, b = step.state["weight"].astype(np.float64), step.state["bias"].astype(np.float64)
    slots = {}, {}
    for t in range(STEPS):
        loss, dw, db = gradients(w, b)
        assert step(X, Y) == pytest.approx(loss, rel=2e-5)
        w, b = update(w, dw, slots[0], t), update(b, db, slots[1], t)
    np.testing.assert_allclose(step.state["weight"], w, rtol=5e-5, atol=1e-6)
    np.testing.assert_allclose(step.state["bias"], b, rtol=5e-5, atol=1e-6)
    assert step.state["step"] == STEPS


def test_lbfgs_looks_at_all_parameters_together(engine):
    """The weight and the bias as one vector, by the two loops; it is at the minimum long before gradient descent."""
    step = linear_step(optim.LBFGS(0.3, history_size=3))
    w, b = step.state["weight"].astype(np.float64), step.state["bias"].astype(np.float64)
    slots = {}
    for t in range(STEPS):
        loss, dw, db = gradients(w, b)
        assert step(X, Y) == pytest.approx(loss, rel=2e-5)
        new = lbfgs(np.append(w, b), np.append(dw, db), slots, t)
        w, b = new[:-1].reshape(w.shape), new[-1:].reshape(b.shape)
    np.testing.assert_allclose(step.state["weight"], w, rtol=2e-4, atol=2e-6)
    whole = linear_step(optim.LBFGS())
    for _ in range(8):
        whole(X, Y)
    exact = np.linalg.lstsq(np.c_[X, np.ones(len(X))], Y, rcond=None)[0]
    np.testing.assert_allclose(whole.state["weight"], exact[:-1].T, rtol=1e-3, atol=1e-5)


def test_lbfgs_takes_no_groups():
    with pytest.raises(gc.GraphError, match="LBFGS takes no groups"):
        optim.LBFGS(groups=[optim.no_decay()])
    with pytest.raises(gc.GraphError, match="history_size is from 1 to 1000"):
        optim.LBFGS(history_size=0)


def test_groups_change_options_of_some_parameters(engine):
    step = linear_step(optim.AdamW(0.01, weight_decay=0.1,
                                   groups=[optim.no_decay(), optim.group(lambda n, s: n == "weight", lr=0.02)]))
    w, b = step.state["weight"].astype(np.float64), step.state["bias"].astype(np.float64)
    slots, decayed, plain = ({}, {}), adam(0.1, True, lr=lambda t: 0.02), adam()
    for t in range(3):
        _, dw, db = gradients(w, b)
        step(X, Y)
        w, b = decayed(w, dw, slots[0], t), plain(b, db, slots[1], t)
    np.testing.assert_allclose(step.state["weight"], w, rtol=1e-5)
    np.testing.assert_allclose(step.state["bias"], b, rtol=1e-5, atol=1e-7)


def test_clipping_scales_all_gradients_by_one_factor(engine):
    step = linear_step(optim.SGD(1.0, clip_norm=0.5))
    w, b = step.state["weight"], step.state["bias"]
    _, dw, db = gradients(w, b)
    norm = np.sqrt((dw ** 2).sum() + (db ** 2).sum())
    assert norm > 0.5
    step(X, Y)
    np.testing.assert_allclose(w - step.state["weight"], dw * 0.5 / norm, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(b - step.state["bias"], db * 0.5 / norm, rtol=1e-4, atol=1e-6)


def test_accumulation_applies_the_mean_gradient_every_kth_call(engine):
    step = linear_step(optim.Adam(0.01, accumulate=2))
    half = gc.train_step(nn.Linear(1), loss=nn.mse, optimizer=optim.Adam(0.01), x=gc.f32[16, 3], y=gc.f32[16, 1],
                         seed=3)
    start = step.state["weight"]
    parts = (X[:8], Y[:8]), (X[8:], Y[8:])
    for _ in range(3):
        for x, y in parts:
            step(np.tile(x, (2, 1)), np.tile(y, (2, 1)))
            if step.state["step"] == 1:
                np.testing.assert_array_equal(step.state["weight"], start)
        half(X, Y)
    np.testing.assert_allclose(step.state["weight"], half.state["weight"], rtol=1e-5, atol=1e-7)
    assert not step.state["optim.accumulated.weight"].any()


def test_a_group_has_an_optimizer_of_its_own():
    """Its state is its own, too; how gradients are clipped says the outer one."""
    own = optim.group(lambda n, s: n == "bias", optimizer=optim.Adam(0.01))
    step = linear_step(optim.SGD(0.1, momentum=0.9, groups=[own]))
    assert {n for n in step.state if n.startswith("optim.")} == {
        "optim.momentum.weight", "optim.exp_avg.bias", "optim.exp_avg_sq.bias", "optim.lr", "optim.groups.0.lr"}
    with pytest.raises(gc.GraphError, match="group has no clip_norm of its own: give it to the outer one"):
        optim.group(lambda n, s: True, optimizer=optim.SGD(0.1, clip_norm=1.0))
    with pytest.raises(gc.GraphError, match="another optimizer, such as optim.AdamW.*, or options to change"):
        optim.group(lambda n, s: True, optimizer="adam")


def test_muon_says_what_becomes_of_vectors():
    with pytest.raises(gc.GraphError, match="Muon is for matrices; of a parameter .* say which optimizer it has"):
        linear_step(optim.Muon(0.1))


def test_the_mean_of_the_parameters_of_asgd():
    step, sum_of_last = linear_step(optim.ASGD(0.1, t0=5.0)), 0
    for t in range(20):
        step(X, Y)
        sum_of_last = sum_of_last + step.state["weight"] if t >= 7 else step.state["weight"]
    np.testing.assert_allclose(step.state["optim.ax.weight"], sum_of_last / 14, rtol=1e-5)


def test_the_result_of_schedule_free_descent_is_the_mean():
    optimizer, update = FORMULAS["ScheduleFreeSGD"]
    step = linear_step(optimizer)
    with pytest.raises(gc.GraphError, match="no averages before the first update"):
        optim.averages(step.state, "x")
    w, b, slots = step.state["weight"].astype(np.float64), step.state["bias"].astype(np.float64), ({}, {})
    for t in range(20):
        _, dw, db = gradients(w, b)
        step(X, Y)
        w, b = update(w, dw, slots[0], t), update(b, db, slots[1], t)
    means = optim.averages(step.state, "x")
    assert means.keys() >= {"weight", "bias"} and not any(n.startswith("optim.") for n in means)
    np.testing.assert_allclose(means["weight"], slots[0]["x"], rtol=1e-4, atol=1e-6)
    y = gc.compile(nn.Linear(1), x=gc.f32[16, 3], state=means)(X)
    np.testing.assert_allclose(y, X @ means["weight"].T + means["bias"], rtol=1e-4, atol=1e-5)
    with pytest.raises(gc.GraphError, match="the state has no arrays optim.ax"):
        optim.averages(step.state, "ax")


OPTIMIZERS = [cls for cls in (getattr(optim, name) for name in dir(optim))
              if isinstance(cls, type) and issubclass(cls, optim.Optimizer) and cls is not optim.Optimizer]
ENDLESS = {"clip_norm", "clip_value"}           # no limit is one
SIGNED = {"dampening", "beta2_decay"}           # below 0, too


def other_numbers(optimizer, name):
    """What the option of an optimizer may not be: one number, or one of a pair."""
    wrong = [np.nan, -np.inf, *([] if name in ENDLESS else [np.inf]), *([1.0] if name == "beta2_decay" else []),
             *([] if name in SIGNED else [-0.5])]
    value = getattr(optimizer, name)
    if isinstance(value, tuple):
        return [(w, value[1]) for w in wrong] + [(value[0], w) for w in wrong]
    return wrong


@pytest.mark.parametrize("cls", OPTIMIZERS, ids=lambda cls: cls.__name__)
def test_numbers_that_no_optimizer_can_use(cls):
    """Of each option, also where a group or `step.hyper` changes it."""
    optimizer, taken = cls(0.1), []
    for name in optim.hyperparameters(optimizer):
        for value in other_numbers(optimizer, name):
            makers = [lambda: cls(**{"lr": 0.1, name: value})]
            if cls is not optim.LBFGS and name not in ENDLESS:
                makers.append(lambda: cls(0.1, groups=[optim.group(lambda n, s: True, **{name: value})]))
            for make in makers:
                try:
                    make()
                    taken.append((name, value))
                except gc.GraphError as error:
                    assert name in error.text and "test_optim.py" in str(error)
    assert not taken


def test_options_of_groups_are_checked():
    with pytest.raises(gc.GraphError, match="SGD has no option 'betas' for a group; it has .*momentum"):
        optim.SGD(0.1, groups=[optim.group(lambda n, s: True, betas=(0, 0))])
    with pytest.raises(gc.GraphError, match="accumulate is a number of calls >= 1, got 0"):
        optim.SGD(0.1, accumulate=0)
    with pytest.raises(gc.GraphError, match="optimizer= takes one of graphc.optim"):
        linear_step("adam")
