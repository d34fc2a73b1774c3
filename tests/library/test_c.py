"""Exported libraries in programs of C, C++ and Rust."""
from __future__ import annotations

import os
import re
import shutil
import subprocess

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.doors.library import export as door
from graphc.doors.library import linking

import networks

STRICT = ("-Wall", "-Wextra", "-Werror", "-pedantic")
LINK = ("-lm", "-lpthread")
C_LIBRARY = {       # all that a library may use of others
    "bcmp", "memcmp", "memcpy", "memmove", "memset", "free", "posix_memalign", "clock_gettime", "sched_getcpu", "syscall",
    "pthread_create", "pthread_detach", "pthread_atfork", "__register_atfork"}
LIBM = {"expf", "exp", "logf", "log", "powf", "pow", "sinf", "cosf", "fmaf", "fma", "tanhf", "floorf", "ceilf", "rintf",
        "roundevenf", "truncf", "fmodf", "fmod"}
LINKER = {"_ITM_deregisterTMCloneTable", "_ITM_registerTMCloneTable", "__cxa_finalize", "__gmon_start__",
          "_GLOBAL_OFFSET_TABLE_"}

THREADS = r"""
#include "net.h"
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static float x[256 * 300], want[256 * 300];

static void *work(void *given) {
    net *instance = net_create(*(int *)given);
    static __thread float y[256 * 300];
    for (int i = 0; i < 20; i++) {
        memset(y, 0, sizeof y);
        if (!instance || net_run(instance, x, y) || memcmp(y, want, sizeof y)) return given;
    }
    net_free(instance);
    return 0;
}

int main(void) {
    int threads[4] = {1, 2, 3, 2};
    pthread_t others[4];
    net *instance = net_create(2);
    for (int i = 0; i < 256 * 300; i++) x[i] = (float)(i % 17) / 8 - 1;
    if (!instance || net_run(instance, x, want)) return 1;
    for (int i = 0; i < 4; i++) if (pthread_create(&others[i], 0, work, &threads[i])) return 2;
    for (int i = 0; i < 4; i++) {
        void *failed;
        pthread_join(others[i], &failed);
        if (failed) return 3;
    }
    pid_t child = fork();
    if (!child) _exit(work(&threads[1]) || net_run(instance, x, want) ? 1 : 0);
    int status;
    waitpid(child, &status, 0);
    printf("child %d\n", status);
    net_free(instance);
    return status || work(&threads[2]) ? 4 : 0;
}
"""


def run(command, folder, **more) -> subprocess.CompletedProcess:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def needs(*names):
    missing = [n for n in names if shutil.which(n) is None]
    return pytest.mark.skipif(bool(missing), reason=f"there is no {', '.join(missing)}")


@pytest.fixture(scope="module")
def parallel(tmp_path_factory):
    """The folder of a library whose call is shared among threads, for all instruction sets; and what it computes."""
    folder, net = tmp_path_factory.mktemp("parallel"), nn.Linear(300) >> nn.relu >> nn.Linear(300) >> nn.tanh
    gc.export(net, folder, x=gc.f32[256, 300], seed=0)
    (folder / "threads.c").write_text(THREADS)
    return folder, gc.compile(net, x=gc.f32[256, 300], seed=0)


@pytest.mark.parametrize("compiler, standard", [
    ("gcc", "c99"), ("gcc", "c11"), ("clang", "c99"), ("g++", "c++17"), ("clang++", "c++17")])
def test_examples_compile_without_warnings(compiler, standard, trained):
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler}")
    _, folder = trained
    language = "c++" if "++" in compiler else "c"
    run([compiler, "-x", language, f"-std={standard}", *STRICT, "example.c", "-x", "none", "libnet.a", *LINK, "-o",
         "example"], folder)
    assert re.fullmatch(r"step: loss begins with \S+\npredict: result begins with \S+\n", run(["./example"], folder).stdout)


