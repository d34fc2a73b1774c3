"""An exception before any bytecode of graphc, as Ctrl-C may raise one: whatever it interrupts, the next call works, at
once, in every thread, with the right result, and a state is the old or the new one.
"""
from __future__ import annotations

import gc as collector
import random
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from llvmlite.binding.ffi import ObjectRef, OutputString

import graphc as gc
from graphc import nn, optim
from graphc.dsl.context import DECLARED, STACK
from graphc.nn.decode import DECODING
from graphc.nn.path import FRAMES

# finalizers were interrupted, too
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
PACKAGE = str(Path(gc.__file__).parent)
POINTS = 120                    # of an operation at most, evenly spread with a random start
# more than any operation here takes on a busy machine; a call that waits for ever is far beyond
SECONDS = 30
# Interrupted between freeing and noting that it has, llvmlite frees again when the object goes: nothing above it can help.
LLVMLITE = sys.modules["llvmlite.binding.ffi"].__file__
LLVMLITE_FREES = {cls.close.__code__ for cls in (ObjectRef, OutputString)}
VARIABLES = (STACK, DECLARED, FRAMES, DECODING)


class Interrupted(KeyboardInterrupt):
    pass


def _frees(frame) -> bool:
    """Whether llvmlite is freeing an object here or in what it calls for that."""
    while frame is not None and frame.f_code.co_filename.startswith(LLVMLITE):
        if frame.f_code in LLVMLITE_FREES:
            return True
        frame = frame.f_back
    return False


class Interrupter:
    """A trace function that counts the bytecodes in graphc's frames of one thread, and raises before number `at` (0:
    never).
    """

    def __init__(self, at: int = 0, files: str = PACKAGE):
        self.at, self.files, self.count = at, files, 0

    def __call__(self, frame, event, argument):
        if not frame.f_code.co_filename.startswith(self.files) or _frees(frame):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        frame.f_trace = self.local      # Python 3.13 looks at f_trace_opcodes when this is set
        return self.local

    def local(self, frame, event, argument):
        if event == "opcode":
            self.count += 1
            if self.count == self.at:
                raise Interrupted
        return self.local

    def run(self, operation) -> bool:
        """Whether it was interrupted."""
        before = sys.gettrace()
        sys._getframe().f_trace_opcodes = True      # Python 3.12 looks at it in settrace
        sys.settrace(self)
        try:
            operation()
        except Interrupted:
            return True
        finally:
            sys.settrace(before)
        # a finalizer was: Python prints and drops what is raised there
        return self.at != 0 and self.count >= self.at


