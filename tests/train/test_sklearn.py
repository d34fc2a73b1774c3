"""scikit-learn's own checks of estimators, and the estimators in its tools."""
import io
import pickle

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.neural_network import MLPClassifier as PeerClassifier
from sklearn.neural_network import MLPRegressor as PeerRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import graphc as gc
from graphc import callbacks, nn, optim
from graphc.sklearn import MLPClassifier, MLPRegressor, NetworkClassifier, NetworkRegressor

WINE = load_wine(return_X_y=True)
DIABETES = load_diabetes(return_X_y=True)


def net(outputs):
    return nn.Linear(32) >> nn.relu >> nn.Linear(outputs)


ESTIMATORS = [MLPClassifier(), MLPRegressor(), NetworkClassifier(net), NetworkRegressor(net)]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
@pytest.mark.filterwarnings("ignore")
def test_all_checks_of_scikit_learn_pass(estimator):
    checks = list(estimator_checks_generator(estimator))
    assert len(checks) > 50
    for one, check in checks:
        check(one)


@pytest.mark.parametrize("ours, peer", [(MLPClassifier, PeerClassifier), (MLPRegressor, PeerRegressor)])
def test_arguments_are_scikit_learns(ours, peer):
    mine, theirs = ours().get_params(), peer().get_params()
    assert mine.items() <= theirs.items() and set(theirs) - set(mine) <= {"loss"}


@pytest.mark.parametrize("options", [
    {}, {"solver": "sgd", "learning_rate_init": 0.05, "alpha": 0.1}, {"activation": "logistic", "hidden_layer_sizes": (8, 8), "max_iter": 300, "learning_rate_init": 0.01},
    {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.5},
    {"solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.2, "max_iter": 300},
    {"early_stopping": True, "learning_rate_init": 0.01}])
@pytest.mark.filterwarnings("ignore")
def test_as_good_as_scikit_learns(options):
    x, y = load_breast_cancer(return_X_y=True)
    x = StandardScaler().fit_transform(x)
    mine, theirs = (m(random_state=0, **{"max_iter": 60} | options).fit(x[:400], y[:400]) for m in (MLPClassifier, PeerClassifier))
    assert min(mine.score(x[400:], y[400:]), theirs.score(x[400:], y[400:])) > 0.95
    assert mine.loss_ == pytest.approx(theirs.loss_, rel=0.5)
    assert [c.shape for c in mine.coefs_] == [c.shape for c in theirs.coefs_] and mine.n_layers_ == theirs.n_layers_


def test_steps_are_those_of_scikit_learn():
    """From the same weights, without shuffling, steps of either agree: the rule of alpha included."""
    x, y = StandardScaler().fit_transform(WINE[0]), WINE[1]
    options = dict(hidden_layer_sizes=(7,), alpha=0.5, batch_size=len(x), shuffle=False, random_state=0)
    theirs, mine = PeerClassifier(**options), MLPClassifier(**options)
    theirs.partial_fit(x, y, classes=[0, 1, 2]), mine.partial_fit(x, y, classes=[0, 1, 2])
    for own, other in zip([*theirs.coefs_, *theirs.intercepts_], [*mine.coefs_, *mine.intercepts_]):
        own[...] = other
    for moments in theirs._optimizer.ms + theirs._optimizer.vs:
        moments[...] = 0
    theirs._optimizer.t = 0
    mine.step_.state.load({n: np.zeros_like(a) for n, a in mine.step_.state.items() if n.startswith("optim.exp") or n == "step"},
                          partial=True)
    for _ in range(20):
        theirs.partial_fit(x, y, classes=[0, 1, 2]), mine.partial_fit(x, y)
    for own, other in zip([*theirs.coefs_, *theirs.intercepts_], [*mine.coefs_, *mine.intercepts_]):
        np.testing.assert_allclose(other, own, rtol=1e-3, atol=1e-5)
    assert mine.loss_ == pytest.approx(theirs.loss_ - 0.25 * sum((c ** 2).sum() for c in theirs.coefs_) / len(x), rel=0.02)


def test_pipeline_grid_and_cross_validation_in_two_processes():
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(max_iter=40, learning_rate_init=0.02, random_state=0))
    grid = GridSearchCV(pipeline, {"mlpclassifier__alpha": [1e-4, 1.0], "mlpclassifier__hidden_layer_sizes": [(8,), (16,)]}, n_jobs=2, cv=3)
    assert grid.fit(*WINE).best_score_ > 0.9
    found = cross_validate(grid.best_estimator_, *WINE, cv=3, n_jobs=2, return_estimator=True)
    assert found["test_score"].mean() > 0.9
    assert all(e.predict(WINE[0]).shape == WINE[1].shape for e in found["estimator"])


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_fitted_estimators_are_pickled(estimator):
    data = DIABETES if "Regressor" in type(estimator).__name__ else WINE
    fitted = clone(estimator).set_params(random_state=1)
    fitted.fit(*data)
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(fitted.predict(data[0]), again.predict(data[0]))
    file = io.BytesIO()
    joblib.dump(make_pipeline(StandardScaler(), fitted).fit(*data), file)
    file.seek(0)
    assert np.isfinite(joblib.load(file).score(*data))


