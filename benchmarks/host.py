"""One engine's process: `python -m benchmarks.host ENGINE`. It imports the engine once and forks for each workload.

Line by line: a request as JSON on stdin, a reply as JSON on stdout. {"open": …} forks; the child then answers {"turn":
seconds} until anything else comes. {"prepare": …} makes the files that all engines read. So a child starts with the
library imported and nothing else, and its memory is that of one workload. {"warm": …} opens a workload in the process
itself: what the first one loads and sets up, every child has from then on.
"""
from __future__ import annotations

import gc as garbage
import importlib
import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from benchmarks.engines.case import Case
from benchmarks.workloads import TRAIN, Workload

STEPS = 3                       # training losses that are compared, and calls before memory is measured
CHUNK = 1e-3                    # calls shorter than this are timed together
WARM_SECONDS, WARM_CALLS = 0.02, 3
MEMORY_LIMIT = 14 << 30
REQUESTS = {"open", "prepare", "warm"}


def main() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)                               # libraries print what they like to stderr
    name = sys.argv[1]
    try:
        engine = importlib.import_module(f"benchmarks.engines.{name}_engine")
    except Exception as error:
        _reply(replies, {"error": f"cannot be imported: {_words(error)}"})
        return
    _reply(replies, {"configuration": engine.CONFIGURATION})
    while line := _line():
        if not _is_request(line):
            continue                            # it was meant for a child that has ended
        if warm := json.loads(line).get("warm"):
            engine.make(_case(warm))
            _reply(replies, {})
            continue
        child = os.fork()
        if not child:
            _serve(engine, line, replies)
        _, status = os.waitpid(child, 0)
        _reply(replies, {"closed": os.waitstatus_to_exitcode(status)})


def _is_request(line: str) -> bool:
    """Whether the line is for this process. A child that is killed may have read the beginning of one that was for it.
    """
    try:
        message = json.loads(line)
    except ValueError:
        return False
    return isinstance(message, dict) and bool(REQUESTS & message.keys())


def _serve(engine, line: str, replies) -> None:
    """The child: one workload, then the end."""
    try:
        message = json.loads(line)
        if "prepare" in message:
            engine.prepare(_case(message["prepare"]))
            _reply(replies, {})
            os._exit(0)
        opened = Opened(engine, message["open"])
        _reply(replies, opened.reply)
        while request := _line():
            message = json.loads(request)
            if "turn" not in message:
                break
            _reply(replies, {"calls": opened.turn(message["turn"], message.get("chunks", 0))})
    except Exception as error:
        traceback.print_exc()
        _reply(replies, {"error": _words(error)})
    sys.stderr.flush()
    os._exit(0)


class Opened:
    """An engine with a workload, built, called and checked."""

    def __init__(self, engine, request: dict):
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT, MEMORY_LIMIT))
        case = _case(request)
        # of one thread: what others do on the machine meanwhile does not count
        self.clock = time.process_time if request["computing"] else time.perf_counter
        case.batches, case.weights
        before = memory("VmRSS")
        reset_peak()
        start = time.perf_counter()
        self.runner = engine.make(case)
        built = time.perf_counter()
        self.batches, self.number = self.runner.batches, 0
        base = max(memory("VmRSS"), before)
        built_peak = memory("VmHWM")
        reset_peak()
        losses: list = []
        call = self._loss if case.workload.mode == TRAIN else self._nothing
        losses += call()
        first = time.perf_counter()
        for _ in range(STEPS - 1):
            losses += call()
        self.estimate = (time.perf_counter() - first) / (STEPS - 1)
        peak = memory("VmHWM")
        results = losses or [self.runner.run(*self.batches[0])]
        save_file({f"{i}.{k}": np.ascontiguousarray(a, np.float32) for i, r in enumerate(results)
                   for k, a in enumerate(self.runner.arrays(r))},
                  request["results"])
        planned = getattr(self.runner, "planned", None)
        self.reply = {"pid": os.getpid(), "build": built - start, "first": first - built,
                      "peak": max(peak, built_peak) - before,
                      "growth": peak - base, "alias": 0.0 if losses else self._alias(results[0]),
                      **(planned(case.threads) if planned else {"plan": 0, "planned": 0})}
        garbage.collect()
        garbage.freeze()
        garbage.disable()

    def _alias(self, result) -> float:
        """The share of the result's bytes that are no memory of its own, where the engine can tell."""
        owned = getattr(self.runner, "owned", None)
        return 1 - owned(result, self.batches[0]) / sum(a.nbytes for a in self.runner.arrays(result)) if owned else 0.0

    def _loss(self) -> list:
        return [self.runner.run(*self.batches[0])]

    def _nothing(self) -> list:
        """A call whose result is not kept: it would count as memory that the engine takes."""
        self.runner.run(*self.batches[0])
        return []

    def turn(self, seconds: float, chunks: int) -> list[float]:
        """Seconds per call of chunks of calls, for about so long, or of so many chunks (0: any number)."""
        self._warm()
        chunk = max(1, round(CHUNK / self.estimate))
        times, end = [], time.perf_counter() + seconds
        while not times or time.perf_counter() < end and len(times) != chunks:
            times.append(self._calls(chunk))
        self.estimate = float(np.median(times))
        return times

    def _calls(self, count: int) -> float:
        run, batches = self.runner.run, self.batches
        order = [batches[(self.number + i) % len(batches)] for i in range(min(count, len(batches)))]
        self.number += count
        turns = [order[i % len(order)] for i in range(count)]
        start = self.clock()
        for batch in turns:
            run(*batch)
        return (self.clock() - start) / count

    def _warm(self) -> None:
        """The caches are this engine's again, its threads awake."""
        end = time.perf_counter() + WARM_SECONDS
        for _ in range(WARM_CALLS if self.estimate < 10 * WARM_SECONDS else 0):
            self._calls(1)
            if time.perf_counter() > end:
                break


def memory(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.split(f"{field}:")[1].split()[0])


def reset_peak() -> None:
    """VmHWM is the present VmRSS again."""
    Path("/proc/self/clear_refs").write_text("5")


def _case(request: dict) -> Case:
    workload = Workload(**{**request["workload"], "options": _tuples(request["workload"]["options"])})
    return Case(workload, Path(request["folder"]), request["threads"])


def _tuples(options: dict) -> dict:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


def _line() -> str:
    """A line of stdin, and nothing behind it, which may be another process's."""
    data = b""
    while not data.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return ""
        data += byte
    return data.decode()


def _reply(replies, message: dict) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


def _words(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return f"{type(error).__name__}: {text.splitlines()[0][:200]}"


if __name__ == "__main__":
    main()
