"""Exported libraries compute the same bytes as this process: results, and the state after training."""
from __future__ import annotations

import re

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.checkpoint import load_arrays
from graphc.doors.library.linking import linker

import networks
from exported import POINTER, Instance

pytestmark = pytest.mark.skipif(not linker(), reason="there is no C compiler to link a shared library")


def state_bytes(folder, name="net") -> int:
    return int(re.search(r"STATE_BYTES (\d+)", (folder / f"{name}.h").read_text())[1])


def numbers(value) -> list[np.ndarray]:
    """Results of a call as arrays."""
    return [np.asarray(v, np.float32) for v in (value.values() if isinstance(value, dict) else [value])]


def trains_alike(case, folder, steps: int, largest=()) -> None:
    """Trains in Python, and in instances with 1 and 3 threads; ten times on the way, all predict."""
    gc.export(case.functions, folder, targets=networks.here())
    instances = [Instance(folder, sizes=largest, threads=n) for n in (1, 3)]
    assert [n.status for n in instances] == [0, 0]
    for number, (sizes, (x, y)) in enumerate(case.batches(steps)):
        want, words, loss = numbers(case.step(x, y))[0], tuple(sizes.values()), np.zeros((), np.float32)
        for n in instances:
            assert n.call("step", [x, y], [loss], words) == 0, n.message
            assert loss.tobytes() == want.tobytes()
        if number % max(1, steps // 10) == 0:
            expected = case.predict(x)
            for n in instances:
                out = np.full_like(expected, np.nan)
                assert n.call("predict", [x], [out], words) == 0, n.message
                assert out.tobytes() == expected.tobytes()
    images = [n.state(state_bytes(folder)) for n in instances]
    assert images[0] == images[1]
    file = folder / "checkpoint.safetensors"
    file.write_bytes(images[0])
    saved, state = load_arrays(file), case.step.state.copy()
    assert all(saved[name].tobytes() == value.tobytes() for name, value in state.items())


@pytest.mark.parametrize("name, steps, largest", [
    ("mlp", 100, ()), ("lstm", 6, (11,))])
def test_training(name, steps, largest, tmp_path):
    trains_alike(getattr(networks, name)(), tmp_path, steps, largest)


@pytest.mark.slow
@pytest.mark.parametrize("name, steps, largest", [
    ("lenet", 100, ()), ("lstm", 100, (11,)), ("gpt", 100, (3,)), ("digits", 100, ()), ("resnet18", 100, ()),
    ("imported", 100, (5,))])
def test_long_training(name, steps, largest, tmp_path):
    if name == "imported":
        pytest.importorskip("onnx")
    trains_alike(getattr(networks, name)(), tmp_path, steps, largest)


@pytest.mark.slow
def test_size(tmp_path):
    """A training library of LeNet for all instruction sets, without weights."""
    gc.export(networks.lenet().step, tmp_path, weights="file")
    assert (tmp_path / "libnet.a").stat().st_size < 300_000 and (tmp_path / "libnet.so").stat().st_size < 300_000


@pytest.mark.parametrize("target", ["sse2", "avx2"])
def test_other_instruction_sets(target, tmp_path, monkeypatch):
    """The library's code for a lesser CPU, and this process's for the same."""
    monkeypatch.setenv("GRAPHC_TARGET", target)
    trains_alike(networks.mlp(), tmp_path, 3)


def test_the_best_instruction_set_is_chosen(tmp_path):
    net = nn.Linear(2)
    gc.export(net, tmp_path, x=gc.f32[1, 3], seed=0)
    assert f":{Instance(tmp_path).instruction_set}" in networks.here()


def test_checkpoints_go_both_ways(tmp_path):
    case = networks.mlp()
    gc.export(case.step, tmp_path, targets=networks.here())
    n, loss = Instance(tmp_path), np.zeros((), np.float32)
    (_, (x, y)), (_, (x2, y2)), (_, (x3, y3)) = case.batches(3)
    case.step(x, y)
    case.step.save(tmp_path / "python.safetensors")
    assert n.load((tmp_path / "python.safetensors").read_bytes()) == 0
    assert n.call("step", [x2, y2], [loss]) == 0 and float(loss) == case.step(x2, y2)
    (tmp_path / "c.safetensors").write_bytes(n.state(state_bytes(tmp_path)))
    assert n.call("step", [x3, y3], [loss]) == 0
    again = networks.mlp().step
    again.load(tmp_path / "c.safetensors")
    assert again(x3, y3) == float(loss)


def test_weights_in_a_file(tmp_path):
    case = networks.mlp()
    gc.export(case.predict, tmp_path, weights="file", targets=networks.here())
    n, (_, (x, _)) = Instance(tmp_path), next(case.batches(1))
    out = np.zeros((16, 3), np.float32)
    assert n.call("run", [x], [out]) == 9 and "loaded" in n.message
    assert n.load((tmp_path / "net.safetensors").read_bytes()) == 0
    assert n.call("run", [x], [out]) == 0 and out.tobytes() == case.predict(x).tobytes()


def test_a_written_state_is_seen(tmp_path):
    """What was packed from the state is packed again after the caller has written to it."""
    case = networks.mlp()
    gc.export(case.functions, tmp_path, targets=networks.here())
    n, (_, (x, _)) = Instance(tmp_path), next(case.batches(1))
    out = np.zeros((16, 3), np.float32)
    assert n.call("predict", [x], [out]) == 0
    case.step.state["0.weight"] = case.step.state["0.weight"] * 2
    n.array(tmp_path, "0_WEIGHT", np.float32, (32, 5))[...] *= 2
    assert n.of("state", POINTER, n.pointer)
    assert n.call("predict", [x], [out]) == 0 and out.tobytes() == case.predict(x).tobytes()


def test_learning_rates_can_be_written(tmp_path):
    case = networks.mlp()
    case.step.lr = 0.5
    gc.export(case.step, tmp_path, targets=networks.here())
    n, loss = Instance(tmp_path), np.zeros((), np.float32)
    rate = n.array(tmp_path, "OPTIM_LR", np.float64, ())
    assert rate == 0.5
    for new, (_, (x, y)) in zip((0.25, 0.01), case.batches(2)):
        case.step.lr = new
        rate[...] = new
        assert n.call("step", [x, y], [loss]) == 0 and float(loss) == case.step(x, y)
    other = networks.mlp().step
    other.save(tmp_path / "s")                  # which has no rate: it stays
    assert n.load((tmp_path / "s").read_bytes()) == 0 and rate == 0.01


def test_weights_kept_in_16_bits(tmp_path):
    case = networks.mlp()
    small = gc.compile(case.step.model, x=gc.f32[16, 5], store="bf16")
    gc.export(small, tmp_path, targets=networks.here())
    n, (_, (x, _)) = Instance(tmp_path), next(case.batches(1))
    out = np.zeros((16, 3), np.float32)
    assert n.call("run", [x], [out]) == 0 and out.tobytes() == small(x).tobytes() != case.predict(x).tobytes()


def test_several_types_and_results(tmp_path):
    """Dicts of results, numbers, empty names, all dtypes."""
    @gc.graph
    def many(a: gc.f64[3], class_: gc.i64[()], k: gc.bool_[2], h: gc.f16[4], u: gc.u8[2, 0]):
        return {"double": a * 2, "sum": class_ + 1, "not": gc.logical_not(k), "half": h.astype(gc.f32), "none": u}
    gc.export(many, tmp_path, targets=networks.here())
    n, rng = Instance(tmp_path), np.random.default_rng(0)
    inputs = [rng.standard_normal(3), np.asarray(5), np.array([True, False]), rng.standard_normal(4).astype(np.float16),
              np.zeros(8, np.uint8)]
    want = many(*inputs[:4], np.zeros((2, 0), np.uint8))
    outputs = [np.empty(max(v.size, 1), v.dtype) for v in want.values()]
    assert n.call("run", inputs, outputs) == 0, n.message
    for value, out in zip(want.values(), outputs):
        assert value.size == 0 or value.tobytes() == out.tobytes()


def test_captured_weights_are_packed_when_an_instance_is_made(tmp_path):
    random = np.random.default_rng(0)
    w, k = random.standard_normal((512, 256)).astype("f"), random.standard_normal((48, 32, 3, 3)).astype("f")

    @gc.graph
    def net(x: gc.f32[64, 512], i: gc.f32[2, 32, 14, 14]):
        return x @ w, gc.conv2d(i, k, padding=1)
    given = [random.standard_normal(s).astype("f") for s in ((64, 512), (2, 32, 14, 14))]
    gc.export({"net": net}, tmp_path, name="net", targets=networks.here())
    instance, want = Instance(tmp_path), gc.compile(net)(*given)
    found = [np.zeros_like(a) for a in want]
    assert instance.call("net", given, found) == 0
    assert [a.tobytes() for a in found] == [a.tobytes() for a in want]
