"""Operators of ai.onnx.ml against ONNX Runtime."""
from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from one_node import floats, in_graphc, model_of, same

import graphc as gc

same = partial(same, domain="ai.onnx.ml")
POST = ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO")


def test_scaler_and_normalizer():
    x = floats(4, 3)
    same("Scaler", {"x": x}, offset=[0.1, 0.2, 0.3], scale=[2.0, 0.5, 1.0])
    same("Scaler", {"x": x}, offset=[0.1], scale=[2.0])
    same("Scaler", {"x": x.astype(np.int64)}, offset=[0.1], scale=[2.0])
    for norm in ("MAX", "L1", "L2"):
        same("Normalizer", {"x": np.abs(x)}, norm=norm)
    same("Binarizer", {"x": x}, threshold=0.2)


@pytest.mark.parametrize("post", POST)
def test_linear_models(post):
    x = floats(5, 4)
    same("LinearRegressor", {"x": x}, coefficients=floats(8, seed=1), intercepts=[0.1, 0.2], targets=2, post_transform=post)
    same("LinearClassifier", {"x": x}, 2, coefficients=floats(12, seed=1), intercepts=[0.1, 0.2, 0.3], classlabels_ints=[5, 7, 9],
         post_transform=post)
    if post in ("NONE", "LOGISTIC"):
        same("LinearClassifier", {"x": x}, 2, coefficients=floats(4, seed=1), intercepts=[0.1], classlabels_ints=[3, 4],
             post_transform=post)


def forest(kind: str, targets: int, seed: int = 0, mode: str = "BRANCH_LEQ", positive: bool = False) -> dict:
    """Three drawn trees of depths 1 to 3."""
    rng = np.random.default_rng(seed)
    rows: dict[str, list] = {n: [] for n in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids",
                                             "missing_value_tracks_true", "hitrates")}
    leaves: dict[str, list] = {n: [] for n in ("treeids", "nodeids", "ids", "weights")}
    for tree, depth in enumerate((1, 2, 3)):
        inner = 2 ** depth - 1
        for i in range(2 * inner + 1):
            leaf = i >= inner
            for name, value in (("treeids", tree), ("nodeids", i), ("featureids", 0 if leaf else int(rng.integers(4))),
                                ("values", 0.0 if leaf else float(np.float32(rng.standard_normal()))), ("modes", "LEAF" if leaf else mode),
                                ("truenodeids", 0 if leaf else 2 * i + 1), ("falsenodeids", 0 if leaf else 2 * i + 2),
                                ("missing_value_tracks_true", int(rng.integers(2)) if not leaf else 0), ("hitrates", 1.0)):
                rows[name].append(value)
            for target in range(targets) if leaf else ():
                weight = float(np.float32(rng.uniform(0, 0.3) if positive else rng.standard_normal()))
                for name, value in (("treeids", tree), ("nodeids", i), ("ids", target), ("weights", weight)):
                    leaves[name].append(value)
    return {**{f"nodes_{n}": v for n, v in rows.items()}, **{f"{kind}_{n}": v for n, v in leaves.items()}}


@pytest.mark.parametrize("mode", ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"))
@pytest.mark.parametrize("aggregate", ("SUM", "AVERAGE", "MIN", "MAX"))
def test_tree_regressor(mode, aggregate):
    x = floats(9, 4)
    x[2, 1] = np.nan
    same("TreeEnsembleRegressor", {"x": x}, n_targets=2, aggregate_function=aggregate, **forest("target", 2, mode=mode))


@pytest.mark.parametrize("post", POST)
def test_tree_classifier(post):
    same("TreeEnsembleClassifier", {"x": floats(9, 4)}, 2, classlabels_int64s=[4, 5, 6], post_transform=post, **forest("class", 3))


@pytest.mark.parametrize("positive", (False, True))
@pytest.mark.parametrize("post", ("NONE", "LOGISTIC"))
def test_tree_classifier_of_two(post, positive):
    trees = forest("class", 1, positive=positive)
    same("TreeEnsembleClassifier", {"x": floats(9, 4)}, 2, classlabels_int64s=[4, 5], post_transform=post, **trees)


def test_tree_classifier_whose_leaves_know_the_second_class():
    trees = forest("class", 1, positive=True)
    trees["class_ids"] = [1] * len(trees["class_ids"])
    same("TreeEnsembleClassifier", {"x": floats(9, 4)}, 2, classlabels_int64s=[4, 5], **trees)


def test_tree_regressor_with_base_values():
    same("TreeEnsembleRegressor", {"x": floats(9, 4)}, n_targets=2, base_values=[0.5, -1.0], **forest("target", 2))


def test_encoders_and_the_like():
    x = np.array([[1, 5, 7], [2, 5, 9]])
    same("LabelEncoder", {"x": x}, keys_int64s=[5, 7, 1], values_floats=[0.5, 0.7, 0.1], default_float=-1.0, opset=2)
    same("LabelEncoder", {"x": floats(3).round()}, keys_floats=[0.0, 1.0], values_int64s=[7, 8], default_int64=-5, opset=2)
    same("OneHotEncoder", {"x": x}, cats_int64s=[5, 7, 1], zeros=1)
    same("OneHotEncoder", {"x": x[:, :2]}, cats_int64s=[5, 2, 1], zeros=0)
    same("ArrayFeatureExtractor", {"x": floats(3, 4), "y": np.array([2, 0])}, constants=("y",))
    same("ArrayFeatureExtractor", {"x": np.array([7, 5, 3]), "y": np.array([2, 0, 2, 1])}, constants=("x",))
    holes = floats(3, 4)
    holes[1, 2] = np.nan
    same("Imputer", {"x": holes}, imputed_value_floats=[0.5, 0.6, 0.7, 0.8], replaced_value_float=float("nan"))
    same("FeatureVectorizer", {"a": floats(3, 2), "b": floats(3, 1, seed=1)}, inputdimensions=[2, 1])


def test_what_is_no_category():
    x = np.array([[1, 5, 7]])
    model = model_of("OneHotEncoder", {"x": x}, domain="ai.onnx.ml", cats_int64s=[5, 1], zeros=0)
    with pytest.raises(gc.GraphError, match="index 2, which is out of range"):
        in_graphc(model, {"x": x})


def test_strings_are_refused_by_name():
    model = model_of("TreeEnsembleClassifier", {"x": floats(2, 4)}, 2, domain="ai.onnx.ml", classlabels_strings=["a", "b"], **forest("class", 1))
    with pytest.raises(gc.GraphError, match="TreeEnsembleClassifier: 1 node.*strings"):
        in_graphc(model, {"x": floats(2, 4)})
