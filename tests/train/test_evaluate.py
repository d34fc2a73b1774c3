"""Evaluation over several batches gives what it would give of all at once."""
import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(30, 4)).astype(np.float32)
SCORES = X @ [1, -1, 2, 0] + RANDOM.normal(size=30)
Y, B = (SCORES > 0).astype(np.int32), (SCORES > 0).astype(np.float32)[:, None]
CUTS = [(0, 30)], [(0, 13), (13, 14), (14, 30)], [(0, 1), (1, 29), (29, 30)]


def trained(net, loss, y, **options):
    step = gc.train_step(net, loss=loss, optimizer=optim.Adam(0.05), x=gc.f32[30, 4], y=y, state="own", **options)
    for _ in range(5):
        step(X, {(30,): Y, (30, 1): B}[y.shape])
    return step


def recall(y, target):
    hit = gc.sum(gc.logical_and(y[:, 0] > 0, target[:, 0] > 0.5).astype(gc.f32))
    return hit / gc.maximum(gc.sum(target), 1.0)


def area(y, target):
    """Under the ROC curve: the share of pairs of a positive and a negative example that are in the right order."""
    pairs = gc.expand_dims(target[:, 0], 1) * (1 - gc.expand_dims(target[:, 0], 0))
    right = gc.expand_dims(y[:, 0], 1) > gc.expand_dims(y[:, 0], 0)
    return gc.sum(pairs * right.astype(gc.f32)) / gc.sum(pairs)


def explained(y, target):
    return 1 - gc.sum(gc.square(y - target)) / gc.sum(gc.square(target - gc.mean(target)))


@pytest.mark.parametrize("cuts", CUTS)
def test_batches_make_no_difference(cuts):
    step = trained(nn.Linear(8) >> nn.tanh >> nn.Linear(1), nn.bce, gc.f32[30, 1])
    found = step.evaluate([(X[a:b], B[a:b]) for a, b in cuts], accuracy=nn.accuracy, recall=recall, area=area,
                          r2=explained, mse=nn.mse)
    y = gc.compile(step.model, x=gc.f32[30, 4])(X)[:, 0].astype(np.float64)
    yes, t = y > 0, B[:, 0]
    np.testing.assert_allclose(found["loss"], np.mean(np.log1p(np.exp(-y)) * t + np.log1p(np.exp(y)) * (1 - t)),
                               rtol=1e-5)
    assert found["accuracy"] == pytest.approx(np.mean(yes == (t > 0)), rel=1e-6) and 0.5 < found["accuracy"]
    assert found["recall"] == pytest.approx(np.sum(yes & (t > 0)) / t.sum(), rel=1e-6)
    assert found["area"] == pytest.approx(np.mean([a > b for a in y[t > 0] for b in y[t == 0]]), rel=1e-6)
    assert found["mse"] == pytest.approx(np.mean((y - t) ** 2), rel=1e-5)
    assert found["r2"] == pytest.approx(1 - np.sum((y - t) ** 2) / np.sum((t - t.mean()) ** 2), rel=1e-4)


def test_means_over_steps_of_sequences_are_weighted_by_steps():
    ids, count = RANDOM.integers(0, 5, (4, 9)).astype(np.int32), 5
    net = nn.Embedding(count, 3) >> nn.Linear(count)
    step = gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.SGD(0.1), x=gc.i32["B", "T"], y=gc.i32["B", "T"])
    batches = [(ids[:, :2], ids[:, 1:3]), (ids[:, :7], ids[:, 1:8])]
    found = step.evaluate(batches, accuracy=nn.accuracy)
    joined = [np.concatenate([b[i] for b in batches], axis=1) for i in (0, 1)]
    whole = step.evaluate([tuple(joined)], accuracy=nn.accuracy)
    assert found == pytest.approx(whole, rel=1e-6)