@needs("gcc")
def test_examples_with_sizes_and_with_weights_in_a_file(sized, tmp_path):
    gc.export(nn.Linear(3), tmp_path, x=gc.f32[4, 2], seed=0, weights="file", targets=networks.here())
    for folder, name in ((sized, "look"), (tmp_path, "net")):
        run(["gcc", "-std=c99", *STRICT, "example.c", f"lib{name}.a", *LINK, "-o", "example"], folder)
        assert run(["./example"], folder).stdout.startswith("run: result begins with")
    (tmp_path / "net.safetensors").unlink()
    assert subprocess.run(["./example"], cwd=tmp_path, capture_output=True).returncode == 8


@needs("gcc", "nm")
def test_symbols(parallel, trained):
    """Only names of the library are visible, and it needs a few of the C library's and libm's alone."""
    for folder in (parallel[0], trained[1]):
        for file, flags in (("libnet.a", ()), ("libnet.so", ("-D",))):
            rows = [line.split() for line in run(["nm", *flags, file], folder).stdout.splitlines() if " " in line]
            defined = {row[-1] for row in rows if row[-2] in "TDBRVWC"}
            needed = {row[-1].split("@")[0] for row in rows if row[-2] in "Uw"} - defined
            assert all(name.startswith("net_") for name in defined) and "net_init" in defined
            assert needed <= C_LIBRARY | LIBM | LINKER
    hidden = {"net_image", "net_cpuid", "net_step_avx2", "net_run_sse2"}
    assert not hidden & set(run(["nm", "-D", "libnet.so"], parallel[0]).stdout.split())


