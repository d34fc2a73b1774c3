"""Facts that operators state about themselves (`Op`), each against what the operator does on its samples."""
from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from op_sample import Sample, rng_for
from samples import SAMPLES

from graphc.codegen.lower import LOWERINGS
from graphc.codegen.graph_calls import CONTROL
from graphc.errors import GraphError
from graphc.ir.builder import Builder
from graphc.ir.image import BATCH_AXIS, ImageRoles, channels_last, spatial_axes
from graphc.ir.op import ALL, Composite, Op, as_tuple
from graphc.ir.ops import CLASSES, OPS, random
from graphc.ir.ops.custom import CustomVjp
from graphc.ir.ops.elementwise import ADD, Cast, Elementwise
from graphc.ir.ops.fused import Fused
from graphc.ir.ops.reduce import ArgExtremum
from graphc.ir.ops.remat import Hold, Remat
from graphc.ir.ops.blocks import BlockProduct
from graphc.ir.ops.winograd import WinogradConv2d, WinogradWeightGrad, WinogradWeights
from graphc.ir.types import f64
from graphc.schedule.parallel_rows import FEW_ROWS
from graphc.memory.planner import REGION_PLANNERS
from graphc.memory.storage import VIEW_RULES
from graphc.memory.verify_plan import REGIONS
from graphc.passes.fuse import Fuse

PACKAGE = Path(__file__).resolve().parent.parent.parent / "graphc"
TRAITS = ("is_view", "is_whole_view", "is_leaf", "is_elementwise", "is_reduction", "is_generator", "is_commutative",
          "linear_in", "is_contraction", "takes_epilogue", "images", "checks_indices", "is_control",
          "element_flops")


def of(op_has: Callable[[Op], object], per_class: int = 3) -> pytest.MarkDecorator:
    """Some samples with elements of every class whose operators have it."""
    chosen: dict[object, list[Sample]] = {}
    for s in SAMPLES:
        if op_has(s.op) and "special" not in s.tag and all(a.size for a in (*s.arrays, *map(np.asarray, s.expected()))):
            chosen.setdefault(s.op.opcode, []).append(s)
    return pytest.mark.parametrize("sample", [s for found in chosen.values() for s in found[:per_class]],
                                   ids=lambda s: s.name)


def evaluated(op: Op, arrays) -> tuple[np.ndarray, ...]:
    with np.errstate(all="ignore"):
        return as_tuple(op.reference(*arrays))


# ---- every operator states every trait, and every trait has readers

@pytest.mark.parametrize("trait", TRAITS)
def test_every_operator_states_it(trait):
    """Its own value or the default of `Op`, of the same kind, and some operators differ from the default."""
    default = getattr(Op, trait)
    kinds = (type(None), ImageRoles) if trait == "images" else type(default)
    stated = {s.op.opcode: getattr(s.op, trait) for s in SAMPLES}
    assert all(isinstance(value, kinds) for value in stated.values())
    assert any(value != default for value in stated.values())


@pytest.mark.parametrize("trait", TRAITS)
def test_two_places_ask_it(trait):
    """What one pass alone wants to know is a table in that pass."""
    asked = {"linear_in": "(?:linear_in|is_linear)", "checks_indices": "may_fail"}.get(trait, trait)
    texts = (p.read_text() for p in PACKAGE.rglob("*.py") if p.parent.name != "ops" and p.name != "op.py")
    assert sum(len(re.findall(rf"\.{asked}\b", text)) for text in texts) >= 2


def test_traits_are_all_there_are():
    stated = {n for n in vars(Op).get("__annotations__", {}) if not n.isupper()} - {"name"}
    assert stated == set(TRAITS)


def test_tables_that_follow_a_trait():
    assert set(VIEW_RULES) == {c for c in CLASSES if c.is_view}
    control = {c for c in CLASSES if c.is_control}
    assert set(CONTROL) == set(REGION_PLANNERS) == set(REGIONS) == control
    assert control == {c for c in CLASSES if c.REGIONS} - {CustomVjp, Remat}
    assert {c for c in CLASSES if c.takes_epilogue} <= set(LOWERINGS)
    assert {c for c in CLASSES if c.is_contraction} == {c for c in CLASSES if c.contraction is not Op.contraction}


