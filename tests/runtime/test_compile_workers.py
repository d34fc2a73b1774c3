"""Programs in parts, which worker processes may compile: the code is the same bytes, whatever happens to the workers."""
from __future__ import annotations

import functools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc import nn, spare_cores
from graphc.codegen.llvm import jit, parts, workers
from graphc.codegen.llvm.emit import ModuleText
from graphc.codegen.llvm.workers import WORKERS, CompileJob, CompileWorker, compile_parts
from graphc.compiler import Compilation
from graphc.nn.network import trace_network
from graphc.runtime import native
from graphc.schedule.target import AVX2, NEON, SSE2
from graphc.stages import Emitted

ROOT = Path(__file__).parents[2]
SECONDS = 20.0
SMALL = {"WORTH_CHARACTERS": 0, "PART_CHARACTERS": 6_000}
DEFINED = re.compile(r"^define .*?(@[^(]+)\(", re.MULTILINE)
DECLARED = re.compile(r"^declare hidden .*?(@[^(]+)\(", re.MULTILINE)
HIDDEN = re.compile(r"^define hidden .*?(@[^(]+)\(", re.MULTILINE)


def graph(width: int = 8):
    net = nn.Conv2d(width, 3, padding=1) >> nn.relu >> nn.Conv2d(width, 3) >> nn.Flatten() >> nn.Linear(7) >> nn.softmax
    return trace_network(net, x=gc.f32[2, 3, 9, 9]).graph


