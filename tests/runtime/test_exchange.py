"""Arrays of other libraries whose type offers DLPack's exchange functions: the native entry reads them by itself, and
whatever is not exactly as it wants goes the long way."""
from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.errors import GraphError
from graphc.runtime import dlpack
from graphc.runtime.dlpack import element_code
from graphc.runtime.entry_layout import MOST_TYPES, DLTensor

EXPORT = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(ctypes.c_int64))
CODES = {np.dtype(np.float32): element_code(gc.f32), np.dtype(np.float64): element_code(gc.f64)}
new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype, new_capsule.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
CALLS = 4                       # of a program, after which the native entry has taken over


class Array:
    """A numpy array as another library would have it. `requires_grad`, `negative`: as PyTorch's."""
    requires_grad = False

    def __init__(self, array: np.ndarray, **changes: int):
        """`changes`: of the words of the DLTensor that the exchange function gives."""
        self.array, self.changes, self.negative, self.slow, self.fast = array, changes, False, 0, 0
        item = array.itemsize
        self.numbers = np.array([*array.shape, *(s // item for s in array.strides)] or [0], np.int64)

    def __dlpack__(self, **options: Any) -> object:
        self.slow += 1
        if self.requires_grad:
            raise BufferError("it wants a gradient")
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    def is_neg(self) -> bool:
        return self.negative

    def resolve_neg(self) -> Array:
        return Array(-self.array)

    def fill(self, words: Any) -> int:
        """What the exchange function does."""
        self.fast += 1
        if "failure" in self.changes:
            return -1
        array, at = self.array, self.numbers.ctypes.data
        fields = dict(data=array.ctypes.data, device=1, code=CODES[array.dtype], dims=at, strides=at + 8 * array.ndim,
                      offset=0) | self.changes
        found = (fields["data"], fields["device"], array.ndim | fields["code"] << 32, fields["dims"], fields["strides"],
                 fields["offset"])
        for n, word in enumerate(found):
            words[n] = word
        return 0


def exchange(words: int) -> tuple[object, object]:
    """A capsule as a type offers it, and what must outlive it. `words`: the version."""
    function = EXPORT(lambda value, tensor: value.fill(tensor))
    table = (ctypes.c_void_p * 7)(words, None, None, None, None, ctypes.cast(function, ctypes.c_void_p), None)
    return new_capsule(ctypes.addressof(table), dlpack.EXCHANGE, None), (function, table)


@pytest.fixture
def kind(monkeypatch) -> type[Array]:
    """A type of its own, in a table of its own."""
    monkeypatch.setattr(dlpack, "FOREIGN", dlpack._Foreign())
    monkeypatch.setattr("graphc.runtime.entry.FOREIGN", dlpack.FOREIGN)
    capsule, kept = exchange(1)
    return type("Own", (Array,), {"__dlpack_c_exchange_api__": capsule, "kept": kept})


def program() -> Callable[..., Any]:
    """Native from its third call on."""
    @gc.graph
    def double(x: gc.f32[2, 3]):
        return x + x
    return gc.compile(double)


X = np.arange(6, dtype=np.float32).reshape(2, 3)


def warmed(run: Callable[..., Any], kind: type[Array]) -> None:
    for _ in range(CALLS):
        assert np.array_equal(run(kind(X)), 2 * X)


def test_they_are_read_where_they_lie(kind):
    run, own = program(), kind(X.copy())
    warmed(run, kind)
    for k in range(3):
        own.array[...] = k
        assert np.array_equal(run(own), np.full((2, 3), 2 * k, np.float32))
    assert (own.slow, own.fast) == (0, 3)


def test_rows_that_lie_one_after_the_other_need_no_strides(kind):
    run, own = program(), kind(X, strides=0)
    warmed(run, kind)
    assert np.array_equal(run(own), 2 * X) and own.slow == 0


def test_an_offset_counts(kind):
    run, room = program(), np.zeros(8, np.float32)
    room[2:] = X.reshape(-1)
    own = kind(room[2:].reshape(2, 3), data=room.ctypes.data, offset=8)
    warmed(run, kind)
    assert np.array_equal(run(own), 2 * X) and own.slow == 0


@pytest.mark.parametrize("changes", [dict(device=2), dict(data=0), dict(offset=2), dict(failure=1),
                                     dict(code=element_code(gc.i32)), dict(code=element_code(gc.f64))], ids=str)
def test_what_the_exchange_function_says_is_checked(kind, changes):
    run, own = program(), kind(X, **changes)
    warmed(run, kind)
    assert np.array_equal(run(own), 2 * X) and own.slow == 1          # by `__dlpack__`, which says otherwise


def test_views_are_copied(kind):
    run, own = program(), kind(np.asarray(X.T, order="C").T)
    warmed(run, kind)
    assert np.array_equal(run(own), 2 * X) and own.slow == 1


@pytest.mark.parametrize("wrong", [X.astype(np.float64), X.reshape(3, 2), X[0], X[:1]], ids=lambda a: str(a.shape))
def test_mistakes_are_errors(kind, wrong):
    run = program()
    warmed(run, kind)
    with pytest.raises(GraphError, match="argument 'x' of double must"):
        run(kind(np.ascontiguousarray(wrong)))


def test_a_gradient_that_would_be_lost_is_an_error(kind):
    run, own = program(), kind(X)
    own.requires_grad = True
    warmed(run, kind)
    with pytest.raises(GraphError, match="wants a gradient"):
        run(own)


def test_where_no_gradients_are_recorded_none_is_lost(kind, monkeypatch):
    recording, asked = [True], []
    monkeypatch.setattr(sys.modules[__name__], "is_grad_enabled", lambda: asked.append(1) or recording[0], raising=False)

    @gc.graph
    def total(x: gc.f32[2, 3], y: gc.f32[2, 3], z: gc.f32[2, 3]):
        return x + y + z
    run, own = gc.compile(total), [kind(X) for _ in range(3)]
    for _ in range(CALLS):
        run(*own)
    for array in own:
        array.requires_grad = True
    with pytest.raises(GraphError, match="wants a gradient"):
        run(*own)
    for array in own:
        array.slow = 0
    recording[0] = False
    asked.clear()
    assert np.array_equal(run(*own), 3 * X) and len(asked) == 1 and not any(array.slow for array in own)


def test_numbers_have_the_sign_that_they_mean(kind):
    run, own = program(), kind(X)
    own.negative = True
    assert np.array_equal(run(own), -2 * X)
    warmed(run, kind)
    assert np.array_equal(run(own), -2 * X)


def test_memory_that_is_read_and_written_is_read_first(kind):
    @gc.graph
    def swapped(x: gc.f32[4]):
        return x[::-1]
    run, room = gc.compile(swapped), np.arange(4, dtype=np.float32)
    for _ in range(CALLS):
        run(kind(room), out=np.empty(4, np.float32))
    run(kind(room), out=room)
    assert np.array_equal(room, [3, 2, 1, 0])


def test_a_subclass_says_nothing_of_its_arrays(kind):
    run = program()
    warmed(run, kind)
    own = type("Masked", (kind,), {})(X)
    assert np.array_equal(run(own), 2 * X) and own.slow == 1 and own.fast == 0


@pytest.mark.parametrize("version, fast", [(1 | 3 << 32, 1), (2, 0)])
def test_versions(kind, version, fast):
    capsule, kept = exchange(version)
    other = type("Other", (Array,), {"__dlpack_c_exchange_api__": capsule, "kept": kept})
    run, own = program(), other(X)
    warmed(run, other)
    assert np.array_equal(run(own), 2 * X) and own.fast == fast


def test_the_table_has_an_end(kind):
    capsule, kept = exchange(1)
    kinds = [type(f"Type{n}", (Array,), {"__dlpack_c_exchange_api__": capsule, "kept": kept})
             for n in range(MOST_TYPES + 2)]
    run = program()
    for own in kinds:
        warmed(run, own)
    last = [own(X) for own in kinds]
    assert all(np.array_equal(run(own), 2 * X) for own in last)
    assert [own.fast for own in last] == [1] * MOST_TYPES + [0] * 2


def test_the_layout_is_that_of_dlpack_h():
    assert {name: field.offset for name, field in DLTensor.fields.items()} == dict(
        data=0, device_type=8, device=12, rank=16, element=20, dims=24, strides=32, byte_offset=40)


def test_sizes_are_those_of_arrays_of_other_libraries(kind):
    """Of a type without `shape` and without numpy's own ways, which knows DLPack alone."""
    @gc.graph
    def doubled(x: gc.f32["B", 3]):
        return x + x
    run = gc.compile(doubled)
    for rows in (1, 2, 2, 5, 0):
        x = np.ones((rows, 3), np.float32)
        assert np.array_equal(run(kind(x)), x + x)
    own = kind(X)
    own.requires_grad = True
    with pytest.raises(GraphError, match="argument 'x' of doubled: Own gives no CPU array: it wants a gradient"):
        run(own)
    with pytest.raises(GraphError, match=r"argument .x. is f32\[B, 3\], with B = 2, got f32\[2, 2\]"):
        run(kind(X[:, :2].copy()))
