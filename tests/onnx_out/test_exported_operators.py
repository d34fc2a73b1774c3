"""Every operator of graphc in ONNX Runtime: the samples of tests/ops."""
from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from peer import OPSETS, run

from graphc.doors.onnx_out.model import model_of
from graphc.doors.onnx_out.rewrites import REWRITES
from graphc.doors.onnx_out.table import RULES
from graphc.errors import GraphError
from graphc.ir.builder import Builder
from graphc.ir.op import Composite, Op
from graphc.ir.ops import CLASSES, OPS
from graphc.ir.types import TensorType, i64

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "ops"))
from op_sample import Sample  # noqa: E402
from samples import SAMPLES  # noqa: E402

# made by passes, of graphs that are being compiled: nobody can write them down for a file
OF_PASSES = frozenset(("row_places", "check_rows", "pick_rows", "add_rows", "winograd_weights", "winograd_conv2d",
                       "winograd_weight_grad", "block_product", "pack", "pack_pair", "pack_four"))
# NaN among numbers that are compared: ONNX leaves open which is found, and runtimes do not look for it
OPEN = frozenset(("max", "min", "argmax", "argmin", "sort", "argsort"))
# f32 that is 0 in the runtime: sigmoid is cut off at -18, results below the least normal number are 0
SMALL = {"sigmoid": 2e-8}
EXPORTED = [s for s in SAMPLES if s.op.name not in OF_PASSES]
FEW = 4                             # samples of an operator that CI takes


def first_of_each() -> list:
    """The samples; those beyond the first few of an operator are slow together."""
    seen: Counter[str] = Counter()
    rows = []
    for sample in EXPORTED:
        seen[sample.op.name] += 1
        marks = [pytest.mark.slow] if seen[sample.op.name] > FEW else []
        rows.append(pytest.param(sample, id=sample.name, marks=marks))
    return rows


def test_every_operator_has_a_rule():
    """Or is made of others. A new operator needs a row in one of the tables of graphc/doors/onnx_out, or a
    decomposition."""
    made = {make if isinstance(make, type) else make().opcode for make in OPS.values()}
    assert made <= {*CLASSES, *(o for o in made if isinstance(o, Op))}
    missing = {o.name for o in made if o not in RULES and o not in REWRITES
               and not (isinstance(o, type) and issubclass(o, Composite))} - OF_PASSES
    assert not missing, f"graphc.doors.onnx_out cannot write {', '.join(sorted(missing))}"


@pytest.mark.parametrize("sample", first_of_each())
def test_sample(sample: Sample):
    graph = sample.graph()
    arrays = {v.name: a for v, a in zip(graph.inputs, sample.arrays, strict=True)}
    results = list(run(model_of(graph, [], OPSETS.get(sample.op.name, 23), "0"), arrays).values())
    for actual, expect in zip(results, map(np.asarray, sample.expected()), strict=True):
        assert (actual.dtype, actual.shape) == (expect.dtype, expect.shape)
        if sample.op.name in OPEN and sample.tag.startswith("odd"):
            continue
        if expect.dtype.kind in "biu":
            np.testing.assert_array_equal(actual, expect)
            continue
        info = np.finfo(expect.dtype)
        near = 8 * sample.tolerance * info.eps
        with np.errstate(all="ignore"):
            same = (actual == expect) | (np.isnan(actual) & np.isnan(expect)) | (np.abs(
                actual.astype(np.float64) - expect) <= near * (np.abs(expect) + sample.scale) + info.tiny
                + SMALL.get(sample.op.name, 0.0) * (expect.dtype == np.float32))
        inside = np.abs(expect) < -np.log(info.tiny) if sample.op.name == "lgamma" else True     # of subnormal numbers
        assert np.all(same | np.logical_not(inside)), (actual[~same], expect[~same])


@pytest.mark.parametrize("opset", (18, 19, 20, 21, 22, 24, 26))
def test_opsets(opset: int):
    """A few samples of each operator whose rule depends on the opset."""
    chosen = ("gelu", "rms_norm", "attention", "cumprod", "avg_pool2d", "max", "layer_norm", "group_norm", "resize")
    seen: Counter[str] = Counter()
    for sample in EXPORTED:
        seen[sample.op.name] += sample.op.name in chosen
        if sample.op.name not in chosen or seen[sample.op.name] > 2:
            continue
        graph = sample.graph()
        results = run(model_of(graph, [], opset, "0"), dict(zip((v.name for v in graph.inputs), sample.arrays)))
        for actual, expect in zip(results.values(), sample.expected(), strict=True):
            np.testing.assert_allclose(actual, expect, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_written_is_listed_at_once():
    b = Builder("two")
    ids = b.input("ids", TensorType(i64, (5,)))
    outs = [b.row_places(ids, size=4), b.row_places(ids, size=7), b.check_rows(ids, size=9)]
    with pytest.raises(GraphError, match=r"two has operators that ONNX \(opset 23\) does not: row_places \(2 times\); "
                                         r"check_rows \(1 time\)"):
        model_of(b.finish(outs, ("",) * 3), [], 23, "0")
