"""fit: data of all forms, the order of examples, weights, callbacks, and going on in the middle of an epoch."""
import csv
import subprocess
import sys

import numpy as np
import pytest

import graphc as gc
from graphc import callbacks, nn, optim

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(70, 5))
Y = (X @ [1, -1, 2, 0, 0] > 0).astype(np.int64)


def step_of(batch="B", loss=nn.cross_entropy, y=gc.i32, optimizer=None, **options):
    net = nn.Linear(8) >> nn.tanh >> nn.Dropout(0.1) >> nn.Linear(2)
    return gc.train_step(net, loss=loss, optimizer=optimizer or optim.Adam(0.03), x=gc.f32[batch, 5], y=y[batch],
                         **options)


def same(a, b):
    return a.state.keys() == b.state.keys() and all(np.array_equal(a.state[n], b.state[n]) for n in a.state)


def test_arrays_as_they_come():
    step = step_of()
    history = step.fit(X, Y, epochs=12, batch=16, validation=(X[:20], Y[:20]), metrics=["accuracy", "auc"])
    assert list(history) == ["loss", "lr", "val_loss", "val_accuracy", "val_auc", "seconds"]
    assert len(history["loss"]) == 12 and len(history.losses) == 12 * 5
    assert history["loss"][-1] < 0.6 * history["loss"][0] and history["val_accuracy"][-1] > 0.8
    assert step.state["step"] == 60
    assert "val_auc" in repr(history) and len(repr(history).splitlines()) == 13


def test_forms_of_data_agree():
    steps = [step_of() for _ in range(6)]
    x, y = X.astype(np.float32), Y.astype(np.int32)
    cut = [(x[i:i + 16], y[i:i + 16]) for i in range(0, 70, 16)]
    options = dict(epochs=2, batch=16, shuffle=False)
    steps[0].fit(X, Y, **options)
    steps[1].fit((X, Y), **options)
    steps[2].fit({"y": Y, "x": X}, **options)
    steps[3].fit(cut, epochs=2)
    steps[4].fit(lambda: iter(cut), epochs=2)
    steps[5].fit([{"x": X[i:i + 16], "y": Y[i:i + 16]} for i in range(0, 70, 16)], epochs=2)
    assert all(same(steps[0], other) for other in steps[1:])


def test_a_fixed_batch_trains_on_the_smaller_last_one():
    fixed, named = step_of(16), step_of()
    assert np.isfinite(fixed.fit(X, Y, epochs=2)["loss"]).all()
    named.fit(X, Y, epochs=2, batch=16)
    assert fixed.state["step"] == named.state["step"] == 10
    np.testing.assert_allclose(fixed.state["0.weight"], named.state["0.weight"], rtol=1e-5, atol=1e-7)
    dropped = step_of(16)
    dropped.fit(X, Y, epochs=2, drop_last=True)
    assert dropped.state["step"] == 8


def test_the_seed_decides_the_order():
    a, b, other, ordered = (step_of() for _ in range(4))
    a.fit(X, Y, batch=16), b.fit(X, Y, batch=16), other.fit(X, Y, batch=16, seed=5)
    ordered.fit(X, Y, batch=16, shuffle=False)
    assert same(a, b) and not same(a, other) and not same(a, ordered)


@pytest.mark.parametrize("every", [3, 5, 8])
def test_going_on_in_the_middle_gives_the_same_bits(every, tmp_path):
    path = tmp_path / "run.safetensors"
    options = dict(epochs=4, batch=16, validation=0.2)
    made = lambda: [callbacks.EarlyStopping(patience=2), callbacks.ReduceOnPlateau(patience=1, factor=0.5)]
    whole = step_of(optimizer=optim.Adam(0.3))
    history = whole.fit(X, Y, callbacks=made(), **options)

    class Power(Exception):
        pass

    class Cut(callbacks.Callback):
        def on_batch_end(self, run, loss):
            if len(run.history.losses) == every + 1:
                raise Power
    cut = step_of(optimizer=optim.Adam(0.3))
    with pytest.raises(Power):
        cut.fit(X, Y, callbacks=[*made(), callbacks.Checkpoint(path, every=every), Cut()], **options)
    resumed = step_of(optimizer=optim.Adam(0.3))
    again = resumed.fit(X, Y, callbacks=[*made(), callbacks.Checkpoint(path, every=every)], resume=path, **options)
    assert same(whole, resumed) and again.losses == history.losses
    assert [again[n] for n in again if n != "seconds"] == [history[n] for n in history if n != "seconds"]


