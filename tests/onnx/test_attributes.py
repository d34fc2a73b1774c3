"""No attribute and no operand of a node is passed over in silence: a rule reads it, or it is listed here with the reason.

What a rule reads it may still take for something else. So words that mean nothing are refused by every attribute that
takes words, and what newer opsets have added is looked at: a node of an older one means by it what is said here.
"""
import dis
import inspect
import sys
from collections import UserDict
from pathlib import Path

import numpy as np
import pytest
from small_onnx import helper, numpy_helper

import graphc as gc
from graphc.doors.onnx.folding import FOLD
from graphc.doors.onnx.older import OLDER
from graphc.doors.onnx.ops.trees import Forest
from graphc.doors.onnx.table import RULES, schema_of

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs"))
import make_onnx  # noqa: E402
import onnx  # noqa: E402

SEED = "the state's key decides"
OPTIONAL = "which outputs there are is told by their names"
COARSER = "sums are in f32 at least; coarser ones are not imitated"
NAMES = "names of labels, which decide no number"
UNREAD = {
    "Attention": {"qk_matmul_output_mode": "of an output that the operator's body gives", "windows": "left to the body"},
    "Bernoulli": {"seed": SEED}, "Multinomial": {"seed": SEED}, "RandomNormal": {"seed": SEED},
    "RandomNormalLike": {"seed": SEED}, "RandomUniform": {"seed": SEED}, "RandomUniformLike": {"seed": SEED},
    "GRU": {"output_sequence": OPTIONAL}, "LSTM": {"output_sequence": OPTIONAL}, "RNN": {"output_sequence": OPTIONAL},
    "GroupNormalization": {"stash_type": COARSER},
    "Range": {"stash_type": "positions are integers, known numbers f64"},
    "TopK": {"sorted": "sorted is an order, too"},
    "Optional": {"type": "values have types"}, "SequenceEmpty": {"dtype": "what is put into it has a type"},
    "ai.onnx.ml:LabelEncoder": {"default_string": "strings are refused"},
    "ai.onnx.ml:LinearClassifier": {"multi_class": "runtimes do not read it"},
    "ai.onnx.ml:ZipMap": {"classlabels_int64s": NAMES, "classlabels_strings": NAMES},
    "com.microsoft:Attention": {"rotary_embedding_dim": "rotary positions are refused"},
    "com.microsoft:MatMulNBits": {"accuracy_level": COARSER}}
UNREAD_OLDER = {
    "BatchNormalization below 7": {"is_test": "training steps train, all else infers"},
    "Dropout below 7": {"is_test": "training steps train, all else infers"},
    "Gemm below 7": {"broadcast": "what does not fit is refused anyhow"}}
UNREAD_FOLDED = {
    "Cast": {"saturate": "narrow floats are not cast while importing", "round_mode": "the same"},
    "Gather": {"i": "read from the call, as an array"}, "Range": {"stash_type": "numbers are f64"}}


def bodies(code):
    yield code
    for constant in code.co_consts:
        if inspect.iscode(constant):
            yield from bodies(constant)


def unread(function):
    """The parameters of a function that nothing in it reads."""
    if hasattr(function, "__signature__"):          # hands on all of them
        return set()
    loads = [i.argval for code in bodies(function.__code__) for i in dis.get_instructions(code)
             if i.opname.startswith("LOAD_")]
    read = {name for value in loads for name in (value if isinstance(value, tuple) else (value,))}
    return set(inspect.signature(function).parameters) - read


@pytest.mark.parametrize("table, listed", (
    (RULES, UNREAD), (FOLD, UNREAD_FOLDED),
    ({f"{key} below {below}": f for key, versions in OLDER.items() for below, f in versions}, UNREAD_OLDER)), ids=("rules", "folding", "older"))
def test_every_parameter_is_read(table, listed):
    found = {key: names for key, function in table.items() if (names := unread(function))}
    assert found == {key: set(reasons) for key, reasons in listed.items()}


class Recorded(UserDict):
    """A mapping that knows who was asked for."""

    def __init__(self, data):
        super().__init__(data)
        self.asked = set()

    def __getitem__(self, name):
        self.asked.add(name)
        return super().__getitem__(name)

    def __contains__(self, name):
        self.asked.add(name)
        return super().__contains__(name)


