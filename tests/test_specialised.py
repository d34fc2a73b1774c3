"""Native code by sizes: made once for each set of them, the last ones kept; a step that nobody needs is gone at
once."""
from __future__ import annotations

import sys
import weakref

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim, profile, sized
from graphc.errors import Unsized
from graphc.specialised import KEPT_PROGRAMS, KEPT_SIZES, Specialised, SpecialisedGraph


def test_each_set_of_sizes_is_made_once_and_the_last_are_kept():
    made = []
    programs = Specialised(lambda **sizes: made.append(sizes) or sizes, most=3)
    assert programs.last is None and programs.kept == ()
    first = programs.at(B=1, T=2)
    assert programs.at(T=2, B=1) is first and programs.last is first and made == [{"B": 1, "T": 2}]
    for size in (3, 4):
        programs.at(B=size, T=2)
    assert programs.at(B=1, T=2) is first and programs.kept[-1] is first and len(programs.kept) == 3
    programs.at(B=5, T=2)                       # B=3 was used longest ago
    assert [kept["B"] for kept in programs.kept] == [4, 1, 5]
    programs.at(B=3, T=2)
    assert [sizes["B"] for sizes in made] == [1, 3, 4, 5, 3]


def test_what_fails_is_not_kept():
    programs = Specialised(lambda n: [][n])
    for _ in range(2):
        with pytest.raises(IndexError):
            programs.at(n=1)
    assert programs.kept == ()


@gc.graph
def total(x: gc.f32["B", 3]):
    return gc.sum(x, 0)


@pytest.fixture(autouse=True)
def known_peaks(monkeypatch):
    """Profiles compare with the machine, which takes seconds to measure."""
    monkeypatch.setattr(profile, "fma_peak", lambda threads: 1.0)
    monkeypatch.setattr(profile, "copy_rate", lambda threads: 1.0)


def test_a_graph_with_named_sizes():
    run = gc.compile(total)
    assert type(run) is SpecialisedGraph and run.dump() == str(total)
    assert str(run.memory.inputs) == "12*B" and "inputs 12 B · B" in str(run.memory)
    small, large = np.ones((2, 3), np.float32), np.ones((7, 3), np.float32)
    out = np.zeros(3, np.float32)
    assert run(small).tolist() == [2, 2, 2] and run(x=large, out=out) is out and out.tolist() == [7, 7, 7]
    assert run.memory.at(B=7).inputs == large.nbytes and run.at(B=7) is run.last and len(run.kept) == 2
    assert run.sized and not run.why_not and "f32[B, 3]" in run.dump("fused") and run.profile(small, runs=1).rows and run.last is run.at(B=2)
    mistakes = {"argument 'x' is": (np.ones((2, 4), np.float32),), "argument 'x' is f32": (np.ones(3, "f"),),
                "needs 'x'": ()}
    for says, bad in mistakes.items():
        with pytest.raises(gc.GraphError, match=says) as error:
            run(*bad)
        assert "test_specialised.py" in str(error.value)
    for size in range(1, KEPT_PROGRAMS + 4):
        run(np.ones((size, 3), np.float32))
    assert len({part.executable.resident for part in run.kept}) == 1


def test_programs_for_each_size(monkeypatch):
    """Where there is no program for all sizes."""
    def refuses(*arguments):
        raise Unsized("the reason")
    monkeypatch.setattr(sized, "open_graph", refuses)
    monkeypatch.setattr(sized, "kept", lambda *_: None)         # nor one on disk
    run = gc.compile(total)
    with pytest.raises(gc.GraphError, match="of B are not known before .*; give them to gc.compile") as error:
        run.memory
    assert "test_specialised.py" in str(error.value) and run.why_not == "the reason"
    for size in range(1, KEPT_PROGRAMS + 4):
        assert run(np.ones((size, 3), np.float32)).tolist() == [size] * 3
    assert len(run.kept) == KEPT_PROGRAMS and run.memory.inputs == 12 * size and "the reason" in run.explain()


def test_bounds():
    run = gc.compile(total, B=(2, 5))
    assert run(np.ones((5, 3), np.float32)).tolist() == [5] * 3
    for wrong in (1, 6):
        with pytest.raises(gc.GraphError, match=rf"B is {wrong} here, but total was compiled for B=\(2, 5\)") as error:
            run(np.ones((wrong, 3), np.float32))
        assert "test_specialised.py" in str(error.value)
    for wrong in ((5, 2), (1, 2, 3), (-1, 2)):
        with pytest.raises(gc.GraphError):
            gc.compile(total, B=wrong)
    with pytest.raises(gc.GraphError, match="has no named dimension 'T'"):
        gc.compile(total, T=(1, 2))


