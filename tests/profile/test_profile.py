"""The profile of a compiled function: what it counts, what it costs, what it draws."""
from __future__ import annotations

import re
import xml.etree.ElementTree as xml

import numpy as np
import pytest

import graphc as gc
from graphc import cli, nn, optim, roofline_figure
from graphc.compiler import Compilation
from graphc.profile import Profile, ProfileRow
from graphc.roofline import roofline_svg

N, STEPS = 64, 7


@gc.graph
def product(a: gc.f32[N, N], b: gc.f32[N, N]):
    return gc.sort(gc.tanh(a @ b))


@gc.graph
def loop(x: gc.f32[STEPS, 4, 8], w: gc.f32[8, 8]):
    return gc.scan(lambda carry, step: ((gc.tanh(carry[0] @ w + step),), carry[0]), (x[0],), x)[1]


def test_a_row_for_each_kernel_with_its_line_calls_and_work(rng=np.random.default_rng(0)):
    a, b = rng.normal(size=(2, N, N)).astype("f")
    profile = gc.compile(product, threads=2).profile(a, b)
    rows = {row.kernel.split("_", 1)[1]: row for row in profile.rows}
    assert set(rows) == {"matmul_tanh", "sort"}
    assert rows["matmul_tanh"].flops >= 2 * N ** 3 and rows["matmul_tanh"].bytes == 3 * 4 * N * N
    assert all(row.calls == 1 and row.seconds > 0 and row.line.startswith("test_profile.py:") for row in profile.rows)
    assert sum(row.seconds for row in profile.rows) <= profile.seconds and profile.threads == 2
    text = str(profile)
    assert text.splitlines()[0].split() == ["kernel", "line", "calls", "ms", "%", "GFLOP/s", "GB/s", "roofline"]
    assert re.search(r"ms in kernels of [\d.]+ ms .* 2 threads; machine: \d+ GFLOP/s", text)


def test_calls_in_loops_are_counted(rng=np.random.default_rng(1)):
    run = gc.compile(loop, threads=1)
    profile = run.profile(rng.normal(size=(STEPS, 4, 8)).astype("f"), rng.normal(size=(8, 8)).astype("f"))
    assert max(row.calls for row in profile.rows) == STEPS


def test_zeros_around_an_image_are_work_of_the_kernel_that_computes_it(rng=np.random.default_rng(5)):
    net = nn.Conv2d(8, 1) >> nn.relu >> nn.Conv2d(8, 3, padding=1)
    rows = gc.compile(net, x=gc.f32[2, 8, 10, 10], seed=0,
                      threads=1).profile(rng.normal(size=(2, 8, 10, 10)).astype("f")).rows
    first, = [row for row in rows if row.kernel.startswith("k0_")]
    assert not any("pad" in row.kernel for row in rows)
    assert first.bytes == 4 * (2 * 2 * 8 * 10 * 10 + 8 * 8 + 8 + 2 * 8 * (12 * 12 - 10 * 10))


def test_a_training_step_is_profiled_on_a_copy_of_its_state(rng=np.random.default_rng(2)):
    step = gc.train_step(nn.Linear(8), loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32["B", 4], y=gc.f32["B", 8],
                         threads=1)
    batch = rng.normal(size=(6, 4)).astype("f"), rng.normal(size=(6, 8)).astype("f")
    before = step.state.copy()
    profile = step.profile(*batch)
    assert profile.rows and all((step.state[name] == value).all() for name, value in before.items())
    step(*batch)
    assert any((step.state[name] != value).any() for name, value in before.items())


def test_the_normal_build_has_no_clock():
    graph = product.graph
    assert "clock" not in Compilation(graph).text("loops") and "clock_gettime" not in Compilation(graph).text("llvm")
    timed = Compilation(graph, timed=True)
    assert (timed.text("loops").count("start clock") == len(timed.loops.sites) == 2
            and "clock_gettime" in timed.text("llvm"))


def test_share_of_the_roofline():
    row = ProfileRow("k", None, "", 1, 1e-3, 10 ** 8, 10 ** 6)
    profile = Profile((row,), 1e-3, 1e-3, 1, peak=200.0, bandwidth=50.0)
    assert (row.gflops == pytest.approx(100) and row.gbytes == pytest.approx(1)
            and profile.share(row) == pytest.approx(0.5))
    slow = ProfileRow("copy", None, "", 1, 1e-3, 0, 10 ** 7)
    assert profile.share(slow) == pytest.approx(0.2)


