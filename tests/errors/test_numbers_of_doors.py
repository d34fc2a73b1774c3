"""Numbers from outside, checked where they enter: threads at every door that takes them, every knob of the environment,
seeds, counts.
"""
from __future__ import annotations

import inspect
from dataclasses import fields

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.cli import main
from graphc.config import Config, config
from graphc.runtime.pool import default_threads

GRAPH = "graph f(x: f32[3]) {\n  %0 = exp(x) : f32[3]\n  return %0\n}\n"


@gc.graph
def f(x: gc.f32[3]):
    return gc.exp(x)


net = nn.Linear(3)
decoder = nn.Embedding(7, 8) >> nn.GRU(8, batch_first=True) >> nn.Linear(7)


def train(**options):
    return gc.train_step(net, loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[2, 4], y=gc.f32[2, 3], **options)


DOORS = {
    "compile": lambda **o: gc.compile(f, **o),
    "train_step": train,
    "generate": lambda **o: gc.generate(decoder, [1, 2], **{"steps": 2, "seed": 0, **o}),
    "Generator": lambda **o: gc.Generator(decoder, **{"seed": 0, **o}),
}
# door -> options that are integers, with what is too small
INTEGERS = {"compile": {"threads": -1}, "train_step": {"threads": -1, "seed": -1},
            "generate": {"threads": -1, "seed": -1, "steps": 0, "capacity": 0, "top_k": 0, "stop": -1},
            "Generator": {"threads": -1, "seed": -1, "capacity": 0}}
OPTIONAL = ("seed", "capacity", "top_k", "stop")           # None leaves them out


def test_every_door_with_threads_is_here():
    doors = {name for name in dir(gc) for value in [getattr(gc, name)]
             if callable(value) and not isinstance(value, type(gc)) and "threads" in _parameters(value)}
    assert doors == set(DOORS) | {"export"}         # where it is a switch


def _parameters(value) -> set[str]:
    try:
        return set(inspect.signature(value).parameters)
    except (TypeError, ValueError):
        return set()


@pytest.mark.parametrize("door, name", [(door, name) for door in INTEGERS for name in INTEGERS[door]])
def test_integers_of_doors(door, name):
    extra = {"temperature": 1.0} if name == "top_k" else {}
    for value in (INTEGERS[door][name], 2.5, "2", "", True, np.float32(2), 10**30, 10**5000, [2], float("nan"),
                  *(() if name in OPTIONAL else (None,))):
        with pytest.raises(gc.GraphError, match=f"^{name} is an int.*\n  at .*test_numbers_of_doors.py"):
            DOORS[door](**{name: value}, **extra)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("threads", [0, "all", 1, np.int64(2), np.uint8(3)])
def test_right_numbers_of_threads(door, threads):
    DOORS[door](threads=threads)


def test_all_threads():
    assert gc.compile(f, threads="all").executable.threads == default_threads() == gc.compile(f).executable.threads
    assert gc.compile(f, threads=np.int64(3)).executable.threads == 3


@pytest.mark.parametrize("runs", [0, -1, 2.5, "2", True, 10**30])
def test_runs_of_a_profile(runs):
    with pytest.raises(gc.GraphError, match="^runs is an int from 1 to"):
        gc.compile(f).profile(np.ones(3, np.float32), runs=runs)


@pytest.mark.parametrize("name", ["temperature", "top_p"])
def test_knobs_of_generation(name):
    for value in (-1, "1", True, float("nan"), float("inf"), [1]):
        with pytest.raises(gc.GraphError, match=name):
            DOORS["generate"](**{"temperature": 1.0, name: value})


KNOBS = {f.name: f.type for f in fields(Config)}
GOOD = {"bool": {"1": True, "0": False, "true": True, "FALSE": False, "no": False, "on": True, " 1 ": True},
        "int": {"0": 0, "2": 2, " 1": 1}, "str": {"x": "x"}}
BAD = {"bool": ["2", "maybe", "-1", "1.0"],
       "int": ["-1", "two", "2.5", "1e3", "1_0", "٣", "0x2", "9" * 19, "9" * 6000, "True", "+1"], "str": []}


@pytest.mark.parametrize("name", KNOBS)
def test_knobs_of_the_environment(name, monkeypatch):
    kind, variable = KNOBS[name], f"GRAPHC_{name.upper()}"
    for other in KNOBS:
        monkeypatch.delenv(f"GRAPHC_{other.upper()}", raising=False)
    for text in ("", "  "):
        monkeypatch.setenv(variable, text)
        assert config() == Config()
    for text, value in GOOD[kind].items():
        monkeypatch.setenv(variable, text)
        assert getattr(config(), name) == value and type(getattr(config(), name)) is type(value)
    for text in BAD[kind]:
        monkeypatch.setenv(variable, text)
        with pytest.raises(gc.GraphError, match=f"^{variable} (must be|is) "):
            gc.compile(f)


def test_threads_of_the_environment(monkeypatch):
    monkeypatch.setenv("GRAPHC_THREADS", "all")
    assert config().threads == 0
    monkeypatch.setenv("GRAPHC_THREADS", "-1")
    batch = np.ones((2, 4), np.float32), np.ones((2, 3), np.float32)
    for call in (DOORS["compile"], lambda: train()(*batch), DOORS["generate"], lambda: DOORS["Generator"]()([1], 1)):
        with pytest.raises(gc.GraphError, match="GRAPHC_THREADS is an int from 0"):
            call()


@pytest.mark.parametrize("command, option", [("run", "--threads"), ("profile", "--threads"), ("profile", "--runs")])
def test_numbers_of_the_command_line(command, option, tmp_path, capsys):
    path = tmp_path / "f.txt"
    path.write_text(GRAPH)
    for text in ("-1", "2.5", "two", "", "9" * 30, "9" * 6000, "True"):
        assert main([command, str(path), f"{option}={text}"]) == 1
        assert f"graphc: {option} is an int from" in capsys.readouterr().err
    for text in ("1", "2", "0", "all") if command == "run" else ():        # a profile measures the machine: seconds
        assert main([command, str(path), f"{option}={text}"]) == 0
