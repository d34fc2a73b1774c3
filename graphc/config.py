"""Every knob of graphc, once: its name, type, default and one line. Each can be set by the environment variable
GRAPHC_<NAME>; empty is unset.

All numbers from outside (options, environment, command line) are checked by functions of this file, because native
code trusts them.
"""
from __future__ import annotations

import os
import re
from dataclasses import Field, fields
from typing import Any

from graphc.errors import GraphError, Loc
from graphc.given import integer
from graphc.records import dataclass

MOST_THREADS = 4096
MOST = {"verify": 2, "cache_mb": 1 << 30, "compile_workers": 64}       # of knobs that are integers
MOST_I64 = (1 << 63) - 1
DIGITS = re.compile(r"-?[0-9]{1,19}", re.ASCII)
BOOLS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


@dataclass(frozen=True)
class Config:
    dump: str = ""                  # folder: a numbered file of the program after every pass and stage
    time: bool = False              # print a table of compile times
    # 0: never, 1: before lowering, the memory plan and every loop function, 2: after every pass
    verify: int = 1
    threads: int = 0                # default number of threads; 0 or "all": from CPU affinity and cgroup quota
    # processes that compile large programs beside this one; "off": none; empty: as many as cores have nothing to do
    compile_workers: int = -1
    target: str = ""                # name of a Target; empty: the CPU we run on
    cache: str = ""                 # folder of compiled code; empty: ~/.cache/graphc; "off", "0", "no": no cache
    cache_mb: int = 512             # bound of that folder's size, in MB
    # training steps run by the numpy oracle instead of native code: slow, for finding out whose fault it is
    oracle: bool = False
    check_nan: bool = False         # name the first node that makes a NaN
    # 3 × 3 convolutions in Winograd's form where that is faster; its rounding errors are greater (docs/numerics.md)
    winograd: bool = True
    # f32 and f64 numbers below the least normal one are taken for 0, by the CPU's mode for it (docs/numerics.md)
    flush_subnormals: bool = False


def config() -> Config:
    """The knobs as the environment sets them now. GraphError names a variable that makes no sense."""
    given = {f.name: (f, os.environ.get(f"GRAPHC_{f.name.upper()}", "").strip()) for f in fields(Config)}
    read: dict[str, Any] = {name: _read(f, text) for name, (f, text) in given.items() if text}
    return Config(**read)


def whole_text(text: str, name: str, least: int, most: int) -> int:
    """The same of a text: decimal digits."""
    return integer(_digits(text), name, least, most)


def thread_count(value: object, name: str = "threads", loc: Loc | None = None) -> int:
    """A number of threads; 0 or "all": as many as the process may use."""
    if isinstance(value, str) and value == "all":
        return 0
    try:
        return integer(value, name, 0, MOST_THREADS)
    except GraphError as error:
        raise GraphError(f"{error.text} (0 or \"all\": as many as the process may use)", loc) from None


def thread_text(text: str, name: str) -> int:
    """The same of a text."""
    return thread_count(_digits(text), name)


def _digits(text: str) -> int | str:
    return int(text) if DIGITS.fullmatch(text) else text


def _read(f: Field[Any], text: str) -> int | bool | str:
    name = f"GRAPHC_{f.name.upper()}"
    if f.name == "compile_workers" and text.lower() == "off":
        return 0
    if f.type == "int":
        return thread_text(text, name) if f.name == "threads" else whole_text(text, name, 0, MOST[f.name])
    if f.type == "bool" and text.lower() not in BOOLS:
        raise GraphError(f"{name} must be 1 or 0, got {text!r}")
    return BOOLS[text.lower()] if f.type == "bool" else text
