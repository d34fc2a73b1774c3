"""debug_print: what a program shows, in order, beside results that stay as they are."""
from __future__ import annotations

import pickle

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim


@gc.graph
def doubled(x: gc.f64["B"]):
    y = x * 2
    gc.debug_print("y is {}, its sum {total:.2f}", y, total=gc.sum(y))
    return y + 1


@gc.graph
def summed(x: gc.f64[3]):
    def body(carry, t):
        gc.debug_print("at {} with {}", carry, t)
        return carry + t, carry
    last, each = gc.scan(body, gc.zeros((), gc.f64), x, reverse=True)
    gc.debug_print("end {}", last)
    return {"last": last, "each": each}


def printed(capsys, call, *arrays):
    result = call(*arrays)
    return result, capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("sizes", [{}, {"B": 2}])
def test_results_stay_and_values_are_shown(capsys, threads, sizes):
    run = gc.compile(doubled, threads=threads, **sizes)
    for call in (run, doubled, pickle.loads(pickle.dumps(run))):
        result, lines = printed(capsys, call, np.array([1.0, 2.0]))
        assert result.tolist() == [3, 5] and lines == ["y is [2. 4.], its sum 6.00"]
    assert run.memory.outputs and "mul" in run.dump("graph") and "which prints" in repr(run)
    with pytest.raises(gc.GraphError, match="out= does not go together with gc.debug_print"):
        run(np.ones(2), out=np.ones(2))


def test_the_steps_of_a_loop_in_the_order_in_which_they_run(capsys):
    result, lines = printed(capsys, gc.compile(summed), np.arange(3.0))
    assert lines == ["at 0.0 with 2.0", "at 2.0 with 1.0", "at 3.0 with 0.0", "end 3.0"]
    assert result["last"] == 3 and result["each"].tolist() == [3, 2, 0] and len(result) == 2


def test_texts_may_ask_for_all_that_an_array_has(capsys):
    @gc.graph
    def f(x: gc.f32["B"]):
        gc.debug_print("{0.shape} {0[2]:.1f} {1:d} {2:.2f}", x, gc.argmax(x), gc.sum(x).astype(gc.bf16))
        return x
    run = gc.compile(f)
    assert printed(capsys, run, np.arange(4, dtype=np.float32))[1] == ["(4,) 2.0 3 6.00"]
    with pytest.raises(gc.GraphError, match=r"debug_print: .* does not fit 3 arrays by position: IndexError"):
        run(np.ones(2, np.float32))


def test_a_text_alone_is_printed_in_each_step_of_all_loops(capsys):
    @gc.graph
    def f(x: gc.f32[3]):
        gc.debug_print("begin")
        return gc.scan(lambda c, t: (gc.debug_print("step"), (c + t, None))[1], gc.zeros((), gc.f32), x)[0]
    result, lines = printed(capsys, gc.compile(f), np.ones(3, np.float32))
    assert result == 3 and lines == ["begin", "step", "step", "step"]
    assert printed(capsys, gc.vmap(f), np.ones((2, 3), np.float32))[1].count("step") == 6


def test_results_may_have_the_names_of_what_is_printed(capsys):
    @gc.graph
    def f(x: gc.f32[()]):
        gc.debug_print("{}", x)
        return {"debug_print.0": x + 1, "debug_print.one": x + 2}
    result, lines = printed(capsys, gc.compile(f), np.float32(1))
    assert result == {"debug_print.0": 2, "debug_print.one": 3} and lines == ["1.0"]


def test_what_is_made_of_a_graph_prints_too(capsys):
    @gc.graph
    def square(x: gc.f64[3]):
        return gc.sum(summed(x)["each"] ** 2)
    gradient, lines = printed(capsys, gc.compile(gc.grad(square)), np.arange(3.0))
    assert len(lines) == 4 and gradient.tolist() == [0, 6, 10]
    _, lines = printed(capsys, gc.compile(gc.vmap(doubled, size="N"), N=2, B=1), np.array([[1.0], [2.0]]))
    assert lines == ["y is [2.], its sum 2.00", "y is [4.], its sum 4.00"]


