"""Training steps that use the same layers: one set of parameters by state=, and an error where each would train its
own.
"""
import copy
import gc as collector
import pickle

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim

RANDOM = np.random.default_rng(0)
Z, REAL = (RANDOM.normal(size=(8, n)).astype(np.float32) for n in (3, 2))


def gan(width=16, **options):
    """(step of the discriminator, step of the generator, generator), as most people write them."""
    generator = nn.Linear(width) >> nn.tanh >> nn.Linear(2)
    critic = nn.Linear(width) >> nn.tanh >> nn.Linear(1)

    def d_loss(z, real):
        return nn.bce(critic(real), 1.0) + nn.bce(critic(generator(z)), 0.0)

    def g_loss(z):
        return nn.bce(critic(generator(z)), 1.0)
    d_step = gc.train_step(d_loss, optimizer=optim.Adam(0.05), trainable=critic, z=gc.f32[8, 3], real=gc.f32[8, 2])
    shared = {"state": d_step.state} | options
    return d_step, gc.train_step(g_loss, optimizer=optim.SGD(0.5), trainable=generator, z=gc.f32[8, 3],
                                 **shared), generator


def critic_of(step, x):
    s = step.state
    return np.tanh(x @ s["critic.0.weight"].T + s["critic.0.bias"]) @ s["critic.2.weight"].T + s["critic.2.bias"]


def test_steps_with_one_state_train_one_network(engine):
    """Each of the two sees what the other trains; the losses are those of numpy on the parameters of now."""
    d_step, g_step, generator = gan()
    assert d_step.state is g_step.state
    make = gc.compile(generator, x=gc.f32[8, 3], state=d_step.state) if engine == "native" else None
    for _ in range(5):
        before = d_step.state.copy()
        loss = d_step(Z, REAL)
        after = d_step.state.copy()
        assert {n for n in after if not np.array_equal(after[n], before[n])} >= {"critic.0.weight", "step"}
        assert np.array_equal(before["generator.0.weight"], after["generator.0.weight"])
        if make:
            real, made = critic_of(d_step, REAL), critic_of(d_step, make(Z))
            again = d_step.evaluate([(Z, REAL)])["loss"]
            assert again == pytest.approx(np.mean(np.log1p(np.exp(-real))) + np.mean(np.log1p(np.exp(made))),
                                          rel=1e-4) and again != loss
            assert g_step(Z) == pytest.approx(np.mean(np.log1p(np.exp(-made))), rel=1e-4)
        else:
            g_step(Z)
        assert not np.array_equal(g_step.state["generator.0.weight"], after["generator.0.weight"])
    assert d_step.state["step"] == d_step.state["step.2"] == 5


def test_wide_layers_whose_weights_are_packed_are_seen_by_both():
    d_step, g_step, generator = gan(width=256)
    make = gc.compile(generator, x=gc.f32[8, 3], state=d_step.state)
    for _ in range(3):
        d_step(Z, REAL)
        made = critic_of(d_step, make(Z))
        assert g_step(Z) == pytest.approx(np.mean(np.log1p(np.exp(-made))), rel=1e-4)


def test_a_checkpoint_has_what_all_steps_have(tmp_path):
    d_step, g_step, _ = gan()
    names = set(d_step.state)
    assert names >= {"generator.0.weight", "critic.2.bias", "step", "step.2", "optim.exp_avg.critic.0.weight"}
    for _ in range(2):
        d_step(Z, REAL), g_step(Z)
    g_step.save(tmp_path / "gan.safetensors")
    wanted = [(d_step(Z, REAL), g_step(Z)) for _ in range(3)]
    d_step, g_step, _ = gan()
    d_step.load(tmp_path / "gan.safetensors")
    assert [(d_step(Z, REAL), g_step(Z)) for _ in range(3)] == wanted


