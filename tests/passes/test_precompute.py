"""What depends on state alone is computed when the state changes, not in every call."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.compiled import CompiledGraph
from graphc.compiler import Compilation
from graphc.errors import InternalError
from graphc.ir.builder import Builder
from graphc.ir.printer import print_graph
from graphc.ir.types import f32
from graphc.passes.precompute import split_derived
from graphc.runtime.executable import Executable
from graphc.runtime.lock import StateLock

T = f32[8, 16]


def test_what_depends_on_state_alone_is_split_off():
    b = Builder()
    x, w, s = b.input("x", T), b.state_input("w", T), b.state_input("s", f32[16])
    split = split_derived(b.finish([b.add(b.mul(x, w), b.exp(s))]))
    assert print_graph(split.main) == """\
graph graph(x: f32[8, 16]) state(w: f32[8, 16], s: f32[16], "derived.0": f32[16]) {
  %0 = mul(x, w) : f32[8, 16]
  %1 = add(%0, "derived.0") : f32[8, 16]
  return %1
}"""
    assert print_graph(split.prepare) == """\
graph "prepare graph"() state(w: f32[8, 16], s: f32[16], "derived.0": f32[16]) {
  %0 = exp(s) : f32[16]
  update "derived.0" = %0
  return ()
}"""


def test_views_of_state_and_of_derived_values_cost_nothing_and_stay():
    b = Builder()
    x, w = b.input("x", T), b.state_input("w", f32[16, 8])
    plain = b.finish([b.add(x, b.transpose(w, perm=(1, 0)))])
    assert split_derived(plain).prepare is None
    b = Builder()
    x, w = b.input("x", T), b.state_input("w", f32[16, 8])
    split = split_derived(b.finish([b.add(x, b.transpose(b.exp(w), perm=(1, 0)))]))
    assert [n.op.name for n in split.main.nodes] == ["transpose", "add"]
    assert [n.op.name for n in split.prepare.nodes] == ["exp"]


def test_what_the_program_writes_itself_is_not_derived():
    b = Builder()
    x, w = b.input("x", T), b.state_input("w", T)
    y = b.mul(x, b.exp(w))
    b.update(w, y)
    assert split_derived(b.finish([y])).prepare is None


@pytest.mark.parametrize("made", [
    lambda b, w, n: b.mul(w, b.dimension(size=n, dtype=f32)),
    lambda b, w, n: b.sum(b.broadcast_to(w, shape=(n, 16)), axes=(0,)),
    lambda b, w, n: b.where(b.lt(b.iota(shape=(16,), axis=0, dtype=f32), b.dimension(size=n, dtype=f32)), w, w),
    lambda b, w, n: b.sum(b.mul(b.broadcast_to(w, shape=(n, 16)), b.iota(shape=(n, 16), axis=0, dtype=f32)), axes=(0,))])
def test_what_a_size_decides_is_not_derived(made):
    """It is another with each call of a program for all sizes, though the state is the same."""
    b = Builder()
    x, w = b.input("x", f32["n"]), b.state_input("w", f32[16])
    y = made(b, b.exp(w), x.type.shape[0])
    split = split_derived(b.finish([b.add(b.sum(x, axes=(0,)), y)]))
    assert [n.op.name for n in split.prepare.nodes] == ["exp"]


def test_what_a_constant_and_a_small_state_make_is_split_off():
    """As weights of small integers with a scale for each column are: as large as the constant."""
    b = Builder()
    x, scale = b.input("x", f32[4, 8]), b.state_input("scale", f32[512])
    weights = b.mul(b.constant(np.ones((8, 512), np.float32)), scale)
    split = split_derived(b.finish([b.matmul(x, weights)]))
    assert [n.op.name for n in split.main.nodes] == ["matmul"]
    assert "mul" in [n.op.name for n in split.prepare.nodes]


def test_values_much_larger_than_their_state_are_made_in_every_call():
    b = Builder()
    x, s = b.input("x", f32[512, 512]), b.state_input("s", f32[512])
    outer = b.mul(b.reshape(s, shape=(512, 1)), b.reshape(s, shape=(1, 512)))
    assert split_derived(b.finish([b.add(x, outer)])).prepare is None


def test_a_result_may_be_derived():
    b = Builder()
    w = b.state_input("w", T)
    state, lock = np.ones((8, 16), np.float32), StateLock()
    run = CompiledGraph(b.finish([b.exp(w)]), 2, [state], lock)
    np.testing.assert_allclose(run(), np.exp(state), rtol=1e-6)


def test_a_program_that_derives_and_writes_needs_the_lock_that_knows_the_version():
    b = Builder()
    w, count = b.state_input("w", T), b.state_input("count", f32[2])
    b.update(count, b.exp(count))
    built = Compilation(b.finish([b.exp(w)])).build
    with pytest.raises(InternalError, match="lock"):
        Executable(built.program, 1, [np.zeros((8, 16), np.float32), np.zeros(2, np.float32)])


X, Y = gc.f32[4, 16, 10, 10], gc.i32[4]


def _trained(stride: int = 1):
    net = nn.Conv2d(32, 3, stride=stride, bias=False) >> nn.BatchNorm2d() >> nn.relu >> nn.Conv2d(48, 3) >> nn.GlobalAvgPool2d() >> nn.Flatten() >> nn.Linear(40)
    return gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.SGD(0.1), x=X, y=Y, seed=0, threads=2)


def _oracle(step, x):
    """The network as it is now, compiled afresh."""
    return gc.compile(step.model, x=X, threads=1)(x)


def test_predictions_follow_the_state(rng=np.random.default_rng(0)):
    step = _trained()
    x, y = rng.normal(size=X.shape).astype("f"), rng.integers(0, 40, 4).astype("i")
    predict = gc.compile(step.model, x=X, threads=2)
    assert predict.memory.derived > 0 and "prepare" in predict.dump("planned")
    for change in (lambda: None, lambda: step(x, y), lambda: [step(x, y) for _ in range(5)],
                   lambda: step.state.__setitem__("6.bias", np.arange(40, dtype="f"))):
        change()
        for _ in range(4):                              # through Python, and through the native entry
            np.testing.assert_array_equal(predict(x), _oracle(step, x))


def test_loading_a_state_is_seen(tmp_path, rng=np.random.default_rng(1)):
    step = _trained()
    x, y = rng.normal(size=X.shape).astype("f"), rng.integers(0, 40, 4).astype("i")
    predict = gc.compile(step.model, x=X, threads=1)
    first = [predict(x) for _ in range(4)][-1]
    step.save(tmp_path / "s.safetensors")
    step(x, y)
    assert (predict(x) != first).any()
    step.load(tmp_path / "s.safetensors")
    np.testing.assert_array_equal(predict(x), first)


def test_frozen_parameters_are_derived_from_once(rng=np.random.default_rng(2)):
    body, head = nn.Linear(64), nn.Linear(40)
    step = gc.train_step(body >> nn.relu >> head, loss=nn.cross_entropy, optimizer=optim.SGD(0.1), trainable=head,
                         x=gc.f32[16, 32], y=gc.i32[16], seed=0, threads=1)
    x, y = rng.normal(size=(16, 32)).astype("f"), rng.integers(0, 40, 16).astype("i")
    step(x, y)
    run = step._fixed.executable
    made = int(run.resident.version[0])
    for _ in range(5):
        step(x, y)
    assert run.program.derived and int(run.resident.version[0]) == step.state.lock.version == made + 5


def test_folded_weights_that_are_packed_are_not_kept(rng=np.random.default_rng(4)):
    step = _trained(stride=2)                           # not in Winograd's form, whose weights are derived from the folded ones
    run = gc.compile(step.model, x=X, threads=1)
    folded = 32 * 16 * 3 * 3 * 4
    assert sum(run.executable.program.derived[n] for n in run.executable.program.passing) == folded
    assert run.memory.derived == sum(run.executable.program.derived) - folded


def test_folded_weights_pass_through_the_same_memory_one_after_the_other(rng=np.random.default_rng(5)):
    def block(channels):
        return nn.Conv2d(channels, 1, bias=False) >> nn.BatchNorm2d() >> nn.relu
    net = block(48) >> block(64) >> block(40)
    x = rng.normal(size=(2, 40, 9, 9)).astype("f")
    step = gc.train_step(net >> nn.Flatten() >> nn.Linear(3), loss=nn.cross_entropy, optimizer=optim.SGD(0.1), x=gc.f32[x.shape], y=gc.i32[2], seed=0)
    step(x, np.int32([0, 1]))                           # statistics that are not those of the start
    state = {name: step.state[name] for name in step.state}
    run = gc.compile(step.model, x=gc.f32[x.shape], threads=1)
    program = run.executable.program
    assert len(program.passing) >= 2 and len({program.derived[n] for n in program.passing}) >= 2
    expected = x.astype(np.float64)
    for i in range(0, 9, 3):
        w, mean, var, scale, shift = (state[n].astype(np.float64) for n in (
            f"{i}.weight", f"{i + 1}.running_mean", f"{i + 1}.running_var", f"{i + 1}.weight", f"{i + 1}.bias"))
        y = np.einsum("oc,nchw->nohw", w[:, :, 0, 0], expected)
        expected = np.maximum((y - mean[:, None, None]) / np.sqrt(var + 1e-5)[:, None, None] * scale[:, None, None] + shift[:, None, None], 0)
    expected = expected.reshape(2, -1) @ state["10.weight"].T.astype(np.float64) + state["10.bias"]
    for _ in range(2):
        np.testing.assert_allclose(run(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [24, 40, 67])
def test_depthwise_weights_are_packed_when_they_have_changed(channels, rng=np.random.default_rng(6)):
    """Not in every call: weights lie position by position, vectors run along the channels."""
    x = rng.normal(size=(2, channels, 9, 9)).astype("f")
    net = nn.Conv2d(channels, 3, padding=1, groups=channels) >> nn.relu
    step = gc.train_step(net >> nn.Flatten() >> nn.Linear(3), loss=nn.cross_entropy, optimizer=optim.SGD(0.5), x=gc.f32[x.shape], y=gc.i32[2], seed=0, threads=1)
    run = gc.compile(step.model, x=gc.f32[x.shape], threads=1)
    assert "packed before the loop" in next(line for line in run.dump("planned").splitlines() if "lanes of" in line)
    results = []
    for _ in range(2):
        weight, bias, last = (step.state[n].astype(np.float64) for n in ("0.weight", "0.bias", "3.weight"))
        padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
        y = sum(weight[:, 0, i, j, None, None] * padded[:, :, i:i + 9, j:j + 9] for i in range(3) for j in range(3)) + bias[:, None, None]
        results.append(run(x))
        np.testing.assert_allclose(results[-1], np.maximum(y, 0).reshape(2, -1) @ last.T + step.state["3.bias"], rtol=1e-4, atol=1e-4)
        step(x, np.int32([0, 1]))
    assert np.abs(results[0] - results[1]).max() > 1e-3
