"""The pipeline: each stage is a value that is made once, of those before it, and no stage runs before it is asked
for."""
from __future__ import annotations

import copy
import pickle
import sys
from dataclasses import FrozenInstanceError, fields, is_dataclass

import numpy as np
import pytest

import graphc as gc
from graphc import compiler, nn, pipeline, sized
from graphc.build import Build
from graphc.codegen.llvm import jit
from graphc.compiled import CompiledGraph
from graphc.compiler import STAGES, Compilation
from graphc.config import Config
from graphc.ir.builder import bind_graph
from graphc.ir.open import Bounds
from graphc.ir.ops.winograd import WinogradWeights
from graphc.memory.plan import ProgramPlan
from graphc.memory.planner import plan_memory
from graphc.nn.network import trace_network
from graphc.passes.layout import storage_orders
from graphc.pipeline import compile_graph
from graphc.schedule.target import AVX2
from graphc.stages import Declared, Emitted, FusedGraphs, Lowered, Simplified, Split

ORDER = (Declared, Simplified, Split, FusedGraphs, ProgramPlan, Lowered, Emitted, Build)
STEPS = ("simplify", "split_state", "fuse", "plan", "lower", "emit", "assemble")


def network():
    """With what every stage has something to do for: a loop, packed weights, a concatenation."""
    net = nn.LSTM(8) >> nn.Linear(16) >> (lambda y: gc.concat([gc.tanh(y), gc.softmax(y)], -1))
    return trace_network(net, x=gc.f32[2, 5, 4]).graph


@pytest.fixture
def runs(monkeypatch):
    """The steps of the pipeline that ran, in order."""
    ran = []

    def counted(name):
        step = getattr(pipeline, name)

        def run(*stages):
            ran.append(name)
            return step(*stages)
        return run
    for name in STEPS:
        monkeypatch.setattr(pipeline, name, counted(name))
    return ran


@pytest.mark.parametrize("number", range(len(ORDER)))
def test_a_stage_runs_those_before_it_once_and_none_behind_it(number, runs):
    c = Compilation(network(), AVX2)
    stage = c.stage(ORDER[number])
    assert stage == c.stage(ORDER[number]) and type(stage) is ORDER[number]
    assert runs == list(STEPS[:number])
    for kind in ORDER[:number]:
        assert c.stage(kind).text()
    assert runs == list(STEPS[:number])


def test_stages_come_in_order_and_are_frozen():
    c = Compilation(network(), AVX2)
    stages = list(compile_graph(c.graph, c.tools))
    assert tuple(map(type, stages)) == ORDER
    for stage in stages:
        assert is_dataclass(stage)
        with pytest.raises(FrozenInstanceError):
            setattr(stage, fields(stage)[0].name, None)


def test_a_plan_calls_no_llvm(monkeypatch):
    monkeypatch.setattr(jit, "compile_object", lambda *_: pytest.fail("LLVM was called"))
    monkeypatch.setattr(pipeline, "emit_program", lambda *_: pytest.fail("LLVM text was written"))
    report = gc.plan(nn.Linear(8) >> nn.relu >> nn.Linear(3), x=gc.f32[4, 5])
    assert report.memory.total > 0 and report.kernels == 2


def test_a_plan_is_a_value_of_its_graphs():
    """Planning twice gives equal texts, and the first plan is what it was: nothing is shared that the second
    changes."""
    fused = Compilation(network(), AVX2).stage(FusedGraphs)
    orders = {**storage_orders(fused.main, AVX2), **(storage_orders(fused.prepare, AVX2) if fused.prepare else {})}
    first = plan_memory(fused.main, AVX2, fused.prepare, orders)
    text, packed = first.text(), dict(first.packed.buffers)
    second = plan_memory(fused.main, AVX2, fused.prepare, orders)
    assert first.text() == text == second.text() and first.packed.buffers == packed
    assert packed and packed.keys() == second.packed.buffers.keys()
    assert not set(packed.values()) & set(second.packed.buffers.values())
    buffer = next(iter(packed.values()))
    with pytest.raises(FrozenInstanceError):
        buffer.offset = 64


def test_a_convolution_in_winograds_form_is_prepared_beforehand():
    graph = trace_network(nn.Conv2d(64, 3, padding=1), x=gc.f32[1, 64, 28, 28]).graph
    split = Compilation(graph, AVX2).stage(Split)
    assert [type(n.op) for n in split.prepare.nodes].count(WinogradWeights) == 1
    assert not any(isinstance(n.op, WinogradWeights) for n in split.main.nodes)
    assert split.text().count("graph ") == 2


