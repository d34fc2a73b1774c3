"""What `import graphc` costs: no compiler, no LLVM, no graph library before the first compile."""
import ast
import subprocess
import sys
from pathlib import Path

import pytest

from graphc import nn, optim

CODE = """
import sys, graphc as gc
assert not {"llvmlite", "networkx", "graphc.compiler", "graphc.pipeline"} & sys.modules.keys(), sorted(sys.modules)

@gc.graph
def f(x: gc.f32[3]):
    return gc.exp(x).sum()
str(gc.grad(f))
assert not {"llvmlite", "networkx", "graphc.compiler", "graphc.pipeline"} & sys.modules.keys()
assert "compile" in dir(gc) and not hasattr(gc, "compiles")
"""


LOADED = """
import sys, numpy
before = set(sys.modules)
import graphc as gc
from graphc import nn, optim
{use}
print(*sorted(set(sys.modules) - before))
"""
COMPILED = "gc.compile(nn.Sequential(nn.Linear(3), gc.relu), x=gc.f32[2, 4], seed=0)"
TRAINED = "gc.train_step(nn.Linear(3), loss=nn.cross_entropy, optimizer=optim.SGD(0.1), x=gc.f32[2, 4], y=gc.i32[2]).memory"
# of packages that these uses do without: pictures of profiles, bars, checks of installed versions, random numbers
SELDOM = {"tqdm", "statistics", "importlib.metadata", "ssl", "http", "html", "csv", "graphc.profile", "graphc.models"}


def test_import_loads_no_compiler():
    subprocess.run([sys.executable, "-c", CODE], check=True)


@pytest.fixture(scope="module")
def compiled_runtime():
    """Lies in the cache from now on, whichever test comes first: its own code is made by twelve modules more."""
    code = "import graphc as gc; gc.compile(lambda x: x + 1.0, x=gc.f32[3])(__import__('numpy').ones(3, 'f'))"
    subprocess.run([sys.executable, "-c", code], check=True)


# modules take 0.1 to 0.4 ms each; a number that must grow for a reason may
@pytest.mark.parametrize("use, most, never", [
    ("", 141, SELDOM | {"numpy.random", "pathlib", "shutil", "safetensors"}),
    (COMPILED, 478, SELDOM), (TRAINED, 506, SELDOM - {"csv"})], ids=["import", "compile", "train"])
def test_few_modules_are_loaded(use, most, never, compiled_runtime):
    done = subprocess.run([sys.executable, "-c", LOADED.format(use=use)], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert never.isdisjoint(loaded), never & set(loaded)
    assert sum(name.startswith("graphc") for name in loaded) <= most, f"{use} loads more modules of graphc than before"


@pytest.mark.parametrize("module", [nn, optim])
def test_what_is_loaded_later_is_what_type_checkers_are_told(module):
    tree = ast.parse(Path(module.__file__).read_text())
    told = {name.name: node.module for block in tree.body if isinstance(block, ast.If) for node in block.body for name in node.names}
    assert told == module._LATER and all(getattr(module, name).__module__ == file for name, file in told.items())


@pytest.mark.parametrize("call", ["from_onnx('net.onnx')", "to_onnx(lambda x: x, x=gc.f32[2])"])
def test_a_missing_package_is_said_with_its_extra_when_it_is_needed(call):
    code = ("import sys; sys.modules['onnx'] = None; import graphc as gc; from graphc import from_onnx, to_onnx\n"
            f"try: gc.{call}\nexcept gc.GraphError as e: print(e)")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith("A file of ONNX needs the package onnx, 1.23 or later: pip install 'graphc[onnx]'")