def test_every_function_is_one_object():
    assert OPS["add"]() is ADD is Elementwise("add") is ADD.bind({}) is ADD.opcode
    assert copy.deepcopy(ADD) is ADD is pickle.loads(pickle.dumps(ADD))
    assert all(s.op.opcode is type(s.op) or isinstance(s.op, Elementwise) for s in SAMPLES)


def test_operators_are_pickled_with_the_steps_that_have_them():
    ops = {sample.op.name: sample.op for sample in SAMPLES}
    lost = [name for name, op in ops.items() if pickle.loads(pickle.dumps(op)) != op]
    assert not lost


# ---- views and leaves

@of(lambda op: op.is_view, 8)
def test_a_view_is_the_memory_of_its_operand(sample: Sample):
    x, y = sample.arrays[0], sample.op.reference(*sample.arrays)
    assert np.shares_memory(x, y)
    if y.dtype != x.dtype:              # packed: each element of the result is several, in order
        assert y.nbytes == x.nbytes and np.array_equal(y.view(x.dtype), x)
        return
    distinct = np.arange(x.size).reshape(x.shape)
    seen = set(sample.op.reference(distinct, *sample.arrays[1:]).ravel().tolist())
    assert not sample.op.is_whole_view or seen == set(range(x.size))


def test_views_that_are_not_whole_can_leave_elements_out():
    """But one whose operand loops must not read earlier: hold."""
    for c in (c for c in CLASSES if c.is_view and not c.is_whole_view and c is not Hold):
        assert any(s.op.infer(*s.types).size < s.types[0].size for s in SAMPLES if type(s.op) is c)
    assert all(c.is_view and c.element_flops == 0 for c in CLASSES if c.is_whole_view)


@of(lambda op: op.is_leaf)
def test_a_leaf_has_no_operands(sample: Sample):
    assert sample.arrays == ()


# ---- elementwise operators, reductions, generators

def test_elementwise_is_what_acts_on_each_place_alike():
    """Both ways: what is not elementwise is seen to reach to another place, to do something else there, or to check."""
    found: dict[object, bool] = {}
    for s in SAMPLES:
        if s.arrays and not s.op.REGIONS and s.tag != "special":
            found[s.op.opcode] = found.get(s.op.opcode, True) and not s.op.may_fail and acts_on_places(s)
    assert not {code.name for code, acts in found.items() if acts != code.is_elementwise}


def acts_on_places(s: Sample) -> bool:
    """Whether the result of operands that are broadcast to its shape, in another order, is the result in that order,
    and one changed place changes that place at most."""
    shape = np.asarray(s.expected()[0]).shape
    try:
        arrays = [np.broadcast_to(a, shape) for a in s.arrays]
        plain = evaluated(s.op, arrays)
        if len(plain) != 1 or plain[0].shape != shape:
            return False
        order = rng_for(s.name).permutation(int(np.prod(shape)))
        turned = evaluated(s.op, [a.ravel()[order].reshape(shape) for a in arrays])[0]
        changed = [a.copy() for a in arrays]
        for a in changed:
            a.ravel()[:1] = 0
        after = evaluated(s.op, changed)[0]
    except (GraphError, ValueError, IndexError):
        return False
    nan = plain[0].dtype.kind == "f"
    return (np.array_equal(turned.ravel(), plain[0].ravel()[order], equal_nan=nan)
            and np.array_equal(after.ravel()[1:], plain[0].ravel()[1:], equal_nan=nan))


@of(lambda op: op.is_reduction, 6)
def test_a_reduction_reads_rows_along_its_axes(sample: Sample):
    """An element of the result changes only with its own row, and an order along the axes changes no value."""
    op, (x,) = sample.op, sample.arrays
    y, = evaluated(op, (x,))
    kept = np.expand_dims(y, op.reduced_axes) if y.ndim < x.ndim else y
    assert kept.shape == tuple(1 if a in op.reduced_axes else n for a, n in enumerate(x.shape))
    other = x.copy()
    other[(0,) * x.ndim] = x.flat[-1] if x.dtype == bool else 1
    after = evaluated(op, (other,))[0].reshape(kept.shape)
    assert np.array_equal(after.ravel()[1:], kept.ravel()[1:])
    if not isinstance(op, ArgExtremum):
        np.testing.assert_allclose(evaluated(op, (np.flip(x, op.reduced_axes),))[0], y, rtol=1e-4, atol=1e-5)


