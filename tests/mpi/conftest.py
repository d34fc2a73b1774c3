"""Jobs of several ranks: mpiexec runs the programs of the folder `jobs`."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
LIMIT = 300                         # seconds of one job, on a busy machine
DEBIAN = Path("/usr/lib/x86_64-linux-gnu/libmpich.so.12")       # called otherwise than mpi4py calls it


@cache
def launcher() -> tuple[str, dict[str, str], str]:
    """(mpiexec, environment, why there is none)."""
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec") or ""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])}
    if not found:
        return "", env, "there is no mpiexec: pip install mpich, or the mpich package of the system"
    answer = probed(found, env)
    if answer.returncode and DEBIAN.exists():
        folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"libmpi-{os.getuid()}"
        folder.mkdir(exist_ok=True)
        if not (folder / "libmpi.so.12").exists():
            (folder / "libmpi.so.12").symlink_to(DEBIAN)
        env["LD_LIBRARY_PATH"] = str(folder)
        answer = probed(found, env)
    return found, env, answer.stderr.strip()[-200:] if answer.returncode else ""


def probed(mpiexec: str, env: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run([mpiexec, "-n", "2", sys.executable, "-c", "from mpi4py import MPI; assert MPI.COMM_WORLD.size == 2"],
                          capture_output=True, text=True, env=env, timeout=LIMIT, check=False)


@pytest.fixture
def job():
    """job(ranks, program, *arguments, **environment): the finished job of a program of the folder `jobs`. through:
    what Python runs it by."""
    mpiexec, env, why = launcher()
    if why:
        pytest.skip(why)

    def run(ranks: int, program: str, *arguments: object, through: tuple[str, ...] = (),
            **more: object) -> subprocess.CompletedProcess:
        command = [mpiexec, "-n", ranks, sys.executable, *through, HERE / "jobs" / program, *arguments]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=LIMIT, check=False,
                              env=env | {name: str(value) for name, value in more.items()})
    return run
