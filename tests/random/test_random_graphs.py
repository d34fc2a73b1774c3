"""Random graphs: native code = oracle, 1 thread = many threads bit for bit, gradients = differences, text parses back."""
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs import programs

import graphc as gc
from graphc.dsl.function import trace_function
from graphc.dsl.signature import Argument
from graphc.ir.interp import evaluate
from graphc.ir.verify import DECLARED, DIFFERENTIATED, verify

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
