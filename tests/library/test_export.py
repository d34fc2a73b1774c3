"""`gc.export` itself: what it takes, what it writes, and what it says of mistakes."""
from __future__ import annotations

import ctypes
import re
from types import SimpleNamespace

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.checkpoint import load_arrays
from graphc.doors.library.archive import ObjectFile, archive
from graphc.doors.library.linking import linker
from graphc.doors.library.c_names import KEYWORDS, identifier
from graphc.doors.library.state_image import StateArray, StateImage
from graphc.codegen.llvm.jit import compile_object, load_object
from graphc.codegen.routines.architecture import architecture_of
from graphc.codegen.routines.text import module_text
from graphc.doors.library.formulas_ir import formulas
from graphc.ir import size_formulas
from graphc.ir.dims import evaluate, largest, round_up, size_name, smallest
from graphc.ir.open import Bounds
from graphc.memory.formula import named
from graphc.schedule.target import SSE2

import networks
from exported import Instance

NET = nn.Linear(8) >> nn.relu >> nn.Linear(3)
needs_linker = pytest.mark.skipif(not linker(), reason="there is no C compiler to link a shared library")


def step(**more):
    return gc.train_step(nn.Linear(3), loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[4, 2], y=gc.f32[4, 3], **more)


@pytest.mark.parametrize("what, options, said", [
    (NET, {}, "give the type of each input"),
    (NET, {"x": gc.f32[1, 4]}, 'give state="file.safetensors" or seed=0'),
    (NET, {"x": gc.f32[1, 4], "seed": 0, "weights": "both"}, 'weights= is "embed" or "file", got \'both\''),
    (NET, {"x": gc.f32[1, 4], "seed": 0, "targets": "sparc"}, "'sparc' is no system"),
    (NET, {"x": gc.f32[1, 4], "seed": 0, "targets": "x86_64-linux:neon"}, "no instruction set 'neon'; it has sse2, avx2"),
    (NET, {"x": gc.f32[1, 4], "seed": 0, "targets": ()}, "targets= takes names of systems"),
    (NET, {"x": gc.f32[1, 4], "seed": 0, "name": "9"}, "becomes a name in C"),
    (NET, {"x": gc.f32[1, 4], "seed": 0, "name": "class"}, "no word of C or C++"),
    (step, {"seed": 3}, "this one is compiled already"),
    (lambda: {"load": step()}, {}, "cannot be called load"),
    (lambda: {"a b": step()}, {}, "the name of a function becomes a name in C"),
    (lambda: {"a": step(), "b": step()}, {}, "not one array: the functions of a library share one state"),
    (lambda: {"a": step()}, {"x": gc.f32[1, 4]}, "each is given as it is called"),
    (dict, {}, "each is given as it is called"),
    (lambda: step(shards=2), {}, "a step with shards= is several functions"),
    (lambda: {"a": (it := step()), "A": gc.compile(it.model, x=gc.f32[4, 2])}, {}, "but for the case of letters"),
    (step, {"threads": 4}, "threads= says whether the library has a thread pool"),
    (step, {"targets": ["wasm32", "wasm32"]}, "targets= names wasm32 twice"),
    (step, {"targets": [3]}, "targets= takes names of systems"),
    (lambda: gc.compile(NET, x=gc.f32[64, 4], seed=0), {}, "only in the form that this machine reads: export the network"),
    (3, {}, "run: export takes a graph, a network, step.model, a training step or what gc.compile made, got int"),
])
def test_mistakes(what, options, said, tmp_path):
    thing = what() if callable(what) and not isinstance(what, nn.Module) else what
    with pytest.raises(gc.GraphError, match=re.escape(said)) as raised:
        gc.export(thing, tmp_path, **options)
    assert raised.value.loc is not None and raised.value.loc.file == __file__
    assert not list(tmp_path.iterdir())


def test_one_array_under_two_names(tmp_path):
    """Averages are the step's arrays, seen under the parameters' names."""
    averaging = step(ema=0.9)
    averaging(np.ones((4, 2), np.float32), np.ones((4, 3), np.float32))
    predict = gc.compile(averaging.averaged, x=gc.f32[4, 2])
    gc.export({"step": averaging, "predict": predict}, tmp_path, weights="file", targets=networks.here())
    arrays = load_arrays(tmp_path / "net.safetensors")
    assert {n for n in arrays if not n.startswith("graphc.")} == set(averaging.state)


