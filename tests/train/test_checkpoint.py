"""Checkpoints: resuming bit for bit, and refusing what is damaged or does not fit."""
import os

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import graphc as gc
from graphc import checkpoint, nn, optim
from graphc.checkpoint import load_arrays, save_arrays

X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
Y = X[:, :2].copy()


def make(features=5, seed=0):
    net = nn.Linear(features) >> nn.relu >> nn.Dropout(0.3) >> nn.Linear(2)
    return gc.train_step(net, loss=nn.mse, optimizer=optim.AdamW(0.01), x=gc.f32[8, 4], y=gc.f32[8, 2], seed=seed)


def test_training_resumes_bit_for_bit(tmp_path, engine):
    path = tmp_path / "half.safetensors"
    whole, half = make(), make()
    for _ in range(3):
        whole(X, Y), half(X, Y)
    half.save(path)
    resumed = make(seed=9)
    resumed.load(path)
    assert [whole(X, Y) for _ in range(3)] == [resumed(X, Y) for _ in range(3)]
    assert all(np.array_equal(whole.state[n], resumed.state[n]) for n in whole.state)
    assert {"step", "random.key", "optim.exp_avg.0.weight", "0.weight"} <= set(load_file(path))


def test_a_crash_while_saving_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_arrays(path, {"a": np.ones(3, np.float32)})
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError):
        save_arrays(path, {"a": np.zeros(3, np.float32)})
    assert os.listdir(tmp_path) == ["a.safetensors"]
    assert (load_arrays(path)["a"] == 1).all()


@pytest.mark.parametrize("large", [False, True], ids=["", "read by several threads"])
def test_a_damaged_file_names_the_tensor(tmp_path, monkeypatch, large):
    if large:
        monkeypatch.setattr(checkpoint, "LARGE", 0)
    path = tmp_path / "a.safetensors"
    arrays = {"good": np.ones(3, np.float32), "ill": np.full(4, 2, np.float32), "complex": np.ones(2, np.complex64)}
    save_arrays(path, arrays)
    for name, array in load_arrays(path).items():
        np.testing.assert_array_equal(array, arrays[name])
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(gc.GraphError, match="damaged: the bytes of (good|ill) do not match"):
        load_arrays(path)


@pytest.mark.parametrize("size", [0, 5, 200])
def test_a_truncated_file_is_refused(tmp_path, size):
    path = tmp_path / "a.safetensors"
    save_arrays(path, {"a": np.ones(300, np.float32)})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(gc.GraphError, match="is not a whole safetensors file"):
        load_arrays(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(gc.GraphError, match="there is no checkpoint .*gone"):
        make().load(tmp_path / "gone")


def test_a_mismatching_checkpoint_changes_nothing(tmp_path):
    path = tmp_path / "a.safetensors"
    make(6).save(path)
    step = make(5)
    before = step.state.copy()
    with pytest.raises(gc.GraphError, match=r"0.weight is float32\[6, 4\], the network wants float32\[5, 4\]"):
        step.load(path)
    save_file({"0.weight": np.zeros((5, 4), np.float32)}, path)
    with pytest.raises(gc.GraphError, match=r"has no 0.bias \(float32\[5\]\); it holds 0.weight"):
        step.load(path)
    assert all(np.array_equal(before[n], step.state[n]) for n in before)


def test_scalars_bools_and_empty_arrays_survive(tmp_path):
    arrays = {"a": np.array(3, np.int64), "b": np.array([True, False]), "c": np.zeros((0, 4), np.float64),
              "d": np.float32(1.5).reshape(())}
    save_arrays(tmp_path / "a", arrays)
    found = load_arrays(tmp_path / "a")
    assert all(np.array_equal(found[n], a) and found[n].dtype == a.dtype and found[n].shape == a.shape
               for n, a in arrays.items())


def test_weights_from_elsewhere_load_in_part(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"0.weight": np.ones((5, 4), np.float32), "other": np.zeros(3, np.float32)}, path)
    step = make()
    before = step.state.copy()
    step.load(path, partial=True)
    assert (step.state["0.weight"] == 1).all()
    assert all(np.array_equal(before[n], step.state[n]) for n in before if n != "0.weight")
    save_file({"other": np.zeros(3, np.float32)}, path)
    with pytest.raises(gc.GraphError, match="has none of the arrays of the state; it holds other"):
        step.load(path, partial=True)


def test_a_step_with_a_schedule_loads(tmp_path):
    def scheduled():
        return gc.train_step(nn.Linear(2), loss=nn.mse, optimizer=optim.AdamW(optim.cosine(0.01, 10)), x=gc.f32[8, 4],
                             y=gc.f32[8, 2], seed=0)
    first, second = scheduled(), scheduled()
    first(X, Y)
    first.save(tmp_path / "a.safetensors")
    second.load(tmp_path / "a.safetensors")
    assert first(X, Y) == second(X, Y)