def test_labels_of_any_kind_come_back():
    names = np.array(["red", "white", "rosé"])[WINE[1]]
    x = StandardScaler().fit_transform(WINE[0])
    model = MLPClassifier(max_iter=60, random_state=0).fit(x, names)
    assert set(model.predict(x)) == set(names) and model.score(x, names) > 0.9
    proba = model.predict_proba(x)
    np.testing.assert_allclose(proba.sum(1), 1)
    assert np.array_equal(model.classes_[proba.argmax(1)], model.predict(x))


def test_images_through_a_network():
    digits = load_digits()
    x = digits.images[:, None] / 16
    conv = nn.Conv2d(8, 3, padding=1) >> nn.relu >> nn.MaxPool2d(2) >> nn.Flatten() >> nn.Linear(10)
    model = NetworkClassifier(conv, optimizer=optim.Adam(3e-3), epochs=6, random_state=0, class_weight="balanced",
                              callbacks=[callbacks.ReduceOnPlateau("loss", patience=2)])
    assert model.fit(x[:1200], digits.target[:1200]).score(x[1200:], digits.target[1200:]) > 0.85
    assert list(model.history_) == ["loss", "lr", "seconds"] and model.n_iter_ == 6
    assert not conv.parameters()                                # a copy was trained


def test_weights_are_copies():
    x, y = StandardScaler().fit_transform(WINE[0])[::3], WINE[1][::3]
    w = np.arange(len(y)) % 3
    options = dict(max_iter=30, random_state=0)
    a = MLPClassifier(**options).fit(x, y, sample_weight=w)
    b = MLPClassifier(**options).fit(np.repeat(x, w, axis=0), np.repeat(y, w))
    assert np.array_equal(a.predict_proba(x), b.predict_proba(x))


def test_early_stopping_keeps_the_best_epoch():
    x, y = StandardScaler().fit_transform(DIABETES[0]), DIABETES[1]
    model = MLPRegressor(max_iter=400, early_stopping=True, n_iter_no_change=5, learning_rate_init=0.05, random_state=0).fit(x, y)
    assert model.n_iter_ < 400 and len(model.history_["val_r2"]) == model.n_iter_
    assert model.history_["val_r2"].index(max(model.history_["val_r2"])) >= model.n_iter_ - 7


def test_mistakes():
    with pytest.raises(gc.GraphError, match="lbfgs is scikit-learn's alone"):
        MLPClassifier(solver="lbfgs").fit(*WINE)
    with pytest.raises(ValueError, match="activation='gelu' is not one of"):
        MLPClassifier(activation="gelu").fit(*WINE)
    with pytest.raises(ValueError, match="too large for float32"):
        MLPClassifier().fit(WINE[0] * 1e200, WINE[1])
    with pytest.raises(ValueError, match="classes must be passed"):
        MLPClassifier().partial_fit(*WINE)
