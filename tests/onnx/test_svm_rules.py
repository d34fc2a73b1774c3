"""Support vector machines against ONNX Runtime."""
from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from one_node import floats, in_graphc, model_of, same

import graphc as gc

same = partial(same, domain="ai.onnx.ml")
KERNELS = ("LINEAR", "POLY", "RBF", "SIGMOID")


def vectors(count: int, kernel: str, seed: int = 1) -> dict:
    return {"support_vectors": floats(count * 4, seed=seed).tolist(), "kernel_type": kernel,
            "kernel_params": [0.3, 0.5, 3.0]}


def machine(counts, kernel: str, shares: bool = False) -> dict:
    classes, total = len(counts), sum(counts)
    pairs = classes * (classes - 1) // 2
    ends = {"prob_a": (-1 - np.abs(floats(pairs, seed=4))).tolist(), "prob_b": floats(pairs, seed=5).tolist()}
    return {**vectors(total, kernel), "coefficients": floats((classes - 1) * total, seed=2).tolist(),
            "rho": floats(pairs, seed=3).tolist(), "vectors_per_class": list(counts),
            "classlabels_ints": [7, 3, 5, 4][:classes], **(ends if shares else {})}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("one_class", (0, 1))
def test_regressor(kernel, one_class):
    same("SVMRegressor", {"x": floats(6, 4)}, **vectors(5, kernel), n_supports=5, coefficients=floats(5, seed=2).tolist(),
         rho=[0.2], one_class=one_class)


def test_linear_regressor():
    same("SVMRegressor", {"x": floats(6, 4)}, coefficients=floats(4, seed=2).tolist(), rho=[0.2], n_supports=0,
         kernel_params=[0.0, 0.0, 3.0], kernel_type="LINEAR")


@pytest.mark.parametrize("kernel", ("RBF", *(pytest.param(k, marks=pytest.mark.slow) for k in KERNELS if k != "RBF")))
@pytest.mark.parametrize("counts", ((2, 3), (2, 1, 3)))
@pytest.mark.parametrize("shares", (False, True))
def test_classifier(kernel, counts, shares):
    same("SVMClassifier", {"x": floats(9, 4)}, 2, tolerance=2e-5, **machine(counts, kernel, shares))


def test_four_classes_and_what_is_made_of_scores():
    same("SVMClassifier", {"x": floats(9, 4)}, 2, tolerance=2e-5, **machine((2, 1, 3, 2), "RBF", True))
    for post in ("LOGISTIC", "SOFTMAX"):
        same("SVMClassifier", {"x": floats(9, 4)}, 2, post_transform=post, **machine((2, 1, 3), "RBF"))
    same("SVMClassifier", {"x": floats(9, 4)}, 2, post_transform="LOGISTIC", **machine((2, 3), "RBF"))


def test_linear_classifier():
    how = {"rho": [0.1], "classlabels_ints": [4, 2], "kernel_params": [0.0, 0.0, 3.0], "kernel_type": "LINEAR"}
    numbers = floats(8, seed=2)
    same("SVMClassifier", {"x": floats(9, 4)}, 2, coefficients=np.abs(numbers).tolist(), **how)
    made = model_of("SVMClassifier", {"x": floats(9, 4)}, 2, "ai.onnx.ml", coefficients=numbers.tolist(), **how)
    scores = floats(9, 4) @ numbers.reshape(2, 4).T + 0.1       # the first of the largest; the runtime differs
    label, found = in_graphc(made, {"x": floats(9, 4)})
    np.testing.assert_array_equal(label, np.array([4, 2])[scores.argmax(1)])
    np.testing.assert_allclose(found, scores, atol=1e-5)


@pytest.mark.parametrize("shares", (False, True))
def test_gradients(shares):
    made = model_of("SVMClassifier", {"x": floats(3, 4)}, ["", "y"], "ai.onnx.ml", **machine((2, 1, 3), "RBF", shares))
    assert gc.check_gradients(gc.from_onnx(made), x=floats(3, 4), samples=4, directions=1).ok


def test_mistakes():
    for change, words in (({"kernel_params": [1.0]}, "gamma"), ({"kernel_type": "CUBIC"}, "CUBIC"),
                          ({"classlabels_ints": [], "classlabels_strings": ["a", "b"]}, "strings")):
        made = {k: v for k, v in {**machine((2, 3), "RBF"), **change}.items() if v != []}
        with pytest.raises(gc.GraphError, match=words):
            gc.plan(gc.from_onnx(model_of("SVMClassifier", {"x": floats(3, 4)}, 2, "ai.onnx.ml", **made)))