def test_a_checkpoint_of_an_epoch_begins_with_the_next(tmp_path):
    path = tmp_path / "run-{epoch}.safetensors"
    first = step_of()
    first.fit(X, Y, epochs=2, batch=16, callbacks=callbacks.Checkpoint(path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run-1.safetensors", "run-2.safetensors"]
    first.fit(X, Y, epochs=1, batch=16, seed=9)
    second = step_of()
    second.load(tmp_path / "run-2.safetensors")
    assert second.fit(X, Y, epochs=2, batch=16, resume=True)["loss"] and second.state["step"] == 10
    second.fit(X, Y, epochs=3, batch=16, resume=True)
    assert second.state["step"] == 15
    whole = step_of()
    whole.fit(X, Y, epochs=3, batch=16)
    assert same(whole, second)


def test_weights_are_copies():
    """An example of weight 2 counts as two, one of weight 0 as none."""
    x, y, w = X[:6].astype(np.float32), Y[:6].astype(np.int32), np.array([1, 2, 0, 1, 1, 3])
    net = nn.Linear(2)
    make = lambda: gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.SGD(0.5), x=gc.f32["B", 5], y=gc.i32["B"],
                                 state="own")
    weighted, copied = make(), make()
    history = weighted.fit(x, y, batch=6, sample_weight=w, epochs=3, shuffle=False)
    rows = np.repeat(np.arange(6), w)
    copies = copied.fit(x[rows], y[rows], batch=8, epochs=3, shuffle=False)
    np.testing.assert_allclose(weighted.state["weight"], copied.state["weight"], rtol=1e-5)
    np.testing.assert_allclose(history["loss"], copies["loss"], rtol=1e-5)


@pytest.mark.parametrize("static", [True, False])
def test_class_weights(static):
    steps = [step_of(16 if static else "B", state="own") for _ in range(4)]
    options = dict(batch=16, epochs=2)
    counts = np.bincount(Y)
    balanced = {c: 70 / (2 * n) for c, n in enumerate(counts)}
    steps[0].fit(X, Y, class_weight="balanced", **options)
    steps[1].fit(X, Y, class_weight=balanced, **options)
    steps[2].fit(X, Y, sample_weight=[balanced[c] for c in Y], **options)
    steps[3].fit(X, Y, **options)
    assert same(steps[0], steps[1]) and same(steps[0], steps[2]) and not same(steps[0], steps[3])


def test_class_weights_of_batches():
    cut = [(X[i:i + 16], Y[i:i + 16]) for i in range(0, 70, 16)]
    a, b = step_of(), step_of()
    a.fit(cut, class_weight={1: 3.0}), b.fit(X, Y, batch=16, shuffle=False, class_weight={1: 3.0})
    assert same(a, b)


def test_early_stopping_brings_the_best_weights_back():
    step, kept = step_of(optimizer=optim.Adam(0.3)), {}
    stop = callbacks.EarlyStopping("val_accuracy", patience=3)

    def keep(run, row):
        kept[len(kept)] = run.step.state["0.weight"]
    history = step.fit(X, Y, epochs=100, batch=16, validation=(X[:9], 1 - Y[:9]), metrics="accuracy",
                       callbacks=[keep, stop])
    best = int(np.argmax(history["val_accuracy"]))
    assert len(history["loss"]) == best + 4
    assert np.array_equal(step.state["0.weight"], kept[best])


def test_rates_fall_on_a_plateau_and_by_epoch():
    step = step_of(optimizer=optim.SGD(0.1, groups=[optim.group(lambda n, s: "bias" in n, lr=0.2)]))
    flat = callbacks.ReduceOnPlateau("flat", factor=0.5, patience=1, min_lr=0.02, mode="min")

    class Flat(callbacks.Callback):
        def on_epoch_end(self, run, row):
            row["flat"] = 1.0
    history = step.fit(X, Y, epochs=6, callbacks=[Flat(), flat])
    assert history["lr"] == [0.1, 0.1, 0.05, 0.025, 0.02, 0.02]
    assert step.hyper["groups.0.lr"] == pytest.approx(0.2 / 32) or step.hyper["groups.0.lr"] == 0.02
    step.fit(X, Y, epochs=2, callbacks=callbacks.LearningRate(lambda epoch: 0.5 / (epoch + 1)))
    assert step.lr == 0.25


def test_logs(tmp_path, monkeypatch):
    step = step_of()
    step.fit(X, Y, epochs=3, validation=0.2, callbacks=callbacks.CSVLog(tmp_path / "log.csv"))
    rows = list(csv.DictReader(open(tmp_path / "log.csv")))
    assert [r["epoch"] for r in rows] == ["1", "2", "3"] and float(rows[2]["val_loss"]) > 0

    class Writer:
        written = []

        def __init__(self, folder):
            self.folder = folder

        def add_scalar(self, *what):
            Writer.written.append(what)

        def flush(self): ...

        def close(self): ...
    monkeypatch.setattr("graphc.callbacks.tensorboard.SummaryWriter", Writer)
    step.fit(X, Y, epochs=2, batch=35, callbacks=callbacks.TensorBoard(tmp_path, every=2))
    assert [w[2] for w in Writer.written if w[0] == "step/loss"] == [2, 4]
    assert [w[2] for w in Writer.written if w[0] == "epoch/loss"] == [1, 2]
    monkeypatch.setattr("graphc.callbacks.tensorboard.SummaryWriter", None)
    with pytest.raises(gc.GraphError, match=r"TensorBoard needs a writer, such as tensorboardX: pip install .graphc\[log\]"):
        callbacks.TensorBoard(tmp_path)


def test_the_general_form_reports_its_values():
    net = nn.Linear(2)

    def objective(x, y):
        logits = net(x)
        return nn.cross_entropy(logits, y), {"hits": nn.accuracy(logits, y), "logits": logits}
    step = gc.train_step(objective, optimizer=optim.SGD(0.1), x=gc.f32["B", 5], y=gc.i32["B"])
    history = step.fit(X, Y, epochs=3, batch=32, validation=(X, Y))
    assert {"loss", "hits", "val_loss", "val_hits"} <= set(history) and "logits" not in history


def test_predict():
    step = step_of()
    step.fit(X, Y, epochs=2)
    every = step.predict(X)
    assert every.shape == (70, 2) and every.dtype == np.float32
    assert np.array_equal(every, step.predict(X, batch=32))
    assert np.array_equal(every, gc.compile(step.model, x=gc.f32[70, 5])(X.astype(np.float32)))
    assert np.array_equal(every, step.predict([X[:50], X[50:]]))
    assert step_of(16).predict(X[:40]).shape == (40, 2)


def test_training_imports_no_plots_and_no_torch():
    code = ("import sys, graphc as gc; from graphc import nn, optim; gc.train_step(nn.Linear(1), loss=nn.mse, optimizer=optim.SGD(0.1),"
            "x=gc.f32[2, 2], y=gc.f32[2, 1]); assert not {'matplotlib', 'torch', 'tensorboardX', 'sklearn'} & sys.modules.keys()")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_history_plots():
    pytest.importorskip("matplotlib")
    figure = step_of().fit(X, Y, epochs=2, validation=0.1).plot()
    assert [a.get_title() for a in figure.axes] == ["loss", "lr"]


def test_progress_is_lines_where_there_is_no_terminal(capsys):
    step_of().fit(X, Y, epochs=2, validation=0.1, progress=True)
    said = capsys.readouterr().err
    assert "epoch 2/2: 2/2 steps, loss" in said and "val_loss" in said
    step_of().fit(X, Y)
    assert not capsys.readouterr().err


WRONG = {
    "wide label": (lambda s: s.fit(X, Y + 2 ** 40), "y has 1099511627776, which i32 cannot hold; y came as int64"),
    "large number": (lambda s: s.fit(X * 1e300, Y), "x has .*e.*, which f32 cannot hold"),
    "half a class": (lambda s: s.fit(X, Y + 0.5), "y has .*, which i32 cannot hold"),
    "words": (lambda s: s.fit(X, np.array(["a", "b"])[Y]), "y has the dtype <U1.*np.unique"),
    "column": (lambda s: s.fit(X, Y[:, None]), r"y is i32\[B\], got int64\[70, 1\]: give y\[:, 0\]"),
    "features": (lambda s: s.fit(X[:, :4], Y), r"x is f32\[B, 5\], got float64\[70, 4\]"),
    "lengths": (lambda s: s.fit(X, Y[:50]), "one row for each example, got 70 of x, 50 of y"),
    "one array": (lambda s: s.fit(X), "fit takes batches, each a tuple of arrays|fit takes x, y"),
    "no data": (lambda s: s.fit(), "fit takes arrays"),
    "used up": (lambda s: s.fit(((X, Y) for _ in range(2)), epochs=2), "a generator is used up after one epoch"),
    "metrics": (lambda s: s.fit(X, Y, metrics="auc"), "metrics= are those of the validation data"),
    "unknown metric": (lambda s: s.fit(X, Y, metrics="aoc", validation=0.1), "there is no metric 'aoc'"),
    "watched": (lambda s: s.fit(X, Y, callbacks=callbacks.EarlyStopping()), "'val_loss' is to be watched, .*give validation="),
    "mode": (lambda s: s.fit(X, Y, validation=0.1, metrics={"m": lambda y, t: gc.sum(y)},
                             callbacks=callbacks.EarlyStopping("val_m")), 'is val_m better when it is greater or smaller'),
    "callback": (lambda s: s.fit(X, Y, callbacks=[3]), "callbacks= takes callbacks"),
    "class of callback": (lambda s: s.fit(X, Y, callbacks=[callbacks.EarlyStopping]), "callbacks= takes callbacks"),
    "weights": (lambda s: s.fit(X, Y, sample_weight=-np.ones(70)), "sample_weight is a finite number >= 0"),
    "few weights": (lambda s: s.fit(X, Y, sample_weight=np.ones(7)), "for each of the 70 examples"),
    "class weight": (lambda s: s.fit(X, Y, class_weight="equal"), 'class_weight is {class id: weight} or "balanced"'),
    "share": (lambda s: s.fit(X, Y, validation=1.5), "as a share is a number between 0 and 1"),
    "resume": (lambda s: s.fit(X, Y, resume=True), "none of a run has been loaded"),
    "epochs": (lambda s: s.fit(X, Y, epochs=-1), "epochs is an int >= 0"),
    "drop": (lambda s: s.fit(X, Y, batch=100, drop_last=True), "drop_last leaves nothing"),
    "old": (lambda s: s.fit(X, Y, verbose=1), "TrainStep.fit"),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes(name):
    wrong, text = WRONG[name]
    with pytest.raises(gc.GraphError, match=text):
        wrong(step_of())


def test_weights_need_a_loss_of_each_example():
    step = step_of(loss=lambda y, t: nn.cross_entropy(y, t))
    with pytest.raises(gc.GraphError, match='weights of examples need a loss with reduction="none"'):
        step.fit(X, Y, class_weight="balanced")
    net = nn.Linear(2)
    step = gc.train_step(lambda x, y: nn.cross_entropy(net(x), y), optimizer=optim.SGD(0.1), x=gc.f32["B", 5],
                         y=gc.i32["B"])
    with pytest.raises(gc.GraphError, match="weights of examples need loss="):
        step.fit(X, Y, class_weight="balanced")


def test_time_first_is_no_batch():
    net = nn.LSTM(4) >> nn.Linear(2)
    step = gc.train_step(net, loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32["T", "B", 3], y=gc.f32["T", "B", 2])
    x, y = np.zeros((6, 5, 3)), np.zeros((6, 5, 2))
    for use in (lambda: step.fit(x, y), lambda: step.evaluate(x, y), lambda: step.predict(x)):
        with pytest.raises(gc.GraphError, match=r"LSTM takes x as \[time, batch, …\].*batch_first=True"):
            use()
    assert np.isfinite(step.fit([(x, y)])["loss"]).all() and step.predict([(x,)]).shape == (6, 5, 2)


def test_first_axes_are_the_batch():
    step = gc.train_step(lambda x, y: gc.sum(x) * 0 + gc.mean(nn.Linear(1)(y)), optimizer=optim.SGD(0.1), x=gc.f32["T", "B"], y=gc.f32["B", 2])
    for use in (step.fit, step.evaluate):
        with pytest.raises(gc.GraphError, match=r"cuts arrays along their first axis, .* x: f32\[T, B\], y: f32\[B, 2\]"):
            use(np.zeros((4, 4)), np.zeros((4, 2)))


def test_another_seed_does_not_go_on(tmp_path):
    path = tmp_path / "run"
    step_of().fit(X, Y, epochs=1, validation=0.2, callbacks=callbacks.Checkpoint(path))
    with pytest.raises(gc.GraphError, match="had seed=0, which decides what is held out and the order; this one has 3"):
        step_of().fit(X, Y, epochs=2, validation=0.2, seed=3, resume=path)


def test_time_first_behind_an_embedding():
    net = nn.Embedding(9, 3) >> nn.GRU(4) >> nn.Linear(9)
    step = gc.train_step(net, loss=lambda y, t: nn.cross_entropy(y, t, axis=-1), optimizer=optim.SGD(0.1), x=gc.i32["T", "B"], y=gc.i32["T", "B"])
    with pytest.raises(gc.GraphError, match=r"GRU takes x as \[time, batch, …\]"):
        step.fit(np.zeros((6, 5), int), np.zeros((6, 5), int))


def test_batch_first_is_one():
    net = nn.LSTM(4, batch_first=True) >> nn.Linear(2)
    step = gc.train_step(net, loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32["B", 6, 3], y=gc.f32["B", 6, 2])
    assert np.isfinite(step.fit(np.zeros((5, 6, 3)), np.zeros((5, 6, 2)))["loss"]).all()
