"""Arrays at the Python entry: whether arguments fit their specs, making outputs, using those of out=, packing the
result."""
from __future__ import annotations

from graphc.codegen.routines.routine import RoutineBody, inlined, routine
from graphc.codegen.routines.values import I1, I32, I64, Elements, Ptr, Records
from graphc.runtime.dlpack_ir import foreign_data
from graphc.runtime.entry_layout import (
    CONTIGUOUS_AND_ALIGNED,
    OWNED,
    RESULT_KINDS,
    SPARE_BYTES,
    WRITEABLE,
    ArrayObject,
    EntryRecord,
    Recording,
    SpecRecord,
)
from graphc.runtime.python_api import (
    PyArray_NewFromDescr,
    PyArray_Type,
    PyDataMem_SetHandler,
    PyDict_New,
    PyDict_SetItem,
    PyList_GetItem,
    PyList_SetItem,
    PyTuple_GetItem,
    PyTuple_New,
    PyTuple_SetItem,
    PyTuple_Size,
    PyTuple_Type,
    Py_DecRef,
    Py_IncRef,
)
from graphc.runtime.system import Pointers

Objects = Elements[ArrayObject]
Specs = Records[SpecRecord]
AS_MADE = OWNED | WRITEABLE


# ---- arguments
@routine
def all_fit(f: RoutineBody, arrays: Objects, count: I64, specs: Specs) -> I1:
    """Whether each fits its spec."""
    with f.for_(count) as i:
        f.return_if(~fits(f, arrays[i].value, specs[i]), False)
    return f.given(True, I1)


@routine
def fits(f: RoutineBody, array: ArrayObject, spec: SpecRecord) -> I1:
    """Whether it is a plain ndarray of the spec's dtype object and shape, C-contiguous and aligned."""
    f.return_if(~array.type.value.same_as(f.address(PyArray_Type)), False)
    rank = array.rank.value.sext(I64)
    is_good = array.flags.value & CONTIGUOUS_AND_ALIGNED == CONTIGUOUS_AND_ALIGNED
    f.return_if(~(array.descr.value.same_as(spec.descr.value) & (rank == spec.rank.value) & is_good), False)
    dims, wanted = array.dims.value, spec.dims.value
    with f.for_(rank) as axis:
        f.return_if(dims[axis].value != wanted[axis].value, False)
    return f.given(True, I1)