@of(lambda op: op.is_generator)
def test_a_generator_makes_an_element_from_its_number(sample: Sample):
    total = int(np.prod(sample.op.shape))
    shorter = evaluated(sample.op.replace(shape=(total // 2,)), sample.arrays)[0]
    np.testing.assert_array_equal(shorter, evaluated(sample.op, sample.arrays)[0].ravel()[:total // 2])


def test_random_operators_are_those_with_a_stream():
    """`dsl/inline.py` gives every copy of one a stream of its own, which is other numbers."""
    drawing = [s for s in SAMPLES if "stream" in s.op.FIELDS]
    other = {type(s.op) for s in drawing
             if not np.array_equal(*(evaluated(s.op.replace(stream=n), s.arrays)[0] for n in (5, 6)))}
    assert other == {type(s.op) for s in drawing} == set(random.OPS)


# ---- commutative, linear

def test_commutative_functions_are_those_whose_operands_may_change_places():
    same: dict[Elementwise, bool] = {}
    for s in SAMPLES:
        if isinstance(s.op, Elementwise) and len(s.arrays) == 2:
            x, y = s.arrays
            (there,), (back,) = evaluated(s.op, (x, y)), evaluated(s.op, (y, x))
            same[s.op] = same.get(s.op, True) and np.array_equal(there, back, equal_nan=there.dtype.kind == "f")
    assert {op.name for op, holds in same.items() if holds} == {op.name for op in same if op.is_commutative}
    assert all(isinstance(s.op, Elementwise) or not s.op.is_commutative for s in SAMPLES)


def groups(op: Op, arrays) -> Iterator[tuple[int, ...]]:
    for group in op.linear_in:
        yield tuple(range(len(arrays))) if group == ALL else group


def is_linear(s: Sample, group: tuple[int, ...]) -> bool:
    """Whether f(2 x - 3 y) = 2 f(x) - 3 f(y) for changes of these operands alone."""
    other = [np.asarray(rng_for(s.name, i).uniform(-1, 1, a.shape)) if i in group else a
             for i, a in enumerate(s.arrays)]
    mixed = [np.asarray(2 * a - 3 * b) if i in group else a for i, (a, b) in enumerate(zip(s.arrays, other))]
    found = [evaluated(s.op, arrays) for arrays in (s.arrays, other, mixed)]
    return all(np.allclose(2 * x - 3 * y, z, rtol=1e-9, atol=1e-9, equal_nan=True)
               for x, y, z in zip(*found, strict=True))


def float_operands(s: Sample) -> tuple[int, ...]:
    return tuple(i for i, a in enumerate(s.arrays) if a.dtype == f64.np)


def differentiable() -> Iterator[Sample]:
    """Samples that do not mix dtypes and have elements."""
    yield from (s for s in SAMPLES if float_operands(s) and "special" not in s.tag and all(a.size for a in s.arrays)
                and not s.op.REGIONS
                and not any(a.dtype == np.float32 for a in s.arrays)
                and all(np.asarray(y).dtype == f64.np for y in s.expected()))


def test_operators_are_linear_where_they_say_so():
    checked = set()
    for s in differentiable():
        for group in groups(s.op, s.arrays):
            assert set(group) <= set(float_operands(s)) and is_linear(s, group), (s.name, group)
            checked.add(s.op.opcode)
    of_f32_alone = {BlockProduct, WinogradWeights, WinogradConv2d, WinogradWeightGrad}
    assert {s.op.opcode for s in SAMPLES if s.op.linear_in} == checked | of_f32_alone


def test_operators_say_where_they_are_linear():
    """In one operand, or in all at once. Composites are taken apart before anybody asks; a cast rounds."""
    found: dict[tuple[object, tuple[int, ...]], bool] = {}
    claims: dict[object, set[tuple[int, ...]]] = {}
    for s in differentiable():
        if isinstance(s.op, (Composite, Cast)):
            continue
        floats = float_operands(s)
        claims.setdefault(s.op.opcode, set()).update(groups(s.op, s.arrays))
        for group in {*((i,) for i in floats), floats}:
            found[s.op.opcode, group] = found.get((s.op.opcode, group), True) and is_linear(s, group)
    silent = {(code.name, group) for (code, group), holds in found.items() if holds and group not in claims[code]}
    assert not silent


# ---- contractions, images, indices

@of(lambda op: op.is_contraction, 12)
def test_a_contraction_is_its_sum(sample: Sample):
    result, = evaluated(sample.op, sample.arrays)
    if result.dtype.kind == "f" and all(a.size for a in sample.arrays):
        c = sample.op.contraction(*sample.types)
        np.testing.assert_allclose(c.reference(*sample.arrays, result.shape), result, rtol=1e-3, atol=1e-3)


@of(lambda op: isinstance(op, Op) and not op.REGIONS and not isinstance(op, Composite), 1)
def test_who_takes_an_epilogue(sample: Sample):
    b = Builder()
    types = list(sample.types)
    if isinstance(sample.op, BlockProduct):                 # of few rows results come one by one, from all over
        types[0] = types[0].with_shape((FEW_ROWS + 1, types[0].shape[-1]))
    outs = b.apply(sample.op, [b.input(f"x{i}", t) for i, t in enumerate(types)])
    if len(outs) > 1 or outs[0].type.dtype.kind in ("bool", "packed"):
        return
    kinds = [n.op.kind for n in Fuse().run(b.finish([b.neg(outs[0])])).nodes if isinstance(n.op, Fused)]
    assert ("contraction" in kinds) == sample.op.takes_epilogue


@of(lambda op: op.images is not None, 6)
def test_images_of_a_batch_do_not_meet(sample: Sample):
    """In another order of the images, resulting images are in that order, and kernels the same."""
    roles = sample.op.images
    plain, = evaluated(sample.op, sample.arrays)
    turned, = evaluated(sample.op,
                        [np.flip(a, BATCH_AXIS) if i in roles.operands else a for i, a in enumerate(sample.arrays)])
    np.testing.assert_allclose(np.flip(turned, BATCH_AXIS) if roles.result else turned, plain, rtol=1e-3, atol=1e-3)
    assert all(sample.arrays[i].ndim == plain.ndim for i in roles.operands)


def test_orders_of_images():
    assert [channels_last(rank) for rank in (3, 4, 5)] == [(0, 2, 1), (0, 2, 3, 1), (0, 2, 3, 4, 1)]
    assert list(spatial_axes(5)) == [2, 3, 4]


def test_operators_fail_on_bad_indices_where_they_say_so():
    """Numbers below all axes, and above, in place of each integer operand."""
    fails: dict[type, set[bool]] = {}
    for s in SAMPLES:
        for i, a in enumerate(s.arrays):
            if a.dtype.kind == "i" and a.itemsize > 2 and a.size and not s.op.REGIONS:      # indices
                found = [raises(s.op, [np.full_like(b, bad) if j == i else b for j, b in enumerate(s.arrays)])
                         for bad in (-(1 << 20), 1 << 20)]
                fails.setdefault(type(s.op), set()).add(any(found))
                assert not any(found) or s.op.may_fail, s.name
    assert {c for c, seen in fails.items() if True in seen} == {type(s.op) for s in SAMPLES if s.op.checks_indices}
    assert not any(raises(s.op, s.arrays) for s in SAMPLES)


def raises(op: Op, arrays) -> bool:
    try:
        evaluated(op, arrays)
    except GraphError:
        return True
    return False


def test_a_region_may_fail_if_an_operator_in_it_may():
    b = Builder("body")
    x, i = b.input("x", f64[4]), b.input("i", OPS["argmax"](axis=0).infer(f64[4]))
    body, safe = b.finish([b.take(x, i, axis=0)]), Builder("safe").finish([])
    assert Fused(body).may_fail and not Fused(safe).may_fail and not Fused(body).checks_indices