class Seen(nn.Module):
    def forward(self, x):
        gc.debug_print("mean {:.3f}", gc.mean(x))
        return x


def test_a_training_step(capsys):
    x, y = np.ones((5, 3), np.float32), np.ones((5, 1), np.float32)
    quiet, loud = (gc.train_step(nn.Linear(4) >> middle >> nn.Linear(1), loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32["B", 3], y=gc.f32["B", 1],
                                 seed=0) for middle in (nn.Identity(), Seen()))
    for _ in range(3):
        wanted = quiet(x, y)
        result, lines = printed(capsys, loud, x, y)
        assert result == wanted and type(result) is float and len(lines) == 1 and lines[0].startswith("mean ")
    assert len(loud.graph.outputs) == 1                     # that of exports, which print nothing
    again = pickle.loads(pickle.dumps(loud))
    assert printed(capsys, again, x, y) == printed(capsys, loud, x, y)
    loud.fit(x, y, epochs=2, batch=5, progress=False)
    assert capsys.readouterr().out.count("mean ") == 2
    run = gc.compile(loud.model, x=gc.f32[2, 3])
    assert len(printed(capsys, run, x[:2])[1]) == 1
    reported = gc.train_step(nn.Linear(1) >> Seen(), loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[5, 3], y=gc.f32[5, 1], report="grad_norm")
    assert printed(capsys, reported, x, y)[0].keys() == {"loss", "grad_norm"}
    rounded = gc.train_step(nn.Linear(8) >> Seen() >> nn.Linear(1), loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[5, 3], y=gc.f32[5, 1], compute="bf16")
    assert len(printed(capsys, rounded, x, y)[1]) == 1
    with pytest.raises(gc.GraphError, match="debug_print in a step with shards="):
        gc.train_step(nn.Linear(1) >> Seen(), loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[4, 3], y=gc.f32[4, 1], shards=2)


def test_outside_of_graphs_it_prints_at_once(capsys):
    assert printed(capsys, lambda: gc.debug_print("{} and {b}", 1, b=np.ones(2)))[1] == ["1 and [1. 1.]"]


@pytest.mark.parametrize("body, text", [
    (lambda x: gc.cond(gc.sum(x) > 0, lambda: (gc.debug_print("{}", x), x)[1], lambda: x), "cannot look into a branch of cond"),
    (lambda x: gc.while_loop(lambda c: gc.sum(c) < 3, lambda c: (gc.debug_print("{}", c), c + 1)[1], x, 3)[1], "cannot look into a branch of cond, a while_loop"),
    (lambda x: gc.remat(lambda y: (gc.debug_print("{}", y), y)[1])(x), "gc.remat"),
    (lambda x: (gc.debug_print("{} {}", x), x)[1], "does not fit 1 arrays by position"),
    (lambda x: (gc.debug_print("{y}", z=x), x)[1], "does not fit 0 arrays by position and z"),
    (lambda x: (gc.debug_print(x), x)[1], "debug_print takes a text such as"),
    (lambda x: (gc.debug_print("{:.3f}", x), x)[1], "does not fit 1 arrays by position: TypeError.'unsupported format string"),
    (lambda x: (gc.debug_print("{:d}", gc.sum(x)), x)[1], "does not fit 1 arrays by position: ValueError"),
    (lambda x: (gc.debug_print("{0[3]}", x), x)[1], "does not fit 1 arrays by position: IndexError"),
])
def test_mistakes(body, text):
    with pytest.raises(gc.GraphError, match=text):
        gc.compile(body, x=gc.f32[3])


def test_pictures_pages_and_libraries(tmp_path):
    """A picture and a page are those of the compiled graph; a library of one that prints is refused."""
    @gc.graph
    def doubled(x: gc.f32[3]):
        gc.debug_print("x {}", x)
        return x * 2
    run = gc.compile(doubled)
    assert "digraph" in str(gc.draw(run))
    gc.explore(run, tmp_path / "page.html")
    with pytest.raises(gc.GraphError, match="a library prints nothing; export the network or the graph itself") as info:
        gc.export(run, tmp_path / "library")
    assert info.value.loc.file == __file__
    assert gc.export(doubled, tmp_path / "library")