@routine
def input_pointers(f: RoutineBody, d: EntryRecord, args: Objects, count: I64, table: Pointers) -> I1:
    """Whether each argument fits its spec; then the table has where their data start."""
    specs, recording = d.input_specs.value, Recording.of(f.array(I64, Recording.size // 8))
    recording.question.value = None
    with f.for_(count) as i:
        array, spec = args[i].value, specs[i]
        with f.if_(fits(f, array, spec)):
            table[i].value = array.data.value
        with f.else_():
            data = foreign_data(f, array, spec, d.foreign.value, recording)
            f.return_if(data.is_null(), False)
            table[i].value = data
    return f.given(True, I1)


@routine
def gc_data_pointers(f: RoutineBody, arrays: Objects, count: I64, table: Pointers) -> None:
    """Where their data starts."""
    with f.for_(count) as i:
        table[i].value = arrays[i].value.data.value


# ---- out=
@routine
def given_outputs(f: RoutineBody, d: EntryRecord, out: ArrayObject, names: Ptr, outs: Objects, inputs: Pointers,
                  outputs: Pointers) -> I1:
    """Whether the only keyword is out=, and `out` arrays that can be written as they are; then they are put into `outs`
    and where their data start into `outputs`. `inputs`: where the arguments' data start."""
    f.return_if(PyTuple_Size(f, names) != 1, False)
    f.return_if(~PyTuple_GetItem(f, names, 0).same_as(d.out_word.value), False)
    nargs, count = d.n_inputs.value, d.n_outputs.value
    with f.if_(d.result.value == RESULT_KINDS["array"]):
        outs[0].value = out
    with f.else_():
        is_tuple = (d.result.value == RESULT_KINDS["tuple"]) & out.type.value.same_as(f.address(PyTuple_Type))
        f.return_if(~is_tuple, False)
        f.return_if(PyTuple_Size(f, out) != count, False)
        with f.for_(count) as i:
            outs[i].value = ArrayObject.of(PyTuple_GetItem(f, out, i))
    specs = d.output_specs.value
    f.return_if(~all_fit(f, outs, count, specs), False)
    gc_data_pointers(f, outs, count, outputs)
    with f.for_(count) as j:
        start, spec = outputs[j].value, specs[j]
        f.return_if(outs[j].value.flags.value & WRITEABLE == 0, False)
        f.return_if(~are_apart(f, start, spec, inputs, d.input_specs.value, nargs), False)
        f.return_if(~are_apart(f, start, spec, outputs, specs, j), False)
    return f.given(True, I1)


@routine
def are_apart(f: RoutineBody, data: Ptr, spec: SpecRecord, others: Pointers, specs: Specs, count: I64) -> I1:
    """Whether the memory of the array at `data` meets that of none of the `count` others."""
    start = data.to_int()
    end = start + spec.nbytes.value
    with f.for_(count) as i:
        other = others[i].value.to_int()
        is_apart = (end <= other) | (other + specs[i].nbytes.value <= start)
        f.return_if(~is_apart, False)
    return f.given(True, I1)


# ---- new outputs
@routine
def make_outputs(f: RoutineBody, d: EntryRecord, outs: Objects, count: I64) -> I64:
    """Arrays for the results; gives how many could be made (fewer than `count`: a Python exception is set). The last
    two of each large one are kept for later calls, since the system takes as long to give memory as a kernel to fill
    it; two, because a caller mostly holds one result until it has the next."""
    specs = d.output_specs.value
    with f.for_(count) as i:
        spec = specs[i]
        with f.if_(spec.nbytes.value < SPARE_BYTES):
            small = new_array(f, spec)
            f.return_if(small.is_null(), i)
            outs[i].value = small
        with f.else_():
            large = large_output(f, d, spec, i, count)
            f.return_if(large.is_null(), i)
            outs[i].value = large
    return count


@inlined
def new_array(f: RoutineBody, spec: SpecRecord) -> ArrayObject:
    """An uninitialised array, or null."""
    descr = spec.descr.value
    Py_IncRef(f, descr)
    rank = spec.rank.value.trunc(I32)
    return ArrayObject.of(PyArray_NewFromDescr(f, PyArray_Type, descr, rank, spec.dims.value, None, None, 0, None))


@routine
def large_output(f: RoutineBody, d: EntryRecord, spec: SpecRecord, i: I64, count: I64) -> ArrayObject:
    """One of the last two results that nobody else has, or a new one, kept for later."""
    spares, older = d.spares.value, i + count
    for place in (i, older):
        spare = ArrayObject.of(PyList_GetItem(f, spares, place))
        with f.if_(is_spare(f, spare, spec)):
            Py_IncRef(f, spare)
            f.return_(spare)
    before = PyDataMem_SetHandler(f, d.handler.value)
    new = new_array(f, spec)
    Py_DecRef(f, PyDataMem_SetHandler(f, before))
    Py_DecRef(f, before)
    f.return_if(new.is_null(), None)
    last = PyList_GetItem(f, spares, i)
    Py_IncRef(f, last)
    PyList_SetItem(f, spares, older, last)
    Py_IncRef(f, new)
    PyList_SetItem(f, spares, i, new)
    return new


@routine
def is_spare(f: RoutineBody, array: ArrayObject, spec: SpecRecord) -> I1:
    """Whether an earlier result may be given again: only the list of spares refers to it, and it is as it was made."""
    f.return_if(array.references.value != 1, False)
    f.return_if(~fits(f, array, spec), False)
    is_unchanged = array.flags.value & AS_MADE == AS_MADE
    return is_unchanged & array.base.value.is_null() & array.weak.value.is_null()


# ---- results
@routine
def drop(f: RoutineBody, outs: Objects, count: I64) -> None:
    """Gives the references up."""
    with f.for_(count) as i:
        Py_DecRef(f, outs[i].value)


@routine
def result(f: RoutineBody, d: EntryRecord, outs: Objects, count: I64) -> Ptr:
    """The outputs as the signature says. Takes over the references. Null: no memory."""
    kind = d.result.value
    with f.if_(kind == RESULT_KINDS["array"]):
        f.return_(outs[0].value)
    packed = f.variable(Ptr, None)
    with f.if_(kind == RESULT_KINDS["dict"]):
        packed.value = new_dict(f, d.keys.value, outs, count)
    with f.else_():
        new = PyTuple_New(f, count)
        with f.if_(~new.is_null()):
            with f.for_(count) as i:
                PyTuple_SetItem(f, new, i, outs[i].value)       # which takes the reference
            f.return_(new)
    drop(f, outs, count)
    return packed.value


@routine
def new_dict(f: RoutineBody, keys: Pointers, outs: Objects, count: I64) -> Ptr:
    """With references of its own. Null: no memory."""
    new = PyDict_New(f)
    f.return_if(new.is_null(), None)
    with f.for_(count) as i:
        with f.if_(PyDict_SetItem(f, new, keys[i].value, outs[i].value) != 0):
            Py_DecRef(f, new)
            f.return_(None)
    return new
