"""The documentation as a site: it is built without a warning, and its reference has every public name."""
from __future__ import annotations

import ast
import doctest
import inspect
import os
import subprocess
import sys
import zlib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("graphc", "graphc.nn", "graphc.optim", "graphc.metrics", "graphc.callbacks", "graphc.models", "graphc.sklearn")
EXAMPLES = sorted(p for p in (ROOT / "graphc").rglob("*.py") if ">>> " in p.read_text())


def public():
    """Every public name: what `dir` shows of the modules that programs import, without modules."""
    return {f"{module}.{name}" for module in MODULES for here in [import_module(module)] for name in dir(here)
            if not name.startswith("_") and not isinstance(getattr(here, name), ModuleType)}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if find_spec("mkdocs") is None or find_spec("mkdocstrings") is None:
        pytest.skip("needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder], cwd=ROOT, text=True, capture_output=True,
                          env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_reference_has_every_public_name(site):
    names = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode().splitlines()
    assert public() - {line.split()[0] for line in names} == set() and len(names) > 700
    methods = {"graphc.train.TrainStep.fit", "graphc.nn.Module.parameter", "graphc.Array.astype", "graphc.optim.Optimizer.update"}
    assert methods <= {line.split()[0] for line in names}
    assert "amsgrad</span>" in (site / "reference" / "optim.html").read_text()      # a field of a dataclass: the constructor's argument


def test_every_page_is_reached_from_the_first(site):
    """By links of the menu or of a page."""
    menu = (site / "index.html").read_text() + (site / "notes" / "index.html").read_text()
    pages = [p for p in site.rglob("*.html") if p.name != "404.html"]
    assert len(pages) > 30 and [p for p in pages if f'href="{p.name}' not in menu and p.relative_to(site).as_posix() not in menu] == []


def test_every_public_function_and_class_says_what_it_does():
    silent = [name for name in public() for module, _, last in [name.rpartition(".")] for value in [getattr(import_module(module), last)]
              if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__.startswith("graphc.") and not value.__doc__]
    assert silent == []


def test_names_of_the_package_are_seen_by_type_checkers():
    """What is loaded at the first use is also imported for them, from the same place."""
    for module in ("graphc", "graphc.nn", "graphc.optim", "graphc.callbacks"):
        here = import_module(module)
        later = vars(here)["_LATER"]
        told = {alias.asname or alias.name: node.module for outer in ast.parse(Path(here.__file__).read_text()).body if isinstance(outer, ast.If)
                for node in outer.body if isinstance(node, ast.ImportFrom) for alias in node.names}
        assert told == later, module


def test_there_are_examples_in_docstrings():
    assert len(EXAMPLES) >= 15


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_examples_in_docstrings(path):
    """They print what they say. An example begins with nothing but graphc, its modules and numpy."""
    name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    names = {last: import_module(where) for last, where in (("gc", "graphc"), ("nn", "graphc.nn"), ("optim", "graphc.optim"), ("np", "numpy"))}
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    found = [t for t in doctest.DocTestFinder().find(import_module(name), globs={}) if t.examples]
    assert found
    told = []
    for test in found:
        test.globs.update(names)
        runner.run(test, out=told.append)
    assert runner.failures == 0, "".join(told)