@needs("gcc")
@pytest.mark.parametrize("flags", [(), ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")])
def test_threads_and_forks(flags, parallel):
    """Instances in several threads, some of which find the pool busy, and the child of a fork."""
    folder, _ = parallel
    run(["gcc", "-g", "-O1", *flags, "threads.c", "libnet.a", *LINK, "-o", "threads"], folder)
    run(["./threads"], folder, env={**os.environ, "ASAN_OPTIONS": "detect_leaks=1"})


@needs("gcc", "valgrind")
def test_valgrind(trained, tmp_path):
    """Which offers AVX2 at most, so that another instruction set is chosen."""
    net = nn.Linear(20) >> nn.tanh >> nn.Linear(3)
    gc.export(net, tmp_path, x=gc.f32[7, 9], seed=0)
    run(["gcc", "example.c", "libnet.a", *LINK, "-o", "example"], tmp_path)
    run(["valgrind", "--error-exitcode=9", "--leak-check=full", "./example"], tmp_path)


def test_own_parallel_loops(parallel):
    """Tiles in any order, by any worker."""
    import ctypes
    from exported import INT, POINTER, WORD, Instance
    folder, run_here = parallel
    task = ctypes.CFUNCTYPE(None, POINTER, WORD, INT)
    loop = ctypes.CFUNCTYPE(None, POINTER, task, POINTER, WORD)
    n, x, seen = Instance(folder, threads=3), np.linspace(-1, 1, 256 * 300, dtype=np.float32).reshape(256, 300), []

    def backwards(worker_of):
        def own(_, task, job, tiles):
            seen.append(tiles)
            for tile in reversed(range(tiles)):
                task(job, tile, worker_of(tile))
        return loop(own)
    for worker_of, code in ((lambda t: t % 3, 0), (lambda t: 3, 12), (lambda t: -1, 12), (lambda t: 0, 0)):
        kept, out = backwards(worker_of), np.zeros((256, 300), np.float32)
        assert n.of("parallel", INT, n.pointer, kept, None) == 0
        assert n.call("run", [x], [out]) == code, n.message
        assert code or out.tobytes() == run_here(x).tobytes()
    assert max(seen) > 1
    assert n.of("parallel", INT, n.pointer, None, None) == 0
    assert n.call("run", [x], [out]) == 0 and out.tobytes() == run_here(x).tobytes()


def test_without_threads(tmp_path):
    """No pool is in the library then, and nothing of the system."""
    gc.export(nn.Linear(3), tmp_path, x=gc.f32[4, 2], seed=0, threads=False, targets=networks.here())
    if shutil.which("nm"):
        needed = {row.split()[-1] for row in run(["nm", "libnet.a"], tmp_path).stdout.splitlines() if " U " in row}
        assert {n for n in needed if not n.startswith("net_")} <= {"memcpy", "memset", "bcmp", "memcmp", "free", "posix_memalign"}


@needs("rustc", "gcc")
def test_rust(trained):
    run(["rustc", "example.rs", "-L", ".", "-l", "static=net", "-o", "rusty"], trained[1])
    assert "step: status 0" in run(["./rusty"], trained[1]).stdout


@needs("cmake", "gcc")
def test_cmake(trained, tmp_path):
    run(["cmake", "-S", str(trained[1]), "-B", "."], tmp_path)
    run(["cmake", "--build", "."], tmp_path)
    run(["./example"], tmp_path)


@needs("gcc")
def test_python_sample(trained):
    """net.py, which has nothing but ctypes."""
    code = ("import ctypes, net; n = net.Net(); x = (ctypes.c_float * 80)(); out = (ctypes.c_float * 48)()\n"
            "n.predict(x, out); print(all(v == v for v in out))\n"
            "try:\n    n.predict(None, out)\nexcept RuntimeError as error:\n    print(error)")
    said = run(["python3", "-c", code], trained[1]).stdout
    assert said.startswith("True\nargument 0")


def test_zig_links(tmp_path, monkeypatch):
    pytest.importorskip("ziglang", reason="there is no ziglang (the extra `export`)")
    monkeypatch.setattr(linking, "COMPILERS", ())
    made = door.export(nn.Linear(3), tmp_path, x=gc.f32[4, 2], seed=0, targets=networks.here())
    assert not made.notes and (tmp_path / "libnet.so").exists()


def test_without_a_linker(tmp_path, monkeypatch):
    """The objects are there, and what to do with them."""
    monkeypatch.setattr(linking, "COMPILERS", ())
    monkeypatch.setattr(linking, "find_spec", lambda name: None)
    made = door.export(nn.Linear(3), tmp_path, x=gc.f32[4, 2], seed=0, targets=networks.here())
    assert not (tmp_path / "libnet.so").exists() and (tmp_path / "library.o").exists()
    assert "pip install" in str(made) and "cc -shared" in str(made)
    if shutil.which("gcc"):
        command = re.search(r"cc (-shared.*)", made.notes[0])[1].split()
        run(["gcc", *command], tmp_path)
        assert (tmp_path / "libnet.so").exists()


@needs("gcc", "qemu-x86_64")
@pytest.mark.parametrize("cpu, chosen", [("Nehalem", "sse2"), ("Haswell", "avx2"), ("SandyBridge", "sse2")])
def test_other_cpus(cpu, chosen, parallel):
    """The best instruction set that a simulated CPU has: AVX alone is not enough for AVX2."""
    folder, _ = parallel
    (folder / "asks.c").write_text('#include "net.h"\n#include <stdio.h>\nstatic float x[256 * 300], y[256 * 300];\n'
                                   "int main(void) {\n    net *n = net_create(1);\n    if (!n || net_run(n, x, y)) return 1;\n"
                                   "    puts(net_instruction_set(n));\n    return 0;\n}\n")
    run(["gcc", "-static", "asks.c", "libnet.a", *LINK, "-o", "asks"], folder)
    assert run(["qemu-x86_64", "-cpu", cpu, "./asks"], folder).stdout == f"{chosen}\n"


@needs("gcc", "qemu-x86_64")
def test_a_cpu_that_lacks_what_the_library_needs(tmp_path):
    gc.export(nn.Linear(3), tmp_path, x=gc.f32[4, 2], seed=0, targets="x86_64-linux:avx2")
    (tmp_path / "asks.c").write_text('#include "net.h"\nstatic _Alignas(64) char memory[1 << 16];\n'
                                     "int main(void) {\n    if (net_create(1) || net_memory(1)) return 1;\n"
                                     "    return net_init((net *)memory, sizeof memory, 1);\n}\n")
    run(["gcc", "-static", "asks.c", "libnet.a", *LINK, "-o", "asks"], tmp_path)
    assert subprocess.run(["qemu-x86_64", "-cpu", "Nehalem", "./asks"], cwd=tmp_path).returncode == 11