def until(holds) -> None:
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Parts of a few kernels; one worker for all programs of several parts."""
    for name, characters in SMALL.items():
        monkeypatch.setattr(parts, name, characters)
    monkeypatch.setenv("GRAPHC_COMPILE_WORKERS", "1")
    monkeypatch.setenv("GRAPHC_CACHE", "off")
    yield
    stop()
    assert not WORKERS.handles
    WORKERS.reset()


def stop() -> None:
    for _ in range(WORKERS.running):
        WORKERS.jobs.put(None)
    until(lambda: not WORKERS.running)


@pytest.fixture
def by_workers(monkeypatch):
    """What workers are asked for, whether they make it or not. This process waits until they have begun."""
    asked, compile_job = [], CompileWorker.compile
    here = jit.compile_object

    def compile(self, job):
        before = len(asked)
        asked.append(job)
        compile_job(self, job)
        assert len(asked) > before

    def patient(*args):
        until(lambda: asked or WORKERS.failures or not WORKERS.running)
        return here(*args)
    monkeypatch.setattr(CompileWorker, "compile", compile)
    monkeypatch.setattr(jit, "compile_object", patient)
    return asked


def objects(target=SSE2, width: int = 8) -> tuple[bytes, ...]:
    return Compilation(graph(width), target).build.program.objects


@pytest.fixture(scope="module")
def alone():
    """The code without any worker."""
    with pytest.MonkeyPatch.context() as patch:
        for name, characters in SMALL.items():
            patch.setattr(parts, name, characters)
        patch.setenv("GRAPHC_COMPILE_WORKERS", "off")
        patch.setenv("GRAPHC_CACHE", "off")
        return objects()


def test_the_same_code_with_and_without_workers(alone, by_workers):
    assert len(alone) > 2 and objects() == alone
    assert any(job.code in alone for job in by_workers if job.code)


def test_every_part_is_the_same_bytes_from_a_worker():
    """Of every part, not only of those that happen to get there first."""
    WORKERS.start(1)
    texts = Compilation(graph(), AVX2).stage(Emitted).parts
    for text in texts:
        job = CompileJob(text, jit.machine_of(AVX2))
        WORKERS.jobs.put(job)
        assert job.wait() == jit.compile_object(text, AVX2)


def test_parts_compute_what_the_whole_computes(monkeypatch):
    x = np.random.default_rng(0).normal(size=(2, 3, 9, 9)).astype(np.float32)
    net = nn.Conv2d(8, 3, padding=1) >> nn.relu >> nn.Conv2d(8, 3) >> nn.Flatten() >> nn.Linear(7) >> nn.softmax
    cut = gc.compile(net, x=gc.f32[2, 3, 9, 9], seed=0)
    monkeypatch.setattr(parts, "WORTH_CHARACTERS", 1 << 30)
    whole = gc.compile(net, x=gc.f32[2, 3, 9, 9], seed=0)
    assert len(cut.executable.program.objects) > 2 and len(whole.executable.program.objects) == 1
    np.testing.assert_array_equal(cut(x), whole(x))


def test_parts_are_of_similar_size_and_have_each_function_once(monkeypatch):
    """Also those that kernels of several parts call."""
    products = trace_network(nn.Linear(64) >> nn.Linear(96) >> nn.Linear(64), x=gc.f32[64, 80]).graph
    monkeypatch.setattr(parts, "PART_CHARACTERS", 15_000)
    emitted = Compilation(products, AVX2).stage(Emitted)
    texts = emitted.parts
    defined = [name for text in texts for name in DEFINED.findall(text)]
    assert sorted(defined) == sorted(DEFINED.findall(emitted.llvm)) and "@gc_main" in DEFINED.findall(texts[-1])
    assert len(texts) > 2 and sum(map(len, texts)) < 1.2 * len(emitted.llvm)
    declared = {name for text in texts for name in DECLARED.findall(text)}
    hidden = {name for text in texts for name in HIDDEN.findall(text)}
    assert declared == hidden and any("tile_f32" in name for name in hidden)
    largest = max(len(f) for f in emitted.llvm.split("\ndefine"))
    assert max(map(len, texts)) < max(largest, len(emitted.llvm) / len(texts)) * 1.3


def test_an_argument_that_is_the_same_in_all_calls_is_no_argument_in_a_part():
    """As LLVM would find in one module: also what a function gives on, but not what is an argument of some call."""
    def function(symbol: str, parameters: str, *lines: str) -> str:
        return "\n".join([f"define internal void {symbol}(ptr %ctx, {parameters}ptr %scratch) #0 {{", "entry:", *lines,
                          "  ret void", "}", ""])
    module = ModuleText([], {}, AVX2)
    module.texts = [
        function('@"k.low"', "i64 %n0, i64 %n1, ", "  %v1 = add i64 %n0, %n1"),
        function('@"k.high"', "i64 %n0, i64 %n1, ", '  call void @"k.low"(ptr %ctx, i64 %n0, i64 7, ptr %scratch)',
                 '  call void @"k.low"(ptr %ctx, i64 %n0, i64 %n1, ptr %scratch)'),
        "\n".join(["define i32 @gc_main(ptr %ctx) #0 {", "entry:", *[
            f'  call void @"k.high"(ptr %ctx, i64 64, i64 {n}, ptr %scratch)' for n in (1, 2)], "  ret i32 0", "}", ""])]
    text = "".join(parts.Cutter(module).parts())
    assert "%v1 = add i64 64, %n1\n" in text and '@"k.low"(ptr %ctx, i64 64, i64 %n1, ptr %scratch)' in text
    assert text.count("i64 %n0") == text.count('void @"k.low"(ptr %ctx, i64 %n0, ') + text.count(
        'void @"k.high"(ptr %ctx, i64 %n0, ')                   # heads alone


def test_foreign_code_and_small_programs_are_one_part(monkeypatch):
    assert len(Compilation(graph(), NEON).stage(Emitted).parts) == 1
    size = sum(map(len, Compilation(graph(), SSE2).stage(Emitted).parts))
    for worth, cut in ((size, False), (size // 4, True)):
        monkeypatch.setattr(parts, "WORTH_CHARACTERS", worth)
        emitted = Compilation(graph(), SSE2).stage(Emitted)
        assert cut is (len(emitted.parts) > 1) is (emitted.parts != (emitted.llvm,))


def test_texts_do_not_depend_on_the_seed_of_hashes():
    script = """
