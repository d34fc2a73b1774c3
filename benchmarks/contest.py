"""Engines in processes of their own, measured in turns: one runs, the others are stopped (their threads would spin)."""
from __future__ import annotations

import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.engines.case import WEIGHTS, save_batches
from benchmarks.operators import FAMILIES
from benchmarks.workloads import INFER, TRAIN, Workload

TURN_SECONDS, LIMIT_SECONDS = 0.2, 0.1
LIMIT = "limit"                         # among the figures: the machine itself
SETTLE_SECONDS = 0.02
MIN_TURNS = 2                           # also when the time is up
# seconds; an engine that takes longer is reported as failed
IMPORT_LIMIT, OPEN_LIMIT, TURN_LIMIT = 60.0, 150.0, 60.0
RELATIVE = 2e-3                         # of the largest output
LOSS_RELATIVE, DESCENT = 3e-5, 0.05     # of the first loss; of how far a loss is from the first
INFERENCE_ENGINES = ("onnx", "openvino")
INFERENCE_ONLY, TIME_IS_UP = "inference only", "not run: the time given by --minutes was up"
# glibc keeps freed memory: no page faults in later calls
KEPT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
ENVIRONMENT = {"graphc": {"GRAPHC_CACHE": "off"}}                           # of peers: KEPT


class EngineError(Exception):
    """What an engine cannot do, in its words."""


@dataclass(frozen=True)
class Figures:
    """One engine on one workload: seconds of chunks of calls, of building and of the first call; bytes; the share of
    the results' bytes that it does not write, since they are an alias of an input. `error` says why there are none.
    """
    times: tuple[float, ...] = ()
    build: float = 0.0
    first: float = 0.0
    peak: int = 0
    growth: int = 0
    plan: int = 0
    planned: int = 0
    alias: float = 0.0
    error: str = ""

    @property
    def median(self) -> float:
        return median(self.times)

    @property
    def best(self) -> float:
        return min(self.times)


@dataclass(frozen=True)
class Place:
    """Where an engine comes from: its module in benchmarks/engines, the checkout whose benchmarks and graphc it runs,
    and the Python that runs it (packages that need different versions of a third live in environments of their own).
    """
    module: str
    folder: Path | None = None
    python: str = sys.executable


@dataclass
class Host:
    """The process of one engine (`benchmarks.host`)."""
    engine: str
    process: subprocess.Popen
    configuration: str = ""
    child: int = 0

    @staticmethod
    def start(engine: str, log, place: Place | None = None, more: Mapping[str, str] | None = None) -> "Host":
        place = place or Place(engine)
        environment = {**os.environ, **ENVIRONMENT.get(place.module, KEPT), **(more or {})}
        process = subprocess.Popen([place.python, "-m", "benchmarks.host", place.module], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=log,
                                   cwd=place.folder, env=environment, text=False, bufsize=0)
        host = Host(engine, process)
        host.configuration = host.reply(IMPORT_LIMIT)["configuration"]
        return host

    def send(self, **message) -> None:
        self.process.stdin.write(json.dumps(message).encode() + b"\n")

    def reply(self, seconds: float) -> dict:
        """The next line; EngineError when it reports one, when the process ended, or after so many seconds."""
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        if not ready:
            self.kill()
            raise EngineError(f"no answer within {seconds:.0f} s")
        line = self.process.stdout.readline()
        message = json.loads(line) if line else {"error": "the process ended"}
        if "error" in message:
            self.drain()
            raise EngineError(message["error"])
        if "closed" in message:
            self.child = 0
            raise EngineError(f"the process ended with status {message['closed']}")
        return message

    def open(self, request: dict) -> dict:
        self.send(open=request)
        answer = self.reply(OPEN_LIMIT)
        self.child = answer["pid"]
        self.signal(signal.SIGSTOP)
        return answer

    def turn(self, seconds: float, chunks: int = 0) -> list[float]:
        self.signal(signal.SIGCONT)
        self.send(turn=seconds, chunks=chunks)
        times = self.reply(TURN_LIMIT)["calls"]
        self.signal(signal.SIGSTOP)
        return times

    def close(self) -> None:
        """Ends the child of the present workload."""
        if self.child:
            self.signal(signal.SIGCONT)
            self.send(close=True)
            self.drain()

    def drain(self) -> None:
        """Waits for the host to say that its child has ended."""
        ready, _, _ = select.select([self.process.stdout], [], [], 20)
        if ready:
            self.process.stdout.readline()
        self.child = 0

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):      # it may have died; the next reply says so
            os.kill(self.child, number)

    def kill(self) -> None:
        """Ends the child by force; the host lives on."""
        for pid in _children(self.process.pid):
            os.kill(pid, signal.SIGKILL)
        self.drain()

    def end(self) -> None:
        for pid in _children(self.process.pid):
            os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


