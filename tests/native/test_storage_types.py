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
from graphc.ir.ops.elementwise import COPY
from graphc.ir.stored import retyped_op
from graphc.ir.types import DTYPES, DType, TensorType, bf16, dtype_of, f16, f32, i8, i32, u8, u16, u32, u64
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


SHARE = (i8, u16, u64, bf16)        # each width of integers, with and without signs, and a type that is stored


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", [d if d in SHARE else pytest.param(d, marks=pytest.mark.slow) for d in OTHERS], ids=str)
def test_native_code_is_the_reference(dtype):
    graph, operands, owners = applied(dtype)
    expected = evaluate(graph, operands)
    results = Executable(Compilation(graph).build.program, 2).slow(*operands)
    for sample, actual, wanted in zip(owners, results, expected, strict=True):
        check(sample, actual, wanted)
    missing = names_of(f32 if dtype.is_float else i32) - {s.op.name for s in owners} - OF_ONE_WIDTH
    assert not missing, f"operators on {dtype}: {sorted(missing)} are missing"


OF_ONE_WIDTH = {"bitcast"}          # its operand and its result: test_bitcast.py has all pairs


@cache
def names_of(dtype: DType) -> set[str]:
    """The operators that take the type."""
    return {s.op.name for s in applied(dtype)[2]}


def check(sample: Sample, actual: np.ndarray, expected: np.ndarray) -> None:
    """Integers exactly; floats within the bounds of f32, and half a last place of their own, which may round the other way."""
    where = f"{sample.name} {expected.dtype}"
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype), where
    if expected.dtype.names or not (stored := dtype_of(expected)).is_float:         # names: packed numbers
        np.testing.assert_array_equal(actual, expected, err_msg=where)
        return
    ulp = 2.0 ** -stored.mantissa if stored.is_storage else sample.tolerance * 2.0 ** -stored.mantissa
    wide = [a.astype(np.float64) for a in (actual, expected)]
    largest = np.abs(wide[1][np.isfinite(wide[1])]).max(initial=1.0)
    np.testing.assert_allclose(*wide, rtol=4 * ulp if not stored.is_storage else ulp, atol=largest * sample.tolerance * 2.0 ** -22 * sample.scaled
                               + 2.0 ** -24 * stored.is_storage, err_msg=where)


LARGER = {
    "transpose": lambda b, x: b.apply(COPY, [b.transpose(x, perm=(1, 0))])[0], "add": lambda b, x: b.add(x, b.flip(x, axes=(0,))),
    "concat": lambda b, x: b.concat(x, x, axis=1), "slice": lambda b, x: b.apply(COPY, [b.slice(x, start=(1, 3), stop=(60, 120), step=(2, 3))])[0],
    "sum": lambda b, x: b.sum(x, axes=(0,)), "max": lambda b, x: b.max(x, axes=(1,)), "argmin": lambda b, x: b.argmin(x, axis=0),
    "cumsum": lambda b, x: b.cumsum(x, axis=1), "sort": lambda b, x: b.sort(x, axis=1), "argsort": lambda b, x: b.argsort(x, axis=1, descending=True),
    "lt": lambda b, x: b.lt(x, b.flip(x, axes=(1,))), "widened": lambda b, x: b.cast(b.transpose(x, perm=(1, 0)), dtype=f32),
    "where": lambda b, x: b.where(b.gt(x, b.flip(x, axes=(1,))), x, b.flip(x, axes=(0,)))}


@pytest.mark.parametrize("dtype", (u8, u32, bf16), ids=str)
def test_larger_arrays(dtype):
    """Blocks of transposes, keys of sorts, vectors of 64 elements, tails."""
    b = Builder("larger")
    x = b.input("x", dtype[70, 130])
    graph = b.finish([make(b, x) for make in LARGER.values()], tuple(LARGER))
    rng = rng_for(dtype.name)
    array = rng.standard_normal((70, 130)).astype(np.float32).astype(dtype.np) if dtype.is_float else rng.integers(
        *dtype.range, (70, 130), dtype.np, endpoint=True)
    found = Executable(Compilation(graph).build.program, 2).slow(array)
    for name, expected in zip(LARGER, evaluate(graph, [array]), strict=True):
        if name in ("sum", "cumsum") and dtype.is_float:
            np.testing.assert_allclose(found[name].astype(np.float64), expected.astype(np.float64), rtol=2.0 ** -dtype.mantissa, atol=1e-4)
        else:
            np.testing.assert_array_equal(found[name], expected, err_msg=name)


@pytest.mark.parametrize("types", ((f16, f16, f32), (bf16, f32, f32), (i8, u8, i32)))
@pytest.mark.parametrize("shape", ((2, 1, 4, 8), (3, 2, 3, 5)))
def test_small_products_of_converted_operands(types, shape):
    """One operand is computed, the other is read as it is stored."""
    (a, b, wide), (n, rows, k, columns) = types, shape
    rng = rng_for(types, shape)
    x, y = (np.asarray(rng.integers(0, 9, s), t.np) for s, t in (((n, rows, k), a), ((n, k, columns), b)))
    builder = Builder("product")
    p, q = builder.input("x", TensorType(a, x.shape)), builder.input("y", TensorType(b, y.shape))
    twice = builder.mul(builder.cast(p, dtype=wide), 2)
    graph = builder.finish([builder.matmul(twice, builder.cast(q, dtype=wide))])
    found = Executable(Compilation(graph).build.program, 2).slow(x, y)
    np.testing.assert_array_equal(found if isinstance(found, np.ndarray) else found[0],
                                  np.matmul(2 * x.astype(wide.np), y.astype(wide.np)))
