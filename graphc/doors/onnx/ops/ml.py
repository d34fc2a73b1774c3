"""Operators of ai.onnx.ml, as scikit-learn's models are exported: linear models, scalers, ensembles of trees. Labels
are integers; a ZipMap gives the array of scores itself, columns in the order of its labels."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import graphc as gc
from graphc.doors.onnx.call import Call
from graphc.doors.onnx.ops.trees import Forest
from graphc.doors.onnx.rule import Known, Operand, Unsupported
from graphc.dsl.array import Array
from graphc.errors import GraphError
from graphc.ir.types import f32, i64

ML = "ai.onnx.ml"
Floats = Sequence[float]
Ints = Sequence[int]
Texts = Sequence[str]


def constant_of(values: Sequence[float] | np.ndarray) -> Array:
    return Known.of(np.asarray(values, np.float32)).array()


def rows(x: Array) -> Array:
    """f32 [N, F]."""
    x = x.astype(f32)
    return x.reshape((1, -1)) if x.ndim == 1 else x


def transformed(scores: Array, post_transform: str) -> Array:
    if post_transform == "NONE":
        return scores
    if post_transform == "LOGISTIC":
        return gc.sigmoid(scores)
    if post_transform == "SOFTMAX":
        return gc.softmax(scores, -1)
    if post_transform == "SOFTMAX_ZERO":
        shown = scores != 0.0
        e = gc.where(shown, gc.exp(scores - gc.max(scores, -1, True)), 0.0)
        total = gc.sum(e, -1, True)
        return gc.where(total == 0.0, 0.0, e / gc.where(total == 0.0, 1.0, total))
    if post_transform == "PROBIT":
        return gc.erfinv(scores * 2.0 - 1.0) * float(np.sqrt(2))
    raise GraphError(f"there is no post_transform {post_transform!r}")


def scaler(x: Array, *, offset: Floats = (0.0,), scale: Floats = (1.0,)) -> Array:
    return (x.astype(f32) - constant_of(offset)) * constant_of(scale)


def normalizer(x: Array, *, norm: str = "MAX") -> Array:
    x = rows(x)
    if norm == "MAX":
        size = gc.max(x, -1, True)
    elif norm == "L1":
        size = gc.sum(gc.abs(x), -1, True)
    elif norm == "L2":
        size = gc.sqrt(gc.sum(x * x, -1, True))
    else:
        raise GraphError(f"norm is MAX, L1 or L2, got {norm!r}")
    return x / gc.where(size == 0.0, 1.0, size)


def binarizer(x: Array, *, threshold: float = 0.0) -> Array:
    return (x > threshold).astype(x.dtype)


def linear_regressor(x: Array, *, coefficients: Floats = (), intercepts: Floats = (), targets: int = 1,
                     post_transform: str = "NONE") -> Array:
    y = rows(x) @ constant_of(np.reshape(coefficients, (targets, -1)).T.copy())
    y = y + constant_of(intercepts) if intercepts else y
    return transformed(y, post_transform)


def labels_of(ints: Ints, texts: Texts) -> np.ndarray:
    if texts:
        raise Unsupported("labels that are strings")
    return np.asarray(ints, np.int64)


def chosen(scores: Array, labels: np.ndarray) -> Array:
    """The label of the first largest score."""
    return gc.take(Known.of(labels).array(), gc.argmax(scores, axis=-1), axis=0)


def of_two(score: Array, labels: np.ndarray, post_transform: str, from_half: bool,
           is_share: bool) -> tuple[Array, Array]:
    """Two classes by the score of the second, [N, 1], as ONNX Runtime has it. `from_half`: it decides from 1/2 on;
    `is_share`: that of the first is what is left to 1."""
    if post_transform == "LOGISTIC":
        p = gc.sigmoid(score)
        both = gc.concat([1.0 - p, p], axis=1)
    else:
        rest = 1.0 - score if is_share else -score
        both = transformed(gc.concat([rest, score], axis=1), post_transform)
    limit = score > (0.5 if from_half else 0.0)
    first, second = (int(v) for v in labels)
    return gc.where(limit.reshape((-1,)), gc.full((), second, i64), gc.full((), first, i64)), both


def linear_classifier(x: Array, *, coefficients: Floats, intercepts: Floats = (), classlabels_ints: Ints = (),
                      classlabels_strings: Texts = (), multi_class: int = 0,
                      post_transform: str = "NONE") -> tuple[Array, Array]:
    labels, x = labels_of(classlabels_ints, classlabels_strings), rows(x)
    w = np.reshape(np.asarray(coefficients, np.float32), (-1, x.shape[-1]))
    scores = x @ constant_of(w.T.copy())
    scores = scores + constant_of(intercepts) if intercepts else scores
    if len(w) == 1 and len(labels) == 2:
        return of_two(scores, labels, post_transform, from_half=False, is_share=True)
    return chosen(scores, labels), transformed(scores, post_transform)


def tree_regressor(x: Array, *, n_targets: int = 1, aggregate_function: str = "SUM", base_values: Floats = (),
                   base_values_as_tensor: Known | None = None, post_transform: str = "NONE", call: Call,
                   **attributes: Any) -> Array:
    forest = Forest.of(call.attributes, "target", n_targets)
    base = np.asarray(base_values, np.float32) if base_values_as_tensor is None else base_values_as_tensor.numbers
    y = forest.scores(rows(x), aggregate_function)
    return transformed(y + constant_of(base) if base.size else y, post_transform)


def tree_classifier(x: Array, *, classlabels_int64s: Ints = (), classlabels_strings: Texts = (),
                    base_values: Floats = (), base_values_as_tensor: Known | None = None,
                    post_transform: str = "NONE", call: Call, **attributes: Any) -> tuple[Array, Array]:
    labels = labels_of(classlabels_int64s, classlabels_strings)
    forest = Forest.of(call.attributes, "class", len(labels))
    base = np.asarray(base_values, np.float32) if base_values_as_tensor is None else base_values_as_tensor.numbers
    scores = forest.scores(rows(x), "SUM")
    if len(labels) == 2 and len(forest.used) == 1:
        column = forest.used[0]
        score = scores[:, column:column + 1]
        score = score + float(base.reshape(-1)[-1]) if base.size else score
        label, both = of_two(score, labels, post_transform, from_half=forest.is_positive, is_share=forest.is_positive)
        return label, both if column == 0 else transformed(gc.concat([scores[:, :1], score], axis=1), post_transform)
    scores = scores + constant_of(base) if base.size else scores
    return chosen(scores, labels), transformed(scores, post_transform)


TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")


def tree_ensemble(x: Array, *, n_targets: int = 1, aggregate_function: int = 1, post_transform: int = 0, call: Call,
                  **attributes: Any) -> Array:
    wide = x.reshape((1, -1)) if x.ndim == 1 else x
    y = Forest.of_ensemble(call.attributes, n_targets).scores(wide, _numbered(AGGREGATES, aggregate_function))
    return transformed(y, _numbered(TRANSFORMS, post_transform))


def _numbered(names: Texts, number: int) -> str:
    if not 0 <= number < len(names):
        raise GraphError(f"{number} stands for none of {', '.join(names)}")
    return names[number]


def array_feature_extractor(x: Array, places: Array) -> Array:
    y = gc.take(x, places.reshape((-1,)), axis=-1)
    return y.reshape((1, -1)) if y.ndim == 1 else y


def imputer(x: Array, *, imputed_value_floats: Floats = (), imputed_value_int64s: Ints = (),
            replaced_value_float: float = 0.0, replaced_value_int64: int = 0) -> Array:
    if x.dtype.is_float:
        missing = gc.isnan(x) if np.isnan(replaced_value_float) else x == replaced_value_float
        return gc.where(missing, constant_of(imputed_value_floats).astype(x.dtype), x)
    values = Known.of(np.asarray(imputed_value_int64s, np.int64)).array()
    return gc.where(x == replaced_value_int64, values.astype(x.dtype), x)


def feature_vectorizer(*xs: Array, inputdimensions: Ints = ()) -> Array:
    made = [rows(x) for x in xs]
    sizes = [x.shape[1] for x in made]
    if inputdimensions and (len(sizes) != len(inputdimensions) or any(
            isinstance(a, int) and a != b for a, b in zip(sizes, inputdimensions))):
        raise GraphError(f"inputdimensions are {list(inputdimensions)}, the inputs have {sizes} features")
    return gc.concat(made, axis=1)


def label_encoder(x: Array, *, keys_floats: Floats = (), keys_int64s: Ints = (), values_floats: Floats = (),
                  values_int64s: Ints = (), default_float: float = -0.0, default_int64: int = -1,
                  keys_tensor: Known | None = None, values_tensor: Known | None = None,
                  default_tensor: Known | None = None, keys_strings: Texts = (), values_strings: Texts = (),
                  default_string: str = "") -> Array:
    if keys_strings or values_strings:
        raise Unsupported("labels that are strings")
    keys = keys_tensor.numbers if keys_tensor else np.asarray(keys_floats or keys_int64s)
    values = values_tensor.numbers if values_tensor else (
        np.asarray(values_floats, np.float32) if values_floats else np.asarray(values_int64s, np.int64))
    usual = default_tensor.numbers.reshape(()) if default_tensor else values.dtype.type(
        default_float if values.dtype.kind == "f" else default_int64)
    found = gc.expand_dims(x, -1) == Known.of(keys.astype(x.dtype.np)).array()
    if keys.dtype.kind == "f" and np.isnan(keys).any():
        same = Known.of(np.isnan(keys)).array()
        found = gc.logical_or(found, gc.logical_and(gc.expand_dims(gc.isnan(x), -1), same))
    at = gc.argmax(found.astype(gc.i32), axis=-1)
    return gc.where(gc.any(found, axis=-1), gc.take(Known.of(values).array(), at, axis=0), Known.of(np.asarray(
        usual, values.dtype)).array())


def one_hot_encoder(x: Array, *, cats_int64s: Ints = (), cats_strings: Texts = (), zeros: int = 1) -> Array:
    """1 where a number is a category. One that is none has zeros, or is an index out of range."""
    if cats_strings:
        raise Unsupported("categories that are strings")
    if not cats_int64s:
        raise GraphError("OneHotEncoder without categories")
    wide = x.astype(gc.i64)
    found = gc.expand_dims(wide, -1) == Known.of(np.asarray(cats_int64s, np.int64)).array()
    if zeros:
        return found.astype(gc.f32)
    count = len(cats_int64s)
    at = gc.where(gc.any(found, axis=-1), gc.argmax(found.astype(gc.i32), axis=-1), count)
    return gc.take(Known.of(np.eye(count, dtype=np.float32)).array(), at, axis=0)


def zip_map(x: Operand, *, classlabels_int64s: Ints = (), classlabels_strings: Texts = ()) -> Any:
    return x


RULES: Mapping[str, Callable[..., Any]] = {f"{ML}:{name}": rule for name, rule in (
    ("Scaler", scaler), ("Normalizer", normalizer), ("Binarizer", binarizer), ("LinearRegressor", linear_regressor),
    ("LinearClassifier", linear_classifier), ("TreeEnsembleRegressor", tree_regressor),
    ("TreeEnsembleClassifier", tree_classifier), ("TreeEnsemble", tree_ensemble),
    ("ArrayFeatureExtractor", array_feature_extractor), ("Imputer", imputer),
    ("FeatureVectorizer", feature_vectorizer), ("LabelEncoder", label_encoder), ("OneHotEncoder", one_hot_encoder),
    ("ZipMap", zip_map))}
