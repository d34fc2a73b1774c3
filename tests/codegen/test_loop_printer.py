"""Loop functions as text: compared with files in `golden`. GRAPHC_UPDATE_GOLDEN=1 writes them anew."""
from __future__ import annotations

import os
from pathlib import Path

import pytest
from loop_functions import gather, micro_kernel, softmax

from graphc.codegen.llvm.emit import emit_module
from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.printer import function_key, print_function
from graphc.codegen.loops.verify import verify
from graphc.schedule.target import AVX2

GOLDEN = Path(__file__).parent / "golden"
SAMPLES = {"softmax": softmax, "gather": gather, "micro": lambda: micro_kernel(rows=2, depth=8)}


def compare(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("GRAPHC_UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", SAMPLES)
def test_loops_as_text(name):
    f = SAMPLES[name]()
    verify(f)
    compare(f"{name}.loops", print_function(f))


def test_llvm_text():
    f = micro_kernel(rows=1, vectors=1, depth=4)
    compare("micro.ll", emit_module([f], None, AVX2))


def test_equal_functions_have_equal_keys():
    a, b = softmax(), softmax()
    b.name = "another"
    assert function_key(a) == function_key(b) != function_key(softmax(columns=101))


def test_symbols_of_one_name_are_told_apart():
    f = LoopFunction("nest")
    with f.loop(0, 2) as outer, f.loop(0, 3) as inner:
        assert repr(outer.index * 3 + inner.index - 1) == "i*3 + i2 - 1"