def test_arrays_that_a_function_reports_are_joined():
    net = nn.Linear(2)

    def objective(x, y):
        scores = net(x)
        return nn.cross_entropy(scores, y), {"accuracy": nn.accuracy(scores, y), "scores": scores}
    step = gc.train_step(objective, optimizer=optim.SGD(0.1), x=gc.f32[30, 4], y=gc.i32[30])
    found = step.evaluate([{"x": X[:7], "y": Y[:7]}, (X[7:], Y[7:])])
    assert found["scores"].shape == (30, 2)
    assert found["accuracy"] == pytest.approx(np.mean(found["scores"].argmax(1) == Y), rel=1e-6)
    with pytest.raises(gc.GraphError, match="metrics of a general training step are what its function returns"):
        step.evaluate([(X, Y)], recall=recall)


def test_mistakes():
    step = trained(nn.Linear(1), nn.bce, gc.f32[30, 1])
    with pytest.raises(gc.GraphError,
                       match=r"evaluate takes batches, each a tuple of arrays \(x, y\) or a dict; got 3 arrays as a batch"):
        step.evaluate([(X, B, B)])
    assert step.evaluate((X, B)) == step.evaluate(X, B) == step.evaluate([(X, B)]) == step.evaluate({"y": B, "x": X})
    with pytest.raises(gc.GraphError,
                       match="metric rounded cannot work on symbolic arrays .*those of numpy arrays, as "
                             "scikit-learn's"):
        step.evaluate([(X, B)], rounded=lambda y, t: y.no_such_thing.round() if False else {}[t])
    with pytest.raises(gc.GraphError,
                       match="loss= takes a function of prediction and target such as nn.mse, got 'mse'"):
        gc.train_step(nn.Linear(1), loss="mse", optimizer=optim.SGD(0.1), x=gc.f32[3, 4], y=gc.f32[3, 1])


# accuracy

def accuracy(logits, target, **options):
    arrays = {"logits": np.float32(logits), "target": np.asarray(target)}
    names = {"float32": gc.f32, "int32": gc.i32, "bool": gc.bool_, "int64": gc.i64}
    run = gc.compile(lambda logits, target: nn.accuracy(logits, target, **options),
                     **{n: names[str(a.dtype)][a.shape] for n, a in arrays.items()})
    return float(run(*arrays.values()))


@pytest.mark.parametrize("logits, target, wanted", [
    ([[1.0], [-2.0], [3.0], [-0.5]], np.int32([1, 0, 0, 0]), 0.75),
    ([[1.0], [-2.0], [3.0], [-0.5]], np.float32([[1], [0], [0], [0]]), 0.75),
    ([1.0, -2.0, 3.0, -0.5], np.float32([1, 0, 0, 1]), 0.5),
    ([1.0, -2.0], np.array([True, False]), 1.0),
    ([[[1.0], [-1.0]], [[-1.0], [-1.0]]], np.int64([[1, 1], [0, 0]]), 0.75),
    ([[1.0, 2.0], [3.0, 2.0]], np.int32([1, 1]), 0.5),
])
def test_accuracy(logits, target, wanted):
    assert accuracy(logits, target) == wanted


def test_accuracy_of_one_logit_leaves_steps_out():
    logits = [[[1.0], [-1.0]], [[1.0], [-1.0]], [[-1.0], [1.0]]]            # [T, B, 1]
    assert accuracy(logits, np.int32([[1, 0], [0, 1], [0, 1]]),
                    mask=np.array([[True, True], [False, True], [True, True]])) == pytest.approx(0.8)


@pytest.mark.parametrize("shapes, text", [
    ((gc.f32[4, 3], gc.f32[4, 3]), r"accuracy takes logits .* got f32\[4, 3\] and f32\[4, 3\]. Of one-hot targets"),
    ((gc.f32[4, 3], gc.i32[4, 1]), "accuracy takes logits"),
    ((gc.f32[4], gc.i32[4, 1]), "accuracy takes logits"),
])
def test_accuracy_of_shapes_that_do_not_fit(shapes, text):
    with pytest.raises(gc.GraphError, match=text):
        gc.compile(lambda y, t: nn.accuracy(y, t), y=shapes[0], t=shapes[1])


@pytest.mark.parametrize("loss", [nn.bce, nn.accuracy])
def test_probabilities_are_not_taken_for_logits(loss):
    with pytest.raises(gc.GraphError, match="takes logits, and gets the result of a sigmoid"):
        gc.compile(lambda y, t: loss(nn.sigmoid(y), t), y=gc.f32[4, 1], t=gc.f32[4, 1])
