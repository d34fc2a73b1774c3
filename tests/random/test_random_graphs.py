"""Random graphs: native code = oracle, 1 thread = many threads bit for bit, gradients = differences, text parses
back."""
import os
import signal
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs import programs

import graphc as gc
from graphc.codegen.llvm import jit
from graphc.codegen.llvm.host import host_target as host
from graphc.compiler import Compilation
from graphc.dsl.function import trace_function
from graphc.dsl.signature import Argument
from graphc.ir.interp import evaluate
from graphc.ir.printer import print_graph
from graphc.ir.verify import DECLARED, DIFFERENTIATED, verify
from tests.random import shrink
from tests.random.check import COMPILE_OBJECT, Outcome, choose
from tests.random.generator import program
from tests.random.hunt import hunt
from tests.random.mutations import MUTATIONS, planted
from tests.random.oracle import Expected
from tests.random.workers import in_child

SEED, SECONDS = 0, 8               # of the share of programs that every run of the tests takes
SLOW = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}


def traced(program, dtype):
    """The program as a graph."""
    args = [Argument(f"x{i}", dtype[shape]) for i, shape in enumerate(program.shapes)]
    return trace_function(lambda **inputs: program(*inputs.values()), args, "program")


def numbers(program, seed, dtype):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in program.shapes]


@settings(max_examples=60, **SLOW)
@given(programs(), st.integers(0, 99))
def test_gradients_are_differences(program, seed):
    f = traced(program, gc.f64)
    xs, directions = numbers(program, seed, float), numbers(program, seed + 100, float)
    names = tuple(f.inputs)
    grads = evaluate(gc.grad(f, names).graph, xs)
    slope = sum((g * d).sum() for g, d in zip(grads, directions))
    tangent = evaluate(gc.jvp(f, names).graph, xs + directions)[0]
    np.testing.assert_allclose(tangent, slope, rtol=1e-9, atol=1e-11)
    if "stop" in repr(program):                 # differences do not stop
        return
    h = 1e-6
    up, down = (evaluate(f.graph, [x + s * h * d for x, d in zip(xs, directions)])[0] for s in (1, -1))
    np.testing.assert_allclose((up - down) / (2 * h), slope, rtol=2e-5, atol=2e-6)


@settings(max_examples=30, **SLOW)
@given(programs())
def test_text_parses_back_and_verifies(program):
    f = traced(program, gc.f32)
    g = gc.grad(f, tuple(f.inputs))
    for graph, stage in ((f.graph, DECLARED), (g.graph, DIFFERENTIATED)):
        verify(graph, stage)
        assert gc.parse(str(gc.GraphFunction(graph))) == graph


@settings(max_examples=25, **SLOW)
@given(programs(), st.integers(0, 99))
def test_native_code_is_the_oracle(program, seed):
    f = traced(program, gc.f32)
    g = gc.value_and_grad(f, tuple(f.inputs))
    xs = numbers(program, seed, np.float32)
    want = evaluate(g.graph, xs)
    one = gc.compile(g, threads=1)(*xs)
    for a, b in zip(one, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)
    for a, b in zip(gc.compile(g, threads=3)(*xs), one, strict=True):
        assert a.tobytes() == b.tobytes()


def test_programs_of_a_seed(monkeypatch, capsys):
    """A share of what `python -m tests.random` runs: regions, images, views and derivatives, in processes of their
    own."""
    monkeypatch.setenv("GRAPHC_CACHE", "off")
    assert hunt(SEED, 1, SECONDS, shrinking=10) == 0, capsys.readouterr().out


def test_the_oracle_finds_what_is_wrong():
    """A result that is off by more than rounding explains is wrong; one off by less is not, however much the program
    magnifies it."""
    graph = gc.parse("""
graph f(x: f32[4]) {
  %0 = constant() {value=f32[]<1000.0>} : f32[]
  %1 = add(x, %0) : f32[4]
  %2 = sub(%1, %0) : f32[4]
  %3 = lt(%2, x) : bool[4]
  return (%2, %3)
}
""")
    x = np.array([0.1, 0.2, 0.3, np.nan], np.float32)
    native = (x + np.float32(1000)) - np.float32(1000)
    expected = Expected(graph, [x], 0)
    assert not expected.wrong([native, native < x])
    for i, off in ((0, 1e-2), (3, 0)):
        other = native.copy()
        other[i] = 0.1 + off
        assert "output 0" in expected.wrong([other, native < x])
    assert "output 1" in expected.wrong([native, np.array([True, True, True, True])])