@dataclass
class Contest:
    """Engines of one number of threads. `folder` is for files between the processes, whose weights the `maker`
    writes; `places` says where engines come from that are not modules of this checkout by their own name; `settled`
    says of the times so far whether more turns would tell nothing new; `computing`: times are those that the process
    computes, not those that pass; `least_turns` are taken whatever `settled` says.
    """
    engines: Sequence[str]
    threads: int
    folder: Path
    seconds: float = 20.0               # for the turns of one workload, all engines together
    turns: int = 7
    turn_seconds: float = TURN_SECONDS
    places: Mapping[str, Place] = field(default_factory=dict)
    maker: str = "torch"
    computing: bool = False
    settled: Callable[[Mapping[str, Figures]], bool] = lambda figures: False
    chunks: int = 0                     # after so many a turn ends, too; 0: when its seconds are over
    least_turns: int = MIN_TURNS
    settle_seconds: float = SETTLE_SECONDS
    environment: Mapping[str, str] = field(default_factory=dict)        # of all engines, beside their own
    hosts: dict[str, Host] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        log = open(self.folder / "engines.log", "ab")
        for engine in dict.fromkeys((self.maker, *self.engines)):
            try:
                self.hosts[engine] = Host.start(engine, log, self.places.get(engine), self.environment)
            except EngineError as error:
                self.absent[engine] = str(error)
        if self.maker in self.absent:
            raise EngineError(f"{self.maker}, which makes the weights for all engines, {self.absent[self.maker]}")

    def warm(self, workload: Workload) -> None:
        """The maker opens it once, so that what it loads and sets up for its first workload is not done for each: times
        of building are then those of a later one.
        """
        save_batches(workload, self.folder)
        host = self.hosts[self.maker]
        host.send(warm=self._request(workload))
        host.reply(OPEN_LIMIT)

    def end(self) -> None:
        for host in self.hosts.values():
            host.end()

    def run(self, workload: Workload, end: float = math.inf,
            limit: Callable[[float], Sequence[float]] | None = None) -> dict[str, Figures]:
        """Figures by engine, agreement of numbers checked. No engine starts after `end` (monotonic clock), none
        compiles beyond it by much.

        `limit` measures, for about so many seconds, the times that the machine would take: it has turns as the engines
        have, under LIMIT.
        """
        request = self._request(workload)
        self._prepare(workload, request)
        figures = {engine: self._open(engine, request, end) for engine in self.engines}
        try:
            figures = _checked(workload, figures, self.folder)
            self._take_turns(figures, limit)
        finally:
            for host in self.hosts.values():
                host.close()
        return figures

    def _request(self, workload: Workload) -> dict:
        return {"workload": asdict(workload), "folder": str(self.folder), "threads": self.threads,
                "computing": self.computing}

    def _prepare(self, workload: Workload, request: dict) -> None:
        host = self.hosts[self.maker]
        save_batches(workload, self.folder)
        if workload.network in FAMILIES:            # nothing is stored
            save_file({}, self.folder / WEIGHTS)
            return
        host.send(prepare=request)
        host.reply(OPEN_LIMIT)
        host.drain()

    def _open(self, engine: str, request: dict, end: float) -> Figures:
        if engine in self.absent:
            return Figures(error=self.absent[engine])
        if engine in INFERENCE_ENGINES and request["workload"]["mode"] != INFER:
            return Figures(error=INFERENCE_ONLY)
        if time.monotonic() > end:
            return Figures(error=TIME_IS_UP)
        results = self.folder / f"{engine}.results"
        results.unlink(missing_ok=True)
        try:
            answer = self.hosts[engine].open({**request, "results": str(results)})
        except EngineError as error:
            return Figures(error=str(error))
        known = "build", "first", "peak", "growth", "plan", "planned", "alias"
        return Figures(**{k: answer[k] for k in known if k in answer})          # an older checkout says less

    def _take_turns(self, figures: dict[str, Figures], limit: Callable[[float], Sequence[float]] | None) -> None:
        """Fills in the times, turn by turn, each turn beginning with another engine."""
        turns = {e: partial(self.hosts[e].turn, self.turn_seconds, self.chunks)
                 for e, f in figures.items() if not f.error}
        if limit and turns:
            figures[LIMIT], turns[LIMIT] = Figures(), partial(limit, LIMIT_SECONDS)
        order, end = list(turns), time.monotonic() + self.seconds
        for turn in range(self.turns):
            if turn >= self.least_turns and (time.monotonic() > end or self.settled(figures)):
                break
            for engine in order[turn % len(order):] + order[:turn % len(order)] if order else ():
                if not figures[engine].error:
                    figures[engine] = _turn(turns[engine], figures[engine])
                    time.sleep(self.settle_seconds)


