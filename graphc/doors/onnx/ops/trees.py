"""Ensembles of decision trees: all examples walk all trees at once, from level to level."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import graphc as gc
from graphc.doors.onnx.known import computable
from graphc.doors.onnx.rule import Known, Unsupported
from graphc.dsl.array import Array
from graphc.errors import GraphError
from graphc.records import dataclass

# how a node compares a feature with its value; MEMBER with a set of values
MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER")
COMPARE = (lambda x, v: x <= v, lambda x, v: x < v, lambda x, v: x >= v, lambda x, v: x > v,
           lambda x, v: x == v, lambda x, v: x != v)
MEMBER = MODES.index("BRANCH_MEMBER")
MOST_TARGETS = 1 << 16              # or classes: each node has a weight for each


@dataclass(frozen=True)
class Forest:
    """`roots` [trees]; of each node its mode (that of a leaf does not matter), feature, value, where it leads to if its
    comparison holds and if not (a leaf to itself), and whether NaN counts as true; `weights` [nodes, targets] of
    leaves, and which of them have one. `sets`: of nodes that ask for membership the values, filled up with NaN."""
    roots: np.ndarray
    modes: np.ndarray
    features: np.ndarray
    values: np.ndarray
    yes: np.ndarray
    no: np.ndarray
    nan_is_true: np.ndarray
    weights: np.ndarray
    weighed: np.ndarray
    sets: np.ndarray | None = None

    @staticmethod
    def of(attributes: Mapping[str, Any], prefix: str, targets: int) -> Forest:
        """Of TreeEnsembleRegressor ("target") and TreeEnsembleClassifier ("class")."""
        computable(targets, MOST_TARGETS)
        trees, ids = (np.asarray(attributes[f"nodes_{n}"], np.int64) for n in ("treeids", "nodeids"))
        place = {pair: i for i, pair in enumerate(zip(trees.tolist(), ids.tolist()))}
        leaf = np.array([mode == "LEAF" for mode in attributes["nodes_modes"]])
        own = np.arange(len(trees))

        def leads(name: str) -> np.ndarray:
            to = np.asarray(attributes[f"nodes_{name}nodeids"], np.int64)
            return np.array([own[i] if leaf[i] else place[int(trees[i]), int(to[i])] for i in own], np.int64)
        yes, no = leads("true"), leads("false")
        inner = {int(i) for way in (yes, no) for i in way[~leaf]}
        roots = np.array([i for i in own if int(i) not in inner], np.int64)
        weights, weighed = np.zeros((len(own), targets), np.float32), np.zeros((len(own), targets), bool)
        rows = zip(_read(attributes, f"{prefix}_treeids"), _read(attributes, f"{prefix}_nodeids"),
                   _read(attributes, f"{prefix}_ids"), _floats(attributes, f"{prefix}_weights"))
        for tree, node, target, weight in rows:
            at = place[int(tree), int(node)], int(target)
            weights[at] += np.float32(weight)
            weighed[at] = True
        missing = attributes.get("nodes_missing_value_tracks_true") or [0] * len(own)
        modes = np.array([0 if end else _mode(mode) for mode, end in zip(attributes["nodes_modes"], leaf)])
        return Forest(roots, modes, np.asarray(attributes["nodes_featureids"], np.int64),
                      np.asarray(_floats(attributes, "nodes_values"), np.float32), yes, no,
                      np.asarray(missing, bool), weights, weighed)

    @staticmethod
    def of_ensemble(attributes: Mapping[str, Any], targets: int) -> Forest:
        """Of TreeEnsemble, whose leaves are numbered apart: they stand behind the other nodes here."""
        splits, leaf_weights = attributes["nodes_splits"].numbers, attributes["leaf_weights"].numbers
        computable(targets, MOST_TARGETS)
        count, leaves = len(splits), len(leaf_weights)
        ends = np.arange(count, count + leaves)

        def leads(name: str) -> np.ndarray:
            to, is_leaf = (np.asarray(attributes[f"nodes_{name}{n}"], np.int64) for n in ("nodeids", "leafs"))
            return np.concatenate([np.where(is_leaf != 0, to + count, to), ends])

        def filled(values: Any, dtype: Any) -> np.ndarray:
            return np.concatenate([np.asarray(values, dtype), np.zeros(leaves, dtype)])
        weights = np.zeros((count + leaves, targets), leaf_weights.dtype)
        weighed = np.zeros((count + leaves, targets), bool)
        for i, target in enumerate(attributes["leaf_targetids"]):
            weights[count + i, target], weighed[count + i, target] = leaf_weights[i], True
        modes = filled(attributes["nodes_modes"].numbers, np.int64)
        missing = attributes.get("nodes_missing_value_tracks_true") or [0] * count
        return Forest(np.asarray(attributes["tree_roots"], np.int64), modes,
                      filled(attributes["nodes_featureids"], np.int64), filled(splits, splits.dtype), leads("true"),
                      leads("false"), filled(missing, bool), weights, weighed, _sets(attributes, modes))

    @property
    def depth(self) -> int:
        """How many steps lead to every leaf."""
        at, steps = set(self.roots.tolist()), 0
        while True:
            at = {int(to) for i in at for to in (self.yes[i], self.no[i]) if to != i}
            if not at:
                return steps
            steps += 1
            if steps > len(self.modes):
                raise GraphError("an ensemble of trees has a cycle")

    @property
    def used(self) -> list[int]:
        """The targets that leaves have weights for."""
        return np.flatnonzero(self.weighed.any(0)).tolist()

    @property
    def is_positive(self) -> bool:
        return bool((self.weights >= 0).all())

    def scores(self, x: Array, aggregate: str) -> Array:
        """[N, targets] of x [N, features]."""
        n, trees = x.shape[0], len(self.roots)
        at = gc.broadcast_to(_array(self.roots), (n, trees))
        for _ in range(self.depth):
            at = self._moved(x, at)
        found = gc.take(_array(self.weights), at, axis=0)               # [N, trees, targets]
        if aggregate in ("SUM", "AVERAGE"):
            total = gc.sum(found, axis=1)
            return total if aggregate == "SUM" else total / float(trees)
        if aggregate not in ("MIN", "MAX"):
            raise GraphError(f"there is no aggregate_function {aggregate!r}")
        real = gc.take(_array(self.weighed), at, axis=0)
        far = np.inf if aggregate == "MIN" else -np.inf
        best = (gc.min if aggregate == "MIN" else gc.max)(gc.where(real, found, far), 1)
        return gc.where(gc.any(real, axis=1), best, 0.0)

    def _moved(self, x: Array, at: Array) -> Array:
        """One level down."""
        feature = gc.take_along_axis(x, gc.take(_array(self.features), at, axis=0), axis=1)
        value = gc.take(_array(self.values.astype(x.dtype.np)), at, axis=0)
        kinds = sorted(set(self.modes.tolist()))
        true = self._compared(kinds[0], feature, value, at)
        for kind in kinds[1:]:
            same = gc.take(_array(self.modes), at, axis=0) == kind
            true = gc.where(same, self._compared(kind, feature, value, at), true)
        if self.nan_is_true.any():
            true = gc.logical_or(true, gc.logical_and(gc.isnan(feature), gc.take(_array(self.nan_is_true), at, axis=0)))
        return gc.where(true, gc.take(_array(self.yes), at, axis=0), gc.take(_array(self.no), at, axis=0))

    def _compared(self, kind: int, feature: Array, value: Array, at: Array) -> Array:
        if kind != MEMBER:
            return COMPARE[kind](feature, value)
        if self.sets is None:
            raise Unsupported("BRANCH_MEMBER without values")
        members = gc.take(_array(self.sets.astype(feature.dtype.np)), at, axis=0)
        return gc.any(gc.expand_dims(feature, -1) == members, axis=-1)


def _sets(attributes: Mapping[str, Any], modes: np.ndarray) -> np.ndarray | None:
    """What nodes with MEMBER ask for, in their order, each ended by NaN."""
    given = attributes.get("membership_values")
    if given is None:
        return None
    values, sets = iter(given.numbers.tolist()), []
    for mode in modes:
        own: list[float] = []
        while mode == MEMBER and not np.isnan(v := next(values)):
            own.append(v)
        sets.append(own)
    width = max(map(len, sets))
    return np.array([s + [np.nan] * (width - len(s)) for s in sets], given.numbers.dtype)


def _mode(mode: str) -> int:
    if mode not in MODES:
        raise GraphError(f"there is no mode {mode!r} of nodes")
    return MODES.index(mode)


def _read(attributes: Mapping[str, Any], name: str) -> Sequence[int]:
    return attributes[name]


def _floats(attributes: Mapping[str, Any], name: str) -> Sequence[float]:
    tensor = attributes.get(f"{name}_as_tensor")
    return attributes[name] if tensor is None else tensor.numbers.tolist()


def _array(numbers: np.ndarray) -> Array:
    return Known.of(numbers).array()