def test_optimizer_arrays_are_a_steps_own(engine):
    net = nn.Linear(2)
    first = gc.train_step(net, loss=nn.mse, optimizer=optim.Adam(0.1), x=gc.f32[8, 3], y=gc.f32[8, 2])
    first(Z, REAL)
    second = gc.train_step(net, loss=nn.mse, optimizer=optim.Adam(0.01), x=gc.f32[8, 3], y=gc.f32[8, 2],
                           state=first.state)
    assert first.state["step"] == 1 and second.state["step.2"] == 0
    assert not first.state["optim.2.exp_avg.weight"].any() and first.state["optim.exp_avg.weight"].any()
    before = first.state.copy()
    second(Z, REAL)
    assert not np.array_equal(before["weight"], first.state["weight"])
    assert np.array_equal(before["optim.exp_avg.weight"],
                          first.state["optim.exp_avg.weight"]) and first.state["step"] == 1


def test_a_cell_run_again_does_not_pile_up_arrays():
    net = nn.Linear(2)
    first = gc.train_step(net, loss=nn.mse, optimizer=optim.Adam(0.1), x=gc.f32[8, 3], y=gc.f32[8, 2])
    sizes = []
    for _ in range(5):
        second = gc.train_step(net, loss=nn.mse, optimizer=optim.Adam(0.1), x=gc.f32[8, 3], y=gc.f32[8, 2],
                               state=first.state)
        second(Z, REAL)
        sizes.append(len(first.state))
    assert len(set(sizes[1:])) == 1 and sizes[-1] == 2 + 3 * 6       # the one before lives until the new one is made


def test_random_numbers_of_steps_with_one_state_differ():
    layer = nn.Linear(1, init=nn.Constant(0.0))

    def noise(x):
        return gc.mean(layer(x)) + gc.normal(())

    def make(**options):
        return gc.train_step(noise, optimizer=optim.SGD(0.0), x=gc.f32[8, 3], **options)
    first = make()
    second = make(state=first.state)
    assert len({step(Z) for step in (first, second, first, second)}) == 4


def test_layers_of_one_name_are_not_taken_for_each_other():
    options = {"loss": nn.mse, "optimizer": optim.SGD(0.1), "x": gc.f32[8, 3], "y": gc.f32[8, 2]}
    first = gc.train_step(nn.Linear(2), **options)
    with pytest.raises(gc.GraphError, match="the state has weight of another layer"):
        gc.train_step(nn.Linear(2), state=first.state, **options)
    with pytest.raises(gc.GraphError,
                       match='state= takes the state of another step, step.state, to share layers with it, or "own"; '
                             'got dict'):
        gc.train_step(nn.Linear(2), state=first.state.copy(), **options)


def test_named_sizes_share_too():
    net = nn.Linear(2)
    options = {"loss": nn.mse, "optimizer": optim.SGD(0.1), "x": gc.f32["B", 3], "y": gc.f32["B", 2]}
    first = gc.train_step(net, **options)
    second = gc.train_step(net >> nn.relu, state=first.state, **options)
    first(Z, REAL), second(Z[:3], REAL[:3]), first(Z[:3], REAL[:3])
    assert first.evaluate([(Z, REAL)])["loss"] > 0 and first.state["step"] == 2


# apart

def two(net, **options):
    """Two steps of one network, on different lines."""
    kinds = {"optimizer": optim.SGD(0.1), "x": gc.f32[8, 3], "y": gc.f32[8, 2]}
    first = gc.train_step(net, loss=nn.mse, **kinds)
    return first, gc.train_step(net >> nn.tanh, loss=nn.mse, **kinds, **options)


def test_the_second_step_that_trains_a_layer_apart_is_refused(engine):
    first, second = two(nn.Linear(2))
    first(Z, REAL)
    for _ in range(2):                                  # and again
        with pytest.raises(gc.GraphError,
                           match=r"(?s)^0.weight of a Linear is part of two training steps, .* made at .*:\d+, .* made "
                                 r"at .*state=step.state") as caught:
            second(Z, REAL)
        assert "second(Z, REAL)" in caught.value.loc.code
    with pytest.raises(gc.GraphError, match="part of two training steps"):
        second.evaluate([(Z, REAL)])
    first(Z, REAL)


def test_a_gan_without_a_shared_state_is_refused():
    d_step, g_step, _ = gan(state=None)
    d_step(Z, REAL)
    with pytest.raises(gc.GraphError,
                       match="generator.0.weight of a Linear is part|critic.0.weight of a Linear is part"):
        g_step(Z)