@needs_linker
def test_nan_checks(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHC_CHECK_NAN", "1")

    @gc.graph
    def f(x: gc.f32[4]):
        return gc.log(x) * 2
    gc.export(f, tmp_path, targets=networks.here())
    assert "NET_NAN: log makes a NaN" in (tmp_path / "net.h").read_text()
    n, x, out = Instance(tmp_path), np.array([1, 2, -3, 4], np.float32), np.zeros(4, np.float32)
    assert n.call("run", [x], [out]) == 2
    assert n.message.startswith("log makes NaN, first in element 2 of its result") and n.index == 2


@needs_linker
def test_names_of_parameters(tmp_path):
    """What C has no such names for, and what other parameters are called."""
    @gc.graph
    def f(instance: gc.f32[2], int: gc.f32[2], int_1: gc.f32[2], N: gc.f32["instance", "int"]):
        return {"return": instance + int, "N": int_1 * 2, "naïve": gc.sum(N)}
    gc.export(f, tmp_path, targets=networks.here())
    text = (tmp_path / "net.h").read_text()
    names = re.findall(r"(\w+)(?:\[[^]]*\])?[,)]", text[text.index("int net_run("):text.index(";", text.index("int net_run("))])
    assert len(set(names)) == len(names) == 10 and not set(names) & KEYWORDS
    n, a = Instance(tmp_path, sizes=(2, 3)), [np.full(2, v, np.float32) for v in (1, 2, 3)]
    outs = [np.zeros(2, np.float32), np.zeros(2, np.float32), np.zeros((), np.float32)]
    assert n.call("run", [*a, np.ones((2, 3), np.float32)], outs, (2, 3)) == 0
    assert outs[0].tolist() == [3, 3] and outs[1].tolist() == [6, 6] and outs[2] == 6


def test_identifiers():
    assert identifier("conv1.weight", ()) == "conv1_weight" and identifier("2", ()) == "a_2"
    assert identifier("x", ("x", "x_1")) == "x_2" and identifier("for", ()) == "for_1" and identifier("", ()) == "a_"


def test_images_are_aligned_safetensors(tmp_path):
    rng = np.random.default_rng(0)
    arrays = [StateArray("a\"b", rng.random((3, 5)).astype(np.float32)), StateArray("c", np.array(True)),
              StateArray("d", np.zeros((0, 4))), StateArray("é", rng.random(7))]
    image = StateImage(tuple(arrays))
    (tmp_path / "s").write_bytes(image.content())
    found = load_arrays(tmp_path / "s")
    assert all(offset % 64 == 0 for offset in image.offsets) and len(image.content()) == image.nbytes
    for array in arrays:
        assert found[array.name].tobytes() == array.value.tobytes() and found[array.name].shape == array.value.shape


def test_archives_do_not_depend_on_anything_else():
    objects = [ObjectFile("a.o", b"abc", ("x", "yy")), ObjectFile("a_long_name_of_a_file.o", b"defg", ())]
    made = archive(objects)
    assert made == archive(objects) and made.startswith(b"!<arch>\n/ ") and len(made) % 2 == 0
    assert made[made.index(b"abc") - 60:].startswith(b"/0 ")


def test_a_library_is_the_same_whenever_it_is_made(tmp_path):
    for folder in ("a", "b"):
        gc.export(NET, tmp_path / folder, x=gc.f32["B", 4], seed=0, targets=networks.here())
    for file in ("libnet.a", "net.h", "vectors.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@needs_linker
@pytest.mark.parametrize("seed", range(3))
def test_memory_is_what_the_formulas_say(seed, tmp_path):
    """Of random sizes, the bytes of an instance grow by what Python's plan says of arena and scratch."""
    @gc.graph
    def f(x: gc.f32["B", "T", 6], w: gc.f32[6, 9]):
        return gc.softmax(gc.tanh(x) @ w, axis=1)
    gc.export(f, tmp_path, targets=networks.here())
    memory, rng = gc.compile(f).memory, np.random.default_rng(seed)

    def work(b, t):
        found = memory.at(B=b, T=t)
        return sum(-(-size // 64) * 64 for size in (found.arena, found.scratch))
    sizes = [tuple(map(int, rng.integers(1, 2000, 2))) for _ in range(5)]
    found = [Instance(tmp_path, sizes=s, nbytes=0).of("memory", *_words(s)) for s in sizes]
    assert len({have - work(*s) for have, s in zip(found, sizes)}) == 1


def _words(sizes):
    return ctypes.c_int64, *map(ctypes.c_int64, sizes), ctypes.c_int(1)


def test_formulas():
    """The routine of some formulas, and the Python function, against one by one: rounded quotients below 0, maxima, minima,
    products; sizes outside of bounds, and products that do not fit."""
    b, t = size_name("B", 1, 1 << 31), size_name("T", 2, 1 << 31)
    table = ((b * 3 - 700) // 4, largest(b * 2, t + 5), named("x", b * t + b * b), round_up(t, 16) - b * 9,
             smallest(b, t, 100))
    together = size_formulas.formulas(table)
    program = SimpleNamespace(
        symbol="f", function=SimpleNamespace(name="f", sizes=("B", "T")), arena=b * t * 4 + 64, scratch=t * 8, conditions=(t - b,),
        bounds={"B": Bounds(1, 1 << 31), "T": Bounds(2, 1 << 31)}, emitted=SimpleNamespace(sizes=table))
    text = module_text([formulas(program)], architecture_of(SSE2.triple))
    loaded = load_object(compile_object(text, SSE2), ("f_sizes",))
    call = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(loaded.address("f_sizes"))
    rng = np.random.default_rng(0)
    for low, high in ((1, 9), (1, 500), (1, 1 << 20), (1 << 24, 1 << 31), (-3, 3)):
        for _ in range(50):
            given, out = rng.integers(low, high, 2), np.zeros(2 + len(table), np.int64)
            serves = call(given.ctypes.data, out.ctypes.data)
            sizes = {"B": int(given[0]), "T": int(given[1])}
            assert together(sizes) == [evaluate(d, sizes) for d in table]
            is_right = 1 <= sizes["B"] <= sizes["T"] and sizes["T"] >= 2
            assert serves == (is_right and sizes["B"] * sizes["T"] < 1 << 46), sizes
            if serves:
                want = [evaluate(d, sizes) for d in (program.arena, program.scratch, *table)]
                assert out.tolist() == want, sizes