HITS = {"nodes_hitrates", "nodes_hitrates_as_tensor"}       # how often a node is met: decides no number
ENSEMBLES = ("TreeEnsemble", "TreeEnsembleRegressor", "TreeEnsembleClassifier")
TREE = {"nodes_featureids": (0, 0, 0), "nodes_falsenodeids": (2, 0, 0), "nodes_truenodeids": (1, 0, 0),
        "nodes_modes": ("BRANCH_LEQ", "LEAF", "LEAF"), "nodes_nodeids": (0, 1, 2), "nodes_treeids": (0, 0, 0),
        "nodes_values": (0.5, 0.0, 0.0)}


@pytest.mark.parametrize("op", ENSEMBLES)
def test_ensembles_of_trees_read_all(op):
    """Their rules take attributes in bulk."""
    from graphc.doors.onnx.rule import Known
    if op == "TreeEnsemble":
        given = Recorded({"nodes_splits": Known.of(np.array([0.5], np.float32)), "leaf_targetids": (0, 0), "tree_roots": (0,),
                          "leaf_weights": Known.of(np.array([1, 2], np.float32)), "nodes_truenodeids": (0,), "nodes_trueleafs": (1,),
                          "nodes_modes": Known.of(np.array([0], np.uint8)), "nodes_falsenodeids": (1,), "nodes_falseleafs": (1,),
                          "nodes_featureids": (0,)})
        Forest.of_ensemble(given, 1)
    else:
        prefix = "target" if op.endswith("Regressor") else "class"
        given = Recorded({**TREE, f"{prefix}_treeids": (0, 0), f"{prefix}_nodeids": (1, 2), f"{prefix}_ids": (0, 0),
                          f"{prefix}_weights": (1.0, 2.0)})
        Forest.of(given, prefix, 1)
    own = set(inspect.signature(RULES[f"ai.onnx.ml:{op}"]).parameters)
    schema = schema_of("ai.onnx.ml", op, make_onnx.DOMAINS["ai.onnx.ml"])
    assert set(schema.attributes) - own - given.asked - HITS == set()


def test_attributes_that_an_operator_lacks_are_refused():
    """Also by rules that take attributes in bulk, and of operators that are replaced by their bodies."""
    x, tree = {"x": np.zeros((2, 1), np.float32)}, {**TREE, "target_treeids": [0], "target_nodeids": [1], "target_ids": [0], "target_weights": [1.0]}
    qkv = {name: np.zeros((1, 1, 2, 4), np.float32) for name in "qkv"}
    for op, inputs, how in (("ai.onnx.ml:TreeEnsembleRegressor", x, tree), ("Attention", qkv, {}), ("Relu", x, {}),
                            ("HannWindow", {"n": np.array(4)}, {})):
        with pytest.raises(gc.GraphError, match="attribute other"):
            traced(op, inputs, {**how, "other": 1})


