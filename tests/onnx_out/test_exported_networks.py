"""Networks of the package and of the examples, their gradients and training steps, in ONNX Runtime."""
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from peer import assert_same, run, session

import graphc as gc
from graphc import demo, models, nn, optim
from graphc.api import state_for, traced
from graphc.ir.builder import bind_graph
from graphc.ir.interp import evaluate
from graphc.nn.network import entries
from graphc.train import TrainStep

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
import char_lstm  # noqa: E402
import char_transformer  # noqa: E402
import computation_graph  # noqa: E402
import language_models  # noqa: E402
import logistic_regression  # noqa: E402
import meta_learning  # noqa: E402
import onnx_finetune  # noqa: E402
import pretrain_finetune  # noqa: E402
import question_answering  # noqa: E402
import sentence_embedding  # noqa: E402
import seq2seq  # noqa: E402
import tagger  # noqa: E402
import text_classifier  # noqa: E402
import word_vectors  # noqa: E402
from language_model import Settings  # noqa: E402

TOKENS = {"x": gc.i32["B", 6]}
SETTINGS = Settings(steps=1, hidden=16, batch=2, length=6, lr=1e-2, decay=0.0, dropout=0.0)


def inputs_of(graph, sizes, top: int = 5) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = []
    for v in bind_graph(graph, sizes).inputs:
        t = v.type
        arrays.append(np.asarray(rng.uniform(0.1, 1, t.shape) if t.dtype.is_float
                                 else rng.integers(0, 2 if t.dtype.kind == "bool" or v.name == "segments" else top, t.shape), t.dtype.np))
    return arrays


def check(f, tolerance: float = 2e-5, only: int | None = None, sizes: tuple[int, ...] = (3,), **types) -> None:
    """What the file computes is what numpy makes of the graph, for every size; `only`: of the first results."""
    if isinstance(f, TrainStep):
        model, graph, state = gc.to_onnx(f), f.graph, f.state.arrays(entries(f.traced))
    else:
        function = traced(f, False, types).function
        owner = state_for("net", entries(function), 0, None)
        model = gc.to_onnx(f, seed=0 if owner else None, **types)
        graph, state = function.graph, owner.arrays(entries(function)) if owner else []
    for size in sizes:
        named = {name: size for name in graph.dim_names}
        arrays = inputs_of(graph, named)
        with np.errstate(all="ignore"):
            expect = evaluate(bind_graph(graph, named), [*arrays, *map(np.asarray, state)])
        actual = list(run(model, dict(zip((v.name for v in graph.inputs), arrays))).values())
        assert_same(actual[:only], expect[:only], tolerance)


NETS = {
    "convolutions": (lambda: nn.Conv2d(4, 3, padding=1) >> nn.BatchNorm2d() >> nn.relu >> nn.MaxPool2d(2)
                     >> nn.ConvTranspose2d(3, 3, stride=2) >> nn.GroupNorm(3) >> nn.AvgPool2d(2) >> nn.Flatten()
                     >> nn.Linear(5), {"x": gc.f32["B", 3, 8, 8]}),
    "lstm": (lambda: nn.LSTM(6, layers=2, bidirectional=True), {"x": gc.f32["T", "B", 4]}),
    "gru": (lambda: nn.GRU(6, batch_first=True), {"x": gc.f32["B", "T", 4]}),
    "rnn": (lambda: nn.RNN(6, activation="relu", bias=False), {"x": gc.f32["T", "B", 4]}),
    "lenet": (lambda: models.lenet(), {"x": gc.f32["B", 1, 12, 12]}),
    "mobilenet": (lambda: models.mobilenet(10, 8), {"x": gc.f32["B", 3, 32, 32]}),
    "resnet18": (lambda: models.resnet18(10), {"x": gc.f32[1, 3, 32, 32]}),
    "gpt": (lambda: models.gpt(50, 16, 2, 2, 12), {"ids": gc.i32["B", "T"]}),
    "gpt2": (lambda: models.gpt(50, 16, 2, 2, 12, pre_norm=True), {"ids": gc.i32["B", 9]}),
    "bert": (lambda: models.bert(50, 16, 2, 2, 12, pooled=True), {"ids": gc.i32["B", 9]}),
    "char_lstm": (lambda: char_lstm.network(20, SETTINGS), TOKENS),
    "char_transformer": (lambda: char_transformer.network(20, SETTINGS), TOKENS),
    "language_models.recurrent": (lambda: language_models.recurrent(nn.GRU, 20, SETTINGS), TOKENS),
    "language_models.transformer": (lambda: language_models.transformer(20, SETTINGS), TOKENS),
    "pretrain_finetune": (lambda: pretrain_finetune.language_model(20), TOKENS),
    "seq2seq.language_model": (lambda: seq2seq.language_model(16, 2), TOKENS),
    "text_classifier": (lambda: text_classifier.bag_of_words(30), TOKENS),
    "text_classifier.lstm": (lambda: text_classifier.classifier(30, nn.LSTM(8, batch_first=True), "last"), TOKENS),
    "seq2seq.lstm": (seq2seq.lstm, {"source": gc.i32["B", 5], "target": gc.i32["B", 4]}),
    "seq2seq.transformer": (lambda: seq2seq.transformer(16, 2), {"source": gc.i32["B", 5], "target": gc.i32["B", 4]}),
    "question_answering": (lambda: question_answering.SpanSelection(16, 2),
                           {"ids": gc.i32["B", 64], "segments": gc.i32["B", 64], "lengths": gc.i32["B"]}),
    "demo": (demo.network, {"x": gc.f32["B", 1, 8, 8]}),
    "onnx_finetune": (onnx_finetune.Recogniser, {"x": gc.f32["B", 1, 8, 8]}),
}
NETS |= {f"tagger.{name}": (lambda net=net: net, TOKENS) for name, net in tagger.networks(20, 8).items()}


