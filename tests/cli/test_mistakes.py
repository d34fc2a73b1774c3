"""What can be wrong on the command line: each is said in a few lines on stderr, with the right exit status and without a traceback of graphc."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from graphc.cli import main

ROOT = Path(__file__).resolve().parents[2]
SCALED = """graph scaled(x: f32[B, 3], i: i32[B]) {
  %0 = take(x, i) {axis=0} : f32[B, 3]
  return {p: %0}
}
"""
FIXED = "graph fixed(x: f32[3]) {\n  %0 = tanh(x) : f32[3]\n  return %0\n}\n"
LESSON = "import graphc as gc\n\n@gc.graph\ndef double(x: gc.f32[4]):\n    return x * 2\n\nlayer = gc.nn.Linear(3)\nnumber = 7\n"
FILES = {
    "scaled.txt": SCALED, "fixed.txt": FIXED, "empty.txt": "", "half.txt": FIXED[:40], "latin.txt": FIXED.replace("fixed", "é").encode("latin-1"),
    "bytes.txt": bytes(range(256)), "bom.txt": "\ufeff" + FIXED, "wide.txt": "graph g(x: f32[1099511627776, 1099511627776]) { return x }",
    "large.txt": "graph g(x: f32[70368744177664]) { return x }",
    "fused.txt": "graph g(x: f32[3]) { %0 = fused(x) {body={graph b(x: f32[3]) { return (x,) }}} : f32[3] return %0 }",
    "lesson.py": LESSON, "syntax.py": "def f(:\n", "raises.py": "def g():\n    return 1 // 0\n\ng()\n", "exits.py": "import sys\nsys.exit(3)\n",
    "nulls.py": b"\0\0", "latin.py": "x = 'é'".encode("latin-1"),
    "missing.py": "import nowhere_to_be_found\n", "wrong.py": LESSON.replace("x * 2", "x @ x @ x[:2]"),
    "neighbour.py": "from lesson import double\n", "module.txt": LESSON,
    "recursion.py": "def f():\n    f()\n\nf()\n",
    "data.py": "from __future__ import annotations\nfrom dataclasses import dataclass\n\n@dataclass\nclass A:\n    b: int = 0\n" + LESSON,
    "text.npy": "no numbers", "empty.npy": "", "cut.npy": b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }",
    "header.npy": b"\x93NUMPY\x01\x00v\x00{'descr': <",
    "huge.npy": b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999,), }".ljust(117) + b"\n"}


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    np.save("x3.npy", np.zeros(3, np.float32)), np.save("x4.npy", np.zeros(4, np.float32)), np.save("d3.npy", np.zeros(3))
    np.save("objects.npy", np.array([{}], object), allow_pickle=True), np.savez("many.npz", a=1, b=2), np.save("complex.npy", np.zeros(3, complex))
    np.save("swapped.npy", np.zeros(3, ">f4")), np.save("outside.npy", np.array([0, 9], np.int32))
    (tmp_path / "folder").mkdir(), (tmp_path / "folder.py").mkdir()
    return tmp_path


WRONG = {
    "run nowhere.txt": "nowhere.txt: No such file or directory", "dump folder": "folder: Is a directory",
    "dump folder.py": "folder.py: Is a directory", "dump folder.py:f": "folder.py is not a Python file",
    "dump nowhere.py:f": "nowhere.py is not a Python file", "dump fixed.txt:f": "fixed.txt is not a Python file",
    "dump module.txt:double": "module.txt is not a Python file", "dump :f": "is not a Python file",
    "dump empty.txt": "expected 'graph', found 'end of text'", "dump half.txt": "end of text",
    "dump latin.txt": "latin.txt is not the text of a graph: line 1 is not UTF-8",
    "dump bytes.txt": "is not UTF-8", "dump wide.txt": "larger than any memory", "run wide.txt": "larger than any memory",
    "run large.txt": "not enough memory", "dump fused.txt": "fused is made when compiling",
    "dump lesson.py": "lesson.py is Python, which may have many graphs: say lesson.py:NAME; it has double", "dump lesson.py:": "say lesson.py:NAME",
    "dump lesson.py:layer": "layer in lesson.py is a network: say what its inputs are, for example --type x='f32[1, 784]'",
    "dump lesson.py:number": "lesson.py has no graph 'number' (number is a int); it has double, layer",
    "dump lesson.py:layer --type x=f33[2]": "'f33[2]' is no type", "dump lesson.py:layer --type x=f32[2.5]": "its sizes are numbers or names",
    "dump fixed.txt --type x=f32[3]": "--type is for networks",
    "dump lesson.py:f": "lesson.py has no graph 'f'; it has double",
    "dump syntax.py:f": "syntax.py does not run: SyntaxError", "dump nulls.py:f": "nulls.py does not run: ",
    "dump latin.py:f": "latin.py does not run: SyntaxError", "dump missing.py:f": "No module named 'nowhere_to_be_found'",
    "dump raises.py:f": "raises.py does not run: ZeroDivisionError", "dump exits.py:f": "exits.py ends itself (exit status 3)",
    "dump wrong.py:double": "wrong.py:5", "dump recursion.py:f": "does not run: RecursionError",
    "run scaled.txt": "give the sizes of B: --bind B=64", "dump scaled.txt --bind B=2 --bind B=3": "--bind: B is given twice, as 2 and as 3",
    "run scaled.txt --bind B": "is not of the form --bind NAME=SIZE",
    "run scaled.txt --bind B=²": "--bind takes a whole number, got '²'", "run scaled.txt --bind B=-1": "takes a whole number",
    "run scaled.txt --bind B=1_0": "takes a whole number", "run scaled.txt --bind B=": "takes a whole number",
    "run scaled.txt --bind B=" + "9" * 5000: "takes a whole number", "run scaled.txt --bind B=999999999999999999": "larger than any memory",
    "run scaled.txt --bind =2": "has no named dimension ''",
    "run fixed.txt x=nowhere.npy": "nowhere.npy: No such file or directory", "run fixed.txt x=folder": "folder: Is a directory",
    "run fixed.txt x=x3.npy x=x4.npy": "x is given twice", "run fixed.txt x=": "No such file",
    "run fixed.txt x=text.npy": "x=text.npy is not a .npy file", "run fixed.txt x=empty.npy": "x=empty.npy is not a .npy file",
    "run fixed.txt x=cut.npy": "is not a .npy file", "run fixed.txt x=header.npy": "is not a .npy file",
    "run fixed.txt x=huge.npy": "", "run fixed.txt x=objects.npy": "is not a .npy file", "run fixed.txt x=many.npz": "holds several arrays",
    "run fixed.txt x=x4.npy": "x=x4.npy is f32[4], x must be f32[3]",
    "run fixed.txt x=d3.npy": "x=d3.npy is f64[3], x must be f32[3]", "run fixed.txt x=complex.npy": "complex128 is not supported",
    "run fixed.txt x=swapped.npy": "is not supported", "profile fixed.txt x=d3.npy": "x must be f32[3]",
    "run scaled.txt i=outside.npy --bind B=2": "take got index 9, which is out of range", "run fixed.txt --out fixed.txt": "fixed.txt: File exists",
    "run fixed.txt --out fixed.txt/a": "fixed.txt/a: Not a directory",
    "profile fixed.txt --svg folder": "--svg folder: that is a folder", "profile fixed.txt --svg nowhere/a.svg": "there is no folder nowhere",
    "demo --out fixed.txt": "fixed.txt: File exists",
    "opt fixed.txt --passes fly": "there is no pass 'fly'"}
USAGE = {"": "required", "fly": "invalid choice", "dump": "required: graph", "dump fixed.txt --stage fly": "invalid choice",
         "dump fixed.txt --target pdp11": "invalid choice", "demo --epochs 0": "from 1 on, got 0",
         "demo --epochs ²": "whole number", "demo --epochs -3": "whole number", "demo --epochs 1e9": "whole number",
         "run fixed.txt --fly": "unrecognized", "dump fixed.txt extra": "unrecognized"}


@pytest.mark.parametrize("line", WRONG)
def test_what_is_given_wrong_is_said(line, files, capsys):
    assert main(line.split()) == 1
    out, err = capsys.readouterr()
    assert err.startswith("graphc: ") and "bug in graphc" not in err and "internal error" not in err
    assert "graphc/cli" not in err and "importlib" not in err, err
    assert WRONG[line] in err, err


@pytest.mark.parametrize("line", USAGE)
def test_wrong_usage(line, files, capsys):
    with pytest.raises(SystemExit) as info:
        main(line.split())
    assert info.value.code == 2 and USAGE[line] in capsys.readouterr().err


@pytest.mark.parametrize("line", ["dump bom.txt", "dump neighbour.py:double", "dump data.py:double", "dump lesson.py:double --stage loops",
"dump scaled.txt --stage graph", "run fixed.txt x=x3.npy --out new/folder"])
def test_what_is_right_works(line, files, capsys):
    assert main(line.split()) == 0 and not capsys.readouterr().err


def test_the_traceback_of_a_module_begins_in_it(files, capsys):
    assert main(["dump", "raises.py:g"]) == 1
    err = capsys.readouterr().err
    assert err.splitlines()[0] == "graphc: raises.py does not run: ZeroDivisionError"
    assert "line 4, in <module>" in err and "line 2, in g" in err and err.rstrip().endswith("ZeroDivisionError: integer division or modulo by zero")


def graphc(*arguments, **options) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("environment", {})}
    return subprocess.run([sys.executable, "-m", "graphc", *arguments], capture_output=True, env=environment, timeout=120, **options)


@pytest.mark.parametrize("environment", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
{"PYTHONIOENCODING": "ascii"}])
def test_every_locale_reads_and_writes_utf8(environment, files):
    (files / "greek.txt").write_text("graph g(x: f32[β], \"×\": f32[β]) {\n  %0 = add(x, \"×\") : f32[β]\n  return %0\n}\n", encoding="utf-8")
    done = graphc("opt", "greek.txt", environment=environment)
    assert done.returncode == 0 and done.stdout == (files / "greek.txt").read_bytes() and not done.stderr
    done = graphc("run", "greek.txt", "--bind", "γ=3", environment=environment)
    assert done.returncode == 1 and "its names: β" in done.stderr.decode() and b"Traceback" not in done.stderr


def test_output_that_nobody_takes(files):
    command = f"{sys.executable} -m graphc dump fixed.txt --stage asm"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    shell = f"{command} | true; echo ${{PIPESTATUS[0]}}; {command} > /dev/full; echo $?; {command} >&-; echo $?"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, env=environment, timeout=120)
    assert done.stdout.split() in ([b"141", b"1", b"0"], [b"0", b"1", b"0"])        # 0: the pipe took it before `true` had ended
    assert done.stderr.decode().splitlines() == ["graphc: [Errno 28] No space left on device"]


def test_an_interrupt_ends_with_130(files):
    (files / "slow.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(60)\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-m", "graphc", "dump", "slow.py:f"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    assert process.stdout.readline() == b"here\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == b"graphc: interrupted\n" and process.returncode == 130


def test_version_and_a_module_of_its_own():
    done = graphc("--version")
    assert done.returncode == 0 and done.stdout.startswith(b"graphc ")
