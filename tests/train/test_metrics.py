"""Metrics against scikit-learn's, whatever the batches."""
import numpy as np
import pytest
from sklearn import metrics as peer

import graphc as gc
from graphc import nn, optim
from graphc.metrics import AUC, F1, R2, Accuracy, ConfusionMatrix, Metric, Perplexity, Precision, Recall
from graphc.metrics import MeanAbsoluteError as MAE
from graphc.metrics import MeanSquaredError as MSE
from graphc.metrics import RootMeanSquaredError as RMSE
from graphc.metrics import TopKAccuracy as TopK

RANDOM = np.random.default_rng(3)
N = 47
LABELS = RANDOM.integers(0, 4, N).astype(np.int32)
SCORES = (RANDOM.normal(size=(N, 4)) + 1.5 * np.eye(4)[LABELS]).astype(np.float32)
YES = (RANDOM.random(N) < 0.4)
LOGIT = np.round(RANDOM.normal(size=(N, 1)) + YES[:, None], 1).astype(np.float32)      # with ties
NUMBERS = (RANDOM.normal(size=(N, 2)) + 5).astype(np.float32)
GUESSES = (NUMBERS + RANDOM.normal(size=(N, 2))).astype(np.float32)
softmax = lambda z: np.exp(z) / np.exp(z).sum(1, keepdims=True)
GUESS, SAID = SCORES.argmax(1), LOGIT[:, 0] > 0

CASES = {
    "accuracy": (Accuracy(), SCORES, LABELS, peer.accuracy_score(LABELS, GUESS)),
    "accuracy of one logit": (Accuracy(), LOGIT, YES.astype(np.float32)[:, None], peer.accuracy_score(YES, SAID)),
    "threshold": (Accuracy(threshold=0.5), LOGIT[:, 0], YES, peer.accuracy_score(YES, LOGIT[:, 0] > 0.5)),
    "top 2": (TopK(2), SCORES, LABELS, peer.top_k_accuracy_score(LABELS, SCORES, k=2)),
    "confusion": (ConfusionMatrix(), SCORES, LABELS, peer.confusion_matrix(LABELS, GUESS)),
    "precision": (Precision(), LOGIT, YES.astype(np.int32), peer.precision_score(YES, SAID)),
    "recall": (Recall(), LOGIT, YES.astype(np.int32), peer.recall_score(YES, SAID)),
    "f1": (F1(), LOGIT, YES.astype(np.int32), peer.f1_score(YES, SAID)),
    **{f"{m.__name__} {a}": (m(average=a), SCORES, LABELS, p(LABELS, GUESS, average=a if a != "none" else None))
       for m, p in ((Precision, peer.precision_score), (Recall, peer.recall_score), (F1, peer.f1_score))
       for a in ("macro", "micro", "weighted", "none")},
    "auc": (AUC(), LOGIT, YES.astype(np.float32), peer.roc_auc_score(YES, LOGIT[:, 0])),
    "auc of classes": (AUC(), SCORES, LABELS, peer.roc_auc_score(LABELS, softmax(SCORES.astype(np.float64)), multi_class="ovr")),
    "mse": (MSE(), GUESSES, NUMBERS, peer.mean_squared_error(NUMBERS, GUESSES)),
    "rmse": (RMSE(), GUESSES, NUMBERS, peer.root_mean_squared_error(NUMBERS[:, 0], GUESSES[:, 0])),
    "mae": (MAE(), GUESSES, NUMBERS, peer.mean_absolute_error(NUMBERS, GUESSES)),
    "r2": (R2(), GUESSES, NUMBERS, peer.r2_score(NUMBERS, GUESSES)),
    "r2 of one": (R2(), GUESSES[:, :1], NUMBERS[:, 0], peer.r2_score(NUMBERS[:, 0], GUESSES[:, 0])),
    "perplexity": (Perplexity(), SCORES, LABELS, np.exp(peer.log_loss(LABELS, softmax(SCORES.astype(np.float64))))),
}
CASES["rmse"] = (RMSE(), GUESSES[:, :1], NUMBERS[:, :1], CASES["rmse"][3])


@pytest.mark.parametrize("name", CASES)
def test_of_all_at_once(name):
    metric, y, target, wanted = CASES[name]
    np.testing.assert_allclose(metric(y, target), wanted, rtol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_over_batches(name):
    """The network is the identity; evaluation cuts the examples unevenly."""
    metric, y, target, wanted = CASES[name]
    scale = nn.Constant(1.0)

    class Same(nn.Module):
        def forward(self, x):
            return x * self.parameter("one", (1,), scale)
    types = {np.dtype(np.float32): gc.f32, np.dtype(np.int32): gc.i32, np.dtype(bool): gc.bool_}
    step = gc.train_step(Same(), loss=lambda y, t: gc.mean(y) + 0 * gc.mean(t.astype(gc.f32)), optimizer=optim.SGD(0.1),
                         x=gc.f32["B", *y.shape[1:]], y=types[target.dtype]["B", *target.shape[1:]])
    found = step.evaluate([(y[a:b], target[a:b]) for a, b in ((0, 1), (1, 30), (30, N))], it=metric)
    np.testing.assert_allclose(found["it"], wanted, rtol=1e-6)
    assert list(found) == ["loss", "it"]


def test_every_metric_is_tested():
    known = {m for m in vars(gc.metrics).values() if isinstance(m, type) and issubclass(m, Metric) and m is not Metric}
    assert known == {type(case[0]) for case in CASES.values()}


def test_a_metric_of_ones_own():
    class Bias(Metric):
        better = "min"

        def counts(self, y, target):
            return {"sum": gc.sum(y - target), "all": gc.sum(gc.ones_like(y))}

        def result(self, totals):
            return float(totals["sum"] / totals["all"])
    assert Bias()(GUESSES, NUMBERS) == pytest.approx((GUESSES - NUMBERS).mean(), rel=1e-5)


def test_edges():
    assert np.isnan(AUC()(np.float32([1, 2]), np.float32([1, 1])))
    assert F1()(np.float32([-1, -2]), np.float32([0, 0])) == 0.0
    assert np.isnan(R2()(np.float32([1, 2]), np.float32([3, 3])))
    assert Perplexity(ignore_index=-1)(SCORES[:2], np.int32([-1, LABELS[1]])) == pytest.approx(
        Perplexity()(SCORES[1:2], LABELS[1:2]))


@pytest.mark.parametrize("make, text", [
    (lambda: F1()(SCORES, LABELS), 'F1 of 4 classes needs average="macro"'),
    (lambda: F1(average="mean"), "F1: average is one of binary, macro"),
    (lambda: TopK(5)(SCORES, LABELS), r"TopKAccuracy\(5\) of 4 classes"),
    (lambda: Accuracy()(SCORES, LABELS[:, None]), "metrics of classes take scores"),
    (lambda: MSE()(GUESSES, NUMBERS[:, :1]), "they have one shape"),
    (lambda: ConfusionMatrix()(SCORES, LABELS - 1), "index|out of range"),
    (lambda: TopK(2)(SCORES, LABELS - 1), "index|out of range"),
    (lambda: ConfusionMatrix()(SCORES, LABELS + 1), "index|out of range"),
    (lambda: AUC()(LOGIT, YES[:5]), "a score and a target for each example"),
])
def test_mistakes(make, text):
    with pytest.raises(gc.GraphError, match=text):
        make()
