"""Every command of `graphc`, on files as a user has them."""
import numpy as np
import pytest

from graphc.cli import main

TEXT = """graph scaled(x: f32[B, 3], w: f32[3]) {
  %0 = mul(x, w) : f32[B, 3]
  %1 = softmax(%0) {axis=1} : f32[B, 3]
  return {p: %1}
}
"""
MODULE = """import graphc as gc

@gc.graph
def double(x: gc.f32[4]):
    return x * 2
"""


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "scaled.txt"
    path.write_text(TEXT)
    return str(path)


def test_run_reads_and_writes_npy(text, tmp_path, capsys):
    x, w = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1, 0, -1], np.float32)
    np.save(tmp_path / "x.npy", x), np.save(tmp_path / "w.npy", w)
    files = [f"{n}={tmp_path / n}.npy" for n in "xw"]
    assert main(["run", text, *files, "--bind", "B=2", "--out", str(tmp_path / "out")]) == 0
    e = np.exp(x * w - (x * w).max(axis=1, keepdims=True))
    np.testing.assert_allclose(np.load(tmp_path / "out" / "p.npy"), e / e.sum(axis=1, keepdims=True), rtol=1e-6)
    assert "memory: arena" in capsys.readouterr().out


def test_explain_has_the_candidates_of_each_kernel_on_a_target(text, capsys):
    assert main(["explain", text, "--bind", "B=4096", "--target", "neon"]) == 0
    kernel, terms, *candidates = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert kernel.startswith("mul max sub exp …: f32[4096, 3], f32[3] -> f32[4096, 3]") and text in kernel
    assert terms.split()[:3] == ["cycles", "work", "hand-over"] and len(candidates) == 3


@pytest.mark.parametrize("stage, holds",
                         [("graph", "softmax(%0)"), ("fused", "fused("), ("planned", "output[0]"), ("loops", "main():"),
                                          ("llvm", "define i32 @gc_main"), ("asm", "gc_main:")])
def test_dump_prints_every_stage(text, stage, holds, capsys):
    assert main(["dump", text, "--bind", "B=5", "--stage", stage]) == 0
    assert holds in capsys.readouterr().out


def test_dump_for_another_cpu(tmp_path, capsys):
    text = tmp_path / "wide.txt"
    text.write_text(TEXT.replace("3]", "64]"))
    assert main(["dump", str(text), "--bind", "B=64", "--stage", "asm", "--target", "avx512"]) == 0
    assert "zmm" in capsys.readouterr().out


def test_opt_applies_passes(text, capsys):
    assert main(["opt", text, "--passes", "decompose"]) == 0
    out = capsys.readouterr().out
    assert "softmax" not in out and "exp(" in out


def test_a_graph_function_of_a_module(tmp_path, capsys):
    path = tmp_path / "module.py"
    path.write_text(MODULE)
    assert main(["run", f"{path}:double"]) == 0
    assert "output0 float32[4]" in capsys.readouterr().out


@pytest.mark.parametrize("arguments, message", [
    (["run", "SCALED"], "give the sizes of B: --bind B=64"),
    (["run", "SCALED", "--bind", "C=3"], "has no named dimension 'C'; its names: B"),
    (["run", "SCALED", "--bind", "B=x"], "--bind takes a whole number, got 'x'"),
    (["run", "SCALED", "y=y.npy", "--bind", "B=2"], "has no input 'y'; its inputs: x, w"),
    (["run", "SCALED", "x", "--bind", "B=2"], "'x' is not of the form NAME=FILE.npy"),
    (["opt", "SCALED", "--passes", "fly"], "there is no pass 'fly'; known: "),
    (["run", "nowhere.txt"], "No such file"),
    (["run", "nowhere.py:f"], "nowhere.py is not a Python file"),
])
def test_mistakes_are_named(arguments, message, text, capsys):
    assert main([text if a == "SCALED" else a for a in arguments]) == 1
    assert message in capsys.readouterr().err


def test_doctor_is_content(capsys):
    assert main(["doctor"]) == 0
    assert "untested: neon" in capsys.readouterr().out


STEP = """import graphc as gc
from graphc import nn, optim

step = gc.train_step(nn.Linear(2), loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[4, 3], y=gc.f32[4, 2], seed=0)
"""


def test_export_writes_a_library(text, tmp_path, capsys):
    (tmp_path / "model.py").write_text(STEP)
    out = tmp_path / "lib"
    assert main(["export", f"{tmp_path / 'model.py'}:step", str(out), "--name", "small", "--target", "x86_64-linux:avx2",
                 "--weights", "file", "--no-threads"]) == 0
    assert "libsmall.a" in capsys.readouterr().out and "int small_step(" in (out / "small.h").read_text()
    assert main(["export", text, str(out)]) == 0 and "int net_run(" in (out / "net.h").read_text()
    for arguments, said in ([["export", f"{tmp_path / 'model.py'}:none", str(out)], "has no 'none'"],
                            [["export", text, str(out), "--target", "vax"], "'vax' is no system"],
                            [["export", text, str(out), "--name", "for"], "becomes a name in C"]):
        assert main(arguments) == 1
        assert said in capsys.readouterr().err


def test_plans_and_draws_what_has_layers(tmp_path, capsys):
    (tmp_path / "model.py").write_text(STEP + "net = nn.Linear(5) >> nn.relu\n")
    model = tmp_path / "model.py"
    assert main(["plan", f"{model}:net", "--type", "x=f32[B, 3]"]) == 0
    said = capsys.readouterr().out
    assert "Linear" in said and "20 parameters" in said and "· B" in said
    assert main(["plan", f"{model}:net", "--type", "x=f32[B, 3]", "--bind", "B=7"]) == 0
    assert "f32[7, 5]" in capsys.readouterr().out
    assert main(["plan", f"{model}:step"]) == 0 and "8 parameters" in capsys.readouterr().out
    assert main(["plan", f"{model}:step", "--memory", "100 B"]) == 1
    assert "the least that is found" in capsys.readouterr().err
    for source in ("step", "net"):
        out = tmp_path / f"{source}.dot"
        types = ["--type", "x=f32[4, 3]"] if source == "net" else []
        assert main(["draw", f"{model}:{source}", "-o", str(out), "--depth", "1", *types]) == 0
        assert out.read_text().startswith("digraph") and str(out) in capsys.readouterr().out
    assert main(["draw", f"{model}:step", "-o", str(tmp_path / "x.gif")]) == 1
    assert ".svg, .png, .pdf, .dot" in capsys.readouterr().err