@pytest.mark.parametrize("name", NETS)
def test_network(name):
    make, types = NETS[name]
    check(make(), sizes=(3, 2), **types)


LARGE = {"resnet50": lambda: models.resnet50(10), "alexnet": lambda: models.alexnet(10)}


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_large_network(name):
    check(LARGE[name](), sizes=(1,), x=gc.f32["B", 3, 64, 64])


GRAPHS = {
    "computation_graph": (computation_graph.f, {}), "its gradient": (gc.value_and_grad(computation_graph.f, ["x", "y"]), {}),
    "logistic_regression": (logistic_regression.training_gradient, {}),
    "sentence_embedding.pooled": (sentence_embedding.pooled, {}),
    "meta_learning.gradient": (meta_learning.gradient, {}),
    "meta_learning.loss": (gc.grad(meta_learning.loss, "w"), {}),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_graph(name):
    f, types = GRAPHS[name]
    check(f, **types)


def mean_square(net):
    return lambda x: gc.mean(net(x) ** 2)


STEPS = {
    "convolutions": lambda: gc.train_step(NETS["convolutions"][0](), loss=nn.cross_entropy, optimizer=optim.SGD(0.1),
                                          x=gc.f32["B", 3, 8, 8], y=gc.i32["B"]),
    "lstm": lambda: gc.train_step(mean_square(nn.LSTM(6, layers=2)), optimizer=optim.AdamW(1e-2), x=gc.f32[5, "B", 4]),
    "gru": lambda: gc.train_step(mean_square(nn.GRU(6, bidirectional=True)), optimizer=optim.RMSprop(1e-2), x=gc.f32[4, 3, 2]),
    "transformer": lambda: gc.train_step(char_transformer.network(20, SETTINGS), loss=lambda y, t: nn.cross_entropy(y, t),
                                         optimizer=optim.Adam(1e-3), x=gc.i32["B", 6], y=gc.i32["B", 6]),
    "dropout": lambda: gc.train_step(nn.Linear(8) >> nn.Dropout(0.5) >> nn.Linear(1), loss=nn.mse,
                                     optimizer=optim.Adam(1e-3), x=gc.f32["B", 4], y=gc.f32["B", 1]),
    "glove": lambda: gc.train_step(word_vectors.GloVe(6, 4), optimizer=optim.Adam(0.05), x=gc.f32[6, 6]),
}


@pytest.mark.parametrize("name", STEPS)
def test_step(name):
    """The loss and the new state. (An optimizer that divides by the root of a gradient of nearly 0 shows its rounding,
    so what it makes of it is looked at in `test_training`.)"""
    check(STEPS[name](), only=1)


def in_runtime(step, batches) -> tuple[list[float], dict[str, np.ndarray]]:
    """The losses of a step's file on some batches, and the state that is left."""
    opened, losses = session(gc.to_onnx(step)), []
    state: dict[str, np.ndarray] = {}
    for x, y in batches:
        named = dict(zip((o.name for o in opened.get_outputs()), opened.run(None, {"x": x, "y": y, **state})))
        state = {name.removesuffix(".new"): a for name, a in named.items() if name.endswith(".new")}
        losses.append(float(named["result"]))
    return losses, state


def test_training_with_named_sizes():
    """The losses, and in the end the parameters and the optimizer's arrays."""
    net = nn.Linear(32) >> nn.LayerNorm() >> nn.gelu >> nn.Linear(10)
    step = gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.AdamW(1e-2), x=gc.f32["B", 16], y=gc.i64["B"])
    rng = np.random.default_rng(0)
    batches = [(rng.uniform(0, 1, (rows, 16)).astype(np.float32), rng.integers(0, 10, rows)) for rows in (9, 7) * 5]
    losses, state = in_runtime(step, batches)
    np.testing.assert_allclose(losses, [step(x, y) for x, y in batches], rtol=0, atol=1e-5)
    assert state.keys() == step.state.keys() - {"optim.lr"}
    for name, value in state.items():
        np.testing.assert_allclose(value, step.state[name], rtol=0, atol=2e-5 * max(np.abs(value).max(), 1))


def test_digits_train_in_the_runtime():
    """20 steps of AdamW on the digits network of the demonstration, dropout included, on its own data."""
    data = demo.digits()
    step = gc.train_step(demo.network(), loss=nn.cross_entropy, optimizer=optim.AdamW(1e-3),
                         x=gc.f32[(32, *data.x.shape[1:])], y=gc.i32[32])
    batches = [(data.x[32 * i:32 * i + 32], data.y[32 * i:32 * i + 32].astype(np.int32)) for i in range(20)]
    losses, _ = in_runtime(step, batches)
    np.testing.assert_allclose(losses, [step(x, y) for x, y in batches], rtol=0, atol=1e-5)
