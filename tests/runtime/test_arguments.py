"""One test per mistake a caller can make, and the conversions that are made for him."""
from __future__ import annotations

import array

import numpy as np
import pytest

from graphc.errors import GraphError
from graphc.ir.types import bool_, f32, i32
from graphc.runtime.arguments import bind_arguments, bind_outputs
from graphc.runtime.signature import ArraySpec, Signature

SIGNATURE = Signature((ArraySpec("x", f32[2, 3]), ArraySpec("n", i32[()])),
                      (ArraySpec("y", f32[2, 3]), ArraySpec("z", f32[2])), "tuple", "loss")
X, N = np.ones((2, 3), np.float32), np.array(1, np.int32)


class Tensor:
    """A foreign CPU array: DLPack only."""
    def __init__(self, data):
        self.data = data

    def __dlpack__(self, **options):
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.data.__dlpack_device__()


class OnGpu:
    def __dlpack__(self, **options):
        raise BufferError("not on the CPU")

    def __dlpack_device__(self):
        return (2, 0)


@pytest.mark.parametrize("args, named, message", [
    ((X,), {}, "loss lacks the argument 'n'"),
    ((), {}, "lacks the argument 'x', 'n'; it takes x, n"),
    ((X, N, N), {}, r"loss takes 2 arrays \(x, n\), got 3"),
    ((X, N), {"x": X}, "got the argument 'x' twice"),
    ((X, N), {"w": X}, "no argument 'w'; it takes x, n"),
    ((X.astype("f8"), N), {},
     r"argument 'x' of loss must be f32\[2, 3\] \(numpy float32\), got dtype float64; convert it: "
     r"x.astype\(np.float32\)"),
    ((X[:1], N), {}, r"argument 'x' of loss must have shape \[2, 3\], got \[1, 3\]"),
    ((X.T, N), {}, r"must have shape \[2, 3\], got \[3, 2\]"),
    (([[1.0] * 3] * 2, N), {}, "must be an array f32.2, 3., got list"),
    ((None, N), {}, "got NoneType"),
    ((1.0, N), {}, "got the number 1.0"),
    ((X, 1.5), {}, "argument 'n' of loss must be i32, got 1.5 of type float"),
    ((X, True), {}, "got True of type bool"),
    ((X, 1 << 40), {}, "does not fit into i32"),
    ((X, np.int64(1)), {}, "got dtype int64"),
    ((OnGpu(), N), {}, "OnGpu gives no CPU array: "),
])
def test_mistakes(args, named, message):
    with pytest.raises(GraphError, match=message):
        bind_arguments(SIGNATURE, args, named)


@pytest.mark.parametrize("x", [
    X, np.asfortranarray(X), np.ones((4, 6), np.float32)[::2, ::2], np.broadcast_to(np.float32(1), (2, 3)), Tensor(X),
    memoryview(X),
    np.ma.masked_array(X), np.frombuffer(b"\0" + X.tobytes(), np.uint8)[1:].view(np.float32).reshape(2, 3)])
@pytest.mark.parametrize("n", [N, 1, np.int32(1), array.array("i", [1])[0]])
def test_conversions(x, n):
    bound, number = bind_arguments(SIGNATURE, (x,), {"n": n})
    assert type(bound) is np.ndarray and bound.flags.c_contiguous and bound.flags.aligned and bound.dtype == np.float32
    np.testing.assert_array_equal(bound, X)
    assert number.shape == () and number.dtype == np.int32 and number == 1


def test_exact_arrays_are_not_copied():
    bound = bind_arguments(SIGNATURE, (X, N), {})
    assert bound[0] is X and bound[1] is N
    assert np.shares_memory(bind_arguments(SIGNATURE, (memoryview(X), N), {})[0], X)


def test_bool_scalar():
    signature = Signature((ArraySpec("b", bool_[()]),), (), "tuple", "f")
    assert bind_arguments(signature, (True,), {})[0] == np.True_
    with pytest.raises(GraphError, match="must be bool, got 1 of type int"):
        bind_arguments(signature, (1,), {})


Y, Z = np.empty((2, 3), np.float32), np.empty(2, np.float32)


def frozen(a):
    a = a.copy()
    a.flags.writeable = False
    return a


@pytest.mark.parametrize("out, message", [
    (Y, r"must be a tuple of 2 arrays \(y, z\)"),
    ((Y,), "must be a tuple of 2 arrays"),
    ((Y, Z.astype("f8")), "out= 'z' of loss must be f32"),
    ((Y, np.empty(3, np.float32)), r"must have shape \[2\], got \[3\]"),
    ((np.asfortranarray(Y), Z), r"C-contiguous and aligned; make it with np.empty\(\(2, 3\), np.float32\)"),
    ((frozen(Y), Z), "out= 'y' of loss is read-only"),
    ((Y, Y.reshape(-1)[:2]), "'y' and 'z' overlap"),
    (([[0.0] * 3] * 2, Z), "must be a numpy array f32.2, 3., got list"),
])
def test_out_mistakes(out, message):
    with pytest.raises(GraphError, match=message):
        bind_outputs(SIGNATURE, out, [X, N])


def test_out_over_an_input_copies_the_input():
    outputs, inputs = bind_outputs(SIGNATURE, [X, Z], [X, N])
    assert outputs[0] is X and not np.shares_memory(inputs[0], X) and inputs[1] is N


def test_out_dict():
    signature = Signature((), (ArraySpec("y", f32[2]),), "dict", "f")
    assert bind_outputs(signature, {"y": Z}, [])[0][0] is Z
    with pytest.raises(GraphError, match="dict with the keys y"):
        bind_outputs(signature, {"q": Z}, [])