def test_a_teacher_that_was_trained_elsewhere_is_refused():
    """Not trained here, but read: it would be untrained."""
    teacher, student = nn.Linear(2), nn.Linear(2)
    first = gc.train_step(teacher, loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[8, 3], y=gc.f32[8, 2])
    first(Z, REAL)
    second = gc.train_step(lambda x: nn.mse(student(x), gc.stop_gradient(teacher(x))), optimizer=optim.SGD(0.1),
                           trainable=student, x=gc.f32[8, 3])
    with pytest.raises(gc.GraphError, match="teacher.weight of a Linear is part of two"):
        second(Z)


def test_what_is_meant_to_be_apart():
    first, second = two(nn.Linear(2), state="own")
    first(Z, REAL), second(Z, REAL), first(Z, REAL)
    first, second = two(nn.Linear(2))
    first(Z, REAL)
    second.state["0.weight"] = first.state["weight"]         # carried over by hand
    second(Z, REAL)
    net = nn.Linear(2)
    first, _ = two(net)
    _, second = two(copy.deepcopy(net))
    first(Z, REAL), second(Z, REAL)


def test_a_loaded_step_may_go_on_by_itself(tmp_path):
    first, second = two(nn.Sequential(nn.Linear(2)))
    first(Z, REAL)
    first.save(tmp_path / "a.safetensors")
    second.state.load({"0.0.weight": first.state["0.weight"], "0.0.bias": first.state["0.bias"]}, partial=True)
    second(Z, REAL)


def test_a_step_that_nobody_holds_stands_in_nobodys_way():
    first, second = two(nn.Linear(2))
    first(Z, REAL)
    del first
    second(Z, REAL)


def test_a_cell_of_a_notebook_may_run_again():
    """Also while the step of the first run is held by someone: a traceback, a list, the notebook's outputs."""
    cell = compile("def objective(x, y):\n    return nn.mse(net(x), y)\n"
                   "step = gc.train_step(objective, optimizer=optim.SGD(0.1), x=gc.f32[8, 3], y=gc.f32[8, 2])\nlosses "
                   "= [step(Z, REAL) for _ in range(3)]",
                   "<cell>", "exec")
    names = {"nn": nn, "gc": gc, "optim": optim, "Z": Z, "REAL": REAL, "net": nn.Linear(2)}
    held, losses = [], []
    for _ in range(3):
        exec(cell, names)
        held.append(names["step"])
        losses.append(names["losses"])
    assert losses[0] == losses[1] == losses[2]
    steps = [gc.train_step(names["net"], loss=nn.mse, optimizer=optim.SGD(lr), x=gc.f32[8, 3], y=gc.f32[8, 2])
             for lr in (0.1, 0.2)]
    del held[:], names["step"]
    assert [step(Z, REAL) for step in steps]                # a loop over learning rates


def test_a_helper_that_makes_steps_of_different_functions_does_not_hide_them():
    net = nn.Linear(2)

    def made(f):
        return gc.train_step(f, optimizer=optim.SGD(0.1), x=gc.f32[8, 3])
    first, second = made(lambda x: gc.mean(net(x))), made(lambda x: gc.sum(net(x)))
    first(Z)
    with pytest.raises(gc.GraphError, match="part of two training steps"):
        second(Z)


def test_a_step_that_is_dropped_dies_at_once():
    """By reference counting: no cycle keeps it, so a cell that binds its name anew has only one."""
    collector.disable()
    try:
        first, second = two(nn.Linear(2))
        first(Z, REAL), first(Z, REAL), first(Z, REAL)
        first = None
        second(Z, REAL)
    finally:
        collector.enable()


# copies

def test_a_deep_copy_starts_with_the_same_values(engine):
    net = nn.Linear(4) >> nn.BatchNorm1d() >> nn.Linear(2)
    teacher = copy.deepcopy(net)
    again = copy.deepcopy(teacher)
    step = gc.train_step(lambda x: nn.mse(net(x), gc.stop_gradient(again(x))), optimizer=optim.SGD(0.1), trainable=net,
                         x=gc.f32[8, 3])
    assert list(step.state)[0] == "net.0.weight"
    for name in [n for n in step.state if n.startswith("net.")]:
        assert np.array_equal(step.state[name], step.state["again" + name[3:]]), name
    step(Z)
    assert not np.array_equal(step.state["net.2.bias"], step.state["again.2.bias"])