@contextmanager
def deadline():
    def late(number, frame):
        raise TimeoutError("a call waits for ever")
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def sweep(operation, prepare, check, points: int = POINTS, seed: int = 0, files: str = PACKAGE) -> None:
    """`prepare()`, then `operation()` with an exception at a bytecode, then `check()` here and in another thread;
    for bytecodes spread over all of them.
    """
    prepare()
    operation()                     # what only the first call does is another operation
    prepare()
    counter = Interrupter(files=files)
    counter.run(operation)
    step = max(1, counter.count // points)
    hits = 0
    for at in range(1 + random.Random(seed).randrange(step), counter.count + 1, step):
        with deadline():
            prepare()
            hits += Interrupter(at, files).run(operation)
            assert collector.isenabled() and not any(variable.get() for variable in VARIABLES), at
            check()
            failed = []
            thread = threading.Thread(target=_noting(check, failed))
            thread.start()
            thread.join(SECONDS / 2)
            assert not thread.is_alive() and not failed, (at, failed)
    assert hits > 0


def _noting(check, failed: list):
    def run():
        try:
            check()
        except BaseException as error:
            failed.append(error)
    return run


def nothing() -> None:
    pass


@gc.graph
def scaled(x: gc.f32[4], y: gc.f32[4]):
    return gc.exp(x) * y


A, B = np.arange(4, dtype=np.float32), np.ones(4, np.float32)
PRODUCT = np.exp(A) * B


@pytest.mark.parametrize("way", ["named", "out", "converted", "long", "threads"])
def test_calls(way):
    run = gc.compile(scaled, threads=2)
    expected, out = run(A, B), np.empty(4, np.float32)
    np.testing.assert_allclose(expected, PRODUCT, rtol=1e-6)
    calls = {"named": lambda: run(x=A, y=B), "out": lambda: run(A, y=B, out=out),
             "converted": lambda: run(np.repeat(A, 2)[::2], B),
             "long": lambda: run(A, B), "threads": lambda: run.executable.run([A, B], [out], 3)}

    def prepare():
        run.executable._descriptor.switch(enabled=way != "long", release=way == "long")
        out.fill(0)

    def check():
        for call in (calls[way], lambda: run(A, B)):
            assert (call() if way != "threads" else (call(), out)[1]) is not None
            np.testing.assert_array_equal(run(A, B), expected)
    sweep(calls[way], prepare, check)
    assert len(run.executable.resident.frames) <= run.executable.resident.frames._bound


class Trained:
    """A training step, a prediction that follows it, and the two states around one step."""

    def __init__(self):
        net = nn.Linear(5) >> nn.BatchNorm1d() >> nn.relu >> nn.Linear(3)
        self.step = gc.train_step(net, loss=nn.mse, optimizer=optim.AdamW(0.01), x=gc.f32[4, 6], y=gc.f32[4, 3], seed=1,
                                  threads=2)
        rng = np.random.default_rng(0)
        self.batch = rng.standard_normal((4, 6)).astype("f"), rng.standard_normal((4, 3)).astype("f")
        self.old = self.step.state.copy()
        self.loss = self.step(*self.batch)
        self.new = self.step.state.copy()
        self.predict = gc.compile(self.step.model, x=gc.f32[4, 6], threads=2)
        self.after = {name: self.predicted(values) for name, values in (("old", self.old), ("new", self.new))}
        self.lock = threading.Lock()

    def predicted(self, values) -> bytes:
        self.step.state.load(values, "test")
        return self.predict(self.batch[0]).tobytes()

    def back(self) -> None:
        self.step.state.load(self.old, "test")

    def is_whole(self) -> None:
        """The state is that of before or after a step, and the next step, from the old one, is right."""
        with self.lock:
            found = {name: a.tobytes() for name, a in self.step.state.copy().items()}
            name = next(n for n, values in (("old", self.old), ("new", self.new))
                        if found == {k: a.tobytes() for k, a in values.items()})
            assert self.predict(self.batch[0]).tobytes() == self.after[name]
            self.back()
            assert self.step(*self.batch) == self.loss
            assert all(a.tobytes() == self.new[k].tobytes() for k, a in self.step.state.copy().items())


@pytest.fixture(scope="module")
def trained():
    return Trained()


def operations(t: Trained, folder: Path):
    return {
        "step": lambda: t.step(*t.batch),
        "step by name": lambda: t.step(x=t.batch[0], y=t.batch[1]),
        "long step": lambda: t.step(*t.batch),
        "predict": lambda: t.predict(x=t.batch[0]),
        "read": lambda: t.step.state["0.weight"],
        "copy": lambda: t.step.state.copy(),
        "load": lambda: t.step.state.load(t.new, "test"),
        "save": lambda: t.step.save(folder / "saved.safetensors"),
        "load a file": lambda: t.step.load(folder / "new.safetensors"),
        "evaluate": lambda: t.step.evaluate([t.batch]),
        "profile": lambda: t.step.profile(*t.batch, runs=1),
        "compile": lambda: gc.compile(t.step.model, x=gc.f32[4, 6])(t.batch[0]),
    }


@pytest.mark.parametrize("name", operations(None, None))
def test_a_state_is_old_or_new(name, trained, tmp_path):
    trained.step.state.load(trained.new, "test")
    trained.step.save(tmp_path / "new.safetensors")
    long = name in ("long step", "predict")
    runs = [trained.step._fixed.executable, trained.predict.executable]

    def prepare():
        trained.back()
        for run in runs:
            run._descriptor.switch(enabled=not long, release=long)
    sweep(operations(trained, tmp_path)[name], prepare, trained.is_whole,
          {"profile": 10, "compile": 30, "evaluate": 30}.get(name, POINTS))


def test_writing_one_array(trained):
    weight = trained.new["0.weight"]

    def check():
        with trained.lock:
            found = trained.step.state["0.weight"].tobytes()
            assert found in (weight.tobytes(), trained.old["0.weight"].tobytes())
    sweep(lambda: trained.step.state.__setitem__("0.weight", weight), trained.back, check)


FRESH = {
    "graph": lambda: gc.compile(gc.graph(_traced), threads=2)(A),
    "first call": lambda: gc.graph(_traced)(A),
    "gradient": lambda: gc.compile(gc.grad(gc.graph(_loss), "x"))(A),
    "plan": lambda: gc.plan(NET, x=gc.f32[4, 6]).memory,
    "network": lambda: gc.compile(NET, x=gc.f32[4, 6], seed=0)(np.ones((4, 6), np.float32)),
    "train_step": lambda: gc.train_step(NET, loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[4, 6], y=gc.f32[4, 2])(
        np.ones((4, 6), np.float32), np.zeros((4, 2), np.float32)),
    "generate": lambda: gc.generate(DECODER, [1, 2, 3], steps=4, seed=0),
    "named sizes": lambda: gc.compile(gc.graph(_sized))(np.ones(5, np.float32)),
}
NET = nn.Linear(5) >> nn.relu >> nn.Linear(2)
DECODER = nn.Embedding(7, 8) >> nn.GRU(8, batch_first=True) >> nn.Linear(7)


def _traced(x: gc.f32[4]):
    steps, _ = gc.scan(lambda s, _: (s * 0.5 + x, s), gc.zeros(4), gc.zeros((3,)))
    return gc.cond(gc.sum(x) > 0, lambda: gc.tanh(steps), lambda: steps)


def _loss(x: gc.f32[4]):
    return gc.sum(gc.exp(x) * x)


def _sized(x: gc.f32["N"]):
    return gc.softmax(x * 2)


@pytest.mark.parametrize("name", FRESH)
def test_what_is_made_afresh(name):
    expected = FRESH[name]()

    def check():
        np.testing.assert_array_equal(FRESH[name](), expected) if name != "plan" else FRESH[name]()
    sweep(FRESH[name], nothing, check, 16, seed=len(name))


def test_inside_llvmlite(monkeypatch):
    """Its lock, which it takes in Python: a compile that was interrupted there stops no other thread's."""
    monkeypatch.setenv("GRAPHC_CACHE", "off")
    compiled = FRESH["graph"]
    expected = compiled()
    sweep(compiled, nothing, lambda: np.testing.assert_array_equal(compiled(), expected), 40, files=LLVMLITE)
