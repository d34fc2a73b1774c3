"""Arrays of other libraries at the Python entry: where their data start, by the C function that DLPack's exchange API
lets their type offer. What it says is checked at each call, and counts for this call alone."""
from __future__ import annotations

from graphc.codegen.routines.routine import RoutineBody, routine
from graphc.codegen.routines.values import I1, I64, Cell, Ptr
from graphc.runtime.entry_layout import (
    ArrayObject, DLTensor, ForeignType, ForeignTypes, Recording, SpecRecord)
from graphc.runtime.python_api import (
    PyErr_Clear,
    PyObject_GetAttr,
    PyObject_Vectorcall,
    Py_DecRef,
    Py_False,
)

CPU = 1                         # dlpack.h: kDLCPU


@routine
def foreign_data(f: RoutineBody, array: ArrayObject, spec: SpecRecord, types: ForeignTypes,
                 recording: Recording) -> Ptr:
    """Null: it is of no known type, or does not fit its spec as it lies."""
    known = type_of(f, array.type.value, types)
    f.return_if(known.is_null(), None)
    tensor = DLTensor.of(f.array(I64, DLTensor.size // 8))
    with f.if_(known.export.value(f, array, tensor) != 0):
        PyErr_Clear(f)
        f.return_(None)
    f.return_if(~lies_well(f, tensor, spec), None)
    f.return_if(wants_gradient(f, array, known, recording), None)
    f.return_if(~is_plain(f, array, known), None)
    return tensor.data.value.plus(tensor.byte_offset.value)


@routine
def type_of(f: RoutineBody, type: Ptr, types: ForeignTypes) -> ForeignType:
    """What is known of it, or null."""
    with f.for_(types.count.value) as i:
        row = types.rows[i]
        f.return_if(row.type.value.same_as(type), row)
    return f.given(None, ForeignType)


@routine
def lies_well(f: RoutineBody, tensor: DLTensor, spec: SpecRecord) -> I1:
    """Whether it has the spec's type and shape, and lies in the CPU's memory, aligned, one row after the other. (A
    library may know an array that has no memory.)"""
    is_right = (tensor.device_type.value == CPU) & (tensor.element.value == spec.element.value)
    rank = tensor.rank.value.sext(I64)
    f.return_if(~is_right | (rank != spec.rank.value) | tensor.data.value.is_null(), False)
    start = tensor.data.value.to_int() + tensor.byte_offset.value
    f.return_if(start & (spec.itemsize.value - 1).sext(I64) != 0, False)
    dims, wanted, strides = tensor.dims.value, spec.dims.value, tensor.strides.value
    with f.for_(rank) as axis:
        f.return_if(dims[axis].value != wanted[axis].value, False)
    f.return_if(strides.is_null(), True)
    step = f.variable(I64, 1)
    with f.for_(rank) as behind:
        at = rank - 1 - behind
        size = dims[at].value
        f.return_if((size != 1) & (strides[at].value != step.value), False)
        step.value = step.value * size
    return f.given(True, I1)


@routine
def wants_gradient(f: RoutineBody, array: ArrayObject, known: ForeignType, recording: Recording) -> I1:
    """Whether a gradient is wanted, which would be lost here. Export functions do not say; `__dlpack__` would refuse
    it. Where its library records none at present, none of its arrays is asked."""
    f.return_if(known.gradient.value.is_null(), False)
    with f.if_(known.inner.value != 0):
        f.return_if(inner_word(f, array, known, known.inner_recorded.value) == 0, False)
    with f.if_(~known.recording.value.is_null()):
        with f.if_(~known.recording.value.same_as(recording.question.value)):
            recording.question.value, recording.answer.value = known.recording.value, 1
            with f.if_(is_false(f, PyObject_Vectorcall(f, known.recording.value, None, 0, None))):
                recording.answer.value = 0
        f.return_if(recording.answer.value == 0, False)
    return ~is_false(f, PyObject_GetAttr(f, array, known.gradient.value))


@routine
def is_plain(f: RoutineBody, array: ArrayObject, known: ForeignType) -> I1:
    """Whether its numbers have in memory the sign that they have, which export functions do not say."""
    f.return_if(known.negated.value.is_null(), True)
    with f.if_(known.inner.value != 0):
        f.return_(inner_word(f, array, known, known.inner_bits.value) & known.inner_negated.value == 0)
    arguments = f.array(Ptr, 1)
    arguments[0].value = array
    return is_false(f, PyObject_Vectorcall(f, known.negated.value, arguments, 1, None))


@routine
def inner_word(f: RoutineBody, array: ArrayObject, known: ForeignType, at: I64) -> I64:
    """A word of what the array's object refers to."""
    inner = Cell(array.plus(known.inner.value), Ptr).value
    return Cell(inner.plus(at), I64).value


@routine
def is_false(f: RoutineBody, answer: Ptr) -> I1:
    """Whether it is Python's False. Takes the reference over; null: an exception, which is dropped."""
    with f.if_(answer.is_null()):
        PyErr_Clear(f)
        f.return_(False)
    found = answer.same_as(f.address(Py_False))
    Py_DecRef(f, answer)
    return found