# What newer opsets have added, by name: without it an operator does what its default says, but for those that have
# rules of their own for older opsets.
ADDED = {
    "ArgMax": "select_last_index", "ArgMin": "select_last_index", "Attention": "left_window_size right_window_size",
    "AveragePool": "ceil_mode", "BatchNormalization": "training_mode", "Cast": "round_mode saturate", "CastLike": "round_mode saturate",
    "DepthToSpace": "mode", "DequantizeLinear": "axis block_size output_dtype", "GRU": "layout", "GatherND": "batch_dims",
    "GroupNormalization": "stash_type", "LSTM": "layout", "LpPool": "ceil_mode", "MaxPool": "ceil_mode storage_order",
    "QuantizeLinear": "axis block_size output_dtype precision saturate", "RNN": "layout", "Range": "stash_type",
    **{f"Reduce{name}": "noop_with_empty_axes" for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")},
    "Reshape": "allowzero", "ScatterElements": "reduction", "ScatterND": "reduction", "Shape": "start", "SpaceToDepth": "mode",
    "Resize": "antialias keep_aspect_ratio_policy", "TopK": "largest sorted", "ai.onnx.ml:LabelEncoder": "default_float"}
OTHERWISE = {"Resize": "coordinate_transformation_mode cubic_coeff_a exclude_outside extrapolation_value nearest_mode",
             "RoiAlign": "coordinate_transformation_mode"}
FIRST = 7                           # opset that must be read


def test_what_newer_opsets_have_added_is_known():
    versions = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        key = f"{schema.domain}:{schema.name}" if schema.domain else schema.name
        if key in RULES:
            versions.setdefault(key, []).append(schema)
    found = {}
    for key, schemas in versions.items():
        schemas.sort(key=lambda s: s.since_version)
        for older, newer in zip(schemas, schemas[1:]):
            for name in newer.attributes.keys() - older.attributes.keys():
                if newer.attributes[name].default_value.type and (newer.domain or newer.since_version > FIRST):
                    found.setdefault(key, set()).add(name)
    assert found == {key: {*ADDED.get(key, "").split(), *OTHERWISE.get(key, "").split()} for key in ADDED.keys() | OTHERWISE.keys()}
    assert OTHERWISE.keys() <= OLDER.keys()


F, I = np.float32, np.int64
IMAGE, KERNEL = np.zeros((1, 1, 4, 4), F), np.zeros((1, 1, 3, 3), F)
WINDOW, ROWS = {"kernel_shape": [3, 3]}, np.zeros((2, 3), F)
SCORES = {"x": np.zeros((2, 3), F), "t": np.zeros(2, I)}
CELL = {"x": np.zeros((2, 1, 3), F)}
LINE = {"coefficients": [1.0, 1.0, 1.0]}
SUPPORT = {**LINE, "rho": [0.0], "support_vectors": [1.0] * 9}
TREES = {**TREE, "class_treeids": [0], "class_nodeids": [1], "class_ids": [0], "class_weights": [1.0], "classlabels_int64s": [0, 1]}
TARGETS = {**TREE, "target_treeids": [0], "target_nodeids": [1], "target_ids": [0], "target_weights": [1.0]}


def cell(gates):
    return {**CELL, "w": np.zeros((1, 2 * gates, 3), F), "r": np.zeros((1, 2 * gates, 2), F)}


# operator: its operands (those that decide sizes as constants of the file), and attributes
NODES = {
    **{op: ({"x": IMAGE, "w": KERNEL}, {}) for op in ("Conv", "ConvTranspose")},
    **{op: ({"x": IMAGE}, WINDOW) for op in ("MaxPool", "AveragePool", "LpPool")},
    "ConvInteger": ({"x": IMAGE.astype(np.uint8), "w": KERNEL.astype(np.uint8)}, {}),
    "QLinearConv": ({"x": IMAGE.astype(np.uint8), "xs": F(1), "xz": np.uint8(0), "w": KERNEL.astype(np.uint8), "ws": F(1), "wz": np.uint8(0),
                     "ys": F(1), "yz": np.uint8(0)}, {}),
    "RNN": (cell(1), {"hidden_size": 2}), "GRU": (cell(3), {"hidden_size": 2}), "LSTM": (cell(4), {"hidden_size": 2}),
    "BitShift": ({"x": np.zeros(2, np.uint8), "y": np.zeros(2, np.uint8)}, {}),
    "Cast": ({"x": ROWS}, {"to": onnx.TensorProto.FLOAT8E8M0}), "CastLike": ({"x": ROWS, "like": ("FLOAT8E8M0", [1])}, {}),
    "DepthToSpace": ({"x": np.zeros((1, 4, 2, 2), F)}, {"blocksize": 2}), "SpaceToDepth": ({"x": IMAGE}, {"blocksize": 2}),
    "Einsum": ({"x": ROWS}, {}), "Gelu": ({"x": ROWS}, {}), "GridSample": ({"x": IMAGE, "grid": np.zeros((1, 2, 2, 2), F)}, {}),
    "NegativeLogLikelihoodLoss": (SCORES, {}), "SoftmaxCrossEntropyLoss": (SCORES, {}),
    "Pad": ({"x": ROWS, "pads": np.array([1, 1, 1, 1])}, {}), "Resize": ({"x": IMAGE, "": None, " ": None, "sizes": np.array([1, 1, 5, 7])}, {}),
    "RoiAlign": ({"x": IMAGE, "rois": np.zeros((1, 4), F), "at": np.zeros(1, I)}, {"sampling_ratio": 1}),
    "ScatterElements": ({"x": ROWS, "at": np.zeros((1, 3), I), "u": np.zeros((1, 3), F)}, {}), "ScatterND": ({"x": ROWS, "at": np.zeros((1, 1), I), "u": np.zeros((1, 3), F)}, {}),
    "TensorScatter": ({"x": np.zeros((1, 4, 2), F), "u": np.zeros((1, 1, 2), F)}, {}),
    "TfIdfVectorizer": ({"x": np.zeros((1, 4), I)}, {"max_gram_length": 1, "min_gram_length": 1, "max_skip_count": 0, "ngram_counts": [0], "ngram_indexes": [0], "pool_int64s": [1]}),
    "ai.onnx.ml:Normalizer": ({"x": ROWS}, {}), "ai.onnx.ml:LinearRegressor": ({"x": ROWS}, LINE), "ai.onnx.ml:LinearClassifier": ({"x": ROWS}, {**LINE, "classlabels_ints": [0, 1]}),
    "ai.onnx.ml:SVMRegressor": ({"x": ROWS}, {**SUPPORT, "n_supports": 3}),
    "ai.onnx.ml:SVMClassifier": ({"x": ROWS}, {**SUPPORT, "vectors_per_class": [2, 1], "classlabels_ints": [0, 1]}),
    "ai.onnx.ml:TreeEnsembleRegressor": ({"x": ROWS}, TARGETS), "ai.onnx.ml:TreeEnsembleClassifier": ({"x": ROWS}, TREES),
    "ai.onnx.preview.training:Momentum": ({"r": F(1), "t": I(0), "x": F(1), "g": F(1), "v": F(1)}, {"alpha": 0.9, "beta": 0.9, "norm_coefficient": 0.0})}
# keys of values that are strings themselves, which are refused; the texts of Gradient are names of values
TEXTS = {"ai.onnx.preview.training:Gradient": {"xs", "y", "zs"}, "ai.onnx.ml:LabelEncoder": {"keys_strings", "values_strings", "default_string"}}
LABELS = {"classlabels_strings", "cats_strings", "value_string", "value_strings", "pool_strings"}


def with_words():
    """Each attribute of an operator that takes words."""
    for key in sorted(RULES):
        domain, _, op = key.rpartition(":")
        schema = schema_of(domain, op, make_onnx.DOMAINS.get(domain, 1))
        for name, attribute in sorted(schema.attributes.items() if schema else ()):
            if attribute.type in (onnx.defs.OpSchema.AttrType.STRING, onnx.defs.OpSchema.AttrType.STRINGS) and (
                    name not in LABELS | TEXTS.get(key, set())):
                yield key, name, attribute.type == onnx.defs.OpSchema.AttrType.STRINGS


def traced(key, inputs, attributes):
    """The network of one node, in a program."""
    domain, _, op = key.rpartition(":")
    infos, held = [], []
    for name, value in inputs.items():
        if isinstance(value, tuple):
            infos.append(helper.make_tensor_value_info(name, getattr(onnx.TensorProto, value[0]), value[1]))
        elif value is not None and value.dtype == np.int64 and value.ndim == 1 and name in ("pads", "sizes"):
            held.append(numpy_helper.from_array(value, name))
        elif value is not None:
            infos.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape))
    outputs = {"Momentum": 2, "SVMClassifier": 2, "LinearClassifier": 2, "TreeEnsembleClassifier": 2}.get(op, 1)
    node = helper.make_node(op, [name.strip() for name in inputs], [f"y{i}" for i in range(outputs)], domain=domain, **attributes)
    graph = helper.make_graph([node], "one", infos, [helper.make_empty_tensor_value_info(f"y{i}") for i in range(outputs)], held)
    opsets = {"": onnx.defs.onnx_opset_version(), **({domain: make_onnx.DOMAINS[domain]} if domain else {})}
    return gc.compile(gc.from_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid(d, v) for d, v in opsets.items()])), seed=0)


@pytest.mark.parametrize("key, name, several", tuple(with_words()))
def test_words_that_mean_nothing_are_refused(key, name, several):
    inputs, attributes = NODES[key]
    with pytest.raises(gc.GraphError, match="(?i)nonsense"):
        traced(key, inputs, {**attributes, name: ["nonsense"] * {"RNN": 1, "GRU": 2}.get(key, 3) if several else "nonsense"})