def test_dump_writes_a_file_for_every_pass_and_stage(tmp_path):
    c = Compilation(network(), AVX2, Config(dump=str(tmp_path)))
    assert not list(tmp_path.iterdir())
    c.text("planned")
    names = [path.name for path in sorted(tmp_path.iterdir())]
    assert [int(name[:2]) for name in names] == list(range(len(names)))
    assert names[0] == "00-dce.txt" and names[-2].endswith("-planned.txt") and names[-1].endswith("-loops.txt")
    split = next(n for n, name in enumerate(names) if name.endswith("-split.txt"))
    assert "fuse.txt" not in "".join(names[:split]) and any(name.endswith("-fuse.txt") for name in names[split:])
    c.text("llvm"), c.text("planned")
    assert [path.name for path in sorted(tmp_path.iterdir())][len(names):] == [f"{len(names):02}-llvm.txt"]
    assert (tmp_path / names[-2]).read_text() == c.stage(ProgramPlan).text() + "\n"


def test_times_name_every_stage(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path))
    monkeypatch.setenv("GRAPHC_TIME", "1")
    Compilation(network()).build
    table = capsys.readouterr().out
    for name in ("dce", "derive", "fuse", "verify", "plan_memory", "verify plan", "lower", "verify loops", "llvm text",
                 "llvm", "total"):
        assert any(line.startswith(name + " ") and line.endswith(" ms") for line in table.splitlines()), name


@pytest.mark.parametrize("level", [0, 1, 2])
def test_verification_of_graphs_plans_and_loops(level, monkeypatch):
    seen = []
    for name in ("verify", "verify_plan", "verify_loops"):
        monkeypatch.setattr(pipeline, name, lambda *_, name=name: seen.append(name))
    Compilation(network(), AVX2, Config(verify=level)).llvm
    assert set(seen) == {"verify", *(("verify_plan", "verify_loops") if level else ())}


def test_texts_of_all_stages_name_their_stage():
    c = Compilation(network(), AVX2)
    texts = [c.text(stage) for stage in STAGES]
    assert len(set(texts)) == len(STAGES) and "define i32 @gc_main" in c.text("llvm")
    with pytest.raises(gc.GraphError, match="there is no stage 'wood'; the stages are graph, simplified, fused"):
        c.text("wood")


@gc.graph
def double(x: gc.f32[3]):
    return x + x


def test_a_call_of_a_compiled_graph_runs_no_python():
    run, x, out, seen = gc.compile(double), np.arange(3, dtype=np.float32), np.zeros(3, np.float32), []
    for _ in range(4):
        run(x)                          # the first calls are timed in Python
    sys.setprofile(lambda frame, event, argument: seen.append((event, frame.f_code.co_name)))
    try:
        y, z = run(x), run(x, out=out)
    finally:
        sys.setprofile(None)
    assert z is out and y.tolist() == [0, 2, 4] and not [name for event, name in seen if event == "call"]


def test_a_compiled_graph_is_an_object_of_one_class():
    run = gc.compile(double)
    assert type(run) is type(gc.compile(nn.Linear(2), x=gc.f32[1, 3], seed=0)) is CompiledGraph
    assert repr(run) == "<compiled double(x: f32[3]) -> f32[3]>" and run != gc.compile(double) and len({run, run}) == 1
    x = np.ones(3, np.float32)
    for again in (copy.copy(run), copy.deepcopy(run), pickle.loads(pickle.dumps(run))):
        assert type(again) is CompiledGraph and again is not run and again.executable.threads == run.executable.threads
        np.testing.assert_array_equal(again(x=x), 2 * x)
    run.note = "mine"
    assert run.note == "mine" and run.dump() == str(double)


def test_a_pickle_is_as_large_as_the_constants():
    """Not as their digits."""
    table = np.random.default_rng(0).normal(size=50_000).astype(np.float32)
    run = gc.compile(lambda x: x * table, x=gc.f32[50_000])
    kept = pickle.dumps(run)
    assert len(kept) < 1.1 * table.nbytes
    np.testing.assert_array_equal(pickle.loads(kept)(table), run(table))


def test_what_is_on_disk_needs_no_stage(monkeypatch, tmp_path):
    """Nor, of a program for all sizes, the opened graph; its bounds and conditions are as before."""
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path))

    @gc.graph
    def f(x: gc.f32["B", 6]):
        return gc.exp(x[3:] - x[:-3])

    def programs():
        together = sized.SizedGraph(f.graph, {"B": Bounds(1, 64)})
        return together, [together.at(B=6)(np.ones((6, 6), np.float32)), CompiledGraph(bind_graph(f.graph, {"B": 4}))(np.ones((4, 6), np.float32))]
    before, results = programs()
    with monkeypatch.context() as m:
        m.setattr(compiler, "pipeline", lambda: pytest.fail("a stage was made"))
        m.setattr(sized, "open_graph", lambda *_: pytest.fail("a graph was opened"))
        after, again = programs()
    assert all(map(np.array_equal, results, again))
    assert [after.serves({"B": b}) for b in (2, 3, 4, 5, 64, 65)] == [before.serves({"B": b}) for b in (2, 3, 4, 5, 64, 65)]
    assert after.compilation.text("loops") == before.compilation.text("loops")
