"""The Python entry of a program for all sizes: finds by the shapes of the arguments the entry that has been made for
these, and calls it.

`self` is a tuple whose first item is the address of a `SizesRecord`. What no row fits goes to the Python callable
`slow`, which makes one or has words for what is wrong. Rows are read with the GIL held.
"""
from __future__ import annotations

from graphc.codegen.routines.routine import RoutineBody, routine
from graphc.codegen.routines.values import I64, Field, Ptr, Struct
from graphc.runtime.arrays_ir import Objects, all_fit
from graphc.runtime.entry_layout import EntryRecord
from graphc.runtime.python_api import (
    PyArray_Type, PyLong_AsVoidPtr, PyObject_Vectorcall, PyTuple_GetItem, Py_DecRef, Py_IncRef)

ROWS_LOG2 = 8
ROWS = 1 << ROWS_LOG2           # a power of 2: a row's number is the upper bits of a product
MIXES = 0x9E3779B97F4A7C15 - (1 << 64)      # 2^64 divided by the golden ratio (Knuth 6.4), as a signed number


class SizesRow(Struct):
    """A program with its sizes."""
    call = Field(Ptr)           # its builtin, or null
    entry = Field(EntryRecord)  # that this has


class SizesRecord(Struct):
    """What the native entry knows of a program for all sizes."""
    slow = Field(Ptr)           # a Python callable that takes any arguments
    n_inputs = Field(I64)
    last = Field(I64)           # the number of the row that was called last, plus 1
    rows = Field(SizesRow, count=ROWS)


@routine
def gc_entry_for_sizes(f: RoutineBody, self: Ptr, args: Objects, nargs: I64, names: Ptr) -> Ptr:
    """A call from Python: its result, or null and an exception."""
    d = SizesRecord.of(PyLong_AsVoidPtr(f, PyTuple_GetItem(f, self, 0)))
    with f.if_(nargs == d.n_inputs.value):
        place = gc_sizes_row(f, args, nargs)
        with f.if_(place < ROWS):
            row = d.rows[place]
            call = row.call.value
            with f.if_(~call.is_null()):
                with f.if_(all_fit(f, args, nargs, row.entry.value.input_specs.value)):
                    d.last.value = place + 1
                    Py_IncRef(f, call)              # a thread that runs meanwhile may give the row to others
                    result = PyObject_Vectorcall(f, call, args, nargs, names)
                    Py_DecRef(f, call)
                    f.return_(result)
    return PyObject_Vectorcall(f, d.slow.value, args, nargs, names)


@routine
def gc_sizes_row(f: RoutineBody, args: Objects, count: I64) -> I64:
    """The number of the row for arrays of these shapes; ROWS where there is an object that is no plain ndarray."""
    mixed = f.variable(I64, 0)
    with f.for_(count) as i:
        array = args[i].value
        f.return_if(~array.type.value.same_as(f.address(PyArray_Type)), ROWS)
        dims = array.dims.value
        with f.for_(array.rank.value.sext(I64)) as axis:
            mixed.value = (mixed.value + dims[axis].value) * MIXES
    return mixed.value >> (64 - ROWS_LOG2)