import sys
sys.path[:0] = [sys.argv[1]]
import hashlib, test_compile_workers as t
t.parts.WORTH_CHARACTERS, t.parts.PART_CHARACTERS = 0, 3000
print(hashlib.sha256("".join(t.Compilation(t.graph(), t.SSE2).stage(t.Emitted).parts).encode()).hexdigest())
"""
    made = {subprocess.run([sys.executable, "-c", script, str(Path(__file__).parent)], check=True, capture_output=True,
                           env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}).stdout
            for seed in "12"}
    assert len(made) == 1


def test_a_worker_ends_when_nothing_comes(monkeypatch):
    monkeypatch.setattr(workers, "IDLE_SECONDS", 0.2)
    WORKERS.start(1)
    until(lambda: WORKERS.running and WORKERS.handles)
    until(lambda: not WORKERS.running)
    assert not WORKERS.handles and WORKERS.failures == 0


def test_a_worker_stays_while_parts_are_expected(monkeypatch):
    monkeypatch.setattr(workers, "IDLE_SECONDS", 0.02)
    with workers.expected():
        WORKERS.start(1)
        until(lambda: WORKERS.handles)
        time.sleep(0.1)
        assert WORKERS.running
    until(lambda: not WORKERS.running)


@pytest.mark.parametrize("idle", [0, 1])
def test_the_runtime_is_compiled_while_the_first_program_is_made(monkeypatch, by_workers, idle):
    """Not where it is loaded, or the disk cache has it."""
    text, target = "define i32 @gc_main() {\n  ret i32 7\n}", native.runtime_target()
    loaded = functools.cache(lambda: None)
    monkeypatch.setattr(native, "native", loaded)
    monkeypatch.setattr(native, "_stored_text", lambda target: text)
    monkeypatch.setattr(native, "_BEGUN", [])
    loaded()
    native.begin(lambda: 1)
    loaded.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(native, "cached", lambda text, target: b"code")
        native.begin(lambda: 1)
    assert not native._BEGUN and not WORKERS.running
    native.begin(lambda: idle)
    native.begin(lambda: idle)
    until(lambda: len(by_workers) == idle)
    assert native._BEGUN[0]() == jit.compile_object(text, target) and len(by_workers) == idle


# ---- what goes wrong
def test_a_worker_that_is_killed_in_the_middle(alone, by_workers, monkeypatch):
    write = workers.object_code.write

    def killed(handle, data):
        write(handle, data)
        for thread in os.listdir("/proc/self/task"):
            for child in Path(f"/proc/self/task/{thread}/children").read_text().split():
                os.kill(int(child), signal.SIGKILL)
    monkeypatch.setattr(workers.object_code, "write", killed)
    assert objects() == alone
    until(lambda: WORKERS.failures == 1)
    assert len(by_workers) == 1 and by_workers[0].code == b""
    monkeypatch.setattr(workers.object_code, "write", write)
    assert objects() == alone                               # by a new one
    assert any(job.code for job in by_workers)


def test_a_text_that_llvm_rejects_is_worded_here():
    with pytest.raises(gc.errors.InternalError, match="in llvm") as error:
        compile_parts([f"define i32 @gc_main() {{\n  ret i32 %{name}\n}}" for name in "bc"], SSE2, lambda: 1)
    assert "ret i32 %" in str(error.value)


@pytest.mark.parametrize("program", ["exit 3", "echo here is another program; cat", "kill -9 $$", None])
def test_an_interpreter_that_does_not_start(alone, monkeypatch, tmp_path, program):
    fake = tmp_path / "python3"
    if program:
        fake.write_text(f"#!/bin/sh\n{program}\n")
        fake.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(fake))
    while WORKERS.failures < workers.MOST_FAILURES:
        assert objects() == alone
        until(lambda: not WORKERS.running)
    assert objects() == alone and not WORKERS.running       # no more tries


@pytest.mark.parametrize("executable", ["", None, "/usr/bin/blender", "/usr/sbin/uwsgi-python"])
def test_a_program_with_python_in_it_is_not_started(alone, monkeypatch, executable):
    monkeypatch.setattr(sys, "executable", executable)
    assert objects() == alone and not WORKERS.running


def test_no_threads_no_processes(alone, monkeypatch):
    def refused(*_):
        raise RuntimeError("can't start new thread")
    monkeypatch.setattr(workers, "start_new_thread", refused)
    assert objects() == alone and not WORKERS.running


def test_off(alone, monkeypatch):
    for off in ("off", "0"):
        monkeypatch.setenv("GRAPHC_COMPILE_WORKERS", off)
        assert objects() == alone and not WORKERS.running
    monkeypatch.setenv("GRAPHC_COMPILE_WORKERS", "-1")
    with pytest.raises(gc.GraphError, match="GRAPHC_COMPILE_WORKERS"):
        objects()


# ---- forks, threads, signals
def test_the_child_of_a_fork_compiles_and_leaves_the_worker_alone(alone, by_workers):
    assert objects() == alone and WORKERS.running
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(30)
            status = int(WORKERS.running or objects() != alone)
        finally:
            os._exit(status)
    try:
        stop()                                              # the child does not hold its pipe
    finally:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_who_forks_and_waits_meets_no_worker(alone, by_workers):
    assert objects() == alone and WORKERS.running
    child = os.fork()
    if child == 0:
        os._exit(7)
    assert not WORKERS.running and os.wait() == (child, 7 << 8)
    with pytest.raises(ChildProcessError):
        os.wait()
    assert objects() == alone and WORKERS.failures == 0


def test_a_fork_inside_a_compile_goes_on(alone, monkeypatch):
    """As of a signal handler: the child waits for nothing that only the parent gets."""
    here, children = jit.compile_object, []

    def forking(*args):
        if not children:
            until(lambda: not WORKERS.jobs.qsize())
            children.append(os.fork())
        return here(*args)
    monkeypatch.setattr(jit, "compile_object", forking)
    status = 1
    try:
        status = int(objects() != alone)
    finally:
        if children == [0]:
            os._exit(status)
    assert status == 0 and os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0


def test_two_threads_compile_at_once(alone, by_workers):
    wider = objects(width=16)
    made = {}
    threads = [threading.Thread(target=lambda width=width: made.update({width: objects(width=width)}))
               for width in (8, 16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == {8: alone, 16: wider}


def test_ctrl_c_in_the_middle(alone, by_workers, monkeypatch):
    here, sent = jit.compile_object, []

    def interrupted(*args):
        if not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGINT)
        return here(*args)
    monkeypatch.setattr(jit, "compile_object", interrupted)
    with pytest.raises(KeyboardInterrupt):
        objects()
    assert objects() == alone


def test_ctrl_c_while_this_process_waits(alone, monkeypatch):
    """For a worker that does not answer."""
    taken = threading.Event()
    release = threading.Event()

    def stuck(self, job):
        if job.take():
            taken.set()
            release.wait(SECONDS)
            job.finish(b"")
    monkeypatch.setattr(CompileWorker, "compile", stuck)
    here = jit.compile_object
    monkeypatch.setattr(jit, "compile_object", lambda *args: taken.wait(SECONDS) and here(*args))
    timer = threading.Timer(0.1, lambda: taken.wait(SECONDS) and time.sleep(0.3) is None
                            and os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            objects()
    finally:
        release.set()
        timer.join()
    assert objects() == alone


SCRIPT = """
print("main", __name__, flush=True)
import os, signal, sys, time
import graphc as gc
from graphc import nn
from graphc.codegen.llvm import parts, workers
parts.WORTH_CHARACTERS, parts.PART_CHARACTERS = 0, 6000
run = gc.compile(nn.Conv2d(8, 3) >> nn.relu >> nn.Conv2d(8, 3) >> nn.Flatten() >> nn.Linear(7), x=gc.f32[2, 3, 9, 9], seed=0)
while not workers.WORKERS.handles:
    time.sleep(0.01)