def test_a_copy_of_a_trained_layer_starts_with_its_values_of_now():
    net = nn.Linear(2)
    first = gc.train_step(net, loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[8, 3], y=gc.f32[8, 2])
    first(Z, REAL)
    target = copy.deepcopy(net)
    gc.train_step(lambda x: nn.mse(net(x), gc.stop_gradient(target(x))), optimizer=optim.SGD(0.1), trainable=net,
                  x=gc.f32[8, 3], state=first.state)
    assert np.array_equal(first.state["target.weight"], first.state["weight"])


def test_power_still_makes_layers_that_start_differently():
    layer = nn.Linear(3)
    net = (copy.deepcopy(layer) >> layer) ** 2
    run = gc.train_step(net, loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[8, 3], y=gc.f32[8, 3])
    weights = [run.state[f"{i}.{j}.weight"].tobytes() for i in (0, 1) for j in (0, 1)]
    assert len(set(weights)) == 4


LINEAR = nn.Linear(2)


def test_steps_are_copied_and_pickled_with_their_state():
    """A copy goes on as the step would, and touches nothing of it, before and after the first call."""
    step = gc.train_step(LINEAR, loss=nn.mse, optimizer=optim.Adam(0.1), x=gc.f32[8, 3], y=gc.f32[8, 2], state="own")
    for calls in (0, 3):
        for _ in range(calls):
            step(Z, REAL)
        for other in (copy.deepcopy(step), pickle.loads(pickle.dumps(step))):
            before = step.state.copy()
            wanted = [other(Z, REAL) for _ in range(2)]
            assert all(np.array_equal(before[n], step.state[n]) for n in before)
            assert other.state.lock.address != step.state.lock.address
        twin = copy.deepcopy(step)
        assert [twin(Z, REAL) for _ in range(2)] == wanted == [step(Z, REAL) for _ in range(2)]


def test_frozen_batch_norms_stay_as_they_are(engine):
    """Neither their statistics move, nor do they use those of the batch: what is left out works as in inference."""
    body, head = nn.Linear(4) >> nn.BatchNorm1d() >> nn.tanh, nn.Linear(2)
    body_too = body >> nn.BatchNorm1d(affine=False)
    for trainable in (head, [head], lambda name: name.startswith("1.")):
        step = gc.train_step(nn.Sequential(body_too, head), loss=nn.mse, optimizer=optim.SGD(0.1), trainable=trainable,
                             x=gc.f32[8, 3], y=gc.f32[8, 2])
        before, first = step.state.copy(), step.evaluate([(Z, REAL)])["loss"]
        assert step(Z, REAL) == pytest.approx(first, rel=1e-5)
        assert {n for n in before if not np.array_equal(before[n], step.state[n])} == {"1.weight", "1.bias", "step"}
    for trainable in (None, [body_too, head], lambda name: name.endswith("bias")):
        step = gc.train_step(nn.Sequential(body, head), loss=nn.mse, optimizer=optim.SGD(0.1), trainable=trainable,
                             x=gc.f32[8, 3], y=gc.f32[8, 2])
        before = step.state.copy()
        step(Z, REAL)
        assert not np.array_equal(before["0.1.running_mean"], step.state["0.1.running_mean"])


def test_what_is_kept_in_python_is_loaded_again():
    step = gc.train_step(nn.Linear(2), loss=nn.mse, optimizer=optim.Adam(0.1), x=gc.f32[8, 3], y=gc.f32[8, 2])
    kept = step.state.copy()
    losses = [step(Z, REAL) for _ in range(3)]
    step.state.load(kept)
    assert [step(Z, REAL) for _ in range(3)] == losses
    with pytest.raises(gc.GraphError, match="the mapping has no weight"):
        step.state.load({})
    with pytest.raises(gc.GraphError,
                       match=r"state.load takes a mapping from names to arrays, such as state.copy\(\), got str; a "
                             r"file: step.load"):
        step.state.load("file.safetensors")
