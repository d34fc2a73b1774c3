"""What an operator's shape rule accepts, its reference and its lowering take: walks over element types and over axes
counted from the end.
"""
from collections.abc import Iterator

import numpy as np
import pytest
from op_sample import CORE, Sample
from samples import SAMPLES

from graphc.compiled import CompiledGraph
from graphc.compiler import Compilation
from graphc.errors import GraphError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.interp import evaluate
from graphc.ir.op import Op
from graphc.ir.ops import OPS
from graphc.ir.types import DTYPES, DType, dtype_of, f32

SMALL = 600                         # elements of an operand


def applied(op: Op, types) -> Graph | None:
    """The operator on inputs of these types; None where it refuses them."""
    b = Builder("accepted")
    try:
        outs = b.apply(op, [b.input(f"x{i}", t) for i, t in enumerate(types)])
    except GraphError:
        return None
    return b.finish(outs, ("",) * len(outs))


def one_of_each() -> Iterator[Sample]:
    """A small sample for each operator and ranks of operands."""
    seen = set()
    for s in SAMPLES:
        key = (s.op.name, tuple(a.ndim for a in s.arrays))
        if key not in seen and s.arrays and all(a.size < SMALL for a in s.arrays):
            seen.add(key)
            yield s


def retyped(s: Sample) -> Iterator[tuple[DType, ...]]:
    """All operands of one type; one operand of another type; all but one of another type."""
    own = tuple(dtype_of(a) for a in s.arrays)
    found = set()
    found |= {(d,) * len(own) for d in DTYPES}
    for d in CORE:
        for i in range(len(own)):
            found |= {own[:i] + (d,) + own[i + 1:], (d,) * i + own[i:i + 1] + (d,) * (len(own) - i - 1)}
    yield from sorted(found, key=str)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("part", range(4))
def test_element_types(part):
    samples = list(one_of_each())[part::4]
    for s in samples:
        for dtypes in retyped(s):
            graph = applied(s.op, [d[a.shape] for d, a in zip(dtypes, s.arrays)])
            if graph is None:
                continue
            where = f"{s.op!r} of {', '.join(map(str, dtypes))}"
            try:
                evaluate(graph, [a.astype(d.np) for a, d in zip(s.arrays, dtypes)])
                Compilation(graph).loops
            except GraphError:                      # an index that is out of range, or what the lowering words itself
                continue
            except Exception as error:
                raise AssertionError(where) from error


def recounted(s: Sample) -> Iterator[Op]:
    for rank in {a.ndim for a in s.arrays}:
        axes = getattr(s.op, "axes", None)
        if "axis" in s.op.FIELDS:
            yield s.op.replace(axis=s.op.axis - rank if s.op.axis >= 0 else s.op.axis + rank)
        elif isinstance(axes, tuple) and axes:
            yield s.op.replace(axes=(*axes[:-1], axes[-1] - rank))


def test_axes_counted_from_the_end():
    """And from the front, where the sample counts from the end."""
    counted = 0
    for s in one_of_each():
        for op in recounted(s):
            graph = applied(op, s.types)
            if graph is None:
                continue
            try:
                expected = evaluate(graph, s.arrays)
            except GraphError:                      # it is another axis then, in which the sample's positions are not
                continue
            counted += 1
            for found, want in zip(CompiledGraph(graph)(*s.arrays), expected, strict=True):
                np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4, err_msg=repr(op))
    assert counted > 10
    assert applied(OPS["flip"]((0, -1)), [f32[2, 3, 2]]) is None
    for axis in (-1, 2):
        assert applied(counting(axis), []) is None


def counting(axis: int) -> Op:
    return next(s.op for s in SAMPLES if s.op.name == "iota").replace(shape=(2, 3), axis=axis)
