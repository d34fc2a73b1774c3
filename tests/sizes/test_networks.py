"""Networks as one program for all sizes: as right as programs for each, without compiling again, and with bits that do
not depend on the batch."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import models, nn, optim
from graphc.codegen.llvm import jit
from graphc.passes.pipeline import Pipeline
from graphc.runtime import frame

RTOL = 2e-5                 # of the largest result: sums may be cut elsewhere than in programs for one size
SIZES = (1, 2, 3, 7, 16, 33, 100)


def mlp():
    return nn.Linear(96) >> nn.relu >> nn.LayerNorm() >> nn.Linear(40) >> nn.gelu() >> nn.Linear(10) >> nn.softmax


def words():
    return nn.Embedding(50, 24) >> nn.LayerNorm() >> nn.Linear(50)


BATCHES = {
    "mlp": (mlp, {"x": gc.f32["B", 50]}),
    "words": (words, {"x": gc.i32["B", "T"]}),
    "lstm": (lambda: nn.LSTM(24, layers=2), {"x": gc.f32["T", "B", 12]}),
    "attention": (lambda: nn.MultiHeadAttention(3), {"x": gc.f32["B", "T", 24]}),
    "bert": (lambda: models.bert(50, 24, 2, 3, 128), {"x": gc.i32["B", "T"]}),
    "gpt": (lambda: models.gpt(50, 24, 2, 3, 128), {"x": gc.i32["B", "T"]}),
    "cnn": (lambda: nn.Conv2d(8, 3, padding=1) >> nn.relu >> nn.MaxPool2d(2) >> nn.BatchNorm2d() >> nn.Conv2d(16, 3, stride=2)
            >> nn.relu >> nn.Flatten() >> nn.Linear(10), {"x": gc.f32["B", 3, 12, 12]}),
    "gru": (lambda: nn.GRU(24, batch_first=True) >> nn.Linear(3), {"x": gc.f32["B", "T", 12]}),
}


def arrays(types, seed=0, **sizes):
    rng = np.random.default_rng(seed)
    bound = [t.bind(sizes) for t in types.values()]
    return [rng.integers(0, 10, t.shape).astype(t.dtype.np) if t.dtype.is_int else
            rng.standard_normal(t.shape).astype(t.dtype.np) for t in bound]


def sized(net, types, **options):
    run = gc.compile(net, seed=0, **types, **options)
    assert run.sized, run.why_not
    return run


def names(types):
    return sorted(frozenset().union(*(t.names for t in types.values())))


def drawn(types):
    """Sizes of each name, apart from each other."""
    every = SIZES if len(names(types)) == 1 else SIZES[::2]         # where two are free, one program takes longer to make
    for i, size in enumerate(every):
        yield {name: every[(i + 2 * k) % len(every)] if k else size for k, name in enumerate(names(types))}


def near(actual, expected):
    for a, e in zip(np.atleast_1d(actual) if isinstance(actual, float) else [actual], [expected]):
        assert np.abs(np.asarray(a) - e).max(initial=0) <= RTOL * max(np.abs(e).max(initial=0), 1e-3)


@pytest.mark.parametrize("name", BATCHES)
def test_all_sizes_are_right(name):
    make, types = BATCHES[name]
    net = make()
    run = sized(net, types)
    for sizes in drawn(types):
        xs = arrays(types, **sizes)
        alone = gc.compile(net, seed=0, **{n: t.bind(sizes) for n, t in types.items()})
        near(run(*xs), alone(*xs))


@pytest.mark.parametrize("name", BATCHES)
def test_new_sizes_make_no_code(name, monkeypatch):
    make, types = BATCHES[name]
    run = sized(make(), types)
    first, *others = drawn(types)
    run(*arrays(types, **first))

    def refuse(*arguments, **named):
        raise AssertionError("a pass, or LLVM, at a call")
    for where, function in ((Pipeline, "run"), (jit, "compile_object"), (jit, "load_object")):
        monkeypatch.setattr(where, function, refuse)
    residents = set()
    for sizes in others:
        run(*arrays(types, **sizes))
        residents.add(run.last.executable.resident)
        assert run.last.memory == run.memory.at(**sizes)
    assert len(residents) == 1


@pytest.mark.parametrize("name", BATCHES)
def test_bits_do_not_depend_on_the_batch(name):
    """Nor on the place in it."""
    make, types = BATCHES[name]
    run, axis = sized(make(), types), list(types["x"].shape).index(gc.f32["B"].shape[0])
    x, = arrays(types, **{n: 100 if n == "B" else 9 for n in names(types)})
    whole = run(x)
    for start, count in ((0, 1), (57, 1), (99, 1), (3, 2), (10, 5), (20, 17), (1, 64)):
        part = run(np.ascontiguousarray(np.take(x, range(start, start + count), axis)))
        assert part.tobytes() == np.take(whole, range(start, start + count), axis).tobytes()


@pytest.mark.parametrize("name, y", [("mlp", gc.i32["B"]), ("words", gc.i32["B", "T"]), ("gpt", gc.i32["B", "T"]), ("cnn", gc.i32["B"])])
def test_steps_of_smaller_batches(name, y):
    make, types = BATCHES[name]
    types = {**types, "y": y}

    def step(types):
        return gc.train_step(make(), loss=nn.cross_entropy, optimizer=optim.SGD(0.1), **types)
    made = step(types)
    for sizes in list(drawn(types))[::2]:                   # a step of each takes long to make
        xs = arrays(types, **sizes)
        alone = step({n: t.bind(sizes) for n, t in types.items()})
        alone.state.load(made.state.copy())
        near(made(*xs), alone(*xs))
        for n, value in made.state.copy().items():
            if value.dtype.kind == "f":
                near(value, alone.state[n])
    assert made._programs.sized, made._programs.why_not


def test_memory_is_a_formula():
    run = sized(mlp(), BATCHES["mlp"][1])
    assert "· B" in str(run.memory) and run.memory.at(B=5).arena < run.memory.at(B=50).arena
    x, = arrays(BATCHES["mlp"][1], B=200)
    run(x)
    held = sum(frame.memory.nbytes for frame in run.last.executable.resident.frames._frames)
    assert held >= run.memory.at(B=200).arena
    run.release()
    assert not run.last.executable.resident.frames._frames and run(x).shape == (200, 10)


@pytest.mark.parametrize("is_roomy", (True, False))
def test_larger_sizes_use_the_memory_that_smaller_ones_have_touched(is_roomy, monkeypatch):
    """Or have memory of their own, where the system gives no address space beyond what they need."""
    run, types, real = sized(mlp(), BATCHES["mlp"][1], threads=1), BATCHES["mlp"][1], frame.mapped
    memory = run.memory.at(B=900)

    def mapped(nbytes):
        if nbytes > 2 * memory.arena + memory.scratch and not is_roomy:
            raise MemoryError
        return real(nbytes)
    monkeypatch.setattr(frame, "mapped", mapped)
    kept = []
    for batch in (800, 900, 5):
        run(*arrays(types, B=batch))
        kept += run.last.executable.resident.frames._frames
    first, second, third = kept
    assert (first is second) is is_roomy and second is third


@pytest.mark.parametrize("stage", ["simplified", "fused", "planned", "loops"])
def test_stages_are_texts_in_the_names(stage):
    """Of a plan in which values begin at places that depend on the sizes."""
    make, types = BATCHES["lstm"]
    text = sized(make(), types).dump(stage)
    assert "B" in text and "T" in text
