"""The functions of CPython's and numpy's C API that the entry calls."""
from __future__ import annotations

from graphc.codegen.routines.values import I32, I64, Extern, Global, Ptr

PyTuple_Size = Extern("PyTuple_Size", I64, Ptr)
PyTuple_GetItem = Extern("PyTuple_GetItem", Ptr, Ptr, I64)
PyTuple_New = Extern("PyTuple_New", Ptr, I64)
PyTuple_SetItem = Extern("PyTuple_SetItem", I32, Ptr, I64, Ptr)
PyLong_AsVoidPtr = Extern("PyLong_AsVoidPtr", Ptr, Ptr)
PyDict_New = Extern("PyDict_New", Ptr)
PyDict_SetItem = Extern("PyDict_SetItem", I32, Ptr, Ptr, Ptr)
PyList_GetItem = Extern("PyList_GetItem", Ptr, Ptr, I64)
PyList_SetItem = Extern("PyList_SetItem", I32, Ptr, I64, Ptr)
Py_IncRef = Extern("Py_IncRef", None, Ptr)
Py_DecRef = Extern("Py_DecRef", None, Ptr)
PyEval_SaveThread = Extern("PyEval_SaveThread", Ptr)
PyEval_RestoreThread = Extern("PyEval_RestoreThread", None, Ptr)
PyObject_Vectorcall = Extern("PyObject_Vectorcall", Ptr, Ptr, Ptr, I64, Ptr)
PyObject_CallFunction = Extern("PyObject_CallFunction", Ptr, Ptr, Ptr, variadic=True)
PyObject_GetAttr = Extern("PyObject_GetAttr", Ptr, Ptr, Ptr)
PyErr_Clear = Extern("PyErr_Clear", None)
PYTHON_FUNCTIONS = (
    PyTuple_Size, PyTuple_GetItem, PyTuple_New, PyTuple_SetItem, PyLong_AsVoidPtr, PyDict_New, PyDict_SetItem,
    PyList_GetItem, PyList_SetItem, Py_IncRef, Py_DecRef, PyEval_SaveThread, PyEval_RestoreThread, PyObject_Vectorcall,
    PyObject_CallFunction, PyObject_GetAttr, PyErr_Clear)
PyTuple_Type = Global("PyTuple_Type")
Py_False = Global("_Py_FalseStruct")
PYTHON_OBJECTS = (PyTuple_Type, Py_False)

# Of numpy's C API table; their names are ours.
PyArray_Type = Global("graphc_array_type")
PyArray_NewFromDescr = Extern("graphc_new_array", Ptr, Ptr, Ptr, I32, Ptr, Ptr, Ptr, I32, Ptr)
PyDataMem_SetHandler = Extern("graphc_set_handler", Ptr, Ptr)
# Their rows, fixed since numpy 1.0 and 1.22.
NUMPY_ROWS = {PyArray_Type.name: 2, PyArray_NewFromDescr.name: 94, PyDataMem_SetHandler.name: 304}
