"""What functions of an exported library return, and what is said of it."""
from __future__ import annotations

from graphc.records import dataclass



@dataclass(frozen=True)
class Status:
    """`name`: of the macro; `meaning`: in the header. `before` and `after` are the message around a number."""
    code: int
    name: str
    meaning: str
    before: str = ""
    after: str = ""


OK = Status(0, "OK", "done")
INDEX = Status(1, "INDEX", "an index or a label is out of range; the state is as before")
NAN = Status(2, "NAN", "an operator made a NaN (of libraries that look for them)")
MEMORY = Status(3, "MEMORY", "the instance has too little memory for this",
                "this needs an instance of ", " bytes, and it has less")
UNALIGNED = Status(4, "UNALIGNED", "the memory of the instance starts elsewhere than at a multiple of 64 bytes")
UNREADY = Status(5, "UNREADY", "no instance: it was not made with init, or the pointer is null")
SIZE = Status(6, "SIZE", "a size is outside of its bounds",
              "a size is outside of the bounds that the header says, or all together are too large")
ARGUMENT = Status(7, "ARGUMENT", "an array is null, or its address is not a multiple of its elements' size",
                  "argument ", ", counted from 0 with the results, is null or not aligned to its elements")
WEIGHTS = Status(8, "WEIGHTS", "these are not the weights of this library, or not all of them",
                 "the weights end early, or have no whole array ", "")
UNLOADED = Status(9, "UNLOADED", "the weights were not loaded yet")
BUSY = Status(10, "BUSY", "another thread is inside a function with this instance")
CPU = Status(11, "CPU", "this CPU has none of the instruction sets of the library")
WORKER = Status(12, "WORKER", "the caller's own parallel loop named a worker that there is not")

STATUSES = (OK, INDEX, NAN, MEMORY, UNALIGNED, UNREADY, SIZE, ARGUMENT, WEIGHTS, UNLOADED, BUSY, CPU, WORKER)