def test_no_noise_where_arithmetic_is_exact():
    """1 - 1 is 0, and sums of small whole numbers are what they are: a factor behind them explains nothing."""
    graph = gc.parse("""
graph f(m: bool[3], n: f32[3]) {
  %0 = cast(m) {dtype=f32} : f32[3]
  %1 = constant() {value=f32[]<1.0>} : f32[]
  %2 = sub(%1, %0) : f32[3]
  %3 = constant() {value=f32[]<-1000000000.0>} : f32[]
  %4 = mul(%2, %3) : f32[3]
  %5 = sum(n) {axes=(0,), keepdims=false} : f32[]
  %6 = floor(%5) : f32[]
  return (%4, %6)
}
""")
    m, n = np.array([True, False, True]), np.array([1, 2, 3], np.float32)
    right = [np.array([0, -1e9, 0], np.float32), np.float32(6)]
    assert not Expected(graph, [m, n], 0).wrong(right)
    assert "output 0" in Expected(graph, [m, n], 0).wrong([right[0] - np.float32(100), right[1]])
    assert "output 1" in Expected(graph, [m, n], 0).wrong([right[0], np.float32(5)])


@pytest.mark.parametrize("kind", ["cumsum(x) {axis=0}", "cumsum(x) {axis=0, reverse=true}",
                                  "linear_scan(a, x) {axis=0}"])
@pytest.mark.parametrize("term", [0.965, 1 / 3, 0.1])
def test_running_sums_of_equal_terms(kind, term):
    """Each step rounds as the one before: the error grows with the number of terms, not with its root. A factor that
    is wrong by 1e-3, and a term that is left out, are found all the same."""
    graph = gc.parse(f"graph f(x: f32[600], a: f32[600]) {{\n  %0 = {kind} : f32[600]\n  return %0\n}}")
    x, a = np.full(600, term, np.float32), np.ones(600, np.float32)
    native = np.cumsum(x)[::-1] if "reverse" in kind else np.cumsum(x)
    for seed in range(8):
        expected = Expected(graph, [x, a], seed)
        assert not expected.wrong([native])
        assert expected.wrong([native * np.float32(1.001)]) and expected.wrong([native - x[0]])


@pytest.mark.parametrize("way", MUTATIONS)
def test_planted_faults_are_found(way):
    """Of faults that move an output by 1e-4 or more all are found, of a constant wrong by 1e-5 most. `python -m
    tests.random.mutations`."""
    found = [f for i in range(14) if (f := planted(SEED, i, way)) and f.moved > (1e-4 if way != "scaled" else 9e-6)]
    assert len(found) > 2 and sum(f.caught for f in found) >= len(found) * (1 if way != "scaled" else 0.9)


def test_quick_programs_are_compiled_otherwise():
    """The level that `quick` sets reaches LLVM."""
    text = Compilation(gc.parse("graph f(x: f32[100]) {\n  %0 = tanh(x) : f32[100]\n  return %0\n}")).llvm
    codes = []
    for quick in (True, False):
        choose(False, "", quick)
        codes.append(jit.compile_object(text, host()))
    assert codes[0] != codes[1] and jit.compile_object is COMPILE_OBJECT


def test_a_crash_is_a_finding():
    assert in_child(lambda: os.kill(os.getpid(), signal.SIGSEGV)).where == "SIGSEGV"
    assert in_child(lambda: time.sleep(60), seconds=0.2).where == "does not end"


def test_findings_are_made_smaller(monkeypatch):
    """Of a graph that fails by one of its nodes little more than that node is left."""
    graph = next(g for g in (program(SEED, i).graph for i in range(1000)) if "tanh(" in print_graph(g)
                 and len(g.nodes) > 30)
    monkeypatch.setattr(shrink, "failing", lambda g, *_: Outcome("wrong" if "tanh(" in print_graph(g) else "ok"))
    smaller, _ = shrink.shrunk(graph, Outcome("wrong"))
    assert len(smaller.nodes) < 4
