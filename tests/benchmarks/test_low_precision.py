"""The table of low precision: what is wanted, and rows that cannot be measured."""
from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import low_precision
from benchmarks.low_precision import HEAD, _apart, _chosen, _line, _send
from benchmarks.protocol import Comparison, Timing
from benchmarks.workloads import BY_NAME, INFER, Workload

BERT, MOBILE = BY_NAME["bert-base T128 b1 infer"], BY_NAME["mobilenet b8 train"]
NOTHING = Workload("nothing", 1, INFER, 1.0)


def lines(w: Workload, **seconds: float) -> dict[str, list[str]]:
    timed = Comparison(w.name, {name.replace("_", " "): Timing((t, t)) for name, t in seconds.items()})
    return {name: _line(w, 2, name, timed, 0.01) for name in timed.timings}


def test_what_is_wanted():
    """Shares of f32's time and of the fastest peer's of that type; peers and f32 have none."""
    found = lines(BERT, graphc_f32=2.0, graphc_bf16=1.25, graphc_int8=1.0, OpenVINO_bf16=1.4, OpenVINO_int8=2.0,
                  ONNX_Runtime_int8=1.1)
    assert all(len(line) == len(HEAD) for line in found.values())
    assert found["graphc bf16"][-1] == "0.62 of f32: no, 0.85 of peer: no"
    assert found["graphc int8"][-1] == "0.5 of f32: yes, 0.85 of peer: no"
    assert found["graphc int8"][5:7] == ["0.50 (0.50)", "0.91 (0.91)"]
    assert found["graphc f32"][-1] == found["OpenVINO bf16"][-1] == ""
    assert lines(MOBILE, graphc_f32=2.0, graphc_bf16=1.25)["graphc bf16"][-1] == "0.65 of f32: yes"


def test_one_image_comes_first():
    names = [w.name for w in _chosen(None)]
    assert len(set(names)) == len(names) == 11 and names[:4] == [*low_precision.INFERENCE]
    assert [w.name for w in _chosen(["lstm 2x512 T64 b32"])] == ["lstm 2x512 T64 b32 train", "lstm 2x512 T64 b32 infer"]


def test_a_row_that_fails_says_why(monkeypatch):
    class Pipe:
        def send(self, message):
            self.message = message

    def fail(*_):
        raise MemoryError("no | memory")
    monkeypatch.setattr(low_precision, "_measured", fail)
    pipe = Pipe()
    _send(pipe, NOTHING, 1, Path(), False)
    assert pipe.message == ([], "MemoryError: no / memory")
    (line,), is_whole = _apart(NOTHING, 1, Path(), False, end=0.0)
    assert len(line) == len(HEAD) and "not run" in line[3] and not is_whole


@pytest.mark.slow
def test_other_processes_measure(tmp_path):
    (line,), is_whole = _apart(NOTHING, 1, tmp_path, False, end=float("inf"))
    assert line[3] == "KeyError: 'nothing'" and not is_whole