print(len(run.executable.program.objects) > 1, *[c for t in os.listdir("/proc/self/task")
      for c in open(f"/proc/self/task/{t}/children").read().split()], flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("end", ["exit", "killed"])
def test_a_script_without_a_guard_runs_once_and_takes_its_worker_along(tmp_path, end):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script), end], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == (0 if end == "exit" else -signal.SIGKILL) and not done.stderr
    first, second = done.stdout.splitlines()
    cut, worker = second.split()
    assert (first, cut) == ("main __main__", "True")
    until(lambda: not _lives(int(worker)))


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("ours, running, wanted", [(4, "3/400", 3), (4, "7/400", 1), (4, "8/400", 0), (4, "60/400", 0),
                                                   (2, "1/400", 1), (1, "1/400", 0), (64, "1/400", 3), (4, "?", 3)])
def test_workers_are_for_cores_with_nothing_to_do(monkeypatch, tmp_path, ours, running, wanted):
    monkeypatch.setenv("GRAPHC_COMPILE_WORKERS", "")
    load = tmp_path / "loadavg"
    load.write_text(f"0.20 0.18 0.12 {running} 11206\n")
    monkeypatch.setattr(spare_cores, "LOAD", load)
    monkeypatch.setattr(spare_cores, "default_threads", lambda: ours)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert spare_cores.spare_cores() == wanted


def test_workers_begin_when_a_core_becomes_idle(monkeypatch):
    """Once, and not for the last part."""
    idle, started = iter([0, 0, 1]), list[int]()
    monkeypatch.setattr(WORKERS, "start", started.append)
    texts = [f"define i32 @gc_main() {{\n  ret i32 {n}\n}}" for n in range(4)]
    compile_parts(texts, SSE2, lambda: next(idle))
    assert started == [1]
    compile_parts(texts[:2], SSE2, iter([0, 0]).__next__)


def test_who_is_awake_for_a_moment_takes_no_core(monkeypatch):
    monkeypatch.setenv("GRAPHC_COMPILE_WORKERS", "")
    running = iter([4, 2, 1, 1])
    monkeypatch.setattr(spare_cores, "_idle_now", lambda: 2 - next(running))
    monkeypatch.setattr(spare_cores, "default_threads", lambda: 2)
    assert spare_cores.spare_cores() == 1
