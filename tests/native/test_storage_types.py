"""Every operator in the types of 8, 16 and unsigned 32 and 64 bits, native code against the numpy reference; conversions
between all types."""
from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from graphc.compiler import Compilation
from graphc.errors import GraphError
from graphc.ir.builder import Builder
from graphc.ir.graph import regions
from graphc.ir.interp import evaluate
from graphc.ir.op import Op
from graphc.ir.stored import retyped_op
from graphc.ir.types import DTYPES, DType, TensorType, dtype_of, f32, i32
from graphc.passes.widen import retyped_graph
from graphc.runtime.executable import Executable

sys.path.insert(0, str(Path(__file__).parent.parent / "ops"))
from op_sample import CORE, Sample, rng_for  # noqa: E402
from samples import SAMPLES  # noqa: E402

OTHERS = tuple(d for d in DTYPES if d not in CORE)
SMALL = 600                     # elements of an operand


def one_of_each() -> list[Sample]:
    """A small sample of each operator and ranks of operands."""
    found: dict[object, Sample] = {}
    for s in SAMPLES:
        if s.arrays and "special" not in s.tag and all(0 < a.size < SMALL for a in s.arrays):
            found.setdefault((s.op.name, tuple(a.ndim for a in s.arrays)), s)
    return list(found.values())


EACH = one_of_each()


def as_type(array: np.ndarray, dtype: DType) -> np.ndarray:
    """The numbers of a sample in another type: of unsigned ones their magnitudes, and some of all bits."""
    if dtype.is_float:
        return array.astype(np.float32).astype(dtype.np)
    numbers = np.abs(array).astype(dtype.np) if not dtype.is_signed else np.rint(array).astype(dtype.np)
    if array.dtype.kind == "f":                                 # no positions, which must stay inside
        flat, far = numbers.reshape(-1), rng_for(array.shape, dtype.name).integers(*dtype.range, 3, endpoint=True, dtype=dtype.np)
        flat[:1], flat[-1:] = far[:1], dtype.range[1]
    return numbers


def variants(s: Sample, dtype: DType) -> Iterator[tuple[Op, list[np.ndarray]]]:
    """All operands that are no conditions in the type; all floats; each alone. Loops and branches with their bodies."""
    numbers, floats = [[i for i, a in enumerate(s.arrays) if a.dtype.kind in kinds] for kinds in ("fiu", "f")]
    own = {dtype_of(s.arrays[i]): dtype for i in floats} if dtype.is_float else {}
    op = retyped_op(s.op, own, lambda region: retyped_graph(region, own)) if regions(s.op) else s.op
    for chosen in dict.fromkeys((tuple(numbers), tuple(floats), *((i,) for i in numbers))):
        yield op, [as_type(a, dtype) if i in chosen else a for i, a in enumerate(s.arrays)]


def applied(dtype: DType):
    """One graph of every operator on the type, as far as its shape rule takes it: (graph, operands, samples by output)."""
    b, operands, owners, outputs = Builder("types"), [], [], []
    for s in EACH:
        for op, arrays in variants(s, dtype):
            mark = len(b.nodes), len(operands)
            try:
                ins = [b.input(f"x{len(operands) + i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(arrays)]
                alone = Builder("alone")
                outs = alone.apply(op, [alone.input(v.name, v.type) for v in ins])
                evaluate(alone.finish(outs, ("",) * len(outs)), arrays)
            except GraphError:                              # not of this type, or a position that is outside now
                del b.nodes[mark[0]:], b.inputs[mark[1]:]
                continue
            made = b.apply(op, ins)
            operands += arrays
            outputs += made
            owners += [s] * len(made)
    return b.finish(outputs, ("",) * len(outputs)), operands, owners


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", OTHERS, ids=str)
def test_native_code_is_the_reference(dtype):
    graph, operands, owners = applied(dtype)
    expected = evaluate(graph, operands)
    results = Executable(Compilation(graph).build.program, 2).slow(*operands)
    for sample, actual, wanted in zip(owners, results, expected, strict=True):
        check(sample, actual, wanted)
    missing = names_of(f32 if dtype.is_float else i32) - {s.op.name for s in owners}
    assert not missing, f"operators on {dtype}: {sorted(missing)} are missing"


@cache
def names_of(dtype: DType) -> set[str]:
    """The operators that take the type."""
    return {s.op.name for s in applied(dtype)[2]}


def check(sample: Sample, actual: np.ndarray, expected: np.ndarray) -> None:
    """Integers exactly; floats within the bounds of f32, and half a last place of their own, which may round the other way."""
    where = f"{sample.name} {expected.dtype}"
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype), where
    stored = dtype_of(expected)
    if not stored.is_float:
        np.testing.assert_array_equal(actual, expected, err_msg=where)
        return
    ulp = 2.0 ** -stored.mantissa if stored.is_storage else sample.tolerance * 2.0 ** -stored.mantissa
    wide = [a.astype(np.float64) for a in (actual, expected)]
    largest = np.abs(wide[1][np.isfinite(wide[1])]).max(initial=1.0)
    np.testing.assert_allclose(*wide, rtol=4 * ulp if not stored.is_storage else ulp, atol=largest * sample.tolerance * 2.0 ** -22 * sample.scaled
                               + 2.0 ** -24 * stored.is_storage, err_msg=where)