def test_the_plot_has_a_point_for_each_kernel_at_its_place():
    points = [("<a> & b", 10.0, 50.0, 0.5), ("c", 0.1, 2.0, 0.25), ("copy", 0.0, 0.0, 0.25)]
    root = xml.fromstring(roofline_svg(points, 100.0, 20.0))
    circles = [e for e in root.iter() if e.tag.endswith("circle")]
    assert len(circles) == 2
    titles = [e.text for c in circles for e in c]
    assert titles[0].startswith("<a> & b: 50.0 GFLOP/s, 50.0 %")
    assert (float(circles[0].get("cx")) > float(circles[1].get("cx"))
            and float(circles[0].get("cy")) < float(circles[1].get("cy")))


def test_command(tmp_path, capsys):
    path = tmp_path / "g.txt"
    path.write_text('graph g(x: f32[64, 32]) state(w: f32[32, 16]) {\n  %0 = matmul(x, w) : f32[64, 16]\n  return '
                    '%0\n}\n')
    assert cli.main(["profile", str(path), "--threads", "1", "--svg", str(tmp_path / "p.svg")]) == 0
    assert "matmul" in capsys.readouterr().out
    xml.fromstring((tmp_path / "p.svg").read_text())


def test_the_plot_has_the_format_that_its_name_says(tmp_path, monkeypatch):
    step = gc.train_step(nn.Linear(2), loss=nn.mse, optimizer=gc.optim.SGD(0.1), x=gc.f32[4, 3], y=gc.f32[4, 2],
                         threads=1)
    profile = step.profile(np.zeros((4, 3), np.float32), np.zeros((4, 2), np.float32), runs=1)
    with pytest.raises(gc.GraphError, match="ends in .svg, .png, .pdf; got '.*roofline.html'"):
        profile.save(tmp_path / "roofline.html")
    profile.save(tmp_path / "roofline.SVG")
    xml.fromstring((tmp_path / "roofline.SVG").read_text())
    for suffix, magic in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        profile.save(tmp_path / f"roofline.{suffix}")
        assert (tmp_path / f"roofline.{suffix}").read_bytes().startswith(magic)
    monkeypatch.setattr(roofline_figure, "Figure", None)
    with pytest.raises(gc.GraphError, match=r"as .png needs matplotlib: pip install matplotlib; without it, .*svg"):
        profile.save(tmp_path / "other.png")
    assert not (tmp_path / "other.png").exists()


def test_kernels_of_a_step_have_layer_and_phase():
    net = nn.Linear(16) >> nn.relu >> nn.Linear(4)
    step = gc.train_step(net, loss=nn.mse, optimizer=optim.AdamW(0.1), x=gc.f32[32, 8], y=gc.f32[32, 4], threads=1)
    profile = step.profile(np.zeros((32, 8), np.float32), np.zeros((32, 4), np.float32), runs=1)
    assert {row.phase for row in profile.rows} >= {"forward", "backward", "backward + update"}
    assert any(row.scope for row in profile.rows)
    assert str(profile).splitlines()[0].endswith("roofline  phase  layer")


def test_no_share_is_above_the_roofline_unexplained():
    row = ProfileRow("k", None, "", 1, 1e-3, 10 ** 9, 10 ** 6)
    text = str(Profile((row,), 1e-3, 1e-3, 1, peak=200.0, bandwidth=50.0))
    assert " 100%*" in text and text.endswith("* beyond the roofline of the memory: the data stayed in caches")
    assert "*" not in str(Profile((row,), 1e-3, 1e-3, 1, peak=2000.0, bandwidth=50.0))


@pytest.mark.parametrize("options", [{"compute": "bf16"}, {"compute": "int8"}, {"store": "bf16"}, {"store": "int4"}], ids=str)
def test_networks_of_fewer_bits(options):
    """Weights of which only packed forms are left have numbers of any kind."""
    run = gc.compile(nn.Linear(64) >> nn.relu >> nn.Linear(32), x=gc.f32[32, 64], seed=0, **options)
    assert run.profile(np.ones((32, 64), np.float32), runs=1).rows