def test_arrays_of_no_size():
    """They have programs of their own."""
    run = gc.compile(total)
    assert run(np.ones((0, 3), np.float32)).tolist() == [0, 0, 0] and run(np.ones((2, 3), np.float32)).tolist() == [2] * 3


def step(batch):
    return gc.train_step(nn.Linear(2), loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[batch, 3],
                         y=gc.f32[batch, 2], threads=1)


@pytest.mark.parametrize("batch", [4, "B"])
def test_a_step_that_nobody_needs_is_gone_at_once(batch):
    """Its state forgets what was the step's alone then; no cycle keeps it until Python looks for cycles."""
    made = step(batch)
    x, y = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)
    made(x, y), made.evaluate([(x, y)], error=nn.mse)
    gone = weakref.ref(made)
    assert sys.getrefcount(made) == 2
    del made
    assert gone() is None


def test_a_step_knows_its_program_by_the_sizes_used_last():
    made = step("B")
    assert "f32[B, 3]" in made.dump("fused")
    for size in (4, 6):
        made(np.ones((size, 3), np.float32), np.ones((size, 2), np.float32))
    assert "f32[B, 3]" in made.dump() and made.memory.at(B=6).inputs == 6 * 5 * 4
    with pytest.raises(gc.GraphError, match="must be f32.4, 3.*, got dtype float64; convert it: x.astype") as error:
        made(np.ones((4, 3)), np.ones((4, 2), np.float32))
    assert "test_specialised.py" in str(error.value)


def test_a_step_of_fixed_sizes_says_what_to_convert():
    made = step(4)
    arrays = np.ones((4, 3)), np.ones((4, 2), np.float32)
    for call in (made, lambda *arrays: made.profile(*arrays, runs=1)):
        with pytest.raises(gc.GraphError, match="must be f32.4, 3.*, got dtype float64; convert it: x.astype"):
            call(*arrays)
    assert made.profile(np.ones((4, 6), np.float32)[:, ::2], arrays[1], runs=1).rows


def test_sizes_that_have_come_before_are_called_without_python(monkeypatch):
    run = gc.compile(lambda x, y: gc.sum(x * y, axis=0), x=gc.f32["B", "C"], y=gc.f32["C"])
    sizes = [(b, c) for b in range(1, 20) for c in (1, 3, 8)]
    arrays = {s: (np.full(s, s[0], np.float32), np.ones(s[1], np.float32)) for s in sizes}
    for _ in range(4):                      # of each the first calls go through Python
        for pair in arrays.values():
            run(*pair)
    monkeypatch.setattr(SpecialisedGraph, "serving", None)
    served = 0
    for (b, c), pair in arrays.items():
        try:
            result, out = run(*pair), np.zeros(c, np.float32)
        except TypeError:                   # others have its row
            continue
        served += 1
        assert result.tolist() == [b * b] * c and run(*pair, out=out) is out and out.tolist() == [b * b] * c
        assert run.last.sizes == {"B": b, "C": c}
    assert served > len(sizes) // 2


def test_nothing_but_arrays_of_known_shapes_is_taken_by_native_code():
    run = gc.compile(total)
    x = np.ones((5, 3), np.float32)
    for _ in range(4):
        assert run(x).tolist() == [5] * 3
    assert run(x=x).tolist() == run(x[::1]).tolist() == run(np.ones((5, 6), np.float32)[:, ::2]).tolist() == [5] * 3
    for wrong in ((), (x, x), (x.astype(np.int8),), (None,), ([[1, 2], [3]],), (x[0],)):
        with pytest.raises(gc.GraphError):
            run(*wrong)
    assert run.last is run.at(B=5)


def test_more_sizes_than_are_kept():
    run = gc.compile(total)
    for _ in range(2):
        for size in range(1, KEPT_SIZES + 20):
            assert run(np.ones((size, 3), np.float32)).tolist() == [size] * 3
    assert len(run.kept) == KEPT_SIZES


def test_a_program_goes_with_its_last_reference():
    run = gc.compile(total)
    run(np.ones((2, 3), np.float32))
    there = weakref.ref(run)
    del run
    assert there() is None
