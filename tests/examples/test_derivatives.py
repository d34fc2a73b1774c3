"""The examples about graphs and derivatives, in short form."""
import xml.etree.ElementTree as ET

import alexnet
import computation_graph
import logistic_regression
import meta_learning
import numpy as np
import pytest
import saliency
import word_vectors

import graphc as gc
from graphc import nn


def test_computation_graph(tmp_path, capsys):
    pytest.importorskip("pygraphviz")
    assert computation_graph.main(["--out", str(tmp_path)]) == (6.0, 5.0, 6.0)
    said = capsys.readouterr().out
    assert "f(2, 1) = 6, df/dx = 5, df/dy = 6" in said and "graph value_and_grad_f(x: f64[], y: f64[]) {" in said
    texts = {path.stem: [t.text for t in ET.parse(path).iter("{http://www.w3.org/2000/svg}text")]
             for path in tmp_path.glob("*.svg")}
    assert set(texts) == {"forward", "backward", "kernels"}
    assert {"x", "y",
            "square = mul"} <= set(texts["forward"]) and "result 2" in texts["backward"] and "kernel (nest)" in texts["kernels"]


def test_computation_graph_without_graphviz(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("graphc.drawing.draw.pygraphviz", None)
    computation_graph.main(["--out", str(tmp_path)])
    assert "pip install 'graphc[draw]'" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["backward.dot", "forward.dot", "kernels.dot"]


def test_logistic_regression_falls_as_in_numpy(capsys):
    weights, x, t = np.zeros(3), logistic_regression.INPUTS, logistic_regression.TARGETS
    for _ in range(100):
        weights += 0.01 * x.T @ (t - 1 / (1 + np.exp(-x @ weights)))        # the gradient by hand
    p = 1 / (1 + np.exp(-x @ weights))
    first, last = logistic_regression.main([])
    assert first == pytest.approx(4 * np.log(2)) and last == pytest.approx(-np.log(np.where(t, p, 1 - p)).sum())
    assert "1 of 1 arguments agree with central differences" in capsys.readouterr().out


def test_a_step_of_alexnet_with_a_network_of_few_parameters(capsys, monkeypatch):
    monkeypatch.setattr(alexnet.models, "alexnet", lambda classes: (
        nn.Conv2d(4, 11, stride=8) >> nn.relu >> nn.GlobalAvgPool2d() >> nn.Linear(classes)))
    parameters, losses = alexnet.main(["--batch", "2", "--steps", "2", "--classes", "10"])
    assert parameters == 4 * (3 * 11 * 11 + 1) + 10 * 5 and len(losses) == 2
    said = capsys.readouterr().out
    assert "0.0 M parameters" in said and f"step 1: loss {losses[1]:.4f}" in said


@pytest.mark.slow
def test_alexnet_has_the_parameters_of_the_paper_and_takes_a_step(capsys):
    parameters, losses = alexnet.main(["--batch", "1", "--steps", "1"])
    assert parameters == 61_100_840
    assert losses[0] == pytest.approx(np.log(1000), rel=0.02)
    assert "61.1 M parameters" in capsys.readouterr().out


def test_co_occurrences_by_hand():
    x = word_vectors.co_occurrences(np.array([0, 1, -1, 0]), 2, window=3)
    assert x == pytest.approx(np.array([[2 / 3, 1 + 1 / 2], [1 + 1 / 2, 0]]))


def test_glove_is_the_loss_of_the_paper():
    rng, count, size = np.random.default_rng(0), 5, 3
    x = rng.integers(0, 20, (count, count)).astype(np.float32)
    state = {n: rng.standard_normal(s).astype(np.float32)
             for n, s in (("w", (count, size)), ("c", (count, size)), ("b", (count, 1)), ("d", (count,)))}
    wanted = sum(min(x[i, j] / 10, 1) ** 0.75
                 * (state["w"][i] @ state["c"][j] + state["b"][i, 0] + state["d"][j] - np.log(x[i, j])) ** 2
                 for i in range(count) for j in range(count) if x[i, j])
    assert gc.compile(word_vectors.GloVe(count, size), x=gc.f32[count, count],
                      state=state)(x) == pytest.approx(wanted, rel=1e-5)


def test_word_vectors(tmp_path, capsys):
    figures = word_vectors.main(["--size", "20", "--steps", "60", "--out", str(tmp_path / "words.png")])
    assert figures["last"] < 0.5 * figures["first"]
    assert figures["analogies"] > 0.1                   # by chance: 5 / 1352
    assert (tmp_path / "words.png").read_bytes()[:4] == b"\x89PNG"
    assert "the answer to" in capsys.readouterr().out


def test_the_learned_optimizer_is_better_than_sgd(capsys):
    curves, losses = meta_learning.main(["--meta-steps", "60", "--unrolled", "20", "--hyper-steps", "10"])
    assert all(len(curve) == 100 for curve in curves.values())
    assert curves["LSTM"][9] < 0.7 * curves["SGD"][9] and np.all(np.isfinite(curves["LSTM"]))
    assert losses[-1] < 0.8 * losses[0]
    assert "2 of 2 arguments agree with central differences" in capsys.readouterr().out


def test_descent_is_sgd_on_the_quadratics():
    rng = np.random.default_rng(0)
    w, y = rng.standard_normal((64, 10, 10), np.float32), rng.standard_normal((64, 10), np.float32)
    curve, theta = meta_learning.descent(meta_learning.optim.SGD(0.01), w, y), np.zeros((64, 10))
    for value in curve[:20]:
        error = np.einsum("bij,bj->bi", w, theta) - y
        assert value == pytest.approx((error ** 2).sum() / 64, rel=1e-4)
        theta -= 0.01 * 2 * np.einsum("bij,bi->bj", w, error)


def test_saliency(tmp_path, capsys):
    figures = saliency.main(["--epochs", "2", "--out", str(tmp_path / "saliency.png")])
    assert figures["against the gradient"] < figures["random signs"] - 0.05 <= figures["as they are"]
    assert (tmp_path / "saliency.png").read_bytes()[:4] == b"\x89PNG"
    assert "after the third [64, 4, 4]" in capsys.readouterr().out
