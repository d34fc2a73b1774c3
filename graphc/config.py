"""Every knob of graphc, once: its name, type, default and one line. Each can be set by the environment variable GRAPHC_<NAME>."""
from __future__ import annotations

import os
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Config:
    dump: str = ""                  # folder: a numbered file of the program after every pass
    time: bool = False              # print a table of compile times
    verify: int = 1                 # 0: never, 1: before lowering, the memory plan and every loop function, 2: after every pass
    threads: int = 0                # default number of threads; 0: from CPU affinity and cgroup quota
    target: str = ""                # name of a Target; empty: the CPU we run on
    cache: str = ""                 # folder of compiled code; empty: ~/.cache/graphc; "off": no cache
    cache_mb: int = 512             # bound of that folder's size, in MB
    oracle: bool = False            # training steps run by the numpy oracle instead of native code: slow, for finding out whose fault it is
    check_nan: bool = False         # name the first node that makes a NaN
    winograd: bool = True           # 3 × 3 convolutions in Winograd's form where that is faster; its rounding errors are greater (docs/numerics.md)


def config() -> Config:
    """The knobs as the environment sets them now."""
    values = {f.name: _read(f.name, f.type) for f in fields(Config) if f"GRAPHC_{f.name.upper()}" in os.environ}
    return Config(**values)


def _read(name: str, kind: str):
    text = os.environ[f"GRAPHC_{name.upper()}"]
    if kind == "bool":
        return text not in ("", "0", "false", "no")
    return int(text) if kind == "int" else text