def _turn(measure: Callable[[], Sequence[float]], figures: Figures) -> Figures:
    try:
        times = measure()
    except EngineError as error:
        return replace(figures, error=str(error))
    return replace(figures, times=figures.times + tuple(times))


def _checked(workload: Workload, figures: Mapping[str, Figures], folder: Path) -> dict[str, Figures]:
    """Figures of an engine whose numbers differ from PyTorch's (graphc's where PyTorch has none) become an error."""
    results = {e: load_file(folder / f"{e}.results") for e, f in figures.items() if not f.error}
    if not results:
        return dict(figures)
    oracle = "torch" if "torch" in results else next(iter(results))
    return {e: f if f.error else replace(f, error=_difference(workload, results[e], results[oracle], oracle))
            for e, f in figures.items()}


def _difference(workload: Workload, mine: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray],
                oracle: str) -> str:
    """What differs by more than rounding, in words; "" if nothing does."""
    if mine.keys() != theirs.keys():
        return f"gives {len(mine)} arrays where {oracle} gives {len(theirs)}"
    for name, expected in theirs.items():
        if mine[name].size != expected.size:
            return f"result {name} has {mine[name].size} elements where that of {oracle} has {expected.size}"
        scale = max(_largest(theirs["0.0"] if workload.mode == TRAIN else expected), 1e-30)
        allowed = RELATIVE * scale
        if workload.mode == TRAIN:
            if not np.isfinite(expected).all():
                return f"loss {name} of {oracle} is not finite"
            allowed = LOSS_RELATIVE * scale + DESCENT * _largest(expected - theirs["0.0"])
        error = _distance(mine[name].reshape(expected.shape), expected)
        if not error <= allowed:
            what = "loss" if workload.mode == TRAIN else "result"
            return f"{what} {name} differs from {oracle}'s by {error:.1e} (largest {scale:.1e})"
    return ""


def _largest(values: np.ndarray) -> float:
    """Of those that are finite."""
    return float(np.abs(values[np.isfinite(values)]).max(initial=0))


def _distance(mine: np.ndarray, theirs: np.ndarray) -> float:
    """The largest; infinite or NaN if one of them is where the other is not the same."""
    with np.errstate(invalid="ignore"):                                       # inf - inf
        same = (mine == theirs) | (np.isnan(mine) & np.isnan(theirs))
        return float(np.where(same, 0, np.abs(mine - theirs)).max(initial=0))


@contextmanager
def contest(engines: Sequence[str], threads: int, folder: Path, **options):
    """A started Contest, ended afterwards."""
    made = Contest(engines, threads, folder, **options)
    try:
        made.start()
        yield made
    finally:
        made.end()
